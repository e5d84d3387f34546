// Unmounts that are owed: recorded, tried again, parked, taken over.
#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

using ManagerDebts = ManagerTest;

TEST_F(ManagerDebts, ARefusedUnmountIsOwedAndPaidWhenItIsDue) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->fail(Operation::unmount, "a", Fault::refuse, 2);
  const auto owed = release("c1");
  ASSERT_TRUE(owed) << owed.error().text();
  ASSERT_THAT(*owed, SizeIs(1));
  EXPECT_EQ(owed->front().volume, "a");
  EXPECT_THAT(owed->front().reason, HasSubstr("told to refuse"));
  EXPECT_EQ(container_row("c1")->state, ContainerState::ended);
  EXPECT_THAT(references_to("a"), IsEmpty());
  ASSERT_TRUE(debt("a"));
  EXPECT_EQ(debt("a")->attempts, 1U);
  EXPECT_THAT(debt("a")->last_error, HasSubstr("told to refuse"));
  EXPECT_EQ(row("a")->state, MountState::unknown);
  EXPECT_EQ(row("a")->pending, MountRow::Pending::refused);
  expect_consistent();

  EXPECT_THAT(manager->settle(context()), IsEmpty()) << "not due yet";
  EXPECT_EQ(fake->calls(Operation::unmount), 1U);
  clock.advance(std::chrono::seconds(1));
  EXPECT_THAT(manager->settle(context()), ElementsAre(HasSubstr("still owed")));
  EXPECT_EQ(debt("a")->attempts, 2U);
  clock.advance(std::chrono::seconds(1));
  EXPECT_THAT(manager->settle(context()), IsEmpty()) << "the second wait is longer than the first";
  clock.advance(std::chrono::seconds(1));
  EXPECT_THAT(manager->settle(context()), ElementsAre(HasSubstr("settled")));
  expect_nothing_left();
  EXPECT_THAT(events("volume/fake/a"), Contains("debt.recorded"));
  EXPECT_THAT(events("volume/fake/a"), Contains("debt.retried"));
  EXPECT_THAT(events("volume/fake/a"), Contains("debt.paid"));
}

// No table shows a plain directory: only the driver knows, and it said no.
TEST_F(ManagerDebts, ARefusedUnmountOfAPlainDirectoryIsOwedToo) {
  fake->manner.plain_directories = true;
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->fail(Operation::unmount, "a", Fault::refuse, 2);
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, SizeIs(1));
  clock.advance(std::chrono::minutes(6));
  static_cast<void>(manager->settle(context()));
  EXPECT_TRUE(debt("a"));
  ASSERT_TRUE(acquire("c2", {want("a")})) << "taken over as it is";
  EXPECT_EQ(fake->users("a").size(), 1U);
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

TEST_F(ManagerDebts, ADriverThatForgotItsPlainDirectoriesIsDoneWithUs) {
  fake->manner.plain_directories = true;
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(fake->unmount(Context(), "a", row("a")->mount_id));
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, IsEmpty());
  expect_nothing_left();
}

TEST_F(ManagerDebts, ARefusedPlainDirectoryIsReleasedByHand) {
  fake->manner.plain_directories = true;
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->fail(Operation::unmount, "a", Fault::refuse, 2);
  ASSERT_TRUE(release("c1"));
  const auto released = manager->release_volume(context(), volume("a"), false);
  ASSERT_TRUE(released) << released.error().text();
  EXPECT_TRUE(released->done);
  EXPECT_FALSE(row("a"));
  EXPECT_FALSE(debt("a"));
}

TEST_F(ManagerDebts, TheWaitDoublesUpToTheCap) {
  policy.unmount_attempts = 1000;
  restart();
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->fail(Operation::unmount, "a", Fault::refuse, 1000);
  ASSERT_TRUE(release("c1"));
  Duration expected = policy.debt_backoff;
  for (int i = 0; i < 14; ++i) {
    const auto owed = debt("a");
    ASSERT_TRUE(owed);
    const Duration wait = owed->next_try.boot - row("a")->since.boot;
    EXPECT_LE(wait, expected) << i;
    EXPECT_GE(wait, expected - expected / 4 - std::chrono::nanoseconds(1)) << i;
    expected = std::min(expected * 2, policy.debt_backoff_cap);
    clock.advance(std::chrono::minutes(6));
    EXPECT_THAT(manager->settle(context()), SizeIs(1));
  }
}

