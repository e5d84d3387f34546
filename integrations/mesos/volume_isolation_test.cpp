#include "volume_isolation.h"

#include <gmock/gmock.h>

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <thread>

#include "protobuf_test_support.h"

namespace dvdi_mesos {
namespace {

using testing::HasSubstr;
using Kind = Outcome::Kind;

Reply ok(std::string body = "{}") {
  Reply reply;
  reply.body = std::move(body);
  return reply;
}
Reply away() {
  Reply reply;
  reply.code = DVDI_UNAVAILABLE;
  reply.outcome = DVDI_OUTCOME_NOT_SENT;
  reply.text = "nobody listens";
  return reply;
}
Reply broken() {
  Reply reply = away();
  reply.outcome = DVDI_OUTCOME_UNKNOWN;
  reply.text = "the connection broke";
  return reply;
}
Reply refused(const std::string& text) {
  Reply reply;
  reply.code = DVDI_DRIVER_ERROR;
  reply.outcome = DVDI_OUTCOME_REFUSED;
  reply.text = text;
  return reply;
}

const std::string books_empty = R"({"containers":[]})";
const std::string mounts =
    R"({"launch_info":{"clone_namespaces":[131072],"mounts":[{"target":"/t","source":"/s","flags":4096}]}})";

// What a test says dvdid answers, shared with the fake that the object under test owns.
struct Script {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Reply> replies;  // the next ones; then `rest`
  Reply rest = ok();
  bool hold = false;  // calls wait until they are cancelled, or it is false
  std::vector<std::pair<std::string, std::string>> calls;

  void next(Reply reply) {
    const std::lock_guard lock(mutex);
    replies.push_back(std::move(reply));
  }
  void otherwise(Reply reply) {
    const std::lock_guard lock(mutex);
    rest = std::move(reply);
  }
  void wait_for(std::size_t count) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return calls.size() >= count; });
  }
  std::vector<std::pair<std::string, std::string>> so_far() {
    const std::lock_guard lock(mutex);
    return calls;
  }
  std::vector<std::string> paths() {
    const std::lock_guard lock(mutex);
    std::vector<std::string> found;
    for (const auto& call : calls) found.push_back(call.first);
    return found;
  }
};

class FakeDaemon : public Daemon {
 public:
  explicit FakeDaemon(std::shared_ptr<Script> script) : script_(std::move(script)) {}

  Reply call(const char* /*method*/, const std::string& path, const std::string& body,
             std::int64_t /*timeout_ms*/, Cancellation& cancellation) override {
    bool cancelled = false;
    cancellation.ended_by([&] {
      const std::lock_guard lock(script_->mutex);
      cancelled = true;
      script_->changed.notify_all();
    });
    Reply reply;
    {
      std::unique_lock lock(script_->mutex);
      script_->calls.emplace_back(path, body);
      script_->changed.notify_all();
      if (script_->hold) script_->changed.wait(lock, [&] { return cancelled || !script_->hold; });
      if (cancelled) {
        reply.code = DVDI_CANCELLED;
        reply.outcome = DVDI_OUTCOME_UNKNOWN;
      } else if (script_->replies.empty()) {
        reply = script_->rest;
      } else {
        reply = script_->replies.front();
        script_->replies.pop_front();
      }
    }
    cancellation.ended_by(nullptr);
    return reply;
  }
  std::string where() const override { return "/run/fake.sock"; }

 private:
  const std::shared_ptr<Script> script_;
};

class VolumeIsolationTest : public testing::Test {
 protected:
  VolumeIsolationTest() {
    parameters.first_isolator_state.clear();
    make();
  }

  void make() {
    VolumeIsolation::Seams seams;
    seams.warn = [this](const std::string& text) {
      const std::lock_guard lock(script->mutex);
      warnings.push_back(text);
    };
    // Each look at the clock is a second later.
    seams.now = [this] { return start + std::chrono::seconds(looks++); };
    seams.first_wait = seams.longest_wait = std::chrono::milliseconds(1);
    AgentFlags flags;
    flags.work_dir = work_dir;
    flags.sandbox_directory = "/mnt/mesos/sandbox";
    isolation =
        std::make_unique<VolumeIsolation>(parameters, flags, std::make_unique<FakeDaemon>(script), seams);
  }

