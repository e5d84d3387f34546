#include "daemon/reconciler.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "linux/fuse_test_server.h"
#include "linux/waiting_child_test.h"
#include "volume/manager_test_support.h"

namespace dvdi {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using test::WaitingChild;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using volume::Fault;

class ReconcilerTest : public volume::ManagerTest {
 protected:
  void TearDown() override {
    reconciler.reset();
    ManagerTest::TearDown();
  }
  void start() {
    reconciler = std::make_unique<Reconciler>(
        Reconciler::Parts{
            .volumes = *manager,
            .ledger = *ledger,
            .clock = clock,
            .cleanup = [this](const Context& at, const ContainerKey& key) { return clean_up(at, key); },
            .let_go = [this](const Context&, const VolumeKey&) -> Status {
              const Lock lock(mutex);
              if (!held) return {};
              return Error{.code = Code::failed_precondition, .message = "told to hold on"};
            },
            .tidy = [this](const Context&) { return tidy(); },
            .say =
                [this](std::string sentence) {
                  const Lock lock(mutex);
                  said_.push_back(std::move(sentence));
                }},
        limits);
    const auto started = reconciler->start();
    ASSERT_TRUE(started) << started.error().text();
    quiet();
  }
  Result<std::vector<isolator::Owed>> clean_up(const Context& at, const ContainerKey& key) {
    {
      const Lock lock(mutex);
      cleaned_.push_back(key.id);
      if (failures > 0) {
        --failures;
        return Error{.code = Code::io, .message = "told to fail"};
      }
    }
    return manager->release(at, key, "");
  }
  std::vector<std::string> tidy() {
    {
      const Lock lock(mutex);
      ++tidied_;
      if (std::exchange(tidying_fails, false)) return {"told to leave it"};
    }
    const auto written =
        ledger->write(context(), "take what is staged", [&](Transaction& transaction) -> Status {
          DVDI_TRY(const auto rows, transaction.staged());
          for (const StagedRow& row : rows) DVDI_CHECK(transaction.erase_staged(row.container, row.position));
          return {};
        });
    EXPECT_TRUE(written);
    return {};
  }
  // It has seen what there is, and nothing is running.
  void quiet() {
    reconciler->wake();
    const auto is = reconciler->wait_until_quiet(Context().with_timeout(minutes(1)));
    ASSERT_TRUE(is) << is.error().text();
  }
  void eventually(const std::function<bool()>& so) {
    const Context limit = Context().with_timeout(minutes(1));
    while (!so()) {
      if (!limit.check("wait")) FAIL() << "it never came to that";
      std::this_thread::yield();
    }
  }
  std::vector<std::string> said() {
    const Lock lock(mutex);
    return said_;
  }
  unsigned tidied() {
    const Lock lock(mutex);
    return tidied_;
  }
  std::vector<std::string> cleaned() {
    const Lock lock(mutex);
    return cleaned_;
  }
  void owe(const std::string& driver, const std::string& name, Fault fault = Fault::refuse) {
    ASSERT_TRUE(acquire("c-" + driver + name, {want_of(driver, name)}));
    drivers.at(driver)->fail(Operation::unmount, name, fault);
    const auto owed = release("c-" + driver + name);
    ASSERT_TRUE(owed);
    ASSERT_THAT(*owed, SizeIs(1));
  }
  void prepare(const std::string& id, const ProcessIdentity& worker, const std::string& owner = "run") {
    volume::Holder one = holder(id);
    one.key.owner = owner;
    one.worker = worker;
    const auto mounted = manager->acquire(context(), one, {want(id)});
    ASSERT_TRUE(mounted) << mounted.error().text();
  }
  std::optional<ContainerState> state_of(const std::string& id, const std::string& owner = "run") {
    std::optional<ContainerState> state;
    const auto read = ledger->read(context(), "test", [&](Reader& reader) -> Status {
      DVDI_TRY(const auto found, reader.container({owner, id}));
      if (found) state = found->state;
      return {};
    });
    EXPECT_TRUE(read);
    return state;
  }
  bool ended(const std::string& id, const std::string& owner = "run") {
    return state_of(id, owner) == ContainerState::ended;
  }

  Reconciler::Limits limits;
  std::unique_ptr<Reconciler> reconciler;
  Mutex mutex;
  unsigned failures = 0;
  bool tidying_fails = false;  // once
  bool held = false;           // a mount of ours shows every volume still

