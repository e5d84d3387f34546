#include "cli/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/time_text.h"

namespace dvdi::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

const WallTime now = *parse_time("2026-11-22T10:00:00Z");

std::variant<Arguments, Answer> parse(const std::vector<std::string>& words) {
  return parse_arguments(words, now);
}

// The command, or a failed test.
template <class Wanted>
Wanted command(const std::vector<std::string>& words) {
  const auto parsed = parse(words);
  if (const auto* answer = std::get_if<Answer>(&parsed)) {
    ADD_FAILURE() << answer->text;
    return {};
  }
  const auto* wanted = std::get_if<Wanted>(&std::get<Arguments>(parsed).command);
  if (wanted == nullptr) {
    ADD_FAILURE() << "another command";
    return {};
  }
  return *wanted;
}

Answer refused(const std::vector<std::string>& words) {
  const auto parsed = parse(words);
  const auto* answer = std::get_if<Answer>(&parsed);
  if (answer == nullptr) {
    ADD_FAILURE() << "was accepted: " << testing::PrintToString(words);
    return {};
  }
  return *answer;
}

TEST(RunArguments, TakesEverything) {
  const auto run = command<RunCommand>(
      {"run",     "app.json", "--volume", "local/a:data", "--volume=local/b:/mnt/b:ro,size=1G",
       "--user",  "u:g",      "--rootfs", "/r",           "--directory",
       "/d",      "--id",     "c1",       "--pid",        "host",
       "--env",   "A=b=c",    "-e",       "E=",           "--inherit-env",
       "--label", "team=a=b", "-l",       "empty=",       "--timeout",
       "90s",     "-v",       "--",       "sh",           "-c",
       "exit 3",  "--",       "--volume"});
  EXPECT_EQ(run.file, "app.json");
  EXPECT_THAT(run.volumes, ElementsAre("local/a:data", "local/b:/mnt/b:ro,size=1G"));
  EXPECT_EQ(run.user, "u:g");
  EXPECT_EQ(run.rootfs, "/r");
  EXPECT_EQ(run.directory, "/d");
  EXPECT_EQ(run.id, "c1");
  EXPECT_TRUE(run.host_pid);
  EXPECT_THAT(run.environment, ElementsAre(Pair("A", "b=c"), Pair("E", "")));
  EXPECT_THAT(run.labels, ElementsAre(Pair("team", "a=b"), Pair("empty", "")));
  EXPECT_TRUE(run.inherit_environment);
  EXPECT_EQ(run.timeout, std::chrono::seconds(90));
  EXPECT_TRUE(run.verbose);
  EXPECT_THAT(run.command, ElementsAre("sh", "-c", "exit 3", "--", "--volume"));
}

TEST(RunArguments, DefaultsToNothing) {
  const auto run = command<RunCommand>({"run"});
  EXPECT_FALSE(run.file || run.user || run.rootfs || run.directory || run.id);
  EXPECT_TRUE(run.volumes.empty() && run.command.empty() && run.environment.empty());
  EXPECT_FALSE(run.host_pid || run.inherit_environment || run.verbose);
  EXPECT_EQ(run.timeout, std::chrono::minutes(10));
}

TEST(RunArguments, ReadsStandardInput) { EXPECT_EQ(command<RunCommand>({"run", "-", "--", "x"}).file, "-"); }

TEST(RunArguments, AVolumeDoesNotSwallowTheFile) {
  const auto run = command<RunCommand>({"run", "--volume", "local/a:data", "app.json"});
  EXPECT_THAT(run.volumes, ElementsAre("local/a:data"));
  EXPECT_EQ(run.file, "app.json");
}

TEST(RunArguments, AFileMayHaveTheNameOfACommand) {
  EXPECT_EQ(command<RunCommand>({"run", "events"}).file, "events");
  EXPECT_EQ(command<InspectCommand>({"inspect", "ps"}).container, "ps");
}

