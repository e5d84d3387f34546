// Unmounts that are paid by hand.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>

#include "linux/fd.h"
#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class ReleaseTest : public ManagerTest {
 protected:
  Release by_hand(const std::string& name, bool dry_run = false) {
    auto released = manager->release_volume(context(), volume(name), dry_run);
    EXPECT_TRUE(released) << released.error().text();
    return released ? *released : Release{};
  }
  void park(const std::string& name) {
    policy.unmount_attempts = 1;
    restart();
    ASSERT_TRUE(acquire("c1", {want(name)}));
    fake->fail(Operation::unmount, name, Fault::refuse);
    ASSERT_TRUE(release("c1"));
    ASSERT_TRUE(debt(name)->parked);
  }
};

TEST_F(ReleaseTest, AParkedDebtIsPaid) {
  park("a");
  const Release released = by_hand("a");
  EXPECT_TRUE(released.done) << released.left;
  EXPECT_EQ(released.left, "");
  EXPECT_THAT(events("volume/fake/a"), Contains("debt.resumed").Times(1));
  EXPECT_THAT(events("volume/fake/a"), Contains("debt.paid").Times(1));
  expect_nothing_left();
}

TEST_F(ReleaseTest, ADryRunSaysWhatItWouldDoAndDoesNothing) {
  park("a");
  const std::string busy = fake->mount_point("a") + "/open";
  const UniqueFd open_file(::open(busy.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_TRUE(open_file);
  const auto before = event_bodies().size();
  const std::string id = row("a")->mount_id;
  const Release would = by_hand("a", true);
  EXPECT_FALSE(would.done);
  EXPECT_THAT(would.steps, Contains(HasSubstr("volume a of driver fake: mount id " + id)));
  EXPECT_THAT(would.steps, Contains(HasSubstr(fake->mount_point("a"))));
  EXPECT_THAT(would.steps, Contains(testing::AllOf(HasSubstr("owed since " + rfc3339(debt("a")->since.wall)),
                                                   HasSubstr("after 1 attempt;"), HasSubstr("parked"),
                                                   HasSubstr("told to refuse"))));
  EXPECT_THAT(would.steps, Contains(HasSubstr(fmt::format("(pid {})", ::getpid())))) << "who keeps it busy";
  EXPECT_THAT(would.steps,
              Contains(HasSubstr("call the driver's Unmount with that mount id, once, for at most "
                                 "600 s")));
  EXPECT_EQ(event_bodies().size(), before);
  EXPECT_EQ(fake->calls(Operation::unmount), 1U);
  EXPECT_TRUE(debt("a")->parked);
}

TEST_F(ReleaseTest, WhatFailsAgainIsOwedAndNotParkedAnyMore) {
  policy.unmount_attempts = 2;
  restart();
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->fail(Operation::unmount, "a", Fault::refuse, 3);
  ASSERT_TRUE(release("c1"));
  settle_all();
  ASSERT_TRUE(debt("a")->parked);
  const Release released = by_hand("a");
  EXPECT_FALSE(released.done);
  EXPECT_THAT(released.left, HasSubstr("told to refuse"));
  ASSERT_TRUE(debt("a"));
  EXPECT_FALSE(debt("a")->parked);
  EXPECT_EQ(debt("a")->attempts, 1U);
  expect_consistent();
  settle_all();
  expect_nothing_left();
}

TEST_F(ReleaseTest, ItDoesNotWaitForTheBackoff) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->fail(Operation::unmount, "a", Fault::refuse);
  ASSERT_TRUE(release("c1"));
  EXPECT_TRUE(by_hand("a").done);
  expect_nothing_left();
}

TEST_F(ReleaseTest, AVolumeThatAContainerUsesIsLeftAlone) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  for (const bool dry_run : {true, false}) {
    const auto refused = manager->release_volume(context(), volume("a"), dry_run);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::failed_precondition);
    EXPECT_THAT(refused.error().message, HasSubstr("container run/c1 uses it"));
  }
  EXPECT_EQ(fake->calls(Operation::unmount), 0U);
  EXPECT_EQ(row("a")->state, MountState::mounted);
}

TEST_F(ReleaseTest, AMountThatWasFoundIsTakenAway) {
  // In the driver's books under an id that we do not know any more.
  ASSERT_TRUE(fake->create(context(), "a", {}));
  ASSERT_TRUE(fake->mount(context(), "a", "m"));
  put([&](Transaction& transaction) {
    return transaction.put(MountRow{.volume = volume("a"),
                                    .mount_id = "m",
                                    .state = MountState::unknown,
                                    .pending = MountRow::Pending::found,
                                    .mount_point = fake->mount_point("a"),
                                    .since = transaction.now(),
                                    .note = "found at the start"});
  });
  EXPECT_THAT(by_hand("a", true).steps, Contains(HasSubstr("found mounted, for whom is not known")));
  EXPECT_TRUE(by_hand("a").done);
  EXPECT_FALSE(mounted_in_kernel("a"));
  EXPECT_FALSE(row("a"));
}

TEST_F(ReleaseTest, WhereNothingIsThereIsNothingToDo) {
  const Release released = by_hand("nothing");
  EXPECT_TRUE(released.done);
  EXPECT_THAT(released.steps, ElementsAre(HasSubstr("nothing to do")));
}

TEST_F(ReleaseTest, WhatSomebodyElseHoldsIsLeftAndNamed) {
  park("a");
  // The driver is done with us, and the mount is there still.
  ASSERT_EQ(
      ::mount(fake->mount_point("a").c_str(), fake->mount_point("a").c_str(), nullptr, MS_BIND, nullptr), 0);
  const Release released = by_hand("a");
  EXPECT_TRUE(released.done) << released.left;
  EXPECT_FALSE(row("a"));
  ::umount2(fake->mount_point("a").c_str(), MNT_DETACH);
}

TEST_F(ReleaseTest, ACallThatRunsForTheVolumeIsNamed) {
  park("a");
  fake->hold(Operation::unmount, "a");
  std::vector<std::function<void()>> both;
  both.emplace_back([&] { EXPECT_TRUE(by_hand("a").done); });
  both.emplace_back([&] {
    fake->wait_until_held();
    const auto second = manager->release_volume(context().with_timeout(seconds(1)), volume("a"), false);
    EXPECT_EQ(second ? Code::internal : second.error().code, Code::unavailable);
    fake->let_go();
  });
  run_parallel(std::move(both));
  expect_nothing_left();
}

}  // namespace
}  // namespace dvdi::volume
