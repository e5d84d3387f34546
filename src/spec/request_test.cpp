// What concerns a request as a whole: its form, its parts together, its limits.
#include <fmt/format.h>

#include "spec/request_test_support.h"

namespace dvdi::spec {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

std::string array_of(std::size_t count) {
  std::string text = "[";
  for (std::size_t i = 0; i < count; ++i) {
    text += fmt::format(R"({}{{"container_path": "p{}", "mode": "RW", "host_path": "/x"}})",
                        i == 0 ? "" : ",", i);
  }
  return text + "]";
}

TEST(Request, NoVolumesIsARequest) {
  Input input;
  input.command = {"ls"};
  const auto request = accepted(input);
  EXPECT_EQ(request.container_info().volumes_size(), 0);
  EXPECT_THAT(request.forms(), IsEmpty());
  EXPECT_FALSE(request.has_container_id());
  EXPECT_FALSE(request.has_attribution());
}

TEST(Request, WhatIsNoFormAtAll) {
  EXPECT_THAT(problems_of(of_file("{}")), ElementsAre(StartsWith("this is neither a Marathon app")));
  EXPECT_THAT(problems_of(of_file("5")), ElementsAre(StartsWith("the document is a number")));
  EXPECT_THAT(problems_of(of_file("")), ElementsAre(StartsWith("'request.json' is not JSON")));
  EXPECT_THAT(problems_of(of_file("[\n {]")), ElementsAre(HasSubstr("line 2, column 3")));
  EXPECT_THAT(problems_of(of_file(std::string(65, '[') + std::string(65, ']'))),
              ElementsAre(HasSubstr("is not JSON")));
}

TEST(Request, AmbiguityIsAnErrorThatSaysWhy) {
  EXPECT_THAT(
      problems_of(of_file(R"({"type": "MESOS", "volumes": [], "cmd": "x", "id": "/a"})")),
      ElementsAre("ambiguous: id, cmd would make it a Marathon app, type, volumes a Mesos ContainerInfo"));
}

TEST(Request, StrangersAreNamed) {
  EXPECT_THAT(problems_of(of_file(R"({"task_id": {}, "container": {}})")),
              ElementsAre(HasSubstr("TaskInfo")));
  EXPECT_THAT(problems_of(of_file(R"({"container_path": "a", "mode": "RW"})")),
              ElementsAre(HasSubstr("one Mesos Volume")));
  EXPECT_THAT(problems_of(of_file(R"({"containerPath": "a"})")), ElementsAre(HasSubstr("container.volumes")));
  EXPECT_THAT(problems_of(of_file(R"({"id": "/p", "containers": []})")), ElementsAre(HasSubstr("pod")));
  EXPECT_THAT(problems_of(of_file(R"({"id": "/", "apps": []})")), ElementsAre(HasSubstr("group")));
}

TEST(Request, DuplicateKeysAreReportedWithTheirPlace) {
  EXPECT_THAT(
      problems_of(
          of_file(R"({"id": "/a", "cmd": "x", "labels": {"a b": "1", "a b": "2"}, "other": [1, {}, "x",
                                     [null, {"k": 1, "\u006b": 2}]], "cmd": "y"})",
                  {})),
      ElementsAre("labels[\"a b\"]: is there twice", "other[3][1].k: is there twice", "cmd: is there twice"));
}

TEST(Request, AllFormsTogetherInOrder) {
  Input input =
      of_file(R"({"id": "/a", "cmd": "x", "env": {"DVDI_VOLUME_NAME": "app"}, "container": {"volumes": [
                             {"containerPath": "h", "mode": "RW", "hostPath": "/h"}]}})",
              {});
  input.environment = {{"DVDI_VOLUME_NAME", "env"}};
  input.volume_flags = {"local/flag:f"};
  const auto request = accepted(input);
  EXPECT_THAT(request.forms(),
              ElementsAre(v1::ContainerRequest::MARATHON_APP, v1::ContainerRequest::COMMAND_LINE,
                          v1::ContainerRequest::ENVIRONMENT));
  ASSERT_EQ(request.container_info().volumes_size(), 4);
  EXPECT_EQ(request.container_info().volumes(0).host_path(), "/h");
  EXPECT_EQ(request.container_info().volumes(1).source().docker_volume().name(), "app");
  EXPECT_EQ(request.container_info().volumes(2).source().docker_volume().name(), "flag");
  EXPECT_EQ(request.container_info().volumes(3).source().docker_volume().name(), "env");
}

