#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>

#include "spec/request_test_support.h"

namespace dvdi::spec {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::StartsWith;
using testing::UnorderedElementsAre;

constexpr std::string_view mesos_example = R"([{"container_path": "data", "mode": "RW",
  "source": {"type": "DOCKER_VOLUME",
             "docker_volume": {"driver": "rexray", "name": "db1",
                               "driver_options": {"parameter": [{"key": "size", "value": "5"}]}}}}])";

// One volume of form 1 with these members of `docker_volume`.
Input docker(std::string_view members, std::string_view path = "data") {
  return of_file(fmt::format(
      R"([{{"container_path": "{}", "mode": "RO", "source": {{"type": "DOCKER_VOLUME", "docker_volume": {{{}}}}}}}])",
      path, members));
}

Input source(std::string_view members) {
  return of_file(fmt::format(R"([{{"container_path": "data", "mode": "RO", "source": {{{}}}}}])", members));
}

TEST(Mesos, TheExampleOfTheReference) {
  const auto request = accepted(of_file(std::string(mesos_example), {"cat", "data/x"}));
  EXPECT_THAT(request.forms(), ElementsAre(v1::ContainerRequest::MESOS_VOLUMES));
  EXPECT_EQ(request.command().value(), "cat");
  EXPECT_THAT(request.command().arguments(), ElementsAre("cat", "data/x"));
  EXPECT_FALSE(request.command().shell());
  const ExternalVolume volume = only_volume_of(of_file(std::string(mesos_example)));
  EXPECT_EQ(volume.driver, "rexray");
  EXPECT_EQ(volume.name, "db1");
  EXPECT_EQ(volume.container_path, "data");
  EXPECT_FALSE(volume.read_only);
  EXPECT_FALSE(volume.create_under_tmp);
  EXPECT_EQ(volume.ownership, Ownership::none);
  EXPECT_THAT(volume.options, ElementsAre(Pair("size", "5")));
}

TEST(Mesos, ReadsWhatProtobufsOwnMappingReads) {
  const std::string text = R"({"container_path": "/mnt/x", "mode": "RO", "unknown": {"a": [1]},
    "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "d", "name": "n", "other": 1,
      "driver_options": {"parameter": [{"key": "b", "value": "é\n"}, {"key": "dvdi.exclusive", "value": "true"}]}}}})";
  v1::Volume message;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(text, &message, options).ok());
  const auto theirs = external_volume(message);
  ASSERT_TRUE(theirs && *theirs);
  const ExternalVolume ours = only_volume_of(of_file("[" + text + "]"));
  EXPECT_EQ((*theirs)->driver, ours.driver);
  EXPECT_EQ((*theirs)->name, ours.name);
  EXPECT_EQ((*theirs)->options, ours.options);
  EXPECT_EQ((*theirs)->container_path, ours.container_path);
  EXPECT_EQ((*theirs)->read_only, ours.read_only);
  EXPECT_EQ((*theirs)->exclusive, ours.exclusive);
  EXPECT_TRUE(ours.exclusive);
}

TEST(Mesos, ContainerInfoWithHostVolumesOfBothKinds) {
  const auto request = accepted(of_file(R"({"type": "MESOS", "volumes": [
    {"container_path": "/etc/x", "host_path": "/etc/y", "mode": "RO"},
    {"container_path": "in", "mode": "RW", "source": {"type": "HOST_PATH", "host_path": {"path": "/srv"}}}]})"));
  EXPECT_THAT(request.forms(), ElementsAre(v1::ContainerRequest::MESOS_CONTAINER_INFO));
  ASSERT_EQ(request.container_info().volumes_size(), 2);
  const v1::Volume& first = request.container_info().volumes(0);
  EXPECT_EQ(first.host_path(), "/etc/y");
  EXPECT_EQ(first.mode(), v1::Volume::RO);
  const v1::Volume& second = request.container_info().volumes(1);
  EXPECT_EQ(second.host_path(), "/srv");
  EXPECT_FALSE(second.has_source());
  EXPECT_FALSE(*external_volume(second));
}

TEST(Mesos, EveryProblemOfEveryVolumeHasItsPlace) {
  EXPECT_THAT(
      problems_of(of_file(R"([
        {"container_path": "a/../b", "mode": "rw", "source": {"type": "DOCKER_VOLUME", "docker_volume": {"name": 5}}},
        7,
        {"mode": "RO", "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "d", "name": "a b",
          "driver_options": {"parameter": [{"key": "x"}, null, {"key": "n", "value": 1}]}}}}])")),
      UnorderedElementsAre(
          StartsWith("[0].mode: 'rw' is none of RW, RO"),
          StartsWith("[0].container_path: 'a/../b' has a '..' component"),
          StartsWith("[0].source.docker_volume.driver: a driver name is required"),
          StartsWith("[0].source.docker_volume.name: is a number, not a text"),
          StartsWith("[1]: is a number"), StartsWith("[2].container_path: a container path is required"),
          StartsWith("[2].source.docker_volume.name: a volume name 'a b' has the character ' '"),
          StartsWith("[2].source.docker_volume.driver_options.parameter[0]: value is required"),
          StartsWith("[2].source.docker_volume.driver_options.parameter[1]: is null"),
          StartsWith("[2].source.docker_volume.driver_options.parameter[2].value: is a number")));
}

