// Properties that hold for any request, with inputs that nobody thought of.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "base/json.h"
#include "base/text.h"
#include "spec/request_test_support.h"
#include "spec/rules.h"

namespace dvdi::spec {
namespace {

using Words = std::vector<std::string>;

// Pieces of which paths, flags and lists are made, so that the generated ones come near the rules.
rc::Gen<std::string> joined(Words pieces, int most) {
  return rc::gen::map(rc::gen::resize(most, rc::gen::container<Words>(rc::gen::elementOf(std::move(pieces)))),
                      [](const Words& words) { return fmt::format("{}", fmt::join(words, "")); });
}

RC_GTEST_PROP(ContainerPath, NormalFormIsStableAndInside, ()) {
  const std::string path = *joined({"/", ".", "..", "a", "b ", "/./", "//", "\n"}, 12);
  Problems problems;
  const auto normal = check_container_path({.value = path, .place = "p"}, problems);
  RC_ASSERT(normal.has_value() == problems.empty());
  RC_CLASSIFY(normal.has_value());
  if (!normal) return;
  RC_ASSERT((normal->front() == '/') == (path.front() == '/'));
  RC_ASSERT(normal->back() != '/');
  const std::string_view relative = std::string_view(*normal).substr(normal->front() == '/' ? 1 : 0);
  for (const std::string_view component : split(relative, '/')) {
    RC_ASSERT(!component.empty() && component != "." && component != "..");
  }
  const auto again = check_container_path({.value = *normal, .place = "p"}, problems);
  RC_ASSERT(again == normal);
}

RC_GTEST_PROP(VolumeFlag, NeverFailsInAnotherWayThanByProblems, ()) {
  const std::string flag =
      *joined({"local", "/", ":", ",", "=", "ro", "a", "b", "dvdi.exclusive", "true", "..", "\xff"}, 14);
  const auto request = parse_request(of_flags({flag}));
  RC_CLASSIFY(request.has_value());
  if (!request) RC_ASSERT(!request.error().attached.empty());
}

// The same volume said in three forms is the same volume.
RC_GTEST_PROP(Forms, SayTheSame, ()) {
  const auto word = [](std::string alphabet) {
    return rc::gen::nonEmpty(
        rc::gen::resize(8, rc::gen::container<std::string>(rc::gen::elementOf(alphabet))));
  };
  const std::string driver = *word("abcXYZ019_-");
  const std::string name = *word("abcXYZ019_-");
  const std::string path = *word("abcXYZ019_-$;&'\"\\ ");
  RC_PRE(path.find_first_not_of(' ') != std::string::npos);
  const bool read_only = *rc::gen::arbitrary<bool>();
  const auto options = *rc::gen::resize(
      5, rc::gen::container<std::map<std::string, std::string>>(word("abcxyz._-"), word("abc =:/'\"\\{}")));
  for (const auto& [key, value] : options) RC_PRE(!key.starts_with("dvdi."));

  std::string flag = fmt::format("{}/{}:{}:{}", driver, name, path, read_only ? "ro" : "rw");
  json::array parameters;
  json::object marathon_options{{"dvdi/driver", driver}};
  for (const auto& [key, value] : options) {
    flag += fmt::format(",{}={}", key, value);
    parameters.push_back(json::object{{"key", key}, {"value", value}});
    marathon_options["dvdi/" + key] = value;
  }
  // "driver" is the one option that Marathon keeps for itself.
  RC_PRE(!options.contains("driver"));
  const std::string mode = read_only ? "RO" : "RW";
  const json::array mesos{json::object{
      {"container_path", path},
      {"mode", mode},
      {"source", json::object{{"type", "DOCKER_VOLUME"},
                              {"docker_volume",
                               json::object{{"driver", driver},
                                            {"name", name},
                                            {"driver_options", json::object{{"parameter", parameters}}}}}}}}};
  const json::object marathon{
      {"id", "/a"},
      {"cmd", "true"},
      {"container",
       json::object{{"volumes",
                     json::array{json::object{{"containerPath", path},
                                              {"mode", mode},
                                              {"external", json::object{{"name", name},
                                                                        {"provider", "dvdi"},
                                                                        {"options", marathon_options}}}}}}}}};
  const auto volume = [](const Input& input) {
    v1::ContainerInfo info = accepted(input).container_info();
    for (v1::Volume& one : *info.mutable_volumes())
      one.clear_create_under_mnt();  // the rule of --volume alone
    return info.SerializeAsString();
  };
  const std::string from_flag = volume(of_flags({flag}));
  RC_ASSERT(!from_flag.empty());
  RC_ASSERT(volume(of_file(json::serialize(mesos))) == from_flag);
  RC_ASSERT(volume(of_file(json::serialize(marathon), {})) == from_flag);
}

}  // namespace
}  // namespace dvdi::spec
