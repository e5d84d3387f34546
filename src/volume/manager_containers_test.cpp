// Containers: repetition, conflict, exclusive access, what is remembered of one that ended.
#include <unistd.h>

#include <barrier>
#include <thread>

#include "linux/process.h"
#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

using ManagerContainers = ManagerTest;

TEST_F(ManagerContainers, ARepetitionAnswersTheSameWithoutEffect) {
  const auto first = acquire("c1", {want("a"), want("b")});
  ASSERT_TRUE(first);
  const auto log = fake->log();
  const auto written = events();
  const auto again = acquire("c1", {want("a"), want("b")});
  ASSERT_TRUE(again) << again.error().text();
  ASSERT_THAT(*again, SizeIs(2));
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ((*again)[i].mount_point, (*first)[i].mount_point);
    EXPECT_EQ((*again)[i].identity, (*first)[i].identity);
  }
  EXPECT_EQ(fake->log(), log);
  EXPECT_EQ(events(), written);
  ASSERT_TRUE(release("c1"));
  const auto released = events();
  ASSERT_TRUE(release("c1")) << "once more";
  EXPECT_EQ(events(), released);
  expect_nothing_left();
}

TEST_F(ManagerContainers, OtherArgumentsAreAConflictWithoutEffect) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  const auto log = fake->log();
  const auto other = manager->acquire(context(), holder("c1", "another"), {want("b")});
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Code::conflict);
  EXPECT_THAT(other.error().message, HasSubstr("run/c1"));
  EXPECT_EQ(fake->log(), log);
  EXPECT_EQ(references_to("a"), std::vector<std::string>{"c1"});
  EXPECT_FALSE(row("b"));
  EXPECT_EQ(container_row("c1")->state, ContainerState::prepared);
}

TEST_F(ManagerContainers, APreparedContainerKeepsWhatItHasWhenARepetitionFails) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(fake->unmount(Context(), "a", row("a")->mount_id));
  fake->fail(Operation::mount, "a", Fault::refuse, 2);
  ASSERT_FALSE(acquire("c1", {want("a")}));
  EXPECT_EQ(references_to("a"), std::vector<std::string>{"c1"});
  EXPECT_EQ(container_row("c1")->state, ContainerState::prepared);
  fake->behave();
  EXPECT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(release("c1"));
  expect_nothing_left();
}

TEST_F(ManagerContainers, APrepareAfterItsCleanupIsRefusedForAnHour) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(release("c1"));
  clock.advance(std::chrono::minutes(59));
  const auto late = acquire("c1", {want("a")});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::failed_precondition);
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  clock.advance(std::chrono::minutes(2));
  EXPECT_TRUE(acquire("c1", {want("a")}));
}

TEST_F(ManagerContainers, AnUnknownContainerIsReleasedWithoutATrace) {
  const auto owed = release("nobody");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, IsEmpty());
  EXPECT_THAT(events(), IsEmpty());
}

TEST_F(ManagerContainers, AContainerWithoutVolumesIsPreparedAndEnds) {
  const auto mounted = acquire("c1", {});
  ASSERT_TRUE(mounted);
  EXPECT_THAT(*mounted, IsEmpty());
  EXPECT_EQ(container_row("c1")->state, ContainerState::prepared);
  ASSERT_TRUE(release("c1"));
  EXPECT_EQ(container_row("c1")->state, ContainerState::ended);
}

TEST_F(ManagerContainers, OnlyAPreparedOneIsStarted) {
  const auto self = identify_process(::getpid());
  ASSERT_TRUE(self);
  const auto unknown = manager->started(context(), container("c1"), *self, false);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, Code::failed_precondition);
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(manager->started(context(), container("c1"), *self, false));
  EXPECT_EQ(container_row("c1")->state, ContainerState::running);
  EXPECT_EQ(container_row("c1")->init, *self);
  const auto written = events();
  ASSERT_TRUE(manager->started(context(), container("c1"), *self, false)) << "repeated";
  EXPECT_EQ(events(), written);
  ProcessIdentity other = *self;
  ++other.start_ticks;
  EXPECT_FALSE(manager->started(context(), container("c1"), other, false));
  ASSERT_TRUE(release("c1"));
  EXPECT_FALSE(manager->started(context(), container("c1"), *self, false));
}

