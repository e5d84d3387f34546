// Killed anywhere, recovery included; and started again after a restart of the machine.
#include <unistd.h>

#include "linux/process.h"
#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;

class ManagerCrash : public ManagerTest {
 protected:
  // Runs `work` in a process that may be killed in it; true if it was.
  bool killed_in(const std::function<void()>& work) {
    try {
      work();
    } catch (const Killed&) {
      return true;
    }
    return false;
  }
  // Dead, and another engine starts.
  void die_and_recover() {
    bury("c1");
    restart();
    static_cast<void>(recover());
    settle_all();
  }
};

// Scenario 3.
TEST_F(ManagerCrash, KilledBeforeTheDriverWasCalled) {
  for (const bool lenient : {false, true}) {
    fake->manner.unmounting_nothing_succeeds = lenient;
    fake->fail(Operation::mount, "a", Fault::kill_before);
    ASSERT_TRUE(killed_in([&] { static_cast<void>(acquire("c1", {want("a")})); }));
    ASSERT_EQ(row("a")->state, MountState::mounting);
    EXPECT_EQ(references_to("a"), std::vector<std::string>{"c1"});
    die_and_recover();
    expect_nothing_left();
    clock.advance(std::chrono::hours(2));
  }
}

// Scenario 4.
TEST_F(ManagerCrash, KilledBetweenTheDriversMountAndItsRecord) {
  fake->fail(Operation::mount, "a", Fault::kill_after);
  ASSERT_TRUE(killed_in([&] { static_cast<void>(acquire("c1", {want("a")})); }));
  ASSERT_EQ(row("a")->state, MountState::mounting);
  ASSERT_TRUE(mounted_in_kernel("a"));
  die_and_recover();
  expect_nothing_left();
}

TEST_F(ManagerCrash, WhatAKilledEngineMountedIsAdoptedByTheNextContainer) {
  fake->fail(Operation::mount, "a", Fault::kill_after);
  ASSERT_TRUE(killed_in([&] { static_cast<void>(acquire("c1", {want("a")})); }));
  const std::string id = row("a")->mount_id;
  bury("c1");
  restart();
  const auto second = acquire("c2", {want("a")});
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  EXPECT_EQ(row("a")->mount_id, id);
  static_cast<void>(recover());
  EXPECT_TRUE(mounted_in_kernel("a")) << "c2 uses it";
  EXPECT_EQ(references_to("a"), std::vector<std::string>{"c2"});
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

// Scenario 5.
TEST_F(ManagerCrash, KilledAroundTheDriversUnmount) {
  for (const Fault fault : {Fault::kill_before, Fault::kill_after}) {
    ASSERT_TRUE(acquire("c1", {want("a")}));
    fake->fail(Operation::unmount, "a", fault);
    ASSERT_TRUE(killed_in([&] { static_cast<void>(release("c1")); }));
    ASSERT_EQ(row("a")->state, MountState::unmounting);
    EXPECT_THAT(references_to("a"), IsEmpty());
    EXPECT_EQ(mounted_in_kernel("a"), fault == Fault::kill_before);
    bury("c1");
    restart();
    static_cast<void>(recover());
    // At once: a second Unmount that fails because nothing is mounted ends well.
    expect_nothing_left();
    EXPECT_EQ(container_row("c1")->state, ContainerState::ended);
    clock.advance(std::chrono::hours(2));
  }
}

TEST_F(ManagerCrash, AContainerWhoseTaskStillRunsKeepsItsVolumes) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  const auto self = identify_process(::getpid());
  ASSERT_TRUE(self);
  ASSERT_TRUE(manager->started(context(), container("c1"), *self, false));
  bury("c1");
  restart();
  static_cast<void>(recover());
  EXPECT_TRUE(mounted_in_kernel("a"));
  EXPECT_EQ(references_to("a"), std::vector<std::string>{"c1"});
  ASSERT_TRUE(release("c1"));
  expect_nothing_left();
}

// Scenario 6: every durable write and both sides of every driver call, recovery included.
TEST_F(ManagerCrash, KilledAnywhereAndAgainInTheRecovery) {
  const auto life = [&] {
    const auto first = acquire("c1", {want("a")});
    ASSERT_TRUE(first) << first.error().text();
    ASSERT_TRUE(
        manager->started(context(), container("c1"), {.pid = 1, .start_ticks = 1, .boot_id = "x"}, false));
    ASSERT_TRUE(release("c1"));
  };
  unsigned lives = 0;
  bool killed = true;
  for (unsigned at = 1; killed; ++at) {
    bool killed_again = true;
    for (unsigned again = 1; killed_again; ++again) {
      SCOPED_TRACE(testing::Message() << "killed at " << at << ", then at " << again << " of the recovery");
      kill.arm(at);
      killed = killed_in(life);
      kill.arm(0);
      bury("c1");
      restart();
      kill.arm(again);
      killed_again = killed_in([&] {
        static_cast<void>(recover());
        clock.advance(std::chrono::minutes(1));
        static_cast<void>(manager->settle(context()));
      });
      kill.arm(0);
      restart();
      static_cast<void>(recover());
      settle_all();
      expect_nothing_left();
      if (HasFailure()) return;
      clock.advance(std::chrono::hours(2));  // c1 may be used again
      ++lives;
    }
  }
  EXPECT_GT(lives, 50U);
}

