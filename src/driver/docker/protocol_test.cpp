#include "driver/docker/protocol.h"

#include <gmock/gmock.h>

namespace dvdi::driver::docker {
namespace {

json::object object(std::string_view text) { return json::parse(text, "test")->as_object(); }

void expect_violation(const auto& result) {
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::driver_violation) << result.error().text();
  EXPECT_EQ(result.error().outcome, Outcome::unknown);
}

TEST(DockerProtocol, Interpret) {
  const struct {
    long status;
    std::string body;
    std::string expected;  // "": accepted
  } cases[] = {
      {200, R"({"Err":""})", ""},
      {200, R"({"Err":null})", ""},
      {200, " {}\n", ""},
      {201, "{}", ""},
      {200, R"({"Err":"x"})", "driver_error"},
      {200, R"({"err":"x"})", "driver_error"},
      {200, R"({"ERR":"x","Mountpoint":"/a"})", "driver_error"},
      {500, R"({"Err":"x"})", "driver_error"},
      {500, R"({"Err":""})", "driver_error"},
      {500, R"({"message":"x"})", "driver_error"},
      {404, "404 page not found", "driver_error"},
      {400, "", "driver_error"},
      {500, R"({"Err":5})", "driver_error"},
      {200, R"({"Err":5})", "driver_violation"},
      {200, R"({"Err":{"a":1}})", "driver_violation"},
      {200, R"("text")", "driver_violation"},
      {200, R"({"Mountpoint": "/tm)", "driver_violation"},
      {200, "{\"Mountpoint\": \"/\xff\"}", "driver_violation"},
      {200, std::string(1000, '['), "driver_violation"},
      {302, R"({"Err":""})", "driver_violation"},
      {101, "", "driver_violation"},
  };
  for (const auto& one : cases) {
    SCOPED_TRACE(std::to_string(one.status) + " " + one.body.substr(0, 60));
    const auto answer = interpret({.status = one.status, .body = one.body}, EmptyAnswer::violation);
    EXPECT_EQ(answer ? "" : code_name(answer.error().code), one.expected);
    if (!answer) {
      EXPECT_EQ(answer.error().outcome, one.expected == "driver_error" ? Outcome::refused : Outcome::unknown);
    }
  }
  EXPECT_TRUE(interpret({.status = 200, .body = " \n"}, EmptyAnswer::allowed));
  expect_violation(interpret({.status = 200, .body = " \n"}, EmptyAnswer::violation));
}

TEST(DockerProtocol, LacksEndpoint) {
  EXPECT_TRUE(lacks_endpoint({.status = 404, .body = "404 page not found"}));
  EXPECT_TRUE(lacks_endpoint({.status = 404, .body = R"({"message":"page not found"})"}));
  EXPECT_FALSE(lacks_endpoint({.status = 404, .body = R"({"Err":"no such volume"})"}));
  EXPECT_FALSE(lacks_endpoint({.status = 500, .body = ""}));
}

TEST(DockerProtocol, Volume) {
  const auto volume = parse_volume(object(R"({"Volume":{"Name":"v","Mountpoint":"/m","CreatedAt":"then",
      "Status":{"text":"t","number":5,"nested":{"a":[1]}},"Unknown":1}})"),
                                   "v");
  ASSERT_TRUE(volume) << volume.error().text();
  EXPECT_EQ(volume->name, "v");
  EXPECT_EQ(volume->mount_point, "/m");
  EXPECT_EQ(volume->created_at, "then");
  EXPECT_EQ(volume->status,
            (std::map<std::string, std::string>{{"text", "t"}, {"number", "5"}, {"nested", R"({"a":[1]})"}}));
  EXPECT_EQ(parse_volume(object(R"({"Volume":{"Status":null}})"), "v")->name, "v");
  expect_violation(parse_volume(object("{}"), "v"));
  expect_violation(parse_volume(object(R"({"Volume":"v"})"), "v"));
  expect_violation(parse_volume(object(R"({"Volume":{"Name":"w"}})"), "v"));
  expect_violation(parse_volume(object(R"({"Volume":{"Name":"v","Mountpoint":1}})"), "v"));
  expect_violation(parse_volume(object(R"({"Volume":{"Name":"v","Status":"fine"}})"), "v"));
}

TEST(DockerProtocol, Volumes) {
  EXPECT_TRUE(parse_volumes(object("{}"))->empty());
  EXPECT_TRUE(parse_volumes(object(R"({"Volumes":null})"))->empty());
  const auto two = parse_volumes(object(R"({"Volumes":[{"Name":"a"},null,{"name":"b"}]})"));
  ASSERT_TRUE(two);
  ASSERT_EQ(two->size(), 2U);
  EXPECT_EQ((*two)[1].name, "b");
  expect_violation(parse_volumes(object(R"({"Volumes":{}})")));
  expect_violation(parse_volumes(object(R"({"Volumes":["a"]})")));
  expect_violation(parse_volumes(object(R"({"Volumes":[{}]})")));
}

TEST(DockerProtocol, CapabilitiesAreLocalUnlessTheySayGlobal) {
  EXPECT_FALSE(parse_capabilities(object("{}"))->global);
  EXPECT_FALSE(parse_capabilities(object(R"({"Capabilities":{"Scope":"local"}})"))->global);
  EXPECT_FALSE(parse_capabilities(object(R"({"Capabilities":{"Scope":"galaxy"}})"))->global);
  EXPECT_TRUE(parse_capabilities(object(R"({"Capabilities":{"Scope":"global"}})"))->global);
  expect_violation(parse_capabilities(object(R"({"Capabilities":"local"})")));
  expect_violation(parse_capabilities(object(R"({"Capabilities":{"Scope":1}})")));
}

TEST(DockerProtocol, MountPoint) {
  EXPECT_TRUE(check_mount_point("/mnt/v"));
  EXPECT_TRUE(check_mount_point("/mnt/v/"));
  EXPECT_TRUE(check_mount_point("/..."));
  for (const char* bad : {"", "mnt", "./mnt", "/", "//", "/.", "/./", "/..", "/a/..", "/a/../b"}) {
    SCOPED_TRACE(bad);
    expect_violation(check_mount_point(bad));
  }
}

}  // namespace
}  // namespace dvdi::driver::docker
