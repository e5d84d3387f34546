// What is due, when the next thing will be, and settling one volume at a time.
#include <sys/mount.h>

#include "volume/manager_test_support.h"
#include "volume/state.h"

namespace dvdi::volume {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class DueTest : public ManagerTest {
 protected:
  Due due(Duration to_begin = Duration::zero()) {
    auto found = manager->due(context(), to_begin);
    EXPECT_TRUE(found) << found.error().text();
    return found ? *found : Due{};
  }
  std::string settle(const std::string& name) {
    const auto settled = manager->settle_volume(context(), volume(name));
    EXPECT_TRUE(settled) << settled.error().text();
    return settled ? settled->sentence : "";
  }
  void owe(const std::string& name, Fault fault = Fault::refuse) {
    ASSERT_TRUE(acquire("c-" + name, {want(name)}));
    fake->fail(Operation::unmount, name, fault);
    ASSERT_TRUE(release("c-" + name));
    ASSERT_TRUE(debt(name));
  }
};

TEST_F(DueTest, NothingIsDueWhileNothingIsOwed) {
  EXPECT_THAT(due().volumes, IsEmpty());
  EXPECT_FALSE(due().next) << "nothing will be due by itself";
  ASSERT_TRUE(acquire("c1", {want("a")}));
  EXPECT_THAT(due().volumes, IsEmpty());
  EXPECT_FALSE(due().next);
  EXPECT_FALSE(due().books);
}

TEST_F(DueTest, ADebtIsDueAtItsTimeAndTheEarliestTimeIsKnown) {
  owe("a");
  owe("b");
  fake->fail(Operation::unmount, "a", Fault::refuse);
  clock.advance(seconds(1));
  EXPECT_THAT(settle("a"), HasSubstr("still owed"));
  // b waits for its second attempt, a for its third, which comes later.
  EXPECT_THAT(due().volumes, ElementsAre(volume("b")));
  ASSERT_TRUE(due().next);
  EXPECT_EQ(*due().next, debt("a")->next_try.boot);
  clock.advance(minutes(1));
  EXPECT_THAT(due().volumes, ElementsAre(volume("b"), volume("a"))) << "the longest wait first";
  EXPECT_THAT(settle("b"), HasSubstr("settled"));
  EXPECT_THAT(settle("a"), HasSubstr("settled"));
  EXPECT_EQ(settle("a"), "");
  expect_nothing_left();
}

TEST_F(DueTest, AVolumeThatSomebodyWorksOnIsBusy) {
  owe("a");
  clock.advance(minutes(1));
  fake->hold(Operation::unmount, "a");
  std::vector<std::function<void()>> both;
  both.emplace_back([&] { EXPECT_THAT(settle("a"), HasSubstr("settled")); });
  both.emplace_back([&] {
    fake->wait_until_held();
    const auto second = manager->settle_volume(context(), volume("a"));
    ASSERT_TRUE(second);
    EXPECT_TRUE(second->busy);
    fake->let_go();
  });
  run_parallel(std::move(both));
  expect_nothing_left();
}

TEST_F(DueTest, AParkedDebtIsDueOnlyOnceItsMountIsGone) {
  policy.unmount_attempts = 1;
  restart();
  owe("a");
  ASSERT_TRUE(debt("a")->parked);
  clock.advance(hours(1) + minutes(1));
  ASSERT_TRUE(manager->tidy_books(context()));  // c-a is forgotten
  EXPECT_THAT(due().volumes, IsEmpty());
  EXPECT_FALSE(due().next) << "a parked debt is waited for by nobody";
  ASSERT_EQ(::umount2(fake->mount_point("a").c_str(), 0), 0);
  EXPECT_THAT(due().volumes, ElementsAre(volume("a")));
  EXPECT_THAT(settle("a"), HasSubstr("parked unmount is not owed any more"));
  EXPECT_THAT(due().volumes, IsEmpty());
}

TEST_F(DueTest, WhatWasFoundWhenTheBooksWereRebuiltIsLeftAlone) {
  put([&](Transaction& transaction) {
    return transaction.put(MountRow{.volume = volume("a"),
                                    .mount_id = "m",
                                    .state = MountState::unknown,
                                    .pending = MountRow::Pending::found,
                                    .mount_point = fake->mount_point("a"),
                                    .since = transaction.now()});
  });
  EXPECT_THAT(due().volumes, IsEmpty());
  EXPECT_EQ(settle("a"), "");
  EXPECT_THAT(manager->settle(context()), IsEmpty());
  EXPECT_EQ(row("a")->state, MountState::unknown);
  EXPECT_EQ(fake->calls(Operation::unmount), 0U);
}

TEST_F(DueTest, EndedContainersAreForgottenAfterTheirHour) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(release("c1"));
  const Due now = due();
  EXPECT_FALSE(now.books);
  ASSERT_TRUE(now.next);
  const Duration wait = *now.next - container_row("c1")->ended->boot;
  EXPECT_GT(wait, hours(1) + minutes(1));
  EXPECT_LE(wait, hours(1) + minutes(1) + seconds(1));
  clock.advance(hours(1) + minutes(1) + seconds(1));
  EXPECT_TRUE(due().books);
  ASSERT_TRUE(manager->tidy_books(context()));
  EXPECT_FALSE(container_row("c1"));
  EXPECT_FALSE(due().books);
  EXPECT_FALSE(due().next);
}