TEST_F(ManagerDebts, AfterItsAttemptsADebtIsParkedForTheOperator) {
  policy.unmount_attempts = 3;
  restart();
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->fail(Operation::unmount, "a", Fault::refuse, 3);
  ASSERT_TRUE(release("c1"));
  settle_all();
  settle_all();
  ASSERT_TRUE(debt("a"));
  EXPECT_TRUE(debt("a")->parked);
  EXPECT_EQ(fake->calls(Operation::unmount), 3U);
  EXPECT_TRUE(mounted_in_kernel("a"));
  EXPECT_THAT(events("volume/fake/a"), Contains("debt.parked").Times(1));
  expect_consistent();

  // A new request for the volume takes it over, and its release is a fresh start.
  const auto second = acquire("c2", {want("a")});
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_FALSE(debt("a"));
  EXPECT_THAT(events("volume/fake/a"), Contains("debt.taken_over").Times(1));
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

TEST_F(ManagerDebts, AMountThatCouldNotBeUnmountedIsTakenOverWhole) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  const std::string id = row("a")->mount_id;
  fake->fail(Operation::unmount, "a", Fault::refuse);
  ASSERT_TRUE(release("c1"));
  const auto second = acquire("c2", {want("a")});
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_EQ(fake->calls(Operation::mount), 1U) << "mounted once";
  EXPECT_EQ(fake->calls(Operation::unmount), 1U);
  EXPECT_EQ(row("a")->mount_id, id);
  EXPECT_EQ(row("a")->state, MountState::mounted);
  EXPECT_FALSE(debt("a"));
  settle_all();
  EXPECT_TRUE(mounted_in_kernel("a")) << "a debt that was taken over is not collected";
  expect_consistent();
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

TEST_F(ManagerDebts, AnUnmountWithoutAnAnswerIsFinishedBeforeTheVolumeIsMountedAfresh) {
  for (const Fault fault : {Fault::time_out, Fault::time_out_done}) {
    ASSERT_TRUE(acquire("c1", {want("a")}));
    const std::string id = row("a")->mount_id;
    const auto unmounts = fake->calls(Operation::unmount);
    fake->fail(Operation::unmount, "a", fault);
    const auto owed = release("c1");
    ASSERT_TRUE(owed);
    EXPECT_THAT(*owed, SizeIs(1));
    EXPECT_EQ(row("a")->pending, MountRow::Pending::unmount);
    const auto second = acquire("c2", {want("a")});
    ASSERT_TRUE(second) << second.error().text();
    EXPECT_EQ(fake->calls(Operation::unmount), unmounts + 2) << "the driver may still be at the first";
    EXPECT_NE(row("a")->mount_id, id);
    EXPECT_FALSE(debt("a"));
    ASSERT_TRUE(release("c2"));
    expect_nothing_left();
    clock.advance(std::chrono::hours(2));  // c1 and c2 may be used again
  }
}

TEST_F(ManagerDebts, AnUnmountThatNeverEndsIsAnErrorForTheNextAndNotAMountOnTop) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->fail(Operation::unmount, "a", Fault::time_out, 2);
  ASSERT_TRUE(release("c1"));
  const auto second = acquire("c2", {want("a")});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::unavailable);
  EXPECT_EQ(second.error().driver, "fake");
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  EXPECT_EQ(debt("a")->attempts, 2U);
  EXPECT_THAT(references_to("a"), IsEmpty());
  expect_consistent();
  settle_all();
  expect_nothing_left();
}

