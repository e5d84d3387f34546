// The ordinary life of mounts and references.
#include "volume/manager.h"

#include <thread>

#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Kind = UsageInterval::Kind;

using ManagerLife = ManagerTest;

TEST_F(ManagerLife, ColdIsFourTransactionsAndEveryStepAnEvent) {
  const auto before = transactions();
  const auto mounted = acquire("c1", {want("a")});
  ASSERT_TRUE(mounted) << mounted.error().text();
  ASSERT_EQ(mounted->size(), 1U);
  EXPECT_EQ(mounted->front().mount_point, fake->mount_point("a"));
  ASSERT_TRUE(mounted->front().identity);
  EXPECT_EQ(mounted->front().identity->fs_type, "tmpfs");
  EXPECT_EQ(mounted->front().identity->source, "a");
  EXPECT_TRUE(mounted_in_kernel("a"));
  EXPECT_EQ(transactions() - before, 2);
  EXPECT_EQ(container_row("c1")->state, ContainerState::prepared);
  expect_consistent();

  const auto owed = release("c1");
  ASSERT_TRUE(owed) << owed.error().text();
  EXPECT_THAT(*owed, IsEmpty());
  EXPECT_EQ(transactions() - before, 4);
  EXPECT_EQ(container_row("c1")->state, ContainerState::ended);
  expect_nothing_left();
  EXPECT_THAT(events(),
              ElementsAre("container.preparing", "reference.added", "mount.mounting", "volume.seen",
                          "mount.mounted", "container.prepared", "reference.removed", "mount.unmounting",
                          "container.cleaning", "mount.unmounted", "container.ended"));
}

TEST_F(ManagerLife, WarmIsTwoTransactionsAndNoDriverCall) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  const auto before = transactions();
  const auto log = fake->log();
  const auto second = acquire("c2", {want("a")});
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_EQ(second->front().mount_point, fake->mount_point("a"));
  ASSERT_TRUE(release("c2"));
  EXPECT_EQ(transactions() - before, 2);
  EXPECT_EQ(fake->log(), log);
  EXPECT_TRUE(mounted_in_kernel("a"));
  EXPECT_EQ(container_row("c2")->state, ContainerState::ended);
  ASSERT_TRUE(release("c1"));
  expect_nothing_left();
}

TEST_F(ManagerLife, TheLastReferenceUnmountsWhateverTheOrder) {
  for (const bool first_goes_first : {true, false}) {
    const std::string first = first_goes_first ? "a1" : "b1";
    const std::string second = first_goes_first ? "a2" : "b2";
    ASSERT_TRUE(acquire(first, {want("v")}));
    ASSERT_TRUE(acquire(second, {want("v")}));
    const auto unmounts = fake->calls(Operation::unmount);
    ASSERT_TRUE(release(first_goes_first ? first : second));
    EXPECT_EQ(fake->calls(Operation::unmount), unmounts);
    EXPECT_TRUE(mounted_in_kernel("v"));
    ASSERT_TRUE(release(first_goes_first ? second : first));
    EXPECT_EQ(fake->calls(Operation::unmount), unmounts + 1);
    expect_nothing_left();
  }
  EXPECT_EQ(fake->calls(Operation::mount), 2U);
}

TEST_F(ManagerLife, TheMountIdIsStoredBeforeTheDriverIsCalledAndSentToIt) {
  fake->hold(Operation::mount, "a");
  std::jthread running([&] { EXPECT_TRUE(acquire("c1", {want("a")})); });
  fake->wait_until_held();
  const auto intent = row("a");
  EXPECT_EQ(references_to("a"), std::vector<std::string>{"c1"});
  fake->let_go();
  running.join();
  ASSERT_TRUE(intent);
  EXPECT_EQ(intent->state, MountState::mounting);
  EXPECT_THAT(fake->users("a"), ElementsAre(intent->mount_id));
}