TEST_F(ManagerContainers, ExclusiveAccessIsRefusedWithTheNameOfTheHolder) {
  ASSERT_TRUE(acquire("c1", {want("a", true)}));
  const auto second = acquire("c2", {want("b"), want("a")});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::conflict);
  EXPECT_THAT(second.error().message, HasSubstr("run/c1"));
  EXPECT_EQ(second.error().volume, "a");
  EXPECT_FALSE(row("b")) << "refused before anything was done";
  EXPECT_FALSE(container_row("c2"));
  ASSERT_TRUE(release("c1"));
  ASSERT_TRUE(acquire("c3", {want("a")}));
  const auto exclusive = acquire("c4", {want("a", true)});
  ASSERT_FALSE(exclusive);
  EXPECT_EQ(exclusive.error().code, Code::conflict);
  EXPECT_THAT(exclusive.error().message, HasSubstr("run/c3"));
  ASSERT_TRUE(release("c3"));
  expect_nothing_left();
}

TEST_F(ManagerContainers, WhatIsMountedAlreadyIsUsedWithTheIntentAndCalledForNoMore) {
  ASSERT_TRUE(acquire("c1", {want("a"), want("b"), want("c")}));
  auto before = transactions();
  ASSERT_TRUE(acquire("c2", {want("a"), want("b"), want("c")}));
  EXPECT_EQ(transactions(), before + 1);
  before = transactions();
  const auto mixed = acquire("c3", {want("a"), want("d"), want("b"), want("c")});
  ASSERT_TRUE(mixed);
  EXPECT_EQ(transactions(), before + 2) << "the intent, and the mount of d";
  ASSERT_THAT(*mixed, SizeIs(4));
  EXPECT_EQ((*mixed)[1].mount_point, fake->handed_out("d")) << "in the order of the request";
  EXPECT_EQ((*mixed)[2].mount_point, fake->handed_out("b"));
  EXPECT_EQ(container_row("c3")->state, ContainerState::prepared);
  for (const char* id : {"c1", "c2", "c3"}) ASSERT_TRUE(release(id));
  expect_nothing_left();
}

// Scenario 24.
TEST_F(ManagerContainers, OfTwoThatWantItExclusivelyAtTheSameTimeExactlyOneGetsIt) {
  for (int round = 0; round < 20; ++round) {
    std::barrier together(2);
    std::vector<std::string> ids = {"x" + std::to_string(round), "y" + std::to_string(round)};
    std::vector<Result<std::vector<Mounted>>> results(2);
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < 2; ++i) {
        threads.emplace_back([&, i] {
          together.arrive_and_wait();
          results[i] = acquire(ids[i], {want("a", true)});
        });
      }
    }
    const std::size_t winner = results[0] ? 0 : 1;
    ASSERT_TRUE(results[winner]);
    ASSERT_FALSE(results[1 - winner]);
    EXPECT_EQ(results[1 - winner].error().code, Code::conflict);
    EXPECT_THAT(results[1 - winner].error().message, HasSubstr("run/" + ids[winner]));
    ASSERT_TRUE(release(ids[winner]));
  }
  expect_nothing_left();
}

TEST_F(ManagerContainers, TheSameIdOfAnotherOwnerIsAnotherContainer) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  Holder other = holder("c1", "another digest");
  other.key.owner = "agent";
  ASSERT_TRUE(manager->acquire(context(), other, {want("a")}));
  ASSERT_TRUE(release("c1"));
  EXPECT_TRUE(mounted_in_kernel("a"));
  ASSERT_TRUE(manager->release(context(), other.key, ""));
  expect_nothing_left();
}

