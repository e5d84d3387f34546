#include <fmt/format.h>

#include "spec/request_test_support.h"

namespace dvdi::spec {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::StartsWith;
using testing::UnorderedElementsAre;

constexpr std::string_view marathon_example = R"({"id": "/prod/hello", "instances": 1, "cpus": 0.1, "mem": 32,
  "cmd": "date >> test-rexray-volume/test.txt; cat test-rexray-volume/test.txt",
  "user": "nobody", "env": {"A": "b"}, "labels": {"team": "x"},
  "container": {"type": "MESOS",
    "volumes": [{"containerPath": "test-rexray-volume", "mode": "RW",
                 "external": {"name": "my-test-vol", "provider": "dvdi", "size": 100,
                              "options": {"dvdi/driver": "rexray", "dvdi/iops": "150"}}},
                {"containerPath": "/etc/x", "hostPath": "/etc/y", "mode": "RO"}]}})";

Input app(std::string_view members) {
  return of_file(fmt::format(R"({{"id": "/a", "cmd": "true", {}}})", members), {});
}

// An app with one external volume: these members beside name and provider.
Input external(std::string_view members) {
  return app(fmt::format(R"("container": {{"volumes": [{{"containerPath": "a", "mode": "RW",
                            "external": {{"name": "n", "provider": "dvdi", {}}}}}]}})",
                         members));
}

Input options(std::string_view members) {
  return external(fmt::format(R"("options": {{"dvdi/driver": "d", {}}})", members));
}

TEST(Marathon, TheExampleOfTheReference) {
  const auto request = accepted(of_file(std::string(marathon_example), {}));
  EXPECT_THAT(request.forms(), ElementsAre(v1::ContainerRequest::MARATHON_APP));
  EXPECT_TRUE(request.command().shell());
  EXPECT_EQ(request.command().value(),
            "date >> test-rexray-volume/test.txt; cat test-rexray-volume/test.txt");
  EXPECT_EQ(request.command().user(), "nobody");
  ASSERT_EQ(request.command().environment().variables_size(), 1);
  EXPECT_EQ(request.command().environment().variables(0).name(), "A");
  EXPECT_EQ(request.command().environment().variables(0).value(), "b");
  EXPECT_EQ(request.attribution().task_id(), "/prod/hello");
  EXPECT_EQ(request.attribution().task_name(), "hello.prod");
  EXPECT_EQ(request.attribution().user(), "nobody");
  ASSERT_EQ(request.attribution().labels().labels_size(), 1);
  EXPECT_EQ(request.attribution().labels().labels(0).key(), "team");
  EXPECT_THAT(request.warnings(), IsEmpty());
  ASSERT_EQ(request.container_info().volumes_size(), 2);
  EXPECT_EQ(request.container_info().volumes(1).host_path(), "/etc/y");
  EXPECT_EQ(request.container_info().volumes(1).mode(), v1::Volume::RO);
  const ExternalVolume volume = only_volume_of(of_file(std::string(marathon_example), {}));
  EXPECT_EQ(volume.driver, "rexray");
  EXPECT_EQ(volume.name, "my-test-vol");
  EXPECT_EQ(volume.container_path, "test-rexray-volume");
  EXPECT_THAT(volume.options, ElementsAre(Pair("iops", "150"), Pair("size", "100")));
}

TEST(Marathon, ReservedOptionsWithAndWithoutPrefix) {
  for (const std::string prefix : {"dvdi/", ""}) {
    const ExternalVolume volume =
        only_volume_of(options(fmt::format(R"("{0}dvdi.explicit-create": "true", "{0}dvdi.exclusive": "true",
                               "{0}dvdi.ownership": "idmap", "{0}dvdi.host-only": "false")",
                                           prefix)));
    EXPECT_TRUE(volume.explicit_create);
    EXPECT_TRUE(volume.exclusive);
    EXPECT_FALSE(volume.host_only);
    EXPECT_EQ(volume.ownership, Ownership::idmap);
    EXPECT_THAT(volume.options, IsEmpty());
  }
  EXPECT_THAT(
      problems_of(options(R"("dvdi.exclusive": "true", "dvdi/dvdi.exclusive": "true")")),
      ElementsAre(StartsWith("container.volumes[0].external.options[\"dvdi/dvdi.exclusive\"]: the option "
                             "'dvdi.exclusive' is given twice")));
}