TEST(Mesos, AnUnknownEnumNameIsAnError) {
  EXPECT_THAT(problems_of(source(R"("type": "NFS")")),
              ElementsAre(StartsWith("[0].source.type: 'NFS' is none of")));
  EXPECT_THAT(problems_of(source(R"("type": 1)")), ElementsAre(StartsWith("[0].source.type: is a number")));
  EXPECT_THAT(problems_of(source(R"("docker_volume": {})")),
              ElementsAre("[0].source: type is required: "
                          "DOCKER_VOLUME, HOST_PATH, SANDBOX_PATH, SECRET, CSI_VOLUME"));
}

TEST(Mesos, SourcesThatDvdiRunCannotServe) {
  for (const std::string type : {"SANDBOX_PATH", "SECRET", "CSI_VOLUME"}) {
    EXPECT_THAT(problems_of(source(fmt::format(R"("type": "{}")", type))),
                ElementsAre("[0].source.type: " + type + " is not supported by dvdi run"));
  }
  EXPECT_THAT(problems_of(of_file(R"([{"container_path": "a", "mode": "RO", "image": {}}])")),
              ElementsAre(StartsWith("[0].image: ")));
  EXPECT_THAT(problems_of(of_file(R"([{"container_path": "a", "mode": "RO"}])")),
              ElementsAre(StartsWith("[0]: has neither source nor host_path")));
  EXPECT_THAT(problems_of(of_file(R"([{"container_path": "a", "mode": "RO", "host_path": "/a",
                                       "source": {"type": "HOST_PATH"}}])")),
              ElementsAre(StartsWith("[0]: has both host_path and source")));
  EXPECT_THAT(problems_of(of_file(R"([{"container_path": "a", "mode": "RO", "host_path": "a"}])")),
              ElementsAre(StartsWith("[0].host_path: a host path must be absolute")));
  EXPECT_THAT(problems_of(source(R"("type": "HOST_PATH", "host_path": {"path": "/a",
                                    "mount_propagation": {"mode": "BIDIRECTIONAL"}})")),
              ElementsAre(StartsWith("[0].source.host_path.mount_propagation.mode: BIDIRECTIONAL")));
}

TEST(Mesos, SpellingsThatMesosDoesNotKnowAreNotIgnored) {
  EXPECT_THAT(problems_of(docker(R"("driver": "d", "name": "n", "driverOptions": {})")),
              ElementsAre("[0].source.docker_volume.driverOptions: Mesos writes this field driver_options"));
  EXPECT_THAT(problems_of(docker(R"("driver": "d", "name": "n", "driver_options": {"size": "5"})")),
              ElementsAre(StartsWith("[0].source.docker_volume.driver_options: has no member parameter")));
  EXPECT_THAT(problems_of(of_file(R"([{"containerPath": "a", "mode": "RW", "external": {}}])")),
              ElementsAre(StartsWith("[0]: is a volume as Marathon writes it")));
}

TEST(Mesos, NullIsAbsent) {
  EXPECT_THAT(problems_of(docker(R"("driver": "d", "name": "n", "driver_options": null)")), IsEmpty());
  EXPECT_THAT(problems_of(docker(R"("driver": null, "name": "n")")),
              ElementsAre("[0].source.docker_volume.driver: a driver name is required"));
}

TEST(Mesos, ARequestCannotSetTheMarkOfEnvironmentVolumes) {
  const Input input = of_file(R"([{"container_path": "/x", "mode": "RW", "create_under_tmp": true,
    "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "d", "name": "n"}}}])");
  EXPECT_FALSE(only_volume_of(input).create_under_tmp);
}

TEST(Mesos, ContainerInfoOfAnotherContainerizer) {
  EXPECT_THAT(problems_of(of_file(R"({"type": "DOCKER", "docker": {"image": "x"}, "mesos": {"image": {}}})")),
              ElementsAre(StartsWith("type: DOCKER is not supported"), StartsWith("docker: "),
                          StartsWith("mesos.image: ")));
  EXPECT_THAT(problems_of(of_file(R"({"volumes": []})")), ElementsAre("type is required: MESOS, DOCKER"));
  EXPECT_THAT(accepted(of_file(R"({"type": "MESOS", "linux_info": {}})")).warnings(),
              ElementsAre("linux_info has no effect here"));
}

}  // namespace
}  // namespace dvdi::spec