// Scenario 17.
TEST_F(ManagerCrash, RowsOfAnotherBootEndAndNoDriverIsCalled) {
  ASSERT_TRUE(acquire("c1", {want("a"), want("b"), want("c")}));
  ASSERT_TRUE(acquire("done", {want("a")}));
  ASSERT_TRUE(release("done"));
  fake->fail(Operation::unmount, "d", Fault::refuse);
  ASSERT_TRUE(acquire("c2", {want("d")}));
  ASSERT_TRUE(release("c2"));
  // The machine is restarted: other boot id in every row, and nothing is mounted.
  put([&](Transaction& transaction) -> Status {
    const auto of_another_boot = [](auto row) {
      row.since.boot_id = "another";
      return row;
    };
    DVDI_TRY(auto containers, transaction.containers());
    for (auto& one : containers) {
      if (one.ended) one.ended->boot_id = "another";
      DVDI_CHECK(transaction.put(of_another_boot(one)));
    }
    DVDI_TRY(auto references, transaction.references());
    for (auto& one : references) DVDI_CHECK(transaction.put(of_another_boot(one)));
    DVDI_TRY(auto mounts, transaction.mounts());
    for (auto& one : mounts) DVDI_CHECK(transaction.put(of_another_boot(one)));
    DVDI_TRY(auto debts, transaction.debts());
    for (auto& one : debts) DVDI_CHECK(transaction.put(of_another_boot(one)));
    DVDI_TRY(auto volumes, transaction.volumes());
    for (auto& one : volumes) DVDI_CHECK(transaction.put(of_another_boot(one)));
    DVDI_CHECK(transaction.put(ForeignRow{.volume = volume("a"),
                                          .since = of_another_boot(containers.front()).since,
                                          .mount_point = "/x",
                                          .evidence = "test"}));
    return {};
  });
  for (const char* name : {"a", "b", "c", "d"}) {
    ASSERT_TRUE(fake->unmount(Context(), name, row(name)->mount_id));
  }
  const auto log = fake->log();
  restart();
  static_cast<void>(recover());
  EXPECT_EQ(fake->log(), log);
  EXPECT_EQ(container_row("c1")->state, ContainerState::ended);
  for (const char* name : {"a", "b", "c", "d"}) {
    EXPECT_THAT(events(std::string("volume/fake/") + name), Contains("mount.lost").Times(1)) << name;
  }
  EXPECT_THAT(intervals(UsageInterval::Kind::provisioned, "a"), ElementsAre("closed", "open"));
  expect_nothing_left();
  const auto before = transactions();
  ASSERT_TRUE(manager->forget_other_boots(context()));
  EXPECT_EQ(transactions(), before) << "a second engine finds nothing to do";
}

// Scenario 18, for what this layer can prove.
TEST_F(ManagerCrash, RecoverDropsOnlyWhatIsProvedDeadAndItsOwn) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  Holder worked_on = holder("alive");
  worked_on.worker = *identify_process(::getppid());
  ASSERT_TRUE(manager->acquire(context(), worked_on, {want("b")}));
  ASSERT_TRUE(acquire("live", {want("c")}));
  ASSERT_TRUE(acquire("orphan", {want("d")}));
  for (const char* id : {"c1", "live", "orphan"}) bury(id);
  const auto other = manager->recover(context(), {.owner = "somebody else"}, true);
  ASSERT_TRUE(other);
  EXPECT_THAT(other->dropped, IsEmpty());
  EXPECT_THAT(other->kept, IsEmpty());
  const auto recovered =
      manager->recover(context(), {.owner = "run", .live = {{.id = "live"}}, .orphans = {"orphan"}}, true);
  ASSERT_TRUE(recovered) << recovered.error().text();
  EXPECT_THAT(recovered->dropped, ElementsAre("c1"));
  ASSERT_THAT(recovered->kept, testing::SizeIs(1));
  EXPECT_EQ(recovered->kept[0].id, "alive");
  EXPECT_FALSE(mounted_in_kernel("a"));
  for (const char* name : {"b", "c", "d"}) EXPECT_TRUE(mounted_in_kernel(name)) << name;
  for (const char* id : {"alive", "live", "orphan"}) ASSERT_TRUE(release(id));
  expect_nothing_left();
}

TEST_F(ManagerCrash, RecoverThatMayNotUnmountDropsNothing) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  bury("c1");
  const auto recovered = manager->recover(context(), {.owner = "run"}, false);
  ASSERT_TRUE(recovered);
  EXPECT_THAT(recovered->dropped, IsEmpty());
  ASSERT_THAT(recovered->kept, testing::SizeIs(1));
  EXPECT_THAT(references_to("a"), ElementsAre("c1"));
  settle_all();
  EXPECT_EQ(fake->calls(Operation::unmount), 0U);
  ASSERT_TRUE(release("c1"));
  expect_nothing_left();
}

}  // namespace
}  // namespace dvdi::volume