 private:
  unsigned tidied_ = 0;
  std::vector<std::string> said_, cleaned_;
};

TEST_F(ReconcilerTest, WithNothingToDoItSleepsWithoutAnEnd) {
  start();
  ASSERT_TRUE(acquire("c1", {want("a")}));
  quiet();
  // What it has just done, it does not do again at once: that wait passes.
  eventually([&] { return !reconciler->now().next && reconciler->now().running == 0; });
  EXPECT_THAT(said(), IsEmpty());
  EXPECT_TRUE(mounted_in_kernel("a"));
}

TEST_F(ReconcilerTest, ADebtIsPaidWhenItIsDueAndNotBefore) {
  start();
  owe("fake", "a");
  const BootTime due = debt("a")->next_try.boot;
  quiet();
  ASSERT_TRUE(debt("a"));
  ASSERT_TRUE(reconciler->now().next);
  EXPECT_LE(*reconciler->now().next, due);
  clock.advance(seconds(1));
  quiet();
  expect_nothing_left();
  EXPECT_THAT(said(), Contains(HasSubstr("fake/a: an unmount that was owed: settled")));
}

TEST_F(ReconcilerTest, AVolumeThatAMountOfOursShowsIsNotUnmounted) {
  start();
  owe("fake", "a");
  {
    const Lock lock(mutex);
    held = true;
  }
  const unsigned attempts = debt("a")->attempts;
  clock.advance(seconds(1));
  quiet();
  ASSERT_TRUE(debt("a"));
  EXPECT_EQ(debt("a")->attempts, attempts);
  EXPECT_THAT(said(), Contains(HasSubstr("fake/a: told to hold on")));
  {
    const Lock lock(mutex);
    held = false;
  }
  clock.advance(minutes(10));
  quiet();
  expect_nothing_left();
}

// Nobody wakes it but its timer.
TEST_F(ReconcilerTest, ItWakesByItselfForADebt) {
  policy.debt_backoff = std::chrono::milliseconds(20);
  restart();
  start();
  owe("fake", "a");
  reconciler->wake();  // as the engine does after a cleanup
  eventually([&] { return !debt("a"); });
  expect_nothing_left();
}

TEST_F(ReconcilerTest, ADriverThatHangsDelaysOnlyItsOwn) {
  add_driver("other");
  for (int i = 0; i < 10; ++i) {
    const std::string name = "v" + std::to_string(i);
    owe("fake", name);
    fake->hold(Operation::unmount, name);
  }
  owe("other", "b");
  clock.advance(minutes(1));
  reconciler = nullptr;
  limits.workers.per_driver = 4;
  reconciler = std::make_unique<Reconciler>(
      Reconciler::Parts{
          .volumes = *manager,
          .ledger = *ledger,
          .clock = clock,
          .cleanup = [this](const Context& at, const ContainerKey& key) { return clean_up(at, key); },
          .say = [](const std::string&) {}},
      limits);
  ASSERT_TRUE(reconciler->start());
  fake->wait_until_held(4);
  eventually([&] { return drivers["other"]->users("b").empty(); });
  EXPECT_EQ(fake->calls(Operation::unmount), 10U + 4U) << "four at once, of one driver";
  fake->let_go();
  eventually([&] { return rows_in("debts") == 0; });
  ASSERT_TRUE(reconciler->wait_until_quiet(Context().with_timeout(minutes(1))));
  expect_nothing_left();
  EXPECT_LE(fake->most_at_once(), 4U);
}

TEST_F(ReconcilerTest, WhatATaskHadIsReleasedWhenItEnds) {
  WaitingChild init;
  start();
  prepare("c1", *identify_process(::getpid()));
  ASSERT_TRUE(manager->started(context(), container("c1"), init.identity(), true));
  quiet();
  EXPECT_EQ(reconciler->now().watched, 1U);
  EXPECT_THAT(cleaned(), IsEmpty());
  init.end();
  eventually([&] { return ended("c1"); });
  quiet();
  EXPECT_EQ(reconciler->now().watched, 0U);
  EXPECT_THAT(cleaned(), ElementsAre("c1"));
  EXPECT_THAT(said(), IsEmpty()) << "as it should be";
  expect_nothing_left();
}

TEST_F(ReconcilerTest, ATaskThatNobodyAskedToWatchIsLeftToItsOwner) {
  WaitingChild init;
  prepare("c1", init.identity(), "agent");
  ASSERT_TRUE(manager->started(context(), {"agent", "c1"}, init.identity(), false));
  init.end();
  start();
  EXPECT_EQ(state_of("c1", "agent"), ContainerState::running);
  EXPECT_THAT(cleaned(), IsEmpty());
}

// A daemon that was restarted watches what the one before it watched.
TEST_F(ReconcilerTest, ATaskThatEndedMeanwhileIsReleasedAtTheStart) {
  WaitingChild init;
  prepare("c1", init.identity(), "agent");
  ASSERT_TRUE(manager->started(context(), {"agent", "c1"}, init.identity(), true));
  init.end();
  start();
  EXPECT_TRUE(ended("c1", "agent"));
}

TEST_F(ReconcilerTest, ACommandThatIsKilledBeforeItsTaskRunsIsCleanedUpAfter) {
  WaitingChild command;
  start();
  prepare("c1", command.identity());
  quiet();
  EXPECT_EQ(reconciler->now().watched, 1U);
  command.end();
  eventually([&] { return ended("c1"); });
  quiet();
  EXPECT_THAT(said(), Contains(HasSubstr("container run/c1, whose command was killed, was cleaned up")));
  expect_nothing_left();
}

TEST_F(ReconcilerTest, ATaskThatOutlivesItsCommandKeepsItsVolumes) {
  WaitingChild command;
  WaitingChild init;
  start();
  prepare("c1", command.identity());
  ASSERT_TRUE(manager->started(context(), container("c1"), init.identity(), false));
  command.end();
  quiet();
  EXPECT_EQ(state_of("c1"), ContainerState::running);
  EXPECT_TRUE(mounted_in_kernel("c1"));
  init.end();
  eventually([&] { return ended("c1"); });
}

TEST_F(ReconcilerTest, ACleanupThatFailsIsTriedAgainLater) {
  WaitingChild command;
  failures = 2;
  start();
  prepare("c1", command.identity());
  command.end();
  quiet();
  EXPECT_THAT(cleaned(), SizeIs(1));
  EXPECT_THAT(said(), Contains(HasSubstr("could not be cleaned up: told to fail")));
  quiet();
  EXPECT_THAT(cleaned(), SizeIs(1)) << "not before its time";
  ASSERT_TRUE(reconciler->now().next);
  clock.advance(limits.workers.backoff);
  quiet();
  EXPECT_THAT(cleaned(), SizeIs(2));
  clock.advance(limits.workers.backoff);
  quiet();
  EXPECT_THAT(cleaned(), SizeIs(2)) << "the second wait is longer";
  clock.advance(limits.workers.backoff);
  quiet();
  EXPECT_THAT(cleaned(), SizeIs(3));
  EXPECT_TRUE(ended("c1"));
}

// Killed between the two transactions of a cleanup.
TEST_F(ReconcilerTest, AnInterruptedCleanupIsFinishedAtTheStart) {
  for (const std::string owner : {"run", "agent"}) {
    prepare("c-" + owner, *identify_process(::getpid()), owner);
    put([&](Transaction& transaction) -> Status {
      DVDI_TRY(auto found, transaction.container({owner, "c-" + owner}));
      found->state = ContainerState::cleaning;
      return transaction.put(*found);
    });
  }
  start();
  EXPECT_TRUE(ended("c-run"));
  EXPECT_TRUE(ended("c-agent", "agent"));
}

TEST_F(ReconcilerTest, WhatDvdcliMountedStaysAndItsInterruptedUnmountTakesNothing) {
  ProcessIdentity gone = *identify_process(::getpid());
  gone.start_ticks += 1;
  prepare("stays", gone, "dvdcli");
  prepare("left", gone, "dvdcli");
  ASSERT_TRUE(manager->release(context(), {"dvdcli", "left"}, {}));
  put([&](Transaction& transaction) -> Status {
    DVDI_TRY(auto found, transaction.container({"dvdcli", "left"}));
    found->state = ContainerState::cleaning;
    found->ended.reset();
    return transaction.put(*found);
  });
  start();
  EXPECT_EQ(state_of("stays", "dvdcli"), ContainerState::prepared);
  EXPECT_TRUE(ended("left", "dvdcli"));
  EXPECT_THAT(cleaned(), IsEmpty()) << "a cleanup would take it from who mounts it just now";
  ASSERT_TRUE(manager->release(context(), {"dvdcli", "stays"}, {}));
}

TEST_F(ReconcilerTest, ACleanupThatIsUnderWayIsLeftAlone) {
  start();
  prepare("c1", *identify_process(::getpid()));
  put([&](Transaction& transaction) -> Status {
    DVDI_TRY(auto found, transaction.container(container("c1")));
    found->state = ContainerState::cleaning;
    return transaction.put(*found);
  });
  quiet();
  EXPECT_THAT(cleaned(), IsEmpty());
  ASSERT_TRUE(reconciler->now().next);
  clock.advance(hours(1));
  quiet();
  EXPECT_THAT(cleaned(), ElementsAre("c1")) << "no cleanup takes that long";
}

TEST_F(ReconcilerTest, WhatIsLeftBehindIsLookedForOnceAndTakenUntilItIsGone) {
  start();
  quiet();
  EXPECT_EQ(tidied(), 1U);
  tidying_fails = true;
  const auto left = ledger->write(context(), "leave a staged mount", [&](Transaction& transaction) {
    return transaction.put(
        StagedRow{.container = {"agent", "gone"}, .path = "/x", .since = transaction.now()});
  });
  ASSERT_TRUE(left);
  quiet();
  EXPECT_EQ(tidied(), 2U);
  EXPECT_THAT(said(), Contains(HasSubstr("told to leave it")));
  quiet();
  EXPECT_EQ(tidied(), 2U) << "again before its time";
  clock.advance(limits.workers.backoff);
  quiet();
  EXPECT_EQ(tidied(), 3U);
  clock.advance(minutes(10));
  quiet();
  EXPECT_EQ(tidied(), 3U);
}

TEST_F(ReconcilerTest, EndedContainersAreForgotten) {
  start();
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(release("c1"));
  quiet();
  ASSERT_TRUE(container_row("c1"));
  ASSERT_TRUE(reconciler->now().next);
  clock.advance(hours(2));
  quiet();
  EXPECT_FALSE(container_row("c1"));
  EXPECT_FALSE(reconciler->now().next);
}

TEST_F(ReconcilerTest, AParkedDebtWhoseMountGoesIsNoticedAtOnce) {
  policy.unmount_attempts = 1;
  restart();
  owe("fake", "a");
  start();
  ASSERT_TRUE(debt("a")->parked);
  // Only the kernel tells it.
  ASSERT_EQ(::umount2(fake->mount_point("a").c_str(), 0), 0);
  eventually([&] { return !debt("a"); });
}

TEST_F(ReconcilerTest, AMountThatVanishesIsLostAtOnce) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  start();
  // Only the kernel tells it.
  ASSERT_EQ(::umount2(fake->mount_point("a").c_str(), 0), 0);
  eventually([&] { return row("a")->state == MountState::unknown; });
  quiet();
  EXPECT_EQ(row("a")->pending, MountRow::Pending::lost);
  EXPECT_THAT(said(), ElementsAre("mounts are lost: fake/a"));
}