  static Done into(std::promise<Outcome>& promise) {
    return [&promise](const Outcome& outcome) { promise.set_value(outcome); };
  }
  // What the agent's log has so far: a recovery may still go on beside the test.
  std::vector<std::string> warned() {
    const std::lock_guard lock(script->mutex);
    return warnings;
  }
  // The daemon answers from now on.
  void let_go() {
    const std::lock_guard lock(script->mutex);
    script->hold = false;
    script->changed.notify_all();
  }
  Outcome prepare(const std::string& id, const std::string& config = with_volume) {
    std::promise<Outcome> done;
    isolation->prepare(id, config, into(done));
    return done.get_future().get();
  }
  Outcome isolate(const std::string& id) {
    std::promise<Outcome> done;
    isolation->isolate(id, 42, into(done));
    return done.get_future().get();
  }
  Outcome cleanup(const std::string& id) {
    std::promise<Outcome> done;
    isolation->cleanup(id, into(done));
    return done.get_future().get();
  }
  Outcome recover(const std::vector<std::string>& states, const std::vector<std::string>& orphans = {}) {
    std::promise<Outcome> done;
    isolation->recover(states, orphans, into(done));
    return done.get_future().get();
  }

  static inline const std::string with_volume =
      R"({"directory":"/w/slaves/S/frameworks/F/executors/e/runs/a","command_info":{},"container_info":{"type":"MESOS",
          "volumes":[{"container_path":"d","mode":"RW","source":{"type":"DOCKER_VOLUME","docker_volume":{"driver":"x","name":"n"}}}]}})";
  static inline const std::string without = R"({"directory":"/w","command_info":{}})";
  static inline const std::string a = R"({"value":"a"})";
  static inline const std::string live_a =
      R"({"container_id":{"value":"a"},"pid":7,"directory":"/w/containers/a","container_info":{"type":"MESOS",
          "volumes":[{"container_path":"d","mode":"RW","source":{"type":"DOCKER_VOLUME","docker_volume":{"driver":"x","name":"n"}}}]}})";
  static inline const std::string live_b =
      R"({"container_id":{"value":"b"},"pid":8,"directory":"/w/containers/b","container_info":{"type":"MESOS"}})";

  const std::shared_ptr<Script> script = std::make_shared<Script>();
  std::vector<std::string> warnings;
  const std::chrono::steady_clock::time_point start{};
  std::atomic<int> looks{0};
  std::string work_dir = "/not/there/w";
  Parameters parameters;
  std::unique_ptr<VolumeIsolation> isolation;  // last: it goes first
};

TEST_F(VolumeIsolationTest, TheLifeOfAContainer) {
  script->next(ok(mounts));
  const Outcome prepared = prepare(a);
  ASSERT_EQ(prepared.kind, Kind::done) << prepared.text;
  EXPECT_TRUE(prepared.has_launch_info);
  EXPECT_EQ(prepared.launch_info.mounts.at(0).target, "/t");
  EXPECT_EQ(isolate(a).kind, Kind::done);
  EXPECT_EQ(cleanup(a).kind, Kind::done);
  EXPECT_EQ(script->paths(), (std::vector<std::string>{"/v1/prepare", "/v1/isolate", "/v1/cleanup"}));
  EXPECT_THAT(script->so_far()[1].second, HasSubstr(R"("owner":"/not/there/w")"));
  // Once it is over, nobody needs to be asked again.
  EXPECT_EQ(cleanup(a).kind, Kind::done);
  EXPECT_EQ(script->so_far().size(), 3U);
}

