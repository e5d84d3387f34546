#include "cli/commands.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <stop_token>

#include "base/json.h"
#include "base/time_text.h"
#include "cli/fake_api_test.h"
#include "linux/fd.h"

namespace dvdi::cli {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

EventView event(std::uint64_t sequence, const std::string& time, const std::string& more = "") {
  return {.sequence = sequence,
          .json = R"({"specversion":"1.0","type":"dvdi.mount.mounted","time":")" + time +
                  R"(","data":{"owner":"run","container":"c1","driver":"rc","volume":"v)" +
                  std::to_string(sequence) + "\"" + more + R"(},"hash":"h"})"};
}

class CommandsTest : public testing::Test {
 protected:
  // What the command wrote, all of it.
  std::string written() {
    EXPECT_TRUE(out_.flush());
    std::string text;
    std::array<char, 4096> piece{};
    off_t at = 0;
    for (;;) {
      const ssize_t count = ::pread(file_.get(), piece.data(), piece.size(), at);
      if (count <= 0) return text;
      text.append(piece.data(), static_cast<std::size_t>(count));
      at += count;
    }
  }
  Screen& table(std::optional<std::size_t> width = std::nullopt) {
    screen_.format = Format::table;
    screen_.width = width;
    return screen_;
  }
  Screen& json() {
    screen_.format = Format::json;
    return screen_;
  }

  Scene scene_;
  FakeApi api_{scene_};
  UniqueFd file_{::memfd_create("output", MFD_CLOEXEC)};
  Output out_{file_.get()};
  Screen screen_{.out = out_, .format = Format::table, .width = {}};
  Context context_;
};

VolumeView mounted_volume() {
  return {.driver = "rc",
          .name = "v",
          .state = "mounted",
          .mount_id = "id",
          .mount_point = "/mnt/v",
          .fs_type = "fuse.rclone",
          .source = "s:",
          .since = "2026-11-22T10:00:00.000000Z",
          .size_bytes = 1024,
          .containers = {"run/a", "run/b"},
          .exclusive = true,
          .owed =
              VolumeView::Debt{
                  .since = "S", .last_error = "busy", .next_try = "N", .attempts = 3, .parked = false},
          .foreign_since = "F",
          .foreign_evidence = "mounted before us"};
}

TEST_F(CommandsTest, VolumeListAsksDriversUnlessToldNotTo) {
  ASSERT_TRUE(volume_list(context_, api_, {}, table()));
  ASSERT_TRUE(volume_list(context_, api_, {.known_only = true}, table()));
  EXPECT_THAT(scene_.calls, ElementsAre("volumes ask", "volumes"));
}

TEST_F(CommandsTest, VolumeListAsATable) {
  scene_.volumes.volumes = {mounted_volume(), {.driver = "rc", .name = "idle"}};
  ASSERT_TRUE(volume_list(context_, api_, {}, table()));
  EXPECT_EQ(written(),
            "DRIVER  NAME  STATE    CONTAINERS  OWED  FOREIGN  MOUNT POINT\n"
            "rc      v     mounted           2  yes   yes      /mnt/v\n"
            "rc      idle  -                 0  -     -        -\n"
            "\n"
            "OWED  SINCE  TRIES  NEXT TRY  WHY\n"
            "rc/v  S          3  N         busy\n"
            "\n"
            "HELD BY OTHERS  SINCE  WHY\n"
            "rc/v            F      mounted before us\n");
}

TEST_F(CommandsTest, VolumeListAsJson) {
  scene_.volumes.volumes = {mounted_volume(), {.driver = "rc", .name = "idle"}};
  scene_.volumes.warnings = {"driver x does not answer"};
  testing::internal::CaptureStderr();
  ASSERT_TRUE(volume_list(context_, api_, {}, json()));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "dvdi: warning: driver x does not answer\n");
  EXPECT_EQ(
      written(),
      R"({"volumes":[{"driver":"rc","name":"v","state":"mounted","mount_id":"id","mount_point":"/mnt/v",)"
      R"("fs_type":"fuse.rclone","source":"s:","since":"2026-11-22T10:00:00.000000Z","size_bytes":1024,)"
      R"("exclusive":true,"containers":["run/a","run/b"],"owed":{"since":"S","attempts":3,"last_error":"busy",)"
      R"("next_try":"N","parked":false},"foreign":{"since":"F","evidence":"mounted before us"},)"
      R"("lost":null,"fenced":null},)"
      R"({"driver":"rc","name":"idle","state":"absent","mount_id":null,"mount_point":null,"fs_type":null,)"
      R"("source":null,"since":null,"size_bytes":null,"exclusive":false,"containers":[],"owed":null,"foreign":null,)"
      R"("lost":null,"fenced":null}],)"
      R"("warnings":["driver x does not answer"]})"
      "\n");
}

