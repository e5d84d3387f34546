#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>

#include "spec/agent.h"
#include "spec/request_test_support.h"

namespace dvdi::spec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using testing::UnorderedElementsAre;

Result<v1::ContainerRequest> read(std::string_view text) {
  const auto value = json::parse(text, "the test");
  if (!value) return value.error();
  return parse_container_request(*value);
}

std::vector<std::string> problems(std::string_view text) {
  const auto request = read(text);
  std::vector<std::string> texts;
  if (request) return texts;
  EXPECT_EQ(request.error().code, Code::invalid_argument);
  for (const Error& one : request.error().attached) texts.push_back(one.text());
  return texts;
}

std::string json_of(const v1::ContainerRequest& request, bool original_names) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = original_names;
  std::string text;
  EXPECT_TRUE(google::protobuf::util::MessageToJsonString(request, &text, options).ok());
  return text;
}

TEST(OwnForm, WhatTheOtherFormsMakeComesBackTheSame) {
  Input marathon = of_file(R"({"id": "/hello", "cmd": "true", "user": "nobody", "env": {"A": "b"},
    "labels": {"team": "x", "long": "é"}, "container": {"type": "MESOS", "volumes": [
      {"containerPath": "data", "mode": "RW", "external": {"name": "v", "provider": "dvdi", "size": 100,
        "options": {"dvdi/driver": "rexray", "dvdi/iops": "150", "dvdi.exclusive": "true"}}},
      {"containerPath": "/etc/x", "hostPath": "/etc/y", "mode": "RO"}]}})",
                           {});
  marathon.container_id = "my.task";
  marathon.directory = "/sandbox";
  marathon.rootfs = "/image";
  Input mixed = of_flags({"local/a:/mnt/a:ro,size=5", "local/b:b"});
  mixed.environment = {{"DVDI_VOLUME_NAME", "c"},
                       {"DVDI_VOLUME_CONTAINERPATH", "/tmp/c"},
                       {"DVDI_VOLUME_NAME1", "d"},
                       {"DVDI_VOLUME_DVDCLI", "/bin/dvdcli"}};
  for (const Input& input : {marathon, mixed}) {
    const v1::ContainerRequest request = accepted(input);
    for (const bool original : {false, true}) {
      const auto again = read(json_of(request, original));
      ASSERT_TRUE(again) << again.error().text();
      EXPECT_EQ(again->SerializeAsString(), request.SerializeAsString()) << json_of(request, original);
      EXPECT_TRUE(is_container_request(*json::parse(json_of(request, original), "it")));
    }
  }
}

TEST(OwnForm, IsNotTakenForAnotherForm) {
  for (const char* text : {R"([])", R"({"id": "/a", "cmd": "x", "container": {}})",
                           R"({"type": "MESOS", "volumes": []})", "7"}) {
    EXPECT_FALSE(is_container_request(*json::parse(text, "it"))) << text;
  }
}

TEST(OwnForm, MembersThatAreNotKnownAndWrongTypesHaveTheirPlaces) {
  EXPECT_THAT(
      problems(R"({"frobnicate": 1, "command": {"value": 5, "shell": "yes", "user": "a", "envirnment": {}},
        "container_info": {"volumes": [{"mode": "rw"}, 7, {"source": {"type": 1}}], "type": 3},
        "forms": "MARATHON_APP", "warnings": [null], "directory": "/a"})"),
      UnorderedElementsAre(
          "frobnicate: dvdi knows no such member here", StartsWith("command.value: is a number"),
          "command.shell: is a text, not true or false", "command.envirnment: dvdi knows no such member here",
          "container_info.volumes[0].mode: dvdi knows no 'rw'",
          "container_info.volumes[1]: is a number, not an object",
          StartsWith("container_info.volumes[2].source.type: is a number"),
          StartsWith("container_info.type: is a number"), "forms: is a text, not an array",
          StartsWith("warnings[0]: is null")));
  EXPECT_THAT(problems(R"({"container_id": {"value": "a"}, "containerId": {"value": "b"}})"),
              ElementsAre("containerId: is given twice, in two spellings"));
  EXPECT_THAT(problems("[]"), ElementsAre("it is an array, not an object"));
}

