#include "spec/request_test_support.h"

namespace dvdi::spec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::StartsWith;

TEST(Environment, OneVolume) {
  const ExternalVolume volume = only_volume_of(of_environment({{"DVDI_VOLUME_NAME", "v"},
                                                               {"DVDI_VOLUME_DRIVER", "rc"},
                                                               {"DVDI_VOLUME_OPTS", "remote=loc:,a=b=c"},
                                                               {"DVDI_VOLUME_CONTAINERPATH", "/tmp/v/"},
                                                               {"HOME", "/root"}}));
  EXPECT_EQ(volume.driver, "rc");
  EXPECT_EQ(volume.name, "v");
  EXPECT_EQ(volume.container_path, "/tmp/v");
  EXPECT_THAT(volume.options, ElementsAre(Pair("a", "b=c"), Pair("remote", "loc:")));
  EXPECT_TRUE(volume.create_under_tmp);
  EXPECT_EQ(volume.ownership, Ownership::match_target);
  EXPECT_FALSE(volume.host_only);
  EXPECT_FALSE(volume.explicit_create);
  EXPECT_FALSE(volume.read_only);
}

TEST(Environment, DefaultsAndHostOnly) {
  const ExternalVolume volume = only_volume_of(of_environment({{"DVDI_VOLUME_NAME0", "v"},
                                                               {"DVDI_VOLUME_EXPLICITCREATE0", "true"},
                                                               {"DVDI_VOLUME_CONTAINERPATH", ""},
                                                               {"DVDI_VOLUME_DRIVER", ""}}));
  EXPECT_EQ(volume.driver, "rexray");
  EXPECT_TRUE(volume.host_only);
  EXPECT_TRUE(volume.explicit_create);
  EXPECT_FALSE(volume.create_under_tmp);
  EXPECT_EQ(volume.container_path, "");
  EXPECT_EQ(volume.ownership, Ownership::none);
}

TEST(Environment, DigitsInAnyOrderAndNoDigitIsZero) {
  const auto volumes = volumes_of(of_environment({{"DVDI_VOLUME_DRIVER0", "x"},
                                                  {"DVDI_VOLUME_NAME9", "n9"},
                                                  {"DVDI_VOLUME_CONTAINERPATH1", "/mnt/1"},
                                                  {"DVDI_VOLUME_NAME1", "n1"},
                                                  {"DVDI_VOLUME_NAME", "n0"}}));
  ASSERT_EQ(volumes.size(), 3U);
  EXPECT_EQ(volumes[0].name, "n0");
  EXPECT_EQ(volumes[0].driver, "x");
  EXPECT_EQ(volumes[1].name, "n1");
  EXPECT_EQ(volumes[1].container_path, "/mnt/1");
  EXPECT_EQ(volumes[2].name, "n9");
  EXPECT_THAT(problems_of(of_environment({{"DVDI_VOLUME_NAME", "a"}, {"DVDI_VOLUME_NAME0", "a"}})),
              ElementsAre("DVDI_VOLUME_NAME0: is given twice, the other one is DVDI_VOLUME_NAME"));
}

TEST(Environment, UnknownVariablesAndOrphans) {
  EXPECT_THAT(problems_of(of_environment({{"DVDI_VOLUME_NAME10", "a"}, {"DVDI_VOLUME_SIZE", "5"}})),
              ElementsAre(StartsWith("DVDI_VOLUME_NAME10: dvdi knows no such variable"),
                          StartsWith("DVDI_VOLUME_SIZE: dvdi knows no such variable")));
  EXPECT_THAT(problems_of(of_environment({{"DVDI_VOLUME_DRIVER2", "d"}})),
              ElementsAre("DVDI_VOLUME_DRIVER2: there is no name of a volume to go with it"));
}

TEST(Environment, DvdcliIsSaidToBeUnused) {
  const auto request = accepted(of_environment({{"DVDI_VOLUME_DVDCLI3", "/opt/dvdcli"}}));
  EXPECT_THAT(request.warnings(), ElementsAre(StartsWith("DVDI_VOLUME_DVDCLI3 has no effect")));
  EXPECT_EQ(request.container_info().volumes_size(), 0);
}