TEST_F(VolumeIsolationTest, WithoutExternalVolumesDvdidIsNeverAsked) {
  script->otherwise(away());
  const Outcome prepared = prepare(a, without);
  EXPECT_EQ(prepared.kind, Kind::done);
  EXPECT_FALSE(prepared.has_launch_info);
  EXPECT_EQ(isolate(a).kind, Kind::done);
  EXPECT_EQ(cleanup(a).kind, Kind::done);
  EXPECT_EQ(cleanup(R"({"value":"never-prepared","parent":{"value":"a"}})").kind, Kind::done);
  EXPECT_TRUE(script->paths().empty());
}

TEST_F(VolumeIsolationTest, VolumesForTheHostOnlyNeedNoLaunchInfo) {
  script->next(ok(R"({"launch_info":{}})"));
  const Outcome prepared = prepare(a);
  EXPECT_EQ(prepared.kind, Kind::done);
  EXPECT_FALSE(prepared.has_launch_info);
}

TEST_F(VolumeIsolationTest, AwayAtPrepareIsAFailureThatSaysSoAndItsCleanupNeedsNobody) {
  script->otherwise(away());
  const Outcome prepared = prepare(a);
  EXPECT_EQ(prepared.kind, Kind::failed);
  EXPECT_THAT(prepared.text, HasSubstr("dvdid is away"));
  EXPECT_THAT(prepared.text, HasSubstr("/run/fake.sock"));
  EXPECT_EQ(cleanup(a).kind, Kind::done);
  EXPECT_EQ(script->so_far().size(), 1U);
}

TEST_F(VolumeIsolationTest, ARefusedPrepareIsAFailureAndIsCleanedUp) {
  script->next(refused("no space"));
  const Outcome prepared = prepare(a);
  EXPECT_EQ(prepared.kind, Kind::failed);
  EXPECT_THAT(prepared.text, HasSubstr("no space"));
  EXPECT_EQ(cleanup(a).kind, Kind::done);
  EXPECT_EQ(script->paths().back(), "/v1/cleanup");
}

TEST_F(VolumeIsolationTest, ADaemonThatIsRestartedInTheMiddleIsAskedOnceMore) {
  script->next(broken());
  script->next(ok(mounts));
  EXPECT_EQ(prepare(a).kind, Kind::done);
  script->next(broken());
  EXPECT_EQ(isolate(a).kind, Kind::done);
  EXPECT_EQ(script->paths(),
            (std::vector<std::string>{"/v1/prepare", "/v1/prepare", "/v1/isolate", "/v1/isolate"}));
}

TEST_F(VolumeIsolationTest, APrepareOfWhichNothingIsKnownIsCleanedUp) {
  script->next(broken());
  script->next(away());
  EXPECT_EQ(prepare(a).kind, Kind::failed);
  EXPECT_EQ(cleanup(a).kind, Kind::done);
  EXPECT_EQ(script->paths().back(), "/v1/cleanup");
}

TEST_F(VolumeIsolationTest, AMountThatNoLauncherCanMakeIsAFailure) {
  script->next(ok(R"({"launch_info":{"mounts":[{"target":"t","source":"/s","flags":1}]}})"));
  EXPECT_EQ(prepare(a).kind, Kind::failed);
}

TEST_F(VolumeIsolationTest, GivingUpCancelsTheCall) {
  script->hold = true;
  std::promise<Outcome> done;
  const Call call = isolation->prepare(a, with_volume, into(done));
  script->wait_for(1);
  call->cancel();
  EXPECT_EQ(done.get_future().get().kind, Kind::discarded);
}

TEST_F(VolumeIsolationTest, NoCallWaitsAndTheEndCancelsWhatRuns) {
  script->hold = true;
  std::vector<std::promise<Outcome>> done(40);
  for (std::size_t i = 0; i < done.size(); ++i) {
    isolation->prepare(R"({"value":"c)" + std::to_string(i) + R"("})", with_volume,
                       [&, i](const Outcome& outcome) { done[i].set_value(outcome); });
  }
  script->wait_for(parameters.threads);
  isolation.reset();  // the others are dropped
  EXPECT_EQ(script->so_far().size(), parameters.threads);
}