TEST(OwnForm, EveryCheckOfTheOtherFormsHolds) {
  const auto volume = [](std::string_view members, std::string_view docker) {
    return fmt::format(R"({{"containerInfo": {{"volumes": [{{{}, "source": {{"type": "DOCKER_VOLUME",
      "dockerVolume": {{{}}}}}}}]}}}})",
                       members, docker);
  };
  const auto good_docker = R"("driver": "d", "name": "n")";
  const auto good = R"("containerPath": "a", "mode": "RW")";
  EXPECT_THAT(problems(volume(good, good_docker)), ElementsAre());
  EXPECT_THAT(problems(volume(R"("containerPath": "a")", good_docker)),
              ElementsAre(HasSubstr("mode: must be RW or RO")));
  EXPECT_THAT(problems(volume(R"("containerPath": "../a", "mode": "RW")", good_docker)),
              ElementsAre(HasSubstr("container_info.volumes[0].container_path: '../a' has a '..'")));
  EXPECT_THAT(problems(volume(good, R"("driver": "a/b", "name": "")")),
              ElementsAre(HasSubstr("docker_volume.driver"),
                          HasSubstr("docker_volume.name: a volume name is required")));
  EXPECT_THAT(problems(volume(good, R"("driver": "d", "name": "n", "driverOptions": {"parameter": [
      {"key": "dvdi.unknown", "value": ""}, {"key": "a", "value": "1"}, {"key": "a", "value": "2"}]})")),
              ElementsAre(HasSubstr("dvdi has no option 'dvdi.unknown'"), HasSubstr("'a' is given twice")));
  EXPECT_THAT(problems(volume(R"("containerPath": "a", "mode": "RW", "hostPath": "/a")", good_docker)),
              ElementsAre(HasSubstr("has both host_path and source")));
  EXPECT_THAT(
      problems(R"({"containerInfo": {"volumes": [{"containerPath": "a", "mode": "RO", "hostPath": "rel"},
      {"containerPath": "a", "mode": "RO", "hostPath": "/b"},
      {"containerPath": "c", "mode": "RO", "source": {"type": "SECRET"}}, {"containerPath": "d", "mode": "RO"}]}})"),
      UnorderedElementsAre(HasSubstr("volumes[0].host_path: a host path must be absolute"),
                           HasSubstr("the container path 'a' is taken"),
                           HasSubstr("volumes[2].source.type: must be DOCKER_VOLUME or HOST_PATH"),
                           HasSubstr("volumes[3].host_path: a host path is required")));
  EXPECT_THAT(problems(R"({"containerId": {"value": "a/b"}, "directory": "rel", "rootfs": "//",
      "command": {"value": "a\u0000", "arguments": ["b\u0000"], "user": "a b", "environment": {"variables": [
        {"name": "A=", "value": "b"}, {"name": "B"}, {"name": "B"}, {"name": "C", "type": "SECRET"}]}},
      "attribution": {"role": "", "taskName": "a\n", "labels": {"labels": [{"key": ""}]}}})"),
              UnorderedElementsAre(
                  HasSubstr("container_id.value: 'a/b' is no container id"),
                  HasSubstr("directory: the sandbox"), HasSubstr("rootfs: is the host's root"),
                  HasSubstr("command.value: has a NUL"), HasSubstr("command.arguments[0]: has a NUL"),
                  HasSubstr("command.user: 'a b'"), HasSubstr("is no name of an environment variable"),
                  HasSubstr("command.environment.B: is given twice"),
                  HasSubstr("command.environment.C: secrets"), HasSubstr("attribution.role: is empty"),
                  HasSubstr("attribution.task_name: has a control character"),
                  HasSubstr("the key of a label has 1 to 255 bytes")));
}

TEST(OwnForm, NestedIdsAreJoined) {
  const auto request =
      read(R"({"containerId": {"value": "c", "parent": {"value": "b", "parent": {"value": "a"}}}})");
  ASSERT_TRUE(request) << request.error().text();
  EXPECT_EQ(request->container_id().value(), "a.b.c");
  EXPECT_FALSE(request->container_id().has_parent());
  EXPECT_THAT(problems(R"({"containerId": {"value": "c", "parent": {"value": "a.b"}}})"),
              ElementsAre(HasSubstr("has a dot")));
}

TEST(OwnForm, HasLimits) {
  std::string deep = R"({"value": "a"})";
  for (int i = 0; i < 40; ++i) deep = R"({"value": "a", "parent": )" + deep + "}";
  EXPECT_THAT(problems(R"({"containerId": )" + deep + "}"),
              ElementsAre(HasSubstr("is nested deeper than 32")));
  EXPECT_THAT(problems(R"({"command": {"value": ")" + std::string((1 << 20) + 1, 'x') + "\"}}"),
              ElementsAre(HasSubstr("at most 1048576 are allowed")));
  std::string many;
  for (std::size_t i = 0; i <= max_volumes; ++i) many += i == 0 ? "{}" : ",{}";
  EXPECT_THAT(problems(R"({"containerInfo": {"volumes": [)" + many + "]}}"),
              ElementsAre(HasSubstr("has 257 volumes")));
  std::string arguments = "\"\"";
  for (int i = 0; i < 16384; ++i) arguments += ",\"\"";
  EXPECT_THAT(problems(R"({"command": {"arguments": [)" + arguments + "]}}"),
              ElementsAre(HasSubstr("has 16385 elements")));
}

}  // namespace
}  // namespace dvdi::spec
