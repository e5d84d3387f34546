#include "parameters.h"

#include <gmock/gmock.h>

#include <filesystem>

namespace dvdi_mesos {
namespace {

using testing::HasSubstr;

std::string error_of(const std::vector<std::pair<std::string, std::string>>& given) {
  Parameters parameters;
  std::string error;
  return read_parameters(given, parameters, error) ? "" : error;
}

TEST(Parameters, AreReadAndTheRestHasDefaults) {
  Parameters parameters;
  std::string error;
  ASSERT_TRUE(read_parameters({{"socket", "/run/x.sock"},
                               {"prepare_timeout", "2mins"},
                               {"recover_wait", "0"},
                               {"cleanup_wait", "500ms"},
                               {"threads", "4"},
                               {"default_driver", "nfs"},
                               {"environment_volumes", "false"},
                               {"csi_volumes_elsewhere", "true"},
                               {"ownership", "user"},
                               {"first_isolator_state", "none"}},
                              parameters, error))
      << error;
  EXPECT_EQ(parameters.socket, "/run/x.sock");
  EXPECT_EQ(parameters.prepare_timeout_ms, 120'000);
  EXPECT_EQ(parameters.recover_wait_ms, 0);
  EXPECT_EQ(parameters.cleanup_wait_ms, 500);
  EXPECT_EQ(parameters.threads, 4U);
  EXPECT_EQ(parameters.rules.default_driver, "nfs");
  EXPECT_FALSE(parameters.rules.environment_volumes);
  EXPECT_TRUE(parameters.rules.csi_volumes_elsewhere);
  EXPECT_EQ(parameters.rules.ownership, "user");
  EXPECT_EQ(parameters.first_isolator_state, "");
  const Parameters defaults;
  EXPECT_TRUE(defaults.rules.environment_volumes);
  EXPECT_FALSE(defaults.rules.csi_volumes_elsewhere);
  EXPECT_EQ(defaults.socket, "");
}

TEST(Parameters, WhatIsWrongIsNamedWithItsValue) {
  EXPECT_THAT(error_of({{"sockets", "/x"}}), HasSubstr("'sockets' is not known; there are socket, "));
  EXPECT_THAT(error_of({{"socket", "x"}}), HasSubstr("'socket' must be an absolute path; it is 'x'"));
  EXPECT_THAT(error_of({{"prepare_timeout", "0"}}), HasSubstr("and not 0"));
  EXPECT_THAT(error_of({{"prepare_timeout", "12"}}), HasSubstr("duration"));
  EXPECT_THAT(error_of({{"prepare_timeout", "8days"}}), HasSubstr("7days"));
  EXPECT_THAT(error_of({{"threads", "0"}}), HasSubstr("1 to 256"));
  EXPECT_THAT(error_of({{"threads", "257"}}), HasSubstr("1 to 256"));
  EXPECT_THAT(error_of({{"ownership", "me"}}), HasSubstr("match-target"));
  EXPECT_THAT(error_of({{"environment_volumes", "yes"}}), HasSubstr("true or false"));
  EXPECT_THAT(error_of({{"default_driver", ""}}), HasSubstr("is empty"));
  EXPECT_THAT(error_of({{"threads", "1"}, {"threads", "2"}}), HasSubstr("given twice"));
}

TEST(Duration, AsMesosWritesThem) {
  std::int64_t ms = 0;
  EXPECT_TRUE(read_duration("1hrs", ms));
  EXPECT_EQ(ms, 3'600'000);
  EXPECT_TRUE(read_duration("1days", ms));
  EXPECT_EQ(ms, 86'400'000);
  for (const char* wrong : {"", "s", "5", "5s", "-5secs", "1.5secs", "9999999999secs", "5secsx"}) {
    EXPECT_FALSE(read_duration(wrong, ms)) << wrong;
  }
}

TEST(AgentFlags, OfTheCommandLineThenOfTheEnvironment) {
  AgentFlags flags = read_agent_flags({"mesos-agent", "--work_dir=/w", "--no-hostname_lookup"},
                                      {"MESOS_WORK_DIR=/e", "MESOS_SANDBOX_DIRECTORY=/s"});
  EXPECT_EQ(flags.work_dir, "/w");
  EXPECT_EQ(flags.sandbox_directory, "/s");
  flags = read_agent_flags({"mesos-agent", "--work_dirs=/w"}, {"MESOS_WORK_DIR=/e", "X_MESOS_WORK_DIR=/x"});
  EXPECT_EQ(flags.work_dir, "/e");
  EXPECT_EQ(flags.sandbox_directory, "/mnt/mesos/sandbox");
  EXPECT_EQ(own_agent_flags().sandbox_directory, "/mnt/mesos/sandbox");
}

TEST(WorkDir, OfTheSandbox) {
  EXPECT_EQ(work_dir_of_sandbox("/w/slaves/S/frameworks/F/executors/e/runs/c"), "/w");
  EXPECT_EQ(work_dir_of_sandbox("/w/slaves/S/frameworks/F/executors/e/runs/c/containers/a/containers/b"),
            "/w");
  EXPECT_EQ(work_dir_of_sandbox("/w/containers/standalone"), "/w");
  EXPECT_EQ(work_dir_of_sandbox("/w/containers/standalone/containers/a"), "/w");
  EXPECT_EQ(work_dir_of_sandbox("/slaves/x/slaves/S/frameworks/F/executors/e/runs/c"), "/slaves/x");
  EXPECT_EQ(work_dir_of_sandbox("/home/me/run"), "");
  EXPECT_EQ(work_dir_of_sandbox(""), "");
  EXPECT_EQ(work_dir_of_sandbox("c"), "");
}

TEST(WorkDir, ItsRealPath) {
  const auto top = std::filesystem::temp_directory_path() / "dvdi-mesos-real-path";
  std::filesystem::remove_all(top);
  std::filesystem::create_directories(top / "there");
  std::filesystem::create_symlink("there", top / "link");
  const std::string there = std::filesystem::canonical(top / "there");
  EXPECT_EQ(real_path(top / "link"), there);
  EXPECT_EQ(real_path("/not/there"), "/not/there");
  std::filesystem::remove_all(top);
}

}  // namespace
}  // namespace dvdi_mesos