TEST_F(CommandsTest, VolumeInspectShowsDebtsAndForeignHolders) {
  scene_.volumes.volumes = {mounted_volume()};
  ASSERT_TRUE(volume_inspect(context_, api_, {.volumes = {{"rc", "v"}}}, table()));
  EXPECT_THAT(written(), AllOf(HasSubstr("State           mounted\n"), HasSubstr("1.0 KiB (1024 bytes)"),
                               HasSubstr("since S, 3 attempts"), HasSubstr("Last error      busy\n"),
                               HasSubstr("somebody else, since F"), HasSubstr("Container       run/b\n")));
}

SinkStatus waiting_sink() {
  return {.name = "audit",
          .type = "webhook",
          .where = "https://h/p",
          .state = "waiting",
          .cursor = 7,
          .behind = 3,
          .oldest = WallTime(std::chrono::seconds(1'800'000'000)),
          .undelivered = 5,
          .last_error = "no",
          .last_error_time = WallTime(std::chrono::seconds(1'800'000'100)),
          .delivered_total = 6,
          .failures_total = 2};
}

TEST_F(CommandsTest, SinkListAsATable) {
  scene_.sinks = {waiting_sink(),
                  {.name = "f", .type = "file", .where = "/f", .state = "off", .paused = true}};
  ASSERT_TRUE(sink_list(context_, api_, table()));
  EXPECT_EQ(written(),
            "NAME   TYPE     STATE        AT  BEHIND  WHERE\n"
            "audit  webhook  waiting       7       3  https://h/p\n"
            "f      file     off, paused   0       0  /f\n"
            "\n"
            "SINK   SINCE                        WHY\n"
            "audit  2027-01-15T08:01:40.000000Z  no\n"
            "audit  -                            events from 5 on were dropped before it could get them\n");
}

TEST_F(CommandsTest, SinkListAsJson) {
  scene_.sinks = {waiting_sink()};
  ASSERT_TRUE(sink_list(context_, api_, json()));
  EXPECT_EQ(
      written(),
      R"({"sinks":[{"name":"audit","type":"webhook","where":"https://h/p","state":"waiting","paused":false,)"
      R"("cursor":7,"behind":3,"oldest":"2027-01-15T08:00:00.000000Z","replay_until":null,"undelivered":5,)"
      R"("last_error":"no","last_error_time":"2027-01-15T08:01:40.000000Z","next_try":null,)"
      R"("delivered_total":6,"failures_total":2}]})"
      "\n");
}

TEST_F(CommandsTest, SinksAreSteered) {
  using What = SinkCommand::What;
  for (const auto what : {What::test, What::pause, What::resume, What::replay})
    ASSERT_TRUE(sink_change(context_, api_, {.what = what, .name = "a", .from = 5}, table()));
  EXPECT_THAT(scene_.calls, ElementsAre("test a", "pause a", "resume a", "replay a from 5"));
  EXPECT_EQ(
      written(),
      "sink a takes events\nsink a is paused\nsink a goes on\nsink a gets all events from 5 on once more\n");
  scene_.sink_answer = Error{.code = Code::not_found, .message = "no such sink"};
  EXPECT_FALSE(sink_change(context_, api_, {.what = What::pause, .name = "b"}, table()));
}

TEST_F(CommandsTest, ALostVolumeIsShownAsLostAndWhy) {
  VolumeView lost = mounted_volume();
  lost.state = "unknown";
  lost.lost = "its server is gone";
  lost.fenced = "since T: helper process 7 is stuck";
  scene_.volumes.volumes = {lost};
  ASSERT_TRUE(volume_list(context_, api_, {}, table()));
  EXPECT_THAT(written(), HasSubstr("rc      v     lost "));
  ASSERT_TRUE(volume_inspect(context_, api_, {.volumes = {{"rc", "v"}}}, table()));
  EXPECT_THAT(written(),
              AllOf(HasSubstr("State           lost\n"), HasSubstr("Lost            its server is gone\n"),
                    HasSubstr("Fenced          since T: helper process 7 is stuck\n")));
  ASSERT_TRUE(volume_inspect(context_, api_, {.volumes = {{"rc", "v"}}}, json()));
  EXPECT_THAT(written(),
              AllOf(HasSubstr(R"("state":"unknown")"), HasSubstr(R"("lost":"its server is gone")")));
}

TEST_F(CommandsTest, VolumeInspectOfAnUnknownVolumeIsAnError) {
  const auto result = volume_inspect(context_, api_, {.volumes = {{"rc", "v"}}}, json());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::not_found);
  EXPECT_EQ(written(), "");
}

TEST_F(CommandsTest, VolumeCreatePassesOptions) {
  ASSERT_TRUE(
      volume_create(context_, api_, {.volume = {"rc", "v"}, .options = {{"a", "1"}, {"b", "2"}}}, table()));
  EXPECT_THAT(scene_.calls, ElementsAre("create rc/v a=1 b=2"));
  EXPECT_EQ(written(), "");
}

TEST_F(CommandsTest, VolumeRemoveGoesOnAfterAFailure) {
  scene_.removed = Error{.code = Code::failed_precondition, .message = "run/c1 uses it"};
  testing::internal::CaptureStderr();
  const auto code = volume_remove(context_, api_, {.volumes = {{"rc", "held"}, {"rc", "free"}}}, table());
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("failed_precondition: run/c1 uses it"));
  ASSERT_TRUE(code);
  EXPECT_EQ(*code, 1);
  EXPECT_THAT(scene_.calls, ElementsAre("remove rc/held", "remove rc/free"));
  ASSERT_TRUE(volume_remove(context_, api_, {.volumes = {{"rc", "held"}, {"rc", "free"}}}, json()));
  EXPECT_THAT(written(), AllOf(HasSubstr(R"("removed":[{"driver":"rc","name":"free"}])"),
                               HasSubstr(R"("failed":[{"driver":"rc","name":"held","error":{"code":)")));
}

TEST_F(CommandsTest, VolumeListSaysWhatIsOwedSinceWhenAndWhyIn80Columns) {
  VolumeView view = mounted_volume();
  const WallTime now = context_.clock().wall();
  view.owed->since = rfc3339(now - std::chrono::minutes(185));
  view.owed->next_try = rfc3339(now + std::chrono::minutes(130));
  view.owed->last_error = std::string(200, 'x');
  view.foreign_since = rfc3339(now - std::chrono::hours(50));
  VolumeView parked = view;
  parked.name = "w";
  parked.owed->parked = true;
  parked.foreign_since.clear();
  scene_.volumes.volumes = {view, parked};
  ASSERT_TRUE(volume_list(context_, api_, {}, table(80)));
  const std::string text = written();
  EXPECT_THAT(text, HasSubstr("\n\nOWED"));
  EXPECT_THAT(text, HasSubstr("rc/v  3h 5m ago"));
  EXPECT_THAT(text, HasSubstr("in 2h "));
  EXPECT_THAT(text, HasSubstr("parked"));
  EXPECT_THAT(text, HasSubstr("\n\nHELD BY OTHERS"));
  EXPECT_THAT(text, HasSubstr("2d 2h ago"));
  for (std::size_t at = 0; at < text.size();) {
    const auto end = text.find('\n', at);
    std::string line = text.substr(at, end - at);
    for (auto dots = line.find("…"); dots != std::string::npos; dots = line.find("…"))
      line.replace(dots, 3, ".");
    EXPECT_LE(line.size(), 80U) << line;
    at = end + 1;
  }
}

TEST_F(CommandsTest, VolumeReleaseSaysWhatItWillDoAndAsks) {
  scene_.release = volume::Release{.steps = {"first", "second"}, .done = false, .left = "busy"};
  std::vector<std::string> asked;
  const auto no = [&](const std::string& question) -> std::optional<bool> {
    if (!question.empty()) asked.push_back(question);
    return false;
  };
  const VolumeReleaseCommand command{.volumes = {{"rc", "a"}}};
  testing::internal::CaptureStderr();
  auto code = volume_release(context_, api_, command, table(), no);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("rc/a: left as it is"));
  ASSERT_TRUE(code);
  EXPECT_EQ(*code, 1);
  EXPECT_THAT(asked, ElementsAre("Release rc/a?"));
  EXPECT_THAT(scene_.calls, ElementsAre("would release rc/a"));
  EXPECT_THAT(written(), HasSubstr("rc/a\n  1. first\n  2. second\n"));

  testing::internal::CaptureStderr();
  code = volume_release(context_, api_, command, table(), [](const std::string&) { return true; });
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("rc/a: busy"));
  ASSERT_TRUE(code);
  EXPECT_EQ(*code, 1) << "something is left";
  EXPECT_EQ(scene_.calls.back(), "release rc/a");
}