TEST(RunArguments, MistakesEndWith125) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"run", "--bogus"},
                                             {"run", "a", "b"},
                                             {"run", "--env", "X", "--", "y"},
                                             {"run", "--env", "=1", "--", "y"},
                                             {"run", "--label", "X", "--", "y"},
                                             {"run", "--pid", "other"},
                                             {"run", "--timeout", "soon"},
                                             {"run", "--timeout", "0s"},
                                             {"run", "--volume"},
                                             {"run", "--format", "xml"}}) {
    const Answer answer = refused(words);
    EXPECT_EQ(answer.exit_code, 125) << testing::PrintToString(words);
    EXPECT_THAT(answer.text, AllOf(testing::StartsWith("dvdi: "), HasSubstr("See `dvdi run --help`")));
  }
}

TEST(RunArguments, ForgottenDashesAreExplained) {
  EXPECT_THAT(refused({"run", "app.json", "ls"}).text, AllOf(HasSubstr("'ls'"), HasSubstr("follows `--`")));
}

TEST(RunArguments, AWrongVariableIsNotRepeated) {
  EXPECT_THAT(refused({"run", "--env", "secret-without-name"}).text,
              testing::Not(HasSubstr("secret-without")));
}

TEST(VolumeArguments, AreUnderstood) {
  EXPECT_FALSE(command<VolumeListCommand>({"volume", "ls"}).known_only);
  EXPECT_TRUE(command<VolumeListCommand>({"volume", "ls", "--known"}).known_only);
  EXPECT_THAT(command<VolumeInspectCommand>({"volume", "inspect", "local/a", "rc/b/c"}).volumes,
              ElementsAre(VolumeName{"local", "a"}, VolumeName{"rc", "b/c"}));
  const auto create = command<VolumeCreateCommand>(
      {"volume", "create", "local/a", "-o", "type=image", "--option", "size=1G"});
  EXPECT_EQ(create.volume, (VolumeName{"local", "a"}));
  EXPECT_THAT(create.options, ElementsAre(Pair("type", "image"), Pair("size", "1G")));
  EXPECT_THAT(command<VolumeRemoveCommand>({"volume", "rm", "local/a"}).volumes,
              ElementsAre(VolumeName{"local", "a"}));
}

TEST(VolumeArguments, ReleaseAsksUnlessItIsTold) {
  auto release = command<VolumeReleaseCommand>({"volume", "release", "local/a", "rc/b"});
  EXPECT_THAT(release.volumes, ElementsAre(VolumeName{"local", "a"}, VolumeName{"rc", "b"}));
  EXPECT_FALSE(release.yes);
  EXPECT_FALSE(release.dry_run);
  release = command<VolumeReleaseCommand>({"volume", "release", "local/a", "--yes", "--dry-run"});
  EXPECT_TRUE(release.yes);
  EXPECT_TRUE(release.dry_run);
  EXPECT_EQ(refused({"volume", "release"}).exit_code, 2);
}

TEST(VolumeArguments, NeedDriverAndName) {
  for (const auto* text : {"local", "local/", "/a", "/"}) {
    const Answer answer = refused({"volume", "rm", text});
    EXPECT_EQ(answer.exit_code, 2);
    EXPECT_THAT(answer.text, HasSubstr("DRIVER/NAME"));
  }
  EXPECT_EQ(refused({"volume", "rm"}).exit_code, 2);
}

TEST(EventArguments, SinceIsANumberATimeOrAnAge) {
  EXPECT_FALSE(command<EventsCommand>({"events"}).after);
  EXPECT_FALSE(command<EventsCommand>({"events"}).since);
  EXPECT_EQ(command<EventsCommand>({"events", "--since", "1200"}).after, 1200U);
  EXPECT_FALSE(command<EventsCommand>({"events", "--since", "1200"}).since);
  EXPECT_EQ(command<EventsCommand>({"events", "--since", "24h"}).since, now - std::chrono::hours(24));
  EXPECT_FALSE(command<EventsCommand>({"events", "--since", "24h"}).after);
  EXPECT_EQ(command<EventsCommand>({"events", "--since", "2026-11-01"}).since, *parse_time("2026-11-01"));
  EXPECT_TRUE(command<EventsCommand>({"events", "-f"}).follow);
  EXPECT_EQ(command<EventsVerifyCommand>({"events", "verify"}).against, "");
  EXPECT_EQ(command<EventsVerifyCommand>({"events", "verify", "--against", "audit"}).against, "audit");
  for (const auto* text : {"soon", "99999999999999999999", "9223372036854775808", "-1"}) {
    EXPECT_EQ(refused({"events", "--since", text}).exit_code, 2) << text;
  }
}