TEST_F(ManagerLife, VolumesOfOneContainerAreMountedAndUnmountedInParallel) {
  fake->hold(Operation::mount, "a");
  fake->hold(Operation::mount, "b");
  fake->hold(Operation::mount, "c");
  std::jthread mounts([&] { EXPECT_TRUE(acquire("c1", {want("a"), want("b"), want("c")})); });
  fake->wait_until_held(3);
  fake->let_go();
  mounts.join();
  fake->hold(Operation::unmount, "a");
  fake->hold(Operation::unmount, "b");
  fake->hold(Operation::unmount, "c");
  std::jthread unmounts([&] { EXPECT_TRUE(release("c1")); });
  fake->wait_until_held(3);
  fake->let_go();
  unmounts.join();
  expect_nothing_left();
}

TEST_F(ManagerLife, AnswersInTheOrderOfTheRequests) {
  const auto mounted = acquire("c1", {want("c"), want("a"), want("b")});
  ASSERT_TRUE(mounted);
  std::vector<std::string> names;
  for (const auto& one : *mounted) names.push_back(one.volume.name);
  EXPECT_THAT(names, ElementsAre("c", "a", "b"));
}

TEST_F(ManagerLife, ADriverThatHangsDelaysOnlyItsOwnVolumes) {
  const auto other = add_driver("other");
  policy.calls_per_driver = 1;
  restart();
  fake->hold(Operation::mount, "a");
  std::jthread hung([&] { EXPECT_TRUE(acquire("c1", {want("a")})); });
  fake->wait_until_held();
  const auto good = acquire("c2", {want_of("other", "a")});
  EXPECT_TRUE(good) << good.error().text();
  // The state can be read, and one more call to the driver that hangs waits at our side.
  EXPECT_EQ(row("a")->state, MountState::mounting);
  const auto waits =
      manager->acquire(context().with_timeout(std::chrono::milliseconds(20)), holder("c3"), {want("b")});
  ASSERT_FALSE(waits);
  EXPECT_EQ(waits.error().outcome, Outcome::not_sent) << waits.error().text();
  EXPECT_EQ(fake->calls(Operation::create, "b"), 0U);
  fake->let_go();
  hung.join();
  EXPECT_EQ(fake->most_at_once(), 1U);
  ASSERT_TRUE(release("c1"));
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

TEST_F(ManagerLife, APrepareThatComesDuringAnUnmountWaitsAndMountsAfresh) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  const std::string first_id = row("a")->mount_id;
  fake->hold(Operation::unmount, "a");
  std::jthread unmounts([&] { EXPECT_TRUE(release("c1")); });
  fake->wait_until_held();
  std::jthread mounts([&] { EXPECT_TRUE(acquire("c2", {want("a")})); });
  // Its intent is there before it waits for the lock.
  while (references_to("a").empty()) std::this_thread::yield();
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  fake->let_go();
  unmounts.join();
  mounts.join();
  EXPECT_EQ(fake->calls(Operation::mount), 2U);
  EXPECT_EQ(fake->calls(Operation::unmount), 1U);
  EXPECT_NE(row("a")->mount_id, first_id);
  EXPECT_TRUE(mounted_in_kernel("a"));
  expect_consistent();
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

TEST_F(ManagerLife, AContainerThatJoinsDuringTheMountWaitsForIt) {
  fake->hold(Operation::mount, "a");
  std::jthread first([&] { EXPECT_TRUE(acquire("c1", {want("a")})); });
  fake->wait_until_held();
  std::jthread second([&] { EXPECT_TRUE(acquire("c2", {want("a")})); });
  while (references_to("a").size() < 2) std::this_thread::yield();
  fake->let_go();
  first.join();
  second.join();
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  EXPECT_EQ(container_row("c1")->state, ContainerState::prepared);
  EXPECT_EQ(container_row("c2")->state, ContainerState::prepared);
  ASSERT_TRUE(release("c1"));
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

TEST_F(ManagerLife, UsageHasThreeFiguresThatOpenAndClose) {
  ASSERT_TRUE(manager->acquire(context(), holder("c1"), {[] {
                                 Request request = want("a");
                                 request.options = {{"size", "2"}};
                                 return request;
                               }()}));
  EXPECT_THAT(intervals(Kind::referenced, "a"), ElementsAre("open"));
  EXPECT_THAT(intervals(Kind::mounted, "a"), ElementsAre("open"));
  EXPECT_THAT(intervals(Kind::provisioned, "a"), ElementsAre("open"));
  clock.advance(std::chrono::hours(2));
  ASSERT_TRUE(acquire("c2", {want("a")}));
  ASSERT_TRUE(release("c1"));
  clock.advance(std::chrono::hours(1));
  ASSERT_TRUE(release("c2"));
  EXPECT_THAT(intervals(Kind::referenced, "a"), ElementsAre("closed", "closed"));
  EXPECT_THAT(intervals(Kind::mounted, "a"), ElementsAre("closed"));
  EXPECT_THAT(intervals(Kind::provisioned, "a"), ElementsAre("open"));
  for (const SeenUsage& one : usage()) {
    EXPECT_EQ(one.size_bytes, std::uint64_t{2} << 30U);
    const Duration expected = one.kind != Kind::referenced ? std::chrono::hours(3)
                              : one.container.id == "c1"   ? std::chrono::hours(2)
                                                           : std::chrono::hours(1);
    EXPECT_GE(one.duration, expected);
    EXPECT_LT(one.duration, expected + std::chrono::minutes(5));
  }
  ASSERT_TRUE(manager->remove_volume(context(), volume("a")));
  EXPECT_THAT(intervals(Kind::provisioned, "a"), ElementsAre("closed"));
}

TEST_F(ManagerLife, AVolumeThatIsUsedOrOwedIsNotRemoved) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  const auto used = manager->remove_volume(context(), volume("a"));
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code, Code::failed_precondition);
  EXPECT_THAT(used.error().message, HasSubstr("run/c1"));
  fake->fail(Operation::unmount, "a", Fault::refuse);
  ASSERT_TRUE(release("c1"));
  const auto owed = manager->remove_volume(context(), volume("a"));
  ASSERT_FALSE(owed);
  EXPECT_EQ(owed.error().code, Code::failed_precondition);
  EXPECT_THAT(owed.error().message, HasSubstr("told to refuse"));
  EXPECT_EQ(fake->calls(Operation::remove), 0U);
  settle_all();
  EXPECT_TRUE(manager->remove_volume(context(), volume("a")));
  EXPECT_EQ(rows_in("volumes"), 0);
}