// The mount stays in the kernel's table: only who asks learns of it.
TEST_F(ReconcilerTest, AServerThatDiesIsNoticedByAskingAndNobodyIsAskedWithoutOne) {
  if (::access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << os_error("/dev/fuse", errno).message;
  std::unique_ptr<FuseTestServer> server;
  fake->manner.mounts = [&](const std::string& name, const std::string& at) {
    server = FuseTestServer::mount(at, name);
    return server != nullptr;
  };
  start();
  ASSERT_TRUE(acquire("c1", {want("a")}));
  quiet();
  ASSERT_TRUE(reconciler->now().next) << "it is to be asked again";
  server.reset();
  eventually([&] { return row("a")->state == MountState::unknown; });
  EXPECT_EQ(row("a")->pending, MountRow::Pending::lost);
  eventually([&] { return said() == std::vector<std::string>{"mounts are lost: fake/a"}; });
  ASSERT_TRUE(release("c1"));
  clock.advance(hours(2));  // the container is forgotten
  quiet();
  eventually([&] { return !reconciler->now().next; });
}

TEST_F(ReconcilerTest, StopLetsWhatRunsEnd) {
  start();
  owe("fake", "a");
  fake->hold(Operation::unmount, "a");
  clock.advance(minutes(1));
  reconciler->wake();
  fake->wait_until_held();
  std::jthread stopping([&] { reconciler->stop(Context().with_timeout(minutes(1))); });
  fake->let_go();
  stopping.join();
  expect_nothing_left();
  // And nothing is begun after it.
  owe("fake", "b");
  clock.advance(minutes(1));
  reconciler->wake();
  EXPECT_TRUE(debt("b"));
}

TEST_F(ReconcilerTest, StopCancelsWhatDoesNotEnd) {
  start();
  WaitingChild command;
  prepare("c1", command.identity());
  std::atomic<bool> cancelled = false;
  reconciler = nullptr;
  reconciler = std::make_unique<Reconciler>(
      Reconciler::Parts{
          .volumes = *manager,
          .ledger = *ledger,
          .clock = clock,
          .cleanup = [&](const Context& at, const ContainerKey&) -> Result<std::vector<isolator::Owed>> {
            auto ended = pause(at, hours(1), "hang");
            cancelled = at.cancelled();
            return fail(std::move(ended).error());
          },
          .say = [](const std::string&) {}},
      limits);
  command.end();
  ASSERT_TRUE(reconciler->start());
  eventually([&] { return reconciler->now().running == 1; });
  reconciler->stop(Context().with_timeout(Duration::zero()));
  EXPECT_TRUE(cancelled);
}

}  // namespace
}  // namespace dvdi