TEST_F(VolumeIsolationTest, CleanupIsRepeatedUntilItIsDone) {
  script->next(ok(mounts));
  prepare(a);
  for (int i = 0; i < 5; ++i) script->next(i % 2 == 0 ? away() : refused("a nested container"));
  EXPECT_EQ(cleanup(a).kind, Kind::done);
  EXPECT_EQ(script->so_far().size(), 7U);
  EXPECT_THAT(warned().at(0), HasSubstr("the cleanup of container a is tried again: dvdid is away"));
}

TEST_F(VolumeIsolationTest, WithCleanupWaitItGoesOnWithoutItsCaller) {
  parameters.cleanup_wait_ms = 3000;
  make();
  script->next(ok(mounts));
  prepare(a);
  script->otherwise(away());
  EXPECT_EQ(cleanup(a).kind, Kind::done);
  const std::size_t so_far = script->paths().size();
  EXPECT_GE(so_far, 3U);
  script->wait_for(so_far + 2);
}

TEST_F(VolumeIsolationTest, RecoverWaitsForTheDaemonIfALiveContainerHasExternalVolumes) {
  script->next(away());
  script->next(away());
  script->next(ok(books_empty));
  EXPECT_EQ(recover({live_b, live_a}, {R"({"value":"o"})"}).kind, Kind::done);
  EXPECT_EQ(script->paths(),
            (std::vector<std::string>{"/v1/containers", "/v1/containers", "/v1/containers", "/v1/recover"}));
  const std::string sent = script->so_far().back().second;
  EXPECT_THAT(sent, HasSubstr(R"("complete":true)"));
  EXPECT_THAT(sent, HasSubstr(R"({"value":"o"})"));
  // b has no volumes and is not in the books: there nobody would take it out again.
  EXPECT_THAT(sent, testing::Not(HasSubstr(R"({"value":"b"})")));
  EXPECT_EQ(cleanup(a).kind, Kind::done);
  EXPECT_EQ(script->paths().back(), "/v1/cleanup");
}

TEST_F(VolumeIsolationTest, RecoverFailsAfterItsWaitAndSaysWhatToDo) {
  script->otherwise(away());
  const Outcome outcome = recover({live_a});
  EXPECT_EQ(outcome.kind, Kind::failed);
  EXPECT_THAT(outcome.text, HasSubstr("1 live container of this agent (a) with external volumes"));
  EXPECT_THAT(outcome.text, HasSubstr("systemctl start dvdid.socket"));
  EXPECT_THAT(outcome.text, HasSubstr("recover_wait"));
  EXPECT_GE(looks, 60);
}

TEST_F(VolumeIsolationTest, RecoverDoesNotWaitForWhatNoWaitingCures) {
  script->otherwise(refused("not root"));
  EXPECT_EQ(recover({live_a}).kind, Kind::failed);
  EXPECT_EQ(script->so_far().size(), 1U);
}