// Lent to the next container, the mount would be taken away below it by the first Unmount.
TEST_F(ManagerDebts, AMountWhoseUnmountMayStillComeIsNotLent) {
  for (const Fault second : {Fault::refuse, Fault::not_sent}) {
    SCOPED_TRACE(second == Fault::refuse ? "then it is refused" : "then it is not sent");
    ASSERT_TRUE(acquire("c1", {want("a")}));
    const std::string id = row("a")->mount_id;
    fake->fail(Operation::unmount, "a", Fault::time_out_late);
    ASSERT_TRUE(release("c1"));
    fake->fail(Operation::unmount, "a", second, 2);
    // Trying it again is no reason to wait longer.
    for (int i = 0; i < 2; ++i) {
      const auto early = acquire("c2", {want("a")});
      ASSERT_FALSE(early);
      EXPECT_EQ(early.error().code, Code::unavailable);
      EXPECT_THAT(early.error().message, HasSubstr("an earlier unmount must end first"));
      EXPECT_EQ(row("a")->pending, MountRow::Pending::unmount);
      clock.advance(policy.late_answer / 2);
    }
    fake->fail(Operation::unmount, "a", second);
    const auto late = acquire("c2", {want("a")});
    ASSERT_TRUE(late) << late.error().text();
    EXPECT_EQ(row("a")->mount_id, id);
    EXPECT_FALSE(row("a")->unanswered);
    ASSERT_TRUE(release("c2"));
    fake->finish_late();
    expect_nothing_left();
    clock.advance(std::chrono::hours(2));  // c1 and c2 may be used again
  }
}

TEST_F(ManagerDebts, ADriverThatIsAwayIsOwedTheUnmountUntilItIsBack) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->fail(Operation::unmount, "a", Fault::not_sent, 3);
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, SizeIs(1));
  EXPECT_TRUE(mounted_in_kernel("a"));
  settle_all();
  expect_nothing_left();
}

TEST_F(ManagerDebts, WhatIsStillUsedIsNotUnmountedButOwed) {
  ASSERT_TRUE(acquire("c1", {want("a"), want("b")}));
  ASSERT_TRUE(acquire("c2", {want("b")}));
  const auto owed = release("c1", "the sandbox could not be unmounted");
  ASSERT_TRUE(owed);
  ASSERT_THAT(*owed, SizeIs(1)) << "b is in use by c2: nothing is owed for it";
  EXPECT_EQ(owed->front().volume, "a");
  EXPECT_THAT(owed->front().reason, HasSubstr("sandbox"));
  EXPECT_EQ(fake->calls(Operation::unmount), 0U);
  EXPECT_EQ(debt("a")->attempts, 0U);
  EXPECT_EQ(container_row("c1")->state, ContainerState::ended);
  expect_consistent();
  settle_all();
  EXPECT_FALSE(mounted_in_kernel("a"));
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

// Scenario 7.
TEST_F(ManagerDebts, AFirstCleanupThatFailsHalfWayDoesNotKeepTheSecondFromUnmounting) {
  ASSERT_TRUE(acquire("c1", {want("a"), want("b")}));
  ASSERT_TRUE(acquire("c2", {want("a")}));
  fake->fail(Operation::unmount, "b", Fault::refuse);
  ASSERT_TRUE(release("c1"));
  EXPECT_TRUE(mounted_in_kernel("a"));
  ASSERT_TRUE(release("c2"));
  EXPECT_FALSE(mounted_in_kernel("a"));
  EXPECT_TRUE(mounted_in_kernel("b"));
  settle_all();
  expect_nothing_left();
}

TEST_F(ManagerDebts, ADriverThatRefusesAfterTheEffectIsDoneWithUs) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->fail(Operation::unmount, "a", Fault::refuse_after_effect);
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, IsEmpty()) << "the kernel's table shows no mount";
  expect_nothing_left();
}

TEST_F(ManagerDebts, ACountingDriverIsLeftWithoutAMountToo) {
  fake->manner.counts_calls = true;
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(acquire("c2", {want("a")}));
  ASSERT_TRUE(release("c1"));
  fake->fail(Operation::unmount, "a", Fault::time_out);
  ASSERT_TRUE(release("c2"));
  settle_all();
  expect_nothing_left();
}

TEST_F(ManagerDebts, ADebtThatStaysDoesNotKeepAnotherFromBeingPaid) {
  add_driver("other");
  ASSERT_TRUE(acquire("c1", {want("a"), want_of("other", "b")}));
  fake->fail(Operation::unmount, "a", Fault::refuse);
  drivers["other"]->fail(Operation::unmount, "b", Fault::refuse);
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, SizeIs(2));
  clock.advance(std::chrono::minutes(1));
  fake->fail(Operation::unmount, "a", Fault::refuse);
  EXPECT_THAT(manager->settle(context()), SizeIs(2));
  EXPECT_EQ(drivers["other"]->users("b").size(), 0U);
  EXPECT_EQ(fake->users("a").size(), 1U);
  settle_all();
  expect_nothing_left();
}

}  // namespace
}  // namespace dvdi::volume
