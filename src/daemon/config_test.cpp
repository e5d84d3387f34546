#include "daemon/config.h"

#include <fmt/format.h>
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

TEST(Config, Sinks) {
  const auto config = parse_config(R"(
[sink.b]
type = "webhook"
url = "https://h/p"
secret_file = "/s"
ca_file = "/ca"
cert_file = "/cert"
key_file = "/key"
batch_events = 7
batch_bytes = 2048
timeout = "1s"
backoff = "2s"
backoff_cap = "3s"
from_now = true
[sink.a]
type = "file"
path = "/f"
[sink.c]
type = "nats"
url = "nats://a:1,tls://b"
stream = "s"
subject = "x.y"
create_stream = true
user = "u"
password_file = "/p"
)",
                                   "dvdi.toml");
  ASSERT_TRUE(config) << config.error().text();
  const SinkSettings file{.name = "a", .kind = FileSinkSettings{"/f"}};
  const SinkSettings webhook{
      .name = "b",
      .kind = WebhookSinkSettings{.url = "https://h/p",
                                  .tls = {.ca_file = "/ca", .cert_file = "/cert", .key_file = "/key"},
                                  .secret_file = "/s"},
      .batch_events = 7,
      .batch_bytes = 2048,
      .timeout = seconds(1),
      .backoff = seconds(2),
      .backoff_cap = seconds(3),
      .from_now = true};
  const SinkSettings nats{.name = "c",
                          .kind = NatsSinkSettings{.url = "nats://a:1,tls://b",
                                                   .stream = "s",
                                                   .subject = "x.y",
                                                   .create_stream = true,
                                                   .tls = {},
                                                   .credentials_file = {},
                                                   .user = "u",
                                                   .password_file = "/p",
                                                   .token_file = {}}};
  EXPECT_THAT(config->sinks, ElementsAre(file, webhook, nats));
}

TEST(Config, SinksThatCannotBe) {
  const auto error = [](const std::string& table) {
    const auto config = parse_config("\n" + table, "dvdi.toml");
    return config ? std::string("none") : config.error().message;
  };
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"type = \"pigeon\"", "file\", \"webhook\" or \"nats"},
      {"path = \"/x\"", "file\", \"webhook\" or \"nats"},
      {"type = \"file\"", "path is needed"},
      {"type = \"file\"\npath = \"x\"", "absolute"},
      {"type = \"file\"\npath = \"/x/\"", "must name a file"},
      {"type = \"file\"\npath = \"/x\"\nurl = \"http://h\"", "unknown key sink.one.url"},
      {"type = \"webhook\"", "url is needed"},
      {"type = \"webhook\"\nurl = \"ftp://h\"", "must begin with http:// or https://"},
      {"type = \"webhook\"\nurl = \"http:///p\"", "names no host"},
      {"type = \"webhook\"\nurl = \"http://u:p@h/p\"", "must not have a user or a password"},
      {"type = \"webhook\"\nurl = \"http://h/a b\"", "belongs in no URL"},
      {"type = \"webhook\"\nurl = \"http://h/p\"\ncert_file = \"/c\"", "belong together"},
      {"type = \"webhook\"\nurl = \"http://h/p\"\nbackoff = \"1h\"", "must not be below backoff"},
      {"type = \"webhook\"\nurl = \"http://h/p\"\nbatch_events = 0", "from 1 to 10000"},
      {"type = \"nats\"\nurl = \"http://h\"", "must begin with nats:// or tls://"},
      {"type = \"nats\"\nurl = \"nats://a,nats://u:p@b\"", "must not have a user or a password"},
      {"type = \"nats\"\nuser = \"u\"", "belong together"},
      {"type = \"nats\"\ntoken_file = \"/t\"\ncredentials_file = \"/c\"", "only one"},
      {"type = \"nats\"\nstream = \"a.b\"", "stream must be"},
      {"type = \"nats\"\nsubject = \"a..b\"", "subject must be"},
  };
  for (const auto& [text, said] : wrong) {
    EXPECT_THAT(error("[sink.one]\n" + text), testing::AllOf(HasSubstr(said), HasSubstr("dvdi.toml:")));
    EXPECT_THAT(error("[sink.one]\n" + text), testing::Not(HasSubstr("u:p")));
  }
  EXPECT_THAT(error("[sink.\"a b\"]\ntype = \"file\"\npath = \"/x\""), HasSubstr("no name of a sink"));
  EXPECT_THAT(error("[sink.a]\ntype = \"file\"\npath = \"/x\"\n[sink.b]\ntype = \"file\"\npath = \"/x\""),
              HasSubstr("appends to the same file"));
  std::string many;
  for (int i = 0; i < 65; ++i) many += fmt::format("[sink.s{}]\ntype = \"nats\"\n", i);
  EXPECT_THAT(error(many), HasSubstr("more than 64 sinks"));
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