TEST(UsageArguments, AreUnderstood) {
  const auto usage = command<UsageCommand>({"usage", "--by", "principal", "--since", "7d", "--until", "1d"});
  EXPECT_EQ(usage.by, std::vector<std::string>{"principal"});
  EXPECT_EQ(usage.since, now - std::chrono::hours(7 * 24));
  EXPECT_EQ(usage.until, now - std::chrono::hours(24));
  EXPECT_EQ(command<UsageCommand>({"usage"}).by, std::vector<std::string>{"volume"});
  const auto several = command<UsageCommand>({"usage", "--by", "role,label:team,hour", "--prices", "p.toml"});
  EXPECT_THAT(several.by, ElementsAre("role", "label:team", "hour"));
  EXPECT_EQ(several.price_file, "p.toml");
  EXPECT_THAT(refused({"usage", "--by", "role,role"}).text, HasSubstr("twice"));
  EXPECT_THAT(refused({"usage", "--by", "role,"}).text, HasSubstr("cannot be grouped by ''"));
  EXPECT_THAT(refused({"ps", "--format", "csv"}).text, HasSubstr("only `dvdi usage`"));
  EXPECT_THAT(refused({"usage", "--by", "colour"}).text, HasSubstr("principal"));
  EXPECT_THAT(refused({"usage", "--since", "1d", "--until", "7d"}).text, HasSubstr("not before"));
}

TEST(OtherArguments, AreUnderstood) {
  EXPECT_TRUE(command<PsCommand>({"ps", "--all"}).all);
  EXPECT_FALSE(command<PsCommand>({"ps"}).all);
  EXPECT_EQ(command<InspectCommand>({"inspect", "4f1c"}).container, "4f1c");
  EXPECT_EQ(refused({"inspect"}).exit_code, 2);
  const auto check = command<PolicyCheckCommand>(
      {"policy", "check", "p.toml", "-", "--as", "alice", "--role", "web", "--principal", "p"});
  EXPECT_EQ(check.policy_file, "p.toml");
  EXPECT_EQ(check.request_file, "-");
  EXPECT_EQ(check.as, "alice");
  EXPECT_EQ(check.role, "web");
  EXPECT_EQ(check.principal, "p");
  EXPECT_FALSE(command<PolicyCheckCommand>({"policy", "check", "p.toml", "r.json"}).role);
  EXPECT_EQ(refused({"policy", "check", "p.toml"}).exit_code, 2);
  EXPECT_EQ(refused({"policy"}).exit_code, 2);
  command<DoctorCommand>({"doctor"});
  command<VersionCommand>({"version"});
}

TEST(GlobalArguments, MayStandBeforeAndBehindTheCommand) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"--state-dir", "/s", "--config", "/c", "--format", "json", "volume", "ls"},
           {"volume", "--format=json", "ls", "--state-dir=/s", "--config=/c"},
           {"events", "verify", "--state-dir", "/s", "--config", "/c", "--format", "json"}}) {
    const auto parsed = parse(words);
    ASSERT_TRUE(std::holds_alternative<Arguments>(parsed)) << std::get<Answer>(parsed).text;
    const auto& arguments = std::get<Arguments>(parsed);
    EXPECT_EQ(arguments.state_dir, "/s");
    EXPECT_EQ(arguments.config_file, "/c");
    EXPECT_EQ(arguments.format, Format::json);
  }
}