TEST(Request, EqualContainerPathsNameBothPlaces) {
  Input input = of_file(R"([{"container_path": "/mnt//a/./", "mode": "RW", "host_path": "/x"}])");
  input.volume_flags = {"local/a:/mnt/a", "local/b:/mnt/a/b", "local/c:mnt/a"};
  EXPECT_THAT(
      problems_of(input),
      ElementsAre("--volume 1 (local/a): the container path '/mnt/a' is taken by [0].container_path"));
}

TEST(Request, OneVolumeTwiceAtTwoPaths) {
  const auto volumes = volumes_of(of_flags({"local/a:x", "local/a:y:ro"}));
  ASSERT_EQ(volumes.size(), 2U);
  EXPECT_TRUE(volumes[1].read_only);
  EXPECT_THAT(problems_of(of_flags({"local/a:x,k=1", "local/a:y,k=2", "local/b:z,k=3"})),
              ElementsAre(AllOf(StartsWith("--volume 2 (local/a): volume 'a' of driver 'local'"),
                                HasSubstr("--volume 1 (local/a)"))));
  EXPECT_THAT(problems_of(of_flags({"local/a:x,dvdi.exclusive=true", "local/a:y"})), SizeIs(1));
}

TEST(Request, TheCommandIsRequired) {
  EXPECT_THAT(problems_of(of_file("[]", {})), ElementsAre(StartsWith("the command: is missing")));
  EXPECT_THAT(problems_of(of_file("[]", {""})), ElementsAre("the command: names no program"));
  EXPECT_THAT(problems_of(of_file("[]", {"a", "\xc3"})),
              ElementsAre("argument 1 of the command: is not UTF-8"));
  EXPECT_THAT(problems_of(of_file("[]", {"a", std::string(max_argument_bytes + 1, 'x')})), SizeIs(1));
  EXPECT_THAT(problems_of(of_file("[]", {"a", std::string(max_argument_bytes, 'x')})), IsEmpty());
}

TEST(Request, UserFoldersAndContainerId) {
  Input input = of_file("[]");
  input.user = "nobody:nogroup";
  input.rootfs = "/srv/root";
  input.directory = "/srv/sandbox";
  input.container_id = "a.B_1-2";
  const auto request = accepted(input);
  EXPECT_EQ(request.command().user(), "nobody:nogroup");
  EXPECT_EQ(request.attribution().user(), "nobody:nogroup");
  EXPECT_EQ(request.rootfs(), "/srv/root");
  EXPECT_EQ(request.directory(), "/srv/sandbox");
  EXPECT_EQ(request.container_id().value(), "a.B_1-2");

  input.user = "a b";
  input.rootfs = "srv";
  input.directory = "/a/../b";
  input.container_id = "a/b";
  EXPECT_THAT(problems_of(input), ElementsAre(StartsWith("--user: 'a b' is not of the form"),
                                              StartsWith("--directory: '/a/../b' has a '..'"),
                                              StartsWith("--rootfs: the folder must be absolute"),
                                              StartsWith("the container id: 'a/b' is no container id")));
  for (const std::string id : {"", ".", "..", "a b", "é"}) {
    Input one = of_file("[]");
    one.container_id = id;
    EXPECT_THAT(problems_of(one), SizeIs(1)) << id;
  }
  for (const std::string user : {"", ":", "a:", ":b", "a:b:c", "a\nb", "\xff"}) {
    Input one = of_file("[]");
    one.user = user;
    EXPECT_THAT(problems_of(one), SizeIs(1)) << user;
  }
  Input root = of_file("[]");
  root.rootfs = "//./";
  EXPECT_THAT(problems_of(root), ElementsAre(StartsWith("--rootfs: is the host's root")));
}

TEST(Request, LabelsOfTheCommandLineComeToThoseOfAnApp) {
  const auto request = parse_request({.file_text = R"({"id":"a","cmd":"true","labels":{"team":"web"}})",
                                      .labels = {{"cost center", "7"}, {"team", "web"}, {"empty", ""}}});
  ASSERT_TRUE(request) << request.error().text();
  std::map<std::string, std::string> labels;
  for (const auto& one : request->attribution().labels().labels()) labels[one.key()] = one.value();
  EXPECT_EQ(request->attribution().labels().labels_size(), 3);
  EXPECT_THAT(labels, testing::ElementsAre(testing::Pair("cost center", "7"), testing::Pair("empty", ""),
                                           testing::Pair("team", "web")));
}

TEST(Request, LabelsOfTheCommandLineThatCannotBe) {
  const auto refused = [](std::vector<std::pair<std::string, std::string>> labels) {
    const auto request = parse_request(
        {.file_text = R"({"id":"a","cmd":"true","labels":{"team":"web"}})", .labels = std::move(labels)});
    return request ? std::string() : request.error().text();
  };
  EXPECT_THAT(refused({{"team", "db"}}), HasSubstr("--label team: is 'web' and 'db'"));
  EXPECT_THAT(refused({{"a", "1"}, {"a", "2"}}), HasSubstr("--label a: is '1' and '2'"));
  EXPECT_THAT(refused({{"", "1"}}), HasSubstr("1 to 255 bytes"));
  EXPECT_THAT(refused({{"a", std::string("x\0y", 3)}}), HasSubstr("--label a"));
  EXPECT_THAT(refused({{"a", "\xff"}}), HasSubstr("is not UTF-8"));
  std::vector<std::pair<std::string, std::string>> many;
  for (std::size_t i = 1; i <= max_labels; ++i) many.emplace_back(std::to_string(i), "");
  EXPECT_THAT(refused(many), HasSubstr("makes 257 labels, a container may have 256"));
  many.pop_back();
  EXPECT_EQ(refused(many), "");
}

TEST(Request, TwoUsersThatDiffer) {
  Input input = of_file(R"({"id": "/a", "cmd": "x", "user": "a"})", {});
  input.user = "a";
  EXPECT_THAT(problems_of(input), IsEmpty());
  input.user = "b";
  EXPECT_THAT(problems_of(input), ElementsAre("--user: is 'b', the app's user is 'a'"));
}

TEST(Limits, SizeOfTheRequest) {
  const std::string text = "[]";
  EXPECT_THAT(problems_of(of_file(text + std::string(max_request_bytes - text.size() - 4, ' '))), IsEmpty());
  EXPECT_THAT(problems_of(of_file(text + std::string(max_request_bytes - text.size(), ' '))),
              ElementsAre(StartsWith("it is 1048580 bytes long, at most 1048576")));
}

TEST(Limits, VolumesOfAContainer) {
  EXPECT_EQ(accepted(of_file(array_of(max_volumes))).container_info().volumes_size(), 256);
  EXPECT_THAT(problems_of(of_file(array_of(max_volumes + 1))), ElementsAre(HasSubstr("has 257 volumes")));
  Input input = of_file(array_of(max_volumes));
  input.volume_flags = {"local/a:x"};
  EXPECT_THAT(problems_of(input), ElementsAre("the request: has 257 volumes, a container may have 256"));
}

TEST(Limits, OptionsAndLabels) {
  std::string options;
  for (int i = 0; i < 256; ++i) options += fmt::format(",k{}=v", i);
  EXPECT_THAT(problems_of(of_flags({"local/a:x" + options})), IsEmpty());
  EXPECT_THAT(problems_of(of_flags({"local/a:x" + options + ",one=more"})),
              ElementsAre(HasSubstr("has 257 options")));
  EXPECT_THAT(problems_of(of_flags({"local/a:x,k=" + std::string(max_option_value_bytes, 'v')})), IsEmpty());
  EXPECT_THAT(problems_of(of_flags({"local/a:x,k=" + std::string(max_option_value_bytes + 1, 'v')})),
              SizeIs(1));
  EXPECT_THAT(problems_of(of_flags({"local/a:x," + std::string(255, 'k') + "=v"})), IsEmpty());
  EXPECT_THAT(problems_of(of_flags({"local/a:x," + std::string(256, 'k') + "=v"})), SizeIs(1));
  std::string labels;
  for (int i = 0; i < 257; ++i) labels += fmt::format(R"({}"l{}": "v")", i == 0 ? "" : ",", i);
  EXPECT_THAT(problems_of(of_file(R"({"id": "/a", "cmd": "x", "labels": {)" + labels + "}}", {})),
              ElementsAre("labels: has 257 labels, an app may have 256"));
}

TEST(Limits, ManyProblemsAreCountedNotKept) {
  std::string text = "[";
  for (int i = 0; i < 256; ++i) text += i == 0 ? "{\"a\":0}" : ",{\"a\":0}";
  const auto problems = problems_of(of_file(text + "]"));
  ASSERT_EQ(problems.size(), 257U);
  // Three problems a volume: mode, source and container path.
  EXPECT_EQ(problems.back(), "… and 512 more problems");
}

TEST(Request, WhereSomebodyElseLaunchesNoCommandIsNeeded) {
  Input input = of_file(R"({"type": "MESOS", "volumes": []})", {});
  EXPECT_THAT(problems_of(input), testing::ElementsAre(testing::StartsWith("the command: is missing")));
  input.needs_command = false;
  EXPECT_FALSE(accepted(input).command().has_value());
}

}  // namespace
}  // namespace dvdi::spec