TEST_F(ManagerLife, ExplicitCreateMountsOnlyWhatExists) {
  Request request = want("a");
  request.explicit_create = true;
  const auto missing = acquire("c1", {request});
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().text(), HasSubstr("explicit-create"));
  EXPECT_EQ(fake->calls(Operation::create), 0U);
  EXPECT_EQ(fake->calls(Operation::unmount), 0U);
  expect_nothing_left();
  ASSERT_TRUE(manager->create_volume(context(), volume("a"), {}));
  EXPECT_TRUE(acquire("c1", {request}));
  EXPECT_EQ(fake->calls(Operation::create), 1U);
}

TEST_F(ManagerLife, ADriverThatRefusesToCreateWhatExistsIsAskedForIt) {
  ASSERT_TRUE(manager->create_volume(context(), volume("a"), {}));
  fake->fail(Operation::create, "a", Fault::refuse);
  EXPECT_TRUE(acquire("c1", {want("a")}));
}

TEST_F(ManagerLife, PlainDirectoriesAreTakenFromDriversThatHandThemOut) {
  fake->manner.plain_directories = true;
  const auto mounted = acquire("c1", {want("a")});
  ASSERT_TRUE(mounted) << mounted.error().text();
  EXPECT_FALSE(mounted->front().identity);
  ASSERT_TRUE(acquire("c2", {want("a")}));
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  ASSERT_TRUE(release("c1"));
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

TEST_F(ManagerLife, AMountThatVanishedIsMountedAfresh) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  const std::string id = row("a")->mount_id;
  // As a driver that was restarted: its mounts are gone and its books empty.
  ASSERT_TRUE(fake->unmount(Context(), "a", id));
  const auto second = acquire("c2", {want("a")});
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_NE(row("a")->mount_id, id);
  EXPECT_TRUE(mounted_in_kernel("a"));
  expect_consistent();
  ASSERT_TRUE(release("c1"));
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

TEST_F(ManagerLife, AMountThatVanishedIsNoTroubleForTheRelease) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(fake->unmount(Context(), "a", row("a")->mount_id));
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, IsEmpty());
  expect_nothing_left();
}

}  // namespace
}  // namespace dvdi::volume
