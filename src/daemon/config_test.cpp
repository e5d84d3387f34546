#include "daemon/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dvdi {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Config, AnEmptyFileGivesTheDefaults) {
  const auto config = parse_config("", "dvdi.toml");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->state_dir, "/var/lib/dvdi");
  EXPECT_EQ(config->volumes.mount_deadline, seconds(120));
  EXPECT_EQ(config->volumes.unmount_deadline, seconds(600));
  EXPECT_EQ(config->volumes.call_deadline, seconds(30));
  EXPECT_EQ(config->docker.roots.run_dir, "/run/docker/plugins");
}

TEST(Config, EveryKey) {
  const auto config = parse_config(R"(
state_dir = "/x"
settle_budget = "500ms"
sandbox_in_container = "/sandbox"
[access]
group = "dvdi"
policy_file = "/etc/dvdi/policy.toml"
[deadlines]
mount = 5
unmount = "2m"
other = "7s"
[limits]
calls_per_driver = 3
calls_waiting = 9
[debts]
attempts = 4
backoff = "10ms"
backoff_cap = "1h"
late_answer = 0
[secrets]
options = ["pin"]
[docker]
plugin_dir = "/p"
spec_dirs = ["/s", "/t"]
connect_patience = "1s"
[driver.nfs]
plain_directories = true
calls_at_once = 2
calls_waiting = 0
deadlines.mount = "11s"
deadlines.other = "12s"
deadlines.list = "13s"
debts.attempts = 5
debts.backoff = "14s"
debts.backoff_cap = "15s"
debts.late_answer = "16s"
[driver.bare]
)",
                                   "dvdi.toml");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->state_dir, "/x");
  EXPECT_EQ(config->settle_budget, milliseconds(500));
  EXPECT_EQ(config->sandbox_in_container, "/sandbox");
  EXPECT_EQ(config->access.group, "dvdi");
  EXPECT_EQ(config->access.policy_file, "/etc/dvdi/policy.toml");
  EXPECT_EQ(config->volumes.mount_deadline, seconds(5));
  EXPECT_EQ(config->volumes.unmount_deadline, minutes(2));
  EXPECT_EQ(config->volumes.call_deadline, seconds(7));
  EXPECT_EQ(config->volumes.calls_per_driver, 3U);
  EXPECT_EQ(config->volumes.calls_waiting, 9U);
  EXPECT_EQ(config->volumes.unmount_attempts, 4U);
  EXPECT_EQ(config->volumes.debt_backoff, milliseconds(10));
  EXPECT_EQ(config->volumes.debt_backoff_cap, minutes(60));
  EXPECT_EQ(config->volumes.late_answer, Duration::zero());
  EXPECT_THAT(config->volumes.secret_options, ElementsAre("pin"));
  EXPECT_EQ(config->docker.roots.run_dir, "/p");
  EXPECT_THAT(config->docker.roots.spec_dirs, ElementsAre("/s", "/t"));
  EXPECT_EQ(config->docker.settings.patience.total, seconds(1));
  EXPECT_FALSE(config->docker.settings.plain_directories);
  EXPECT_TRUE(config->docker.by_name.at("nfs").plain_directories);
  EXPECT_EQ(config->docker.by_name.at("nfs").patience.total, seconds(1));
}

TEST(Config, ADriverHasItsOwnValuesAndElseThoseOfAll) {
  using driver::Operation;
  const auto config = parse_config(R"(
[driver.nfs]
calls_at_once = 2
deadlines.mount = "11s"
deadlines.other = "12s"
deadlines.list = "13s"
debts.attempts = 5
debts.backoff = "14s"
[deadlines]
mount = "1s"
unmount = "2s"
other = "3s"
[limits]
calls_per_driver = 4
calls_waiting = 6
[debts]
attempts = 7
)",
                                   "dvdi.toml");
  ASSERT_TRUE(config) << config.error().text();
  const volume::Policy& policy = config->volumes;
  EXPECT_EQ(policy.at_once("nfs"), 2U);
  EXPECT_EQ(policy.waiting("nfs"), 6U);
  EXPECT_EQ(policy.deadline("nfs", Operation::mount), seconds(11));
  EXPECT_EQ(policy.deadline("nfs", Operation::unmount), seconds(2));
  EXPECT_EQ(policy.deadline("nfs", Operation::list), seconds(13));
  for (const auto operation :
       {Operation::create, Operation::remove, Operation::get, Operation::path, Operation::capabilities}) {
    EXPECT_EQ(policy.deadline("nfs", operation), seconds(12));
    EXPECT_EQ(policy.deadline("other", operation), seconds(3));
  }
  EXPECT_EQ(policy.attempts("nfs"), 5U);
  EXPECT_EQ(policy.backoff("nfs"), seconds(14));
  EXPECT_EQ(policy.backoff_cap("nfs"), policy.debt_backoff_cap);
  EXPECT_EQ(policy.late_answer_of("nfs"), policy.late_answer);
  EXPECT_EQ(policy.at_once("other"), 4U);
  EXPECT_EQ(policy.attempts("other"), 7U);
}

TEST(Config, ErrorsNameFileLineAndKey) {
  const auto message = [](const std::string& text) {
    const auto config = parse_config(text, "dvdi.toml");
    return config ? std::string("no error") : config.error().text();
  };
  EXPECT_THAT(message("\ncolour = 1\n"), HasSubstr("dvdi.toml:2: unknown key colour"));
  EXPECT_THAT(message("[deadlines]\nmount = \"soon\"\n"),
              HasSubstr("dvdi.toml:2: deadlines.mount must be a duration"));
  EXPECT_THAT(message("[deadlines]\nmont = 1\n"), HasSubstr("unknown key deadlines.mont"));
  EXPECT_THAT(message("[deadlines]\nmount = 0\n"), HasSubstr("must be between"));
  EXPECT_THAT(message("deadlines = 3"), HasSubstr("must be a table"));
  EXPECT_THAT(message("state_dir = \"x\""), HasSubstr("absolute"));
  EXPECT_THAT(message("[limits]\ncalls_per_driver = -1"), HasSubstr("whole number"));
  EXPECT_THAT(message("[driver.x]\ny = 1"), HasSubstr("unknown key driver.x.y"));
  EXPECT_THAT(message("[driver.x]\ndeadlines.mont = 1"), HasSubstr("unknown key driver.x.deadlines.mont"));
  EXPECT_THAT(message("[driver.x]\ndeadlines.list = 0"),
              HasSubstr("driver.x.deadlines.list must be between"));
  EXPECT_THAT(message("[driver.x]\ncalls_at_once = 0"),
              HasSubstr("dvdi.toml:2: driver.x.calls_at_once must be"));
  EXPECT_THAT(message("state_dir = "), HasSubstr("not TOML"));
  EXPECT_THAT(message("[access]\ngroup = \"x\""), HasSubstr("no error"));
  EXPECT_THAT(message("[access]\npolicy_file = \"x\""),
              HasSubstr("access.policy_file must be an absolute path"));
}

TEST(Config, TheStateDirectoryOfTheCallerGoesFirstAndIsMadeAbsolute) {
  const auto config = load_config("", "relative/./x/");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_TRUE(config->state_dir.starts_with("/"));
  EXPECT_TRUE(config->state_dir.ends_with("/relative/x"));
  EXPECT_FALSE(load_config("/nonexistent/dvdi.toml", ""));
}

}  // namespace
}  // namespace dvdi
