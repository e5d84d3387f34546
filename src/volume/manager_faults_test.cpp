// What drivers answer when they do not do what they are asked, and what becomes of it.
#include <sys/mount.h>
#include <unistd.h>

#include <thread>

#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

using ManagerFaults = ManagerTest;

TEST_F(ManagerFaults, ADefiniteFailureNeedsNoUnmountAndLeavesNothing) {
  fake->fail(Operation::mount, "a", Fault::refuse);
  const auto failed = acquire("c1", {want("a")});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::driver_error);
  EXPECT_EQ(failed.error().driver, "fake");
  EXPECT_EQ(failed.error().volume, "a");
  EXPECT_EQ(failed.error().operation, "mount");
  EXPECT_EQ(failed.error().attempt, 1U);
  EXPECT_EQ(fake->calls(Operation::unmount), 0U);
  EXPECT_FALSE(container_row("c1"));
  EXPECT_THAT(events("volume/fake/a"),
              ElementsAre("reference.added", "mount.mounting", "mount.failed", "reference.removed"));
  expect_nothing_left();
  EXPECT_TRUE(acquire("c1", {want("a")})) << "it can be tried again";
}

TEST_F(ManagerFaults, WhatWasNeverSentNeedsNoUnmountEither) {
  for (const Operation operation : {Operation::create, Operation::mount}) {
    fake->fail(operation, "a", Fault::not_sent);
    const auto failed = acquire("c1", {want("a")});
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, Code::unavailable);
    EXPECT_EQ(failed.error().outcome, Outcome::not_sent);
  }
  EXPECT_EQ(fake->calls(Operation::unmount), 0U);
  expect_nothing_left();
}

TEST_F(ManagerFaults, AnUnknownDriverIsADefiniteFailure) {
  const auto failed = acquire("c1", {want_of("nobody", "a")});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::not_found);
  EXPECT_EQ(failed.error().driver, "nobody");
  expect_nothing_left();
}

// Scenario 9.
TEST_F(ManagerFaults, AllOrNothingAndTheCallerSeesBothErrors) {
  fake->fail(Operation::mount, "c", Fault::refuse);
  fake->fail(Operation::unmount, "b", Fault::refuse);
  const auto failed = acquire("c1", {want("a"), want("b"), want("c")});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().volume, "c");
  EXPECT_EQ(failed.error().operation, "mount");
  ASSERT_THAT(failed.error().attached, SizeIs(1));
  EXPECT_EQ(failed.error().attached[0].volume, "b");
  EXPECT_EQ(failed.error().attached[0].operation, "unmount");
  EXPECT_THAT(failed.error().text(), HasSubstr("owed"));
  EXPECT_FALSE(mounted_in_kernel("a"));
  EXPECT_TRUE(mounted_in_kernel("b"));
  EXPECT_FALSE(row("a"));
  EXPECT_FALSE(row("c"));
  ASSERT_TRUE(debt("b"));
  EXPECT_EQ(debt("b")->attempts, 1U);
  EXPECT_EQ(fake->calls(Operation::unmount, "c"), 0U);
  EXPECT_EQ(rows_in("refs"), 0);
  EXPECT_FALSE(container_row("c1"));
  expect_consistent();
  settle_all();
  expect_nothing_left();
}

TEST_F(ManagerFaults, EveryVolumeThatFailedIsNamed) {
  fake->fail(Operation::mount, "a", Fault::refuse);
  fake->fail(Operation::mount, "b", Fault::refuse);
  const auto failed = acquire("c1", {want("a"), want("b")});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().volume, "a");
  ASSERT_THAT(failed.error().attached, SizeIs(1));
  EXPECT_EQ(failed.error().attached[0].volume, "b");
}

// Scenario 1.
TEST_F(ManagerFaults, AMountThatIsAnsweredTooLateIsUnmounted) {
  for (const bool lenient : {false, true}) {
    SCOPED_TRACE(lenient ? "unmounting nothing succeeds" : "unmounting nothing is refused");
    fake->manner.unmounting_nothing_succeeds = lenient;
    fake->fail(Operation::mount, "a", Fault::time_out_late);
    const auto failed = acquire("c1", {want("a")});
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, Code::deadline_exceeded);
    ASSERT_TRUE(row("a"));
    EXPECT_EQ(row("a")->state, MountState::unknown);
    EXPECT_EQ(row("a")->pending, MountRow::Pending::mount);
    ASSERT_TRUE(debt("a"));
    expect_consistent();
    // The first try comes while the driver is still at it: there is nothing to unmount, which proves nothing.
    clock.advance(std::chrono::seconds(2));
    EXPECT_THAT(manager->settle(context()), SizeIs(1));
    ASSERT_TRUE(debt("a")) << "given up while the driver may still be at the Mount";
    fake->finish_late();
    EXPECT_TRUE(mounted_in_kernel("a"));
    settle_all();
    expect_nothing_left();
  }
}