TEST_F(CommandsTest, VolumeReleaseWithNobodyToAskNeedsYes) {
  scene_.release = volume::Release{.steps = {"first"}, .done = false, .left = {}};
  const auto nobody = [](const std::string&) -> std::optional<bool> { return std::nullopt; };
  testing::internal::CaptureStderr();
  auto code = volume_release(context_, api_, {.volumes = {{"rc", "a"}}}, table(), nobody);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("--yes"));
  ASSERT_TRUE(code);
  EXPECT_EQ(*code, 2);
  EXPECT_THAT(scene_.calls, IsEmpty());

  code = volume_release(context_, api_, {.volumes = {{"rc", "a"}}, .yes = false, .dry_run = true}, json(),
                        nobody);
  ASSERT_TRUE(code);
  EXPECT_EQ(*code, 0);
  EXPECT_THAT(scene_.calls, ElementsAre("would release rc/a"));
  EXPECT_EQ(
      written(),
      R"({"dry_run":true,"released":[{"driver":"rc","name":"a","steps":["first"],"done":false,"left":null}],)"
      R"("failed":[]})"
      "\n");
}

TEST_F(CommandsTest, VolumeReleaseShowsWhatFailed) {
  scene_.release = Error{.code = Code::failed_precondition, .message = "run/c1 uses it"};
  const auto nobody = [](const std::string&) -> std::optional<bool> { return std::nullopt; };
  const auto code =
      volume_release(context_, api_, {.volumes = {{"rc", "a"}, {"rc", "b"}}, .yes = true}, json(), nobody);
  ASSERT_TRUE(code);
  EXPECT_EQ(*code, 1);
  EXPECT_THAT(scene_.calls, ElementsAre("would release rc/a", "would release rc/b"));
  EXPECT_THAT(written(), AllOf(HasSubstr(R"("released":[])"),
                               HasSubstr(R"("failed":[{"driver":"rc","name":"a","error":{"code":)")));
}