TEST(Environment, ValuesThatAreWrong) {
  EXPECT_THAT(problems_of(of_environment({{"DVDI_VOLUME_NAME", "v"},
                                          {"DVDI_VOLUME_DRIVER", "a;b"},
                                          {"DVDI_VOLUME_OPTS", "secret,=x,dvdi.foo=1"},
                                          {"DVDI_VOLUME_EXPLICITCREATE", "yes"},
                                          {"DVDI_VOLUME_CONTAINERPATH", "relative"}})),
              testing::UnorderedElementsAre(
                  HasSubstr("DVDI_VOLUME_DRIVER: a driver name 'a;b' has the character ';'"),
                  HasSubstr("DVDI_VOLUME_OPTS: option 1 is not of the form KEY=VALUE"),
                  HasSubstr("DVDI_VOLUME_OPTS: an option has no name"),
                  HasSubstr("DVDI_VOLUME_OPTS: dvdi has no option 'dvdi.foo'"),
                  HasSubstr("DVDI_VOLUME_EXPLICITCREATE: must be true or false, it is 'yes'"),
                  HasSubstr("DVDI_VOLUME_CONTAINERPATH: the container path must be absolute")));
  EXPECT_THAT(problems_of(of_environment({{"DVDI_VOLUME_NAME", "\xff"}})),
              testing::Contains("DVDI_VOLUME_NAME: is not UTF-8"));
}

TEST(Environment, EveryCharacterThatTheOldIsolatorRefused) {
  for (const char c : std::string("%/:;<>|`$'\"?^&{}[]\\ \t\n\x01\x7f")) {
    EXPECT_EQ(problems_of(of_environment({{"DVDI_VOLUME_NAME", std::string("a") + c}})).size(), 1U) << int{c};
  }
  EXPECT_THAT(problems_of(of_environment({{"DVDI_VOLUME_NAME", "A-b_c.1~!@#*()+=,é"}})), IsEmpty());
}

TEST(Environment, TheSameVolumeTwice) {
  const Input twice = of_environment({{"DVDI_VOLUME_NAME", "v"}, {"DVDI_VOLUME_NAME1", "v"}});
  EXPECT_EQ(volumes_of(twice).size(), 1U);
  EXPECT_THAT(
      problems_of(of_environment(
          {{"DVDI_VOLUME_NAME", "v"}, {"DVDI_VOLUME_NAME1", "v"}, {"DVDI_VOLUME_CONTAINERPATH1", "/tmp/a"}})),
      ElementsAre(StartsWith("DVDI_VOLUME_NAME1: the same volume is named by DVDI_VOLUME_NAME: with a "
                             "container path")));
  EXPECT_THAT(
      problems_of(of_environment(
          {{"DVDI_VOLUME_NAME", "v"}, {"DVDI_VOLUME_NAME1", "v"}, {"DVDI_VOLUME_OPTS1", "a=b"}})),
      ElementsAre(StartsWith("DVDI_VOLUME_NAME1: the same volume is named by DVDI_VOLUME_NAME with other")));
  // Other case, other volume: the first deviation from the old isolator's rules that the manual lists.
  EXPECT_EQ(volumes_of(of_environment({{"DVDI_VOLUME_NAME", "v"}, {"DVDI_VOLUME_NAME1", "V"}})).size(), 2U);
}

TEST(Environment, ReservedOptionsInOpts) {
  const ExternalVolume volume = only_volume_of(of_environment({{"DVDI_VOLUME_NAME", "v"},
                                                               {"DVDI_VOLUME_CONTAINERPATH", "/mnt/v"},
                                                               {"DVDI_VOLUME_OPTS", "dvdi.ownership=user"}}));
  EXPECT_EQ(volume.ownership, Ownership::user);
  EXPECT_THAT(volume.options, IsEmpty());
  EXPECT_THAT(problems_of(of_environment({{"DVDI_VOLUME_NAME", "v"},
                                          {"DVDI_VOLUME_EXPLICITCREATE", "true"},
                                          {"DVDI_VOLUME_OPTS", "dvdi.explicit-create=false"}})),
              ElementsAre(HasSubstr("the option 'dvdi.explicit-create' is given twice")));
  EXPECT_THAT(
      problems_of(of_environment({{"DVDI_VOLUME_NAME", "v"}, {"DVDI_VOLUME_OPTS", "dvdi.host-only=false"}})),
      ElementsAre(StartsWith("DVDI_VOLUME_NAME: a container path is required")));
}

}  // namespace
}  // namespace dvdi::spec