// Scenario 2.
// It was done, and nobody can say where it is: that the table shows nothing of ours proves nothing.
TEST_F(ManagerFaults, ARefusedUnmountOfAMountThatNobodyCanFindIsOwed) {
  fake->fail(Operation::mount, "a", Fault::time_out_done);
  ASSERT_FALSE(acquire("c1", {want("a")}));
  clock.advance(policy.late_answer + std::chrono::minutes(6));
  fake->fail(Operation::path, "a", Fault::not_sent);
  fake->fail(Operation::unmount, "a", Fault::refuse);
  static_cast<void>(manager->settle(context()));
  ASSERT_TRUE(row("a"));
  EXPECT_TRUE(debt("a"));
  EXPECT_TRUE(mounted_in_kernel("a"));
  settle_all();
  expect_nothing_left();
}

TEST_F(ManagerFaults, AMountThatIsAnsweredTooLateIsAdoptedByTheNext) {
  fake->fail(Operation::mount, "a", Fault::time_out_late);
  ASSERT_FALSE(acquire("c1", {want("a")}));
  const std::string id = row("a")->mount_id;
  fake->finish_late();
  const auto second = acquire("c2", {want("a")});
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  EXPECT_EQ(row("a")->mount_id, id);
  EXPECT_FALSE(debt("a"));
  EXPECT_THAT(fake->users("a"), ElementsAre(id));
  expect_consistent();
  settle_all();
  EXPECT_TRUE(mounted_in_kernel("a"));
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

// As the scenario before, with the driver still at it when the second container comes.
TEST_F(ManagerFaults, TheSecondMountHasTheSameIdAndIsNeverACountTooMany) {
  for (const bool refuses : {false, true}) {
    fake->manner.refuses_second_mount = refuses;
    const std::string one = refuses ? "r" : "a";
    fake->fail(Operation::mount, one, Fault::time_out);
    ASSERT_FALSE(acquire(one + "1", {want(one)}));
    const std::string id = row(one)->mount_id;
    const auto second = acquire(one + "2", {want(one)});
    ASSERT_TRUE(second) << second.error().text();
    EXPECT_EQ(row(one)->mount_id, id);
    EXPECT_EQ(fake->calls(Operation::mount, one), 2U);
    fake->finish_late();
    EXPECT_THAT(fake->users(one), ElementsAre(id));
    ASSERT_TRUE(release(one + "2"));
    expect_nothing_left();
  }
}

// rclone's "already mounted by this id" for a mount that nobody can see: begun anew.
TEST_F(ManagerFaults, ADriverThatRefusesTheSecondMountWithoutAMountBeginsAnew) {
  fake->manner.refuses_second_mount = true;
  ASSERT_TRUE(acquire("c1", {want("a")}));
  const std::string id = row("a")->mount_id;
  ASSERT_EQ(::umount2(fake->mount_point("a").c_str(), 0), 0);  // behind the driver's back
  const auto second = acquire("c2", {want("a")});
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_NE(row("a")->mount_id, id);
  EXPECT_TRUE(mounted_in_kernel("a"));
  EXPECT_THAT(fake->users("a"), ElementsAre(row("a")->mount_id));
  expect_consistent();
}

TEST_F(ManagerFaults, ARefusalAfterTheEffectIsBelieved) {
  // A complete answer to a first attempt counts: the driver says that it does not hold us.
  fake->fail(Operation::mount, "a", Fault::refuse_after_effect);
  ASSERT_FALSE(acquire("c1", {want("a")}));
  EXPECT_EQ(fake->calls(Operation::unmount), 0U);
  EXPECT_FALSE(row("a"));
}

// Scenario 14.
TEST_F(ManagerFaults, AMountPointThatIsNotTrueIsRefusedAndGivenBack) {
  int number = 0;
  for (const std::string& lie :
       {std::string(), std::string("relative/path"), std::string("/"), std::string("///"), folder + "/no",
        folder + "/mounts-fake", std::string("/proc/../"), std::string("/a\0b", 4),
        "/" + std::string(5000, 'x')}) {
    SCOPED_TRACE(lie.substr(0, 40));
    const std::string name = "v" + std::to_string(number++);
    fake->lie(name, lie);
    const auto failed = acquire("c1", {want(name)});
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, Code::driver_violation) << failed.error().text();
    EXPECT_EQ(failed.error().driver, "fake");
    EXPECT_EQ(failed.error().volume, name);
    EXPECT_EQ(fake->calls(Operation::unmount, name), 1U);
    expect_nothing_left();
  }
}