ContainerView a_container() {
  return {.owner = "run",
          .id = "c1-long",
          .state = "running",
          .framework = "",
          .role = "r",
          .principal = "",
          .task_id = "",
          .task_name = "hello",
          .user = "nobody",
          .labels = {{"team", "x"}},
          .pid = 12,
          .since = "S",
          .ended = "",
          .volumes = {{.driver = "rc", .name = "v", .container_path = "data", .mode = "rw"},
                      {.driver = "rc", .name = "w", .container_path = "/w", .mode = "ro"}}};
}

TEST_F(CommandsTest, PsAsATable) {
  scene_.containers = {a_container(), {.owner = "run", .id = "c2", .state = "preparing", .since = "T"}};
  ASSERT_TRUE(ps(context_, api_, {.all = true}, table()));
  EXPECT_EQ(written(),
            "OWNER  ID       STATE      PID  SINCE  TASK   VOLUMES\n"
            "run    c1-long  running     12  S      hello  rc/v:data rc/w:/w:ro\n"
            "run    c2       preparing    -  T      -      -\n");
  EXPECT_THAT(scene_.calls, ElementsAre("containers ended"));
}

TEST_F(CommandsTest, InspectAsJson) {
  scene_.containers = {a_container()};
  ASSERT_TRUE(inspect(context_, api_, {.container = "c1"}, json()));
  EXPECT_EQ(
      written(),
      R"({"owner":"run","id":"c1-long","state":"running","pid":12,"since":"S","ended":null,"kept":null,"framework":null,)"
      R"("role":"r","principal":null,"task_id":null,"task_name":"hello","user":"nobody","labels":{"team":"x"},)"
      R"("volumes":[{"driver":"rc","name":"v","container_path":"data","mode":"rw"},)"
      R"({"driver":"rc","name":"w","container_path":"/w","mode":"ro"}]})"
      "\n");
}