TEST(Marathon, OptionsThatWouldBeLost) {
  EXPECT_THAT(
      problems_of(options(R"("iops": "5")")),
      ElementsAre("container.volumes[0].external.options.iops: is not for dvdi: an option for the driver "
                  "starts with dvdi/"));
  EXPECT_THAT(
      problems_of(options(R"("dvdi/iops": 5)")),
      ElementsAre("container.volumes[0].external.options[\"dvdi/iops\"]: is a number, not a text (write it "
                  "in double quotes)"));
  EXPECT_THAT(problems_of(options(R"("dvdi/": "5")")),
              ElementsAre(testing::HasSubstr("an option has no name")));
  EXPECT_THAT(
      problems_of(options(R"("dvdi.exclusive": "yes", "dvdi/dvdi.ownership": "me", "dvdi.foo": "1")")),
      ElementsAre(testing::HasSubstr("dvdi.exclusive must be true or false, it is 'yes'"),
                  testing::HasSubstr("dvdi.ownership must be none, match-target, user or idmap"),
                  testing::HasSubstr("dvdi has no option 'dvdi.foo'")));
}

TEST(Marathon, DriverProviderNameAndSize) {
  EXPECT_THAT(problems_of(external(R"("options": {"dvdi/iops": "1"})")),
              ElementsAre("container.volumes[0].external.options: \"dvdi/driver\" is required: it names the "
                          "volume driver"));
  EXPECT_THAT(
      problems_of(app(R"("container": {"volumes": [{"containerPath": "a", "mode": "RW", "external": {}}]})")),
      UnorderedElementsAre(StartsWith("container.volumes[0].external.provider: is required: dvdi"),
                           StartsWith("container.volumes[0].external.name: a volume name is required"),
                           StartsWith("container.volumes[0].external.options: \"dvdi/driver\"")));
  EXPECT_THAT(problems_of(app(R"("container": {"volumes": [{"containerPath": "a", "mode": "RW",
                "external": {"name": "n", "provider": "csi", "options": {"dvdi/driver": "d"}}}]})")),
              ElementsAre("container.volumes[0].external.provider: must be dvdi, it is 'csi'"));
  for (const std::string size : {"0", "-1", "1.5", "\"5\"", "99999999999999999999"}) {
    EXPECT_THAT(problems_of(external(R"("options": {"dvdi/driver": "d"}, "size": )" + size)),
                ElementsAre(StartsWith("container.volumes[0].external.size: must be a whole number")))
        << size;
  }
  EXPECT_THAT(
      problems_of(external(R"("options": {"dvdi/driver": "d", "dvdi/size": "5"}, "size": 5)")),
      ElementsAre(StartsWith("container.volumes[0].external.size: the option 'size' is given twice")));
}

TEST(Marathon, WhatToRun) {
  const auto request = accepted(of_file(R"({"id": "a", "args": ["/bin/echo", "a b", ""]})", {}));
  EXPECT_FALSE(request.command().shell());
  EXPECT_EQ(request.command().value(), "/bin/echo");
  EXPECT_THAT(request.command().arguments(), ElementsAre("/bin/echo", "a b", ""));
  EXPECT_THAT(problems_of(of_file(R"({"id": "a", "cmd": "x", "args": ["y"]})", {})),
              ElementsAre(StartsWith("the app: has both cmd and args")));
  EXPECT_THAT(problems_of(of_file(R"({"id": "a"})", {})), ElementsAre(StartsWith("the app: has neither")));
  EXPECT_THAT(problems_of(of_file(R"({"id": "a", "cmd": ["x"]})", {})),
              ElementsAre("cmd: is an array, not a text (an argv is written as args)"));
  EXPECT_THAT(problems_of(of_file(R"({"id": "a", "cmd": ""})", {})), ElementsAre("cmd: is empty"));
  EXPECT_THAT(problems_of(of_file(R"({"id": "a", "cmd": "a\u0000b"})", {})),
              ElementsAre("cmd: has a NUL character"));
  EXPECT_THAT(problems_of(of_file(R"({"id": "a", "args": []})", {})), ElementsAre("args: names no program"));
  EXPECT_THAT(problems_of(of_file(R"({"id": "a", "args": ["x", 5]})", {})),
              ElementsAre(StartsWith("args[1]: is a number")));
  EXPECT_THAT(problems_of(of_file(R"({"id": "a", "cmd": "x"})", {"ls"})),
              ElementsAre(StartsWith("the command after --: a Marathon app says itself")));
}