TEST_F(VolumeIsolationTest, RecoverWithoutExternalVolumesDoesNotWaitButIsMadeUpFor) {
  script->hold = true;  // a daemon that is there and does not answer
  EXPECT_EQ(recover({live_b}, {R"({"value":"o"})"}).kind, Kind::done);
  script->wait_for(1);
  // An orphan and a live one end meanwhile: dvdid may have them, so their cleanup waits for its answer.
  std::promise<Outcome> orphan, live, again;
  isolation->cleanup(R"({"value":"o"})", into(orphan));
  isolation->cleanup(R"({"value":"b"})", into(live));
  isolation->cleanup(R"({"value":"b"})", into(again));
  EXPECT_EQ(cleanup(R"({"value":"neither"})").kind, Kind::done) << "that one dvdid cannot have";
  auto first = live.get_future(), second = again.get_future();
  auto third = orphan.get_future();
  EXPECT_EQ(third.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  EXPECT_EQ(first.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  EXPECT_EQ(second.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  script->next(ok(R"({"containers":[{"owner":"/not/there/w","id":"o"},{"owner":"run","id":"b"}]})"));
  let_go();
  EXPECT_EQ(first.get().kind, Kind::done);
  EXPECT_EQ(second.get().kind, Kind::done);
  EXPECT_EQ(third.get().kind, Kind::done);
  EXPECT_EQ(script->paths(), (std::vector<std::string>{"/v1/containers", "/v1/recover", "/v1/cleanup"}));
  EXPECT_THAT(script->so_far()[1].second, HasSubstr(R"("containers":[])"));
  EXPECT_THAT(script->so_far()[2].second, HasSubstr(R"({"value":"o"})"));
}

TEST_F(VolumeIsolationTest, ACleanupDoesNotWaitForADaemonThatIsAway) {
  script->hold = true;
  EXPECT_EQ(recover({live_b}).kind, Kind::done);
  script->wait_for(1);
  std::promise<Outcome> live;
  isolation->cleanup(R"({"value":"b"})", into(live));
  script->otherwise(away());
  let_go();
  EXPECT_EQ(live.get_future().get().kind, Kind::done);
}

TEST_F(VolumeIsolationTest, ACleanupDoesNotWaitWhereTheOwnerIsNotKnown) {
  work_dir.clear();
  make();
  EXPECT_EQ(recover({}, {R"({"value":"o"})"}).kind, Kind::done);
  EXPECT_EQ(cleanup(R"({"value":"o"})").kind, Kind::done);
  EXPECT_TRUE(script->paths().empty());
}

TEST_F(VolumeIsolationTest, APrepareWaitsForTheRecoveryNoLongerThanItMayTake) {
  parameters.prepare_timeout_ms = 1;
  make();
  script->hold = true;
  EXPECT_EQ(recover({live_b}).kind, Kind::done);
  script->wait_for(1);
  EXPECT_THAT(prepare(a).text, HasSubstr("still being told of the agent's restart"));
  EXPECT_EQ(script->paths(), std::vector<std::string>{"/v1/containers"});
}

TEST_F(VolumeIsolationTest, AGivenUpPrepareDoesNotWaitForTheRecovery) {
  parameters.prepare_timeout_ms = std::int64_t{24} * 3600 * 1000;
  make();
  script->hold = true;
  EXPECT_EQ(recover({live_b}).kind, Kind::done);
  script->wait_for(1);
  std::promise<Outcome> done;
  const int before = looks;
  const Call call = isolation->prepare(a, with_volume, into(done));
  while (looks < before + 2) std::this_thread::yield();  // it waits, and looks at the clock
  call->cancel();
  EXPECT_EQ(done.get_future().get().kind, Kind::discarded);
}

TEST_F(VolumeIsolationTest, RecoverFailsWhereTheOwnerIsNotKnown) {
  work_dir.clear();
  make();
  const Outcome outcome = recover({R"({"container_id":{"value":"a"},"directory":"/x",)" +
                                   live_a.substr(live_a.find("\"container_info\""))});
  EXPECT_EQ(outcome.kind, Kind::failed);
  EXPECT_THAT(outcome.text, HasSubstr("work_dir"));
}

TEST_F(VolumeIsolationTest, ALiveContainerThatOnlyTheBooksKnowIsRecoveredAndCleanedUp) {
  script->next(ok(R"({"containers":[{"owner":"/not/there/w","id":"b"}]})"));
  EXPECT_EQ(recover({live_b}).kind, Kind::done);
  script->wait_for(2);
  EXPECT_THAT(script->so_far()[1].second, HasSubstr(R"({"value":"b"})"));
  script->otherwise(ok());
  std::promise<Outcome> done;
  isolation->cleanup(R"({"value":"b"})", into(done));
  done.get_future().wait();
  script->wait_for(3);
  EXPECT_EQ(script->paths().back(), "/v1/cleanup");
}

TEST_F(VolumeIsolationTest, NoPrepareBeforeTheRecoveryThatIsOwed) {
  script->otherwise(away());
  EXPECT_EQ(recover({}, {R"({"value":"o"})"}).kind, Kind::done);
  EXPECT_EQ(prepare(a).kind, Kind::failed);
  for (const std::string& path : script->paths()) EXPECT_EQ(path, "/v1/containers");
  EXPECT_EQ(cleanup(a).kind, Kind::done);
  script->otherwise(ok(books_empty));
  EXPECT_EQ(prepare(a).kind, Kind::failed);  // an answer to prepare it is not
  EXPECT_EQ(script->paths().back(), "/v1/prepare");
}

// The list of mounts that the first isolator left.
class FormerStateTest : public VolumeIsolationTest {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "dvdi-former-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    parameters.first_isolator_state = folder + "/dvdimounts.pb";
    make();
  }
  void TearDown() override {
    isolation.reset();  // its recovery may still set the list aside
    std::filesystem::remove_all(folder);
  }

  void former(const std::vector<std::string>& containers) {
    std::ofstream file(parameters.first_isolator_state, std::ios::binary);
    for (const std::string& one : containers) {
      file << field(1, field(1, one) + field(2, "x") + field(3, "old-" + one) + field(4, "/mnt/old-" + one) +
                           field(5, "size=5,plain,iops=1=2") + field(6, "/old"));
    }
  }
  bool is_set_aside() const {
    return !std::filesystem::exists(parameters.first_isolator_state) &&
           std::filesystem::exists(parameters.first_isolator_state + ".adopted");
  }
  static std::string adopted(const std::vector<std::string>& results) {
    std::string made;
    for (const std::string& one : results)
      made += (made.empty() ? "" : ",") + (R"({"result":")" + one + R"(","reason":"why"})");
    return R"({"mounts":[)" + made + "]}";
  }

  std::string folder;
};

TEST_F(FormerStateTest, IsAdoptedBeforeTheRecoveryAndSetAside) {
  former({"b", "dead", "a", "b"});
  script->next(ok(books_empty));
  script->next(ok(adopted({"found", "found", "absent", "known"})));
  EXPECT_EQ(recover({live_b, live_a}).kind, Kind::done);
  EXPECT_EQ(script->paths(), (std::vector<std::string>{"/v1/containers", "/v1/adopt", "/v1/recover"}));
  EXPECT_THAT(script->so_far()[1].second,
              HasSubstr(R"({"driver":"x","mount_point":"/mnt/old-b","name":"old-b"})"));
  EXPECT_THAT(script->so_far()[1].second, HasSubstr(R"("from":")" + parameters.first_isolator_state));
  const std::string sent = script->so_far()[2].second;
  EXPECT_THAT(sent, HasSubstr(R"({"value":"b"})")) << "only the list knows that it has a volume";
  EXPECT_THAT(sent, HasSubstr("old-b"));
  EXPECT_THAT(sent, HasSubstr("old-a"));
  EXPECT_THAT(sent, HasSubstr(R"({"key":"iops","value":"1=2"})"));
  EXPECT_EQ(sent.find("old-b"), sent.rfind("old-b")) << "once";
  EXPECT_THAT(sent, testing::Not(HasSubstr("dead")));
  EXPECT_TRUE(is_set_aside());
  ASSERT_EQ(warned().size(), 3U);
  EXPECT_THAT(warned()[0], HasSubstr("has 4 mounts"));
  EXPECT_THAT(warned()[1], HasSubstr("`dvdi volume release x/old-dead`"));
  EXPECT_THAT(
      warned()[2],
      HasSubstr("'old-a' of driver 'x' at '/mnt/old-a' for container a, and dvdid has not adopted it: why"));
  EXPECT_EQ(cleanup(R"({"value":"b"})").kind, Kind::done);
  EXPECT_EQ(script->paths().back(), "/v1/cleanup");
  // And never again.
  make();
  EXPECT_EQ(recover({live_b}).kind, Kind::done);
}

TEST_F(FormerStateTest, ItIsKeptUntilDvdidHasIt) {
  former({"b"});
  script->otherwise(away());
  EXPECT_EQ(recover({live_b}).kind, Kind::failed);
  EXPECT_FALSE(is_set_aside());
  make();
  script->otherwise(ok());
  script->next(ok(books_empty));
  script->next(ok(adopted({"found"})));
  EXPECT_EQ(recover({live_b}).kind, Kind::done);
  EXPECT_TRUE(is_set_aside());
}

TEST_F(FormerStateTest, WithoutALiveContainerNobodyWaitsForIt) {
  former({"dead"});
  script->hold = true;
  EXPECT_EQ(recover({live_b}).kind, Kind::done);
  script->next(ok(books_empty));
  script->next(ok(adopted({"found"})));
  let_go();
  script->wait_for(2);
  EXPECT_EQ(script->paths(), (std::vector<std::string>{"/v1/containers", "/v1/adopt"}));
}

TEST_F(FormerStateTest, ADamagedOneKeepsTheAgentFromComingUp) {
  std::ofstream(parameters.first_isolator_state) << "no list";
  const Outcome outcome = recover({});
  EXPECT_EQ(outcome.kind, Kind::failed);
  EXPECT_THAT(outcome.text, HasSubstr(parameters.first_isolator_state));
  EXPECT_THAT(outcome.text, HasSubstr("first_isolator_state"));
  EXPECT_TRUE(script->paths().empty());
  EXPECT_FALSE(is_set_aside());
}

TEST_F(FormerStateTest, WhatDvdidRefusesNamesTheListAndWhatToDo) {
  former({"b"});
  script->next(ok(books_empty));
  script->next(refused("no such thing"));
  const Outcome outcome = recover({live_b});
  EXPECT_EQ(outcome.kind, Kind::failed);
  EXPECT_THAT(outcome.text, HasSubstr(parameters.first_isolator_state));
  EXPECT_THAT(outcome.text, HasSubstr("first_isolator_state to none"));
}

TEST_F(FormerStateTest, OneThatIsNotThereIsNamedWhereItWasAskedFor) {
  script->hold = true;  // the recovery that goes on beside the test says nothing, also when it is ended
  EXPECT_EQ(recover({}).kind, Kind::done);
  script->wait_for(1);
  EXPECT_TRUE(warned().empty());
  parameters.first_isolator_state_given = true;
  make();
  EXPECT_EQ(recover({}).kind, Kind::done);
  ASSERT_EQ(warned().size(), 1U);
  EXPECT_THAT(warned()[0], HasSubstr("there is no list"));
}

TEST_F(FormerStateTest, AnAnswerThatSaysNotOfEachMountEndsIt) {
  former({"b"});
  script->next(ok(books_empty));
  script->next(ok(adopted({})));
  EXPECT_EQ(recover({live_b}).kind, Kind::failed);
  EXPECT_FALSE(is_set_aside());
}

TEST_F(VolumeIsolationTest, WhatIsMissingAfterARecoverIsInTheLog) {
  script->next(ok(books_empty));
  script->next(ok(
      R"({"missing":[{"id":"a","driver":"x","volume":"n","reason":"no mount of it is known"}],"warnings":["odd"]})"));
  EXPECT_EQ(recover({live_a}).kind, Kind::done);
  ASSERT_EQ(warned().size(), 2U);
  EXPECT_THAT(warned()[0], HasSubstr("volume 'n' of driver 'x', which live container a has"));
  EXPECT_EQ(warned()[1], "odd");
}

TEST_F(VolumeIsolationTest, TheWorkDirectoryOfTheFirstSandbox) {
  work_dir.clear();
  make();
  EXPECT_EQ(recover({}).kind, Kind::done);
  script->next(ok(books_empty));
  script->next(ok(mounts));
  EXPECT_EQ(prepare(a).kind, Kind::done);
  EXPECT_THAT(script->so_far().back().second, HasSubstr(R"("owner":"/w")"));
  make();
  const Outcome unknown =
      prepare(a, R"({"directory":"/x",)" + with_volume.substr(with_volume.find("\"command_info\"")));
  EXPECT_THAT(unknown.text, HasSubstr("work_dir"));
}

}  // namespace
}  // namespace dvdi_mesos