TEST_F(CommandsTest, InspectForAPerson) {
  scene_.containers = {a_container()};
  ASSERT_TRUE(inspect(context_, api_, {.container = "c1"}, table()));
  EXPECT_THAT(written(), AllOf(HasSubstr("Container       c1-long\n"), HasSubstr("Label           team=x\n"),
                               HasSubstr("Volume          rc/w at /w ro\n"), Not(HasSubstr("Principal"))));
}

TEST_F(CommandsTest, EventsAsJsonAreLeftAsTheyAre) {
  scene_.events = {{.sequence = 1, .json = R"({ "odd" : "spacing" })"}, {.sequence = 2, .json = "{}"}};
  scene_.events_per_call = 1;  // several pages
  ASSERT_TRUE(events(context_, api_, {}, json()));
  EXPECT_EQ(written(), "{ \"odd\" : \"spacing\" }\n{}\n");
}

TEST_F(CommandsTest, EventsAsLines) {
  scene_.events = {event(1, "2026-11-22T10:00:00.000000Z"),
                   event(2, "2026-11-22T10:00:01.000000Z", R"(,"error":"it\nfailed")")};
  ASSERT_TRUE(events(context_, api_, {}, table()));
  EXPECT_EQ(written(),
            "TIME                         TYPE                      VOLUME                    CONTAINER      "
            "ERROR OR "
            "REASON\n"
            "2026-11-22T10:00:00.000000Z  dvdi.mount.mounted        rc/v1                     c1\n"
            "2026-11-22T10:00:01.000000Z  dvdi.mount.mounted        rc/v2                     c1             "
            "it\\x0afailed\n");
}

TEST_F(CommandsTest, EventsAfterANumber) {
  scene_.events = {event(1, "T"), event(2, "T"), event(3, "T")};
  ASSERT_TRUE(events(context_, api_, {.after = 2}, json()));
  EXPECT_THAT(written(), AllOf(HasSubstr("v3"), Not(HasSubstr("v2"))));
}

TEST_F(CommandsTest, EventsSinceATimeEvenIfTheClockWasSetBack) {
  scene_.events = {event(1, "2026-11-22T09:00:00.000000Z"), event(2, "2026-11-22T11:00:00.000000Z"),
                   event(3, "2026-11-22T09:30:00.000000Z"), event(4, "2026-11-22T10:00:00.000000Z")};
  ASSERT_TRUE(events(context_, api_, {.since = *parse_time("2026-11-22T10:00:00Z")}, json()));
  EXPECT_THAT(written(), AllOf(HasSubstr("\"v2\""), HasSubstr("\"v4\""), Not(HasSubstr("\"v1\"")),
                               Not(HasSubstr("\"v3\""))));
}

TEST_F(CommandsTest, FollowShowsWhatComesUntilItIsStopped) {
  std::stop_source stop;
  std::uint64_t calls = 0;
  scene_.before_events = [&] {
    if (++calls == 3) scene_.events.push_back(event(1, "T"));
    if (calls == 6) stop.request_stop();
  };
  const auto result =
      events(context_.with_stop(stop.get_token()), api_, {.follow = true, .wait = Duration(1)}, json());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::cancelled);
  EXPECT_THAT(written(), HasSubstr("v1"));
}

TEST_F(CommandsTest, FollowEndsWhenTheReaderHasGone) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  Output out(writer.get());
  Screen screen{.out = out, .format = Format::json, .width = {}};
  unsigned calls = 0;
  scene_.before_events = [&] {
    if (++calls == 2) reader.reset();
  };
  // The deadline only ends a broken test.
  const auto result = events(context_.with_timeout(std::chrono::seconds(30)), api_,
                             {.follow = true, .wait = Duration(1)}, screen);
  EXPECT_TRUE(result);
  EXPECT_EQ(calls, 2U);
}

TEST_F(CommandsTest, VerifySaysWhatItCounted) {
  scene_.verified = Api::Verified{.count = 3, .first = 1, .last = 3, .head = "abc"};
  ASSERT_TRUE(events_verify(context_, api_, {}, table()));
  EXPECT_EQ(written(), "3 events, numbers 1 to 3: none was removed, changed or reordered\nhead abc\n");
}