TEST(Mistakes, NameWhatWasMeant) {
  EXPECT_THAT(refused({"vloume", "ls"}).text,
              AllOf(HasSubstr("'vloume'"), HasSubstr("did you mean volume?")));
  EXPECT_THAT(refused({"volume", "lst"}).text, HasSubstr("did you mean ls?"));
  EXPECT_THAT(refused({"volume", "frobnicate"}).text, HasSubstr("ls, inspect, create, rm"));
  EXPECT_THAT(refused({"events", "--folow"}).text, HasSubstr("did you mean --follow?"));
  EXPECT_THAT(refused({"ps", "--state-dri=/x"}).text, HasSubstr("did you mean --state-dir?"));
  EXPECT_THAT(refused({"volume"}).text,
              AllOf(HasSubstr("dvdi: volume needs a command"), HasSubstr("create")));
  EXPECT_THAT(refused({"ps", "x"}).text, HasSubstr("dvdi: ps does not take 'x'"));
  EXPECT_THAT(refused({"ps", "--", "x"}).text, HasSubstr("takes no `--`"));
  EXPECT_THAT(refused({"--format", "json"}).text, HasSubstr("needs a command"));
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"vloume"}, {"volume"}, {"ps", "x"}, {"ps", "--x"}, {}}) {
    EXPECT_EQ(refused(words).exit_code, 2);
  }
}

TEST(Help, IsThereForEveryCommandWithExamples) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"--help"},
                                             {"run", "--help"},
                                             {"volume", "--help"},
                                             {"volume", "ls", "--help"},
                                             {"volume", "inspect", "--help"},
                                             {"volume", "create", "--help"},
                                             {"volume", "rm", "--help"},
                                             {"ps", "--help"},
                                             {"inspect", "--help"},
                                             {"events", "--help"},
                                             {"events", "verify", "--help"},
                                             {"usage", "--help"},
                                             {"policy", "--help"},
                                             {"policy", "check", "--help"},
                                             {"doctor", "--help"},
                                             {"version", "--help"}}) {
    const Answer answer = refused(words);
    EXPECT_EQ(answer.exit_code, 0);
    EXPECT_THAT(answer.text, AllOf(HasSubstr("Usage: dvdi"), HasSubstr("Examples:\n  ")))
        << testing::PrintToString(words);
  }
  EXPECT_THAT(refused({"run", "--help"}).text,
              AllOf(HasSubstr("[-- COMMAND [ARG...]]\n"), HasSubstr("--inherit-env")));
}

TEST(Help, OfATaskIsTheTasks) {
  EXPECT_THAT(command<RunCommand>({"run", "--", "ls", "--help"}).command, ElementsAre("ls", "--help"));
}

TEST(Version, IsSaid) {
  const Answer answer = refused({"--version"});
  EXPECT_EQ(answer.exit_code, 0);
  EXPECT_THAT(answer.text, testing::MatchesRegex("dvdi [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST(Arguments, Sinks) {
  EXPECT_TRUE(std::holds_alternative<SinkListCommand>(std::get<Arguments>(parse({"sink", "ls"})).command));
  using What = SinkCommand::What;
  const auto is = [](const SinkCommand& one, What what, std::uint64_t from) {
    return one.what == what && one.name == "audit" && one.from == from;
  };
  EXPECT_TRUE(is(command<SinkCommand>({"sink", "test", "audit"}), What::test, 0));
  EXPECT_TRUE(is(command<SinkCommand>({"sink", "pause", "audit"}), What::pause, 0));
  EXPECT_TRUE(is(command<SinkCommand>({"sink", "resume", "audit"}), What::resume, 0));
  EXPECT_TRUE(is(command<SinkCommand>({"sink", "replay", "audit", "--from", "12"}), What::replay, 12));
  EXPECT_EQ(refused({"sink", "replay", "audit"}).exit_code, exit_usage);
  EXPECT_EQ(refused({"sink", "replay", "audit", "--from", "0"}).exit_code, exit_usage);
  EXPECT_EQ(refused({"sink", "replay", "audit", "--from", "-1"}).exit_code, exit_usage);
  EXPECT_EQ(refused({"sink", "pause"}).exit_code, exit_usage);
  EXPECT_THAT(refused({"sink", "puase", "audit"}).text, HasSubstr("did you mean pause?"));
}

}  // namespace
}  // namespace dvdi::cli