TEST_F(ManagerFaults, TheRootDirectoryIsNeverAdopted) {
  // The driver says `/` wherever it is asked and refuses to give it back: the next container must not get the
  // host's own root as its volume.
  fake->lie("a", "/");
  fake->lie_about_path("a", "/");
  fake->fail(Operation::unmount, "a", Fault::refuse, 3);
  ASSERT_FALSE(acquire("c1", {want("a")}));
  for (int i = 0; i < 3; ++i) {
    const auto second = acquire("c2", {want("a")});
    EXPECT_FALSE(second) << "got " << (second ? second->front().mount_point : "");
  }
  EXPECT_EQ(rows_in("mounts") - rows_in("debts"), 0);
}

TEST_F(ManagerFaults, AClaimThroughASymbolicLinkIsTheMountBehindIt) {
  const std::string link = folder + "/link";
  ASSERT_EQ(::symlink(fake->mount_point("a").c_str(), link.c_str()), 0);
  fake->lie("a", link);
  const auto mounted = acquire("c1", {want("a")});
  ASSERT_TRUE(mounted) << mounted.error().text();
  EXPECT_EQ(mounted->front().mount_point, fake->mount_point("a"));
}

// Scenario 30.
TEST_F(ManagerFaults, AForeignHolderIsShownAndItsMountLeftAlone) {
  ASSERT_TRUE(fake->create(Context(), "a", {}));
  ASSERT_TRUE(fake->mount(Context(), "a", "docker"));
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(foreign("a"));
  EXPECT_THAT(foreign("a")->evidence, HasSubstr("before our first Mount"));
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, IsEmpty());
  EXPECT_FALSE(row("a"));
  EXPECT_TRUE(mounted_in_kernel("a"));
  settle_all();
  EXPECT_TRUE(mounted_in_kernel("a"));
  EXPECT_TRUE(foreign("a"));
  EXPECT_EQ(fake->calls(Operation::unmount), 1U);
  ASSERT_TRUE(fake->unmount(Context(), "a", "docker"));
  settle_all();
  EXPECT_FALSE(foreign("a"));
  expect_nothing_left();
}

TEST_F(ManagerFaults, AHolderThatCameLaterIsFoundAfterOurUnmount) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  EXPECT_FALSE(foreign("a"));
  ASSERT_TRUE(fake->mount(Context(), "a", "docker"));
  ASSERT_TRUE(release("c1"));
  EXPECT_FALSE(row("a"));
  ASSERT_TRUE(foreign("a"));
  EXPECT_THAT(foreign("a")->evidence, HasSubstr("after our successful"));
  EXPECT_TRUE(mounted_in_kernel("a"));
  EXPECT_THAT(events("volume/fake/a"), testing::Contains("foreign.found"));
}

// Scenario 23.
TEST_F(ManagerFaults, AThousandFailedPreparesLeaveNothingButEvents) {
  const std::vector<std::string> tables = {"containers", "mounts",          "refs", "debts",
                                           "volumes",    "foreign_holders", "boots"};
  ASSERT_TRUE(acquire("warm", {want("a")}));
  ASSERT_TRUE(release("warm"));
  std::vector<std::int64_t> before;
  for (const auto& table : tables) before.push_back(rows_in(table));
  const auto mounts = kernel_mounts();
  fake->fail(Operation::mount, "b", Fault::refuse, 1000);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_FALSE(acquire("c" + std::to_string(i % 7), {want("a"), want("b")}));
  }
  for (std::size_t i = 0; i < tables.size(); ++i) EXPECT_EQ(rows_in(tables[i]), before[i]) << tables[i];
  EXPECT_EQ(kernel_mounts(), mounts);
  expect_nothing_left();
}

TEST_F(ManagerFaults, ACancelledPrepareIsRolledBack) {
  fake->hold(Operation::mount, "a");
  std::stop_source stop;
  std::jthread holds([&] { EXPECT_TRUE(acquire("c1", {want("a")})); });
  fake->wait_until_held();
  std::jthread waits([&] {
    const auto failed =
        manager->acquire(context().with_stop(stop.get_token()), holder("c2"), {want("a"), want("b")});
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, Code::cancelled);
  });
  while (references_to("a").size() < 2) std::this_thread::yield();
  stop.request_stop();
  waits.join();
  EXPECT_FALSE(container_row("c2"));
  EXPECT_EQ(references_to("a"), std::vector<std::string>{"c1"});
  fake->let_go();
  holds.join();
  settle_all();
  ASSERT_TRUE(release("c1"));
  expect_nothing_left();
}

}  // namespace
}  // namespace dvdi::volume