TEST_F(CommandsTest, VerifyTellsDamageFromNotBeingAbleToLook) {
  scene_.verified = Error{.code = Code::corrupted, .message = "event 2: it was changed"};
  const auto damaged = events_verify(context_, api_, {}, json());
  ASSERT_TRUE(damaged);
  EXPECT_EQ(*damaged, 1);
  EXPECT_THAT(written(), AllOf(HasSubstr(R"("intact":false)"), HasSubstr("event 2")));
  EXPECT_FALSE(events_verify(context_, api_, {}, table()));
  scene_.verified = Error{.code = Code::io, .message = "cannot read"};
  EXPECT_FALSE(events_verify(context_, api_, {}, json()));
}

PolicyAnswer denied_answer() {
  PolicyAnswer answer{.subject = {.owner = "run", .principal = "team", .role = "web", .user = "root"}};
  answer.decision.volumes = {{.volume = "local/a",
                              .allowed = true,
                              .rule = "web",
                              .line = 7,
                              .why = "rule 'web' (line 7) allows it",
                              .passed_over = {{"rule 'no' (line 2)", "it is about host paths only"}}},
                             {.position = 1, .volume = "nfs/b", .why = "no rule is about it"}};
  return answer;
}

TEST_F(CommandsTest, APolicysDecisionIsExplained) {
  PolicyAnswer answer = denied_answer();
  EXPECT_EQ(*policy_check(answer, table()), 1);
  EXPECT_EQ(written(),
            "denied   for root, user root, role web, principal team\n"
            "allowed  local/a: rule 'web' (line 7) allows it\n"
            "         - rule 'no' (line 2): it is about host paths only\n"
            "denied   nfs/b: no rule is about it\n");
}

TEST_F(CommandsTest, APolicysRefusalOfACallerIsExplained) {
  PolicyAnswer answer{.subject = {.trusted = false, .owner = "uid:1000", .user = "1000"}};
  answer.access = Refusal{.rule = "no rootfs", .error = {.message = "uid 1000 may not"}};
  EXPECT_EQ(*policy_check(answer, table()), 1);
  EXPECT_EQ(written(),
            "denied   for a member of the group (uid:1000), user 1000\n"
            "denied   no rootfs: uid 1000 may not\n"
            "The request has no volume that a policy is about.\n");
}

TEST_F(CommandsTest, APolicysDecisionAsJsonIsExact) {
  EXPECT_EQ(*policy_check(denied_answer(), json()), 1);
  EXPECT_EQ(
      written(),
      R"j({"allowed":false,"caller":"root","owner":"run","user":"root","role":"web","principal":"team",)j"
      R"j("framework":null,"access":null,"volumes":[{"volume":"local/a","allowed":true,"rule":"web","line":7,)j"
      R"j("why":"rule 'web' (line 7) allows it","passed_over":[{"rule":"rule 'no' (line 2)",)j"
      R"j("why":"it is about host paths only"}]},{"volume":"nfs/b","allowed":false,"rule":null,"line":null,)j"
      R"j("why":"no rule is about it","passed_over":[]}]})j"
      "\n");
  PolicyAnswer allowed{.allowed = true};
  EXPECT_EQ(*policy_check(allowed, json()), 0);
}

TEST_F(CommandsTest, DoctorFailsOnAProblemOnly) {
  using Level = Finding::Level;
  const Finding ok{.level = Level::ok, .subject = "root", .text = "yes", .advice = ""};
  const Finding warning{
      .level = Level::warning, .subject = "propagation", .text = "private", .advice = "make it shared"};
  const Finding problem{
      .level = Level::problem, .subject = "driver rc", .text = "silent", .advice = "start it"};
  EXPECT_EQ(*doctor({ok, warning}, table()), 0);
  EXPECT_EQ(written(),
            "ok       root: yes\nwarning  propagation: private\n         -> make it shared\n"
            "2 checks: 0 problems, 1 warnings\n");
  EXPECT_EQ(*doctor({ok, warning, problem}, json()), 1);
  EXPECT_THAT(written(),
              HasSubstr(R"({"healthy":false,"findings":[{"level":"ok","subject":"root","text":"yes",)"
                        R"("advice":null})"));
}

TEST_F(CommandsTest, TablesFitNarrowTerminals) {
  scene_.volumes.volumes = {mounted_volume()};
  scene_.volumes.volumes[0].mount_point = std::string(300, 'x');
  ASSERT_TRUE(volume_list(context_, api_, {}, table(40)));
  EXPECT_THAT(written(), HasSubstr("…"));
}

}  // namespace
}  // namespace dvdi::cli