TEST(Marathon, EnvironmentAndLabels) {
  EXPECT_THAT(
      problems_of(app(R"("env": {"A": {"secret": "s"}, "B": 1, "C=": "x", "D": "a\u0000"},
                                 "labels": {"a": 1, "": "x"})")),
      UnorderedElementsAre(StartsWith("env.A: is an object (a secret)"), StartsWith("env.B: is a number"),
                           StartsWith("env[\"C=\"]: is no name"), StartsWith("env.D: has a NUL"),
                           StartsWith("labels.a: is a number"), StartsWith("labels[\"\"]: the key")));
}

TEST(Marathon, VolumeVariablesOfAnAppAreFormFour) {
  const auto request =
      accepted(app(R"("env": {"DVDI_VOLUME_NAME": "v", "DVDI_VOLUME_CONTAINERPATH": "/tmp/v"})"));
  EXPECT_THAT(request.forms(),
              ElementsAre(v1::ContainerRequest::MARATHON_APP, v1::ContainerRequest::ENVIRONMENT));
  ASSERT_EQ(request.container_info().volumes_size(), 1);
  EXPECT_TRUE(request.container_info().volumes(0).create_under_tmp());
  EXPECT_EQ(request.command().environment().variables_size(), 2);
  EXPECT_THAT(problems_of(app(R"("env": {"DVDI_VOLUME_NAME1": "a/b"})")),
              ElementsAre(StartsWith("env.DVDI_VOLUME_NAME1: a volume name 'a/b'")));
}

TEST(Marathon, WhatIsNotSupported) {
  EXPECT_THAT(
      problems_of(app(R"("container": {"type": "DOCKER", "docker": {"image": "x"}, "volumes": [
                {"containerPath": "a", "mode": "RW", "persistent": {"size": 1}},
                {"containerPath": "b", "mode": "RW", "secret": "s"},
                {"containerPath": "c", "mode": "RW"},
                {"containerPath": "d", "mode": "RW", "hostPath": "/a", "external": null},
                {"containerPath": "e", "hostPath": "relative", "mode": "rw"},
                {"container_path": "f", "mode": "RW", "source": {}},
                []]})")),
      UnorderedElementsAre(
          StartsWith("container.type: DOCKER is not supported"), StartsWith("container.docker: an image"),
          StartsWith("container.volumes[0].persistent: a persistent volume is not supported"),
          StartsWith("container.volumes[1].secret: a secret volume is not supported"),
          StartsWith("container.volumes[2]: has neither external nor hostPath"),
          StartsWith("container.volumes[4].mode: 'rw' is neither RW nor RO"),
          StartsWith("container.volumes[4].hostPath: a host path must be absolute"),
          StartsWith("container.volumes[5]: is a volume as Mesos writes it"),
          StartsWith("container.volumes[6]: is an array")));
}

TEST(Marathon, WhatHasNoEffectIsSaid) {
  EXPECT_THAT(
      accepted(app(R"("instances": 3, "fetch": [{"uri": "x"}], "uris": [], "constraints": [[]])")).warnings(),
      ElementsAre("instances is not 1: dvdi run runs the app once", "fetch has no effect here"));
}

}  // namespace
}  // namespace dvdi::spec