TEST_F(DueTest, AForeignHolderThatWentIsCleared) {
  put([&](Transaction& transaction) {
    return transaction.put(ForeignRow{.volume = volume("a"),
                                      .since = transaction.now(),
                                      .mount_point = folder + "/mounts-fake",
                                      .evidence = "test"});
  });
  EXPECT_TRUE(due().books) << "nothing is mounted there";
  ASSERT_TRUE(manager->tidy_books(context()));
  EXPECT_FALSE(foreign("a"));
  put([&](Transaction& transaction) {
    return transaction.put(ForeignRow{
        .volume = volume("a"), .since = transaction.now(), .mount_point = folder, .evidence = "test"});
  });
  EXPECT_FALSE(due().books);
  ASSERT_TRUE(manager->tidy_books(context()));
  EXPECT_TRUE(foreign("a"));
}

TEST_F(DueTest, AMountThatNobodyRefersToIsTakenDown) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  put([&](Transaction& transaction) { return transaction.erase_reference(container("c1"), volume("a")); });
  EXPECT_THAT(due().volumes, ElementsAre(volume("a")));
  EXPECT_THAT(settle("a"), HasSubstr("a mount that nobody refers to"));
  EXPECT_EQ(fake->calls(Operation::unmount), 1U);
}

TEST_F(DueTest, AnIntentThatIsJustRecordedIsLeftToWhoeverRecordedIt) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  put([&](Transaction& transaction) -> Status {
    DVDI_CHECK(transaction.erase_reference(container("c1"), volume("a")));
    DVDI_TRY(auto row, transaction.mount(volume("a")));
    return transition(transaction, *row, MountState::unmounting, {});
  });
  const BootTime begun = row("a")->since.boot;
  const Due at_once = due(seconds(1));
  EXPECT_THAT(at_once.volumes, IsEmpty());
  ASSERT_TRUE(at_once.next);
  EXPECT_EQ(*at_once.next, begun + seconds(1));
  EXPECT_THAT(due().volumes, ElementsAre(volume("a"))) << "at a start, nobody is on his way";
  clock.advance(seconds(1));
  EXPECT_THAT(due(seconds(1)).volumes, ElementsAre(volume("a"))) << "nobody was at work on it";
  EXPECT_THAT(settle("a"), HasSubstr("an Unmount whose end was not recorded"));
}

// Lets something happen when it is asked the time for the nth time.
class InterruptingClock final : public Clock {
 public:
  InterruptingClock(const Clock& clock, unsigned nth, std::function<void()> interruption)
      : clock_(clock), left_(nth), interruption_(std::move(interruption)) {}
  BootTime boot() const override {
    if (left_ > 0 && --left_ == 0) interruption_();
    return clock_.boot();
  }
  WallTime wall() const override { return clock_.wall(); }

 private:
  const Clock& clock_;
  mutable unsigned left_;
  const std::function<void()> interruption_;
};

// A container that finds the volume mounted uses it, and does not wait for the lock that the settling has.
TEST_F(DueTest, AMountThatAContainerBeginsToUseIsNotTakenDown) {
  const std::unique_ptr<Ledger> other = *Ledger::open(Context(), folder + "/state.db");
  for (unsigned nth = 1; nth <= 8; ++nth) {
    const std::string name = "v" + std::to_string(nth);
    const std::string id = "c" + std::to_string(nth);
    ASSERT_TRUE(acquire(id, {want(name)}));
    const auto reference = [&](Transaction& transaction) {
      return transaction.put(
          ReferenceRow{.container = container(id), .volume = volume(name), .since = transaction.now()});
    };
    put([&](Transaction& transaction) { return transaction.erase_reference(container(id), volume(name)); });
    bool uses_it = false;
    const InterruptingClock interrupting(clock, nth, [&] {
      // Where the settling is just writing, this comes too late and fails.
      const Context at_once = Context().with_timeout(std::chrono::milliseconds(20));
      const auto used = other->write(at_once, "test", [&](Transaction& transaction) -> Status {
        DVDI_TRY(const auto now, transaction.mount(volume(name)));
        if (!now || now->state != MountState::mounted) return Error{.message = "not mounted"};
        return reference(transaction);
      });
      uses_it = used.has_value();
    });
    const auto settled = manager->settle_volume(Context(interrupting).with_timeout(minutes(1)), volume(name));
    ASSERT_TRUE(settled) << settled.error().text();
    EXPECT_EQ(mounted_in_kernel(name), uses_it) << nth;
    EXPECT_EQ(fake->calls(Operation::unmount, name), uses_it ? 0U : 1U) << nth;
  }
}

TEST_F(DueTest, ADriverMayHaveItsOwnPatience) {
  policy.by_driver["fake"].unmount_attempts = 2;
  policy.by_driver["fake"].debt_backoff = seconds(100);
  restart();
  owe("a");
  EXPECT_GT(debt("a")->next_try.boot - row("a")->since.boot, seconds(70));
  EXPECT_FALSE(debt("a")->parked);
  clock.advance(seconds(100));
  fake->fail(Operation::unmount, "a", Fault::refuse);
  EXPECT_THAT(settle("a"), HasSubstr("still owed"));
  EXPECT_TRUE(debt("a")->parked);
}

}  // namespace
}  // namespace dvdi::volume