// Of a container without a process, as dvdcli's: another one each time may ask for it.
class ManagerUntilUnmount : public ManagerTest {
 protected:
  const ContainerKey key{"dvdcli", "v"};

  Result<std::vector<Mounted>> mount(const ProcessIdentity& worker) {
    Holder one = holder("v");
    one.key = key;
    one.worker = worker;
    return manager->acquire(context(), one, {want("v")});
  }
  ProcessIdentity here() const { return *identify_process(::getpid()); }
  // One that runs as well, as far as anybody can tell.
  ProcessIdentity elsewhere() const { return *identify_process(::getppid()); }
  std::optional<ContainerRow> its_row() const {
    std::optional<ContainerRow> found;
    EXPECT_TRUE(ledger->read(context(), "test", [&](Reader& reader) -> Status {
      DVDI_TRY(found, reader.container(key));
      return {};
    }));
    return found;
  }
  void leave_cleaning() {
    put([&](Transaction& transaction) -> Status {
      DVDI_TRY(auto found, transaction.container(key));
      found->state = ContainerState::cleaning;
      found->ended.reset();
      return transaction.put(*found);
    });
  }
};

TEST_F(ManagerUntilUnmount, AnyProcessMayRepeatIt) {
  ASSERT_TRUE(mount(here()));
  const auto again = mount(elsewhere());
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_THAT(references_to("v"), SizeIs(1));
  ASSERT_TRUE(manager->release(context(), key, {}));
  expect_nothing_left();
}

TEST_F(ManagerUntilUnmount, ItMayBePreparedRightAfterItsCleanup) {
  for (int i = 0; i < 3; ++i) {
    const auto mounted = mount(here());
    ASSERT_TRUE(mounted) << mounted.error().text();
    EXPECT_TRUE(mounted_in_kernel("v"));
    ASSERT_TRUE(manager->release(context(), key, {}));
    EXPECT_EQ(its_row()->state, ContainerState::ended);
  }
  expect_nothing_left();
}

TEST_F(ManagerUntilUnmount, AMountComesBackAfterAnUnmountThatWasInterrupted) {
  ASSERT_TRUE(mount(here()));
  ASSERT_TRUE(manager->release(context(), key, {}));
  leave_cleaning();
  const auto mounted = mount(here());
  ASSERT_TRUE(mounted) << mounted.error().text();
  EXPECT_EQ(its_row()->state, ContainerState::prepared);
  ASSERT_TRUE(manager->release(context(), key, {}));
}

TEST_F(ManagerUntilUnmount, ItIsNotDeadWithTheProcessThatMadeIt) {
  ProcessIdentity gone = here();
  gone.start_ticks += 1;
  ASSERT_TRUE(mount(gone));
  EXPECT_THAT(*manager->dead_containers(context(), "run"), IsEmpty());
  ASSERT_TRUE(manager->end_interrupted_unmounts(context()));
  EXPECT_EQ(its_row()->state, ContainerState::prepared);
  EXPECT_THAT(references_to("v"), SizeIs(1));
  ASSERT_TRUE(manager->release(context(), key, {}));
}

TEST_F(ManagerUntilUnmount, AnInterruptedUnmountEndsUnlessSomebodyIsAtIt) {
  ASSERT_TRUE(mount(here()));
  ASSERT_TRUE(manager->release(context(), key, {}));
  leave_cleaning();
  {
    const auto held = locks->try_acquire(container_lock_name(key));
    ASSERT_TRUE(held && *held);
    ASSERT_TRUE(manager->end_interrupted_unmounts(context()));
    EXPECT_EQ(its_row()->state, ContainerState::cleaning);
  }
  ASSERT_TRUE(manager->end_interrupted_unmounts(context()));
  EXPECT_EQ(its_row()->state, ContainerState::ended);
}

}  // namespace
}  // namespace dvdi::volume
