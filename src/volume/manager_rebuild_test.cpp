// The ledger was damaged and is a new one: what is mounted comes back (scenario 15).
#include <sys/mount.h>

#include <fstream>

#include "store/damage.h"
#include "store/rebuilt.h"
#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::UnorderedElementsAre;

class ManagerRebuild : public ManagerTest {
 protected:
  void lose_the_ledger() {
    manager.reset();
    locks.reset();
    ledger.reset();
    const std::string path = folder + "/state.db";
    std::ofstream(path, std::ios::trunc) << "this is no database, whatever its log says";
    auto opened = open_whole(Context(clock), path);
    ASSERT_TRUE(opened) << opened.error().text();
    opened->reset();
    restart();
  }
  Rebuilt rebuild() {
    auto done = manager->rebuild(context());
    EXPECT_TRUE(done) << done.error().text();
    return done ? *done : Rebuilt();
  }
};

TEST_F(ManagerRebuild, AWholeLedgerAsksNobody) {
  ASSERT_TRUE(acquire("c", {want("a")}));
  const auto log = fake->log();
  EXPECT_TRUE(rebuild().finished);
  EXPECT_EQ(fake->log(), log);
}

TEST_F(ManagerRebuild, WhatIsMountedIsFoundAndNeverUnmountedBySettling) {
  ASSERT_TRUE(acquire("c", {want("a"), want("b")}));
  ASSERT_TRUE(fake->create(Context(), "unused", {}));
  lose_the_ledger();
  EXPECT_THAT(events(), ElementsAre("ledger.rebuilt"));
  const unsigned mounts = fake->calls(Operation::mount);
  const unsigned unmounts = fake->calls(Operation::unmount);

  const Rebuilt rebuilt = rebuild();
  EXPECT_FALSE(rebuilt.finished);
  EXPECT_THAT(rebuilt.found, UnorderedElementsAre(volume("a"), volume("b")));
  EXPECT_THAT(rebuilt.unanswered, IsEmpty());
  EXPECT_EQ(row("a")->state, MountState::unknown);
  EXPECT_EQ(row("a")->pending, MountRow::Pending::found);
  EXPECT_EQ(row("a")->mount_point, fake->mount_point("a"));
  ASSERT_TRUE(row("a")->identity);
  EXPECT_FALSE(row("unused"));
  settle_all();
  EXPECT_EQ(fake->calls(Operation::unmount), unmounts);
  EXPECT_TRUE(mounted_in_kernel("a"));
  expect_consistent();

  const auto log = fake->log();
  EXPECT_THAT(rebuild().found, IsEmpty());
  EXPECT_EQ(fake->log(), log) << "a driver that has answered is asked no more";

  ASSERT_TRUE(acquire("new", {want("a")}));
  EXPECT_EQ(row("a")->state, MountState::mounted);
  EXPECT_EQ(fake->calls(Operation::mount), mounts) << "taken over";
  expect_consistent();
}

TEST_F(ManagerRebuild, ADriverThatComesUpLaterIsAskedThen) {
  ASSERT_TRUE(acquire("c", {want("a")}));
  lose_the_ledger();
  fake->fail(Operation::list, "", Fault::not_sent);
  const Rebuilt first = rebuild();
  EXPECT_THAT(first.found, IsEmpty());
  ASSERT_THAT(first.unanswered, SizeIs(1));
  EXPECT_THAT(first.unanswered[0], HasSubstr("fake"));
  auto later = add_driver("later");
  EXPECT_THAT(rebuild().found, ElementsAre(volume("a")));
  clock.advance(std::chrono::hours(1) + std::chrono::seconds(1));
  EXPECT_TRUE(rebuild().finished);
}

TEST_F(ManagerRebuild, LiveContainersGetTheirMountsBackWhenTheDriverComesUp) {
  ASSERT_TRUE(acquire("c", {want("a")}));
  lose_the_ledger();
  const auto recovered = manager->recover(
      context(), {.owner = "run", .live = {{.id = "c", .volumes = {want("a")}}}, .orphans = {}}, true);
  ASSERT_TRUE(recovered);
  EXPECT_THAT(recovered->missing, SizeIs(1));
  EXPECT_THAT(rebuild().found, ElementsAre(volume("a")));
  EXPECT_EQ(row("a")->state, MountState::mounted);
  EXPECT_THAT(references_to("a"), ElementsAre("c"));
  expect_consistent();
  ASSERT_TRUE(acquire("d", {want("a")}));
  ASSERT_TRUE(release("d"));
  EXPECT_TRUE(mounted_in_kernel("a")) << "the live one has it";
}

TEST_F(ManagerRebuild, AFoundMountThatGoesIsForgotten) {
  ASSERT_TRUE(acquire("c", {want("a")}));
  lose_the_ledger();
  rebuild();
  ASSERT_EQ(::umount2(fake->mount_point("a").c_str(), 0), 0);
  static_cast<void>(manager->settle(context()));
  EXPECT_FALSE(row("a"));
}

// The books of somebody before dvdi.
class ManagerAdopt : public ManagerRebuild {
 protected:
  using What = Adopted::What;

  // As somebody else mounts it: the ledger does not know.
  std::string mount_elsewhere(const std::string& name) {
    EXPECT_TRUE(fake->create(Context(), name, {}));
    const auto point = fake->mount(Context(), name, "");  // as dvdcli: without an id
    EXPECT_TRUE(point) << point.error().text();
    return point.value_or("");
  }
  std::vector<Adopted> adopt(const std::vector<LeftBehind>& mounts) {
    const auto adopted = manager->adopt(context(), "/old/mounts.pb", mounts);
    EXPECT_TRUE(adopted) << adopted.error().text();
    return adopted.value_or(std::vector<Adopted>());
  }
};

TEST_F(ManagerAdopt, WhatIsMountedIsWrittenDownAndTheRestIsLeft) {
  const std::string point = mount_elsewhere("a");
  ASSERT_TRUE(acquire("c", {want("b")}));
  const auto log = fake->log();
  const auto adopted = adopt({{volume("a"), point, ""},
                              {volume("b"), fake->mount_point("b"), ""},
                              {volume("c"), folder + "/nothing", ""}});
  ASSERT_THAT(adopted, SizeIs(3));
  EXPECT_EQ(adopted[0].what, What::found);
  EXPECT_EQ(adopted[0].reason, "");
  EXPECT_EQ(adopted[1].what, What::known);
  EXPECT_EQ(adopted[2].what, What::absent);
  EXPECT_THAT(adopted[2].reason, Not(IsEmpty()));
  EXPECT_EQ(fake->log(), log) << "a driver was called";
  EXPECT_EQ(row("a")->state, MountState::unknown);
  EXPECT_EQ(row("a")->pending, MountRow::Pending::found);
  EXPECT_THAT(row("a")->note, HasSubstr("/old/mounts.pb"));
  EXPECT_EQ(row("b")->state, MountState::mounted);
  EXPECT_FALSE(row("c"));
  settle_all();
  EXPECT_TRUE(mounted_in_kernel("a")) << "nobody proved that it has no user";
  EXPECT_EQ(adopt({{volume("a"), point, ""}})[0].what, What::known);
  expect_consistent();
}

TEST_F(ManagerAdopt, TheRootDirectoryIsNobodysVolume) {
  for (const char* path : {"/", "//", "/proc/.."}) {
    EXPECT_EQ(adopt({{volume("a"), path, ""}})[0].what, What::absent) << path;
    EXPECT_FALSE(row("a"));
  }
}

TEST_F(ManagerAdopt, OneMountIsOneVolumes) {
  const std::string point = mount_elsewhere("a");
  ASSERT_TRUE(acquire("c", {want("b")}));
  const auto adopted =
      adopt({{volume("a"), point, ""}, {volume("A"), point, ""}, {volume("B"), fake->mount_point("b"), ""}});
  EXPECT_EQ(adopted[0].what, What::found);
  EXPECT_EQ(adopted[1].what, What::absent);
  EXPECT_THAT(adopted[1].reason, HasSubstr("fake/a"));
  EXPECT_EQ(adopted[2].what, What::absent);
  EXPECT_FALSE(row("A"));
  EXPECT_FALSE(row("B"));
}

TEST_F(ManagerAdopt, ALiveContainerTakesItOverAndItsEndUnmountsIt) {
  const std::string point = mount_elsewhere("a");
  adopt({{volume("a"), point, ""}});
  const unsigned mounts = fake->calls(Operation::mount);
  const RecoverRequest request{.owner = "run", .live = {{.id = "c", .volumes = {want("a")}}}, .orphans = {}};
  const auto recovered = manager->recover(context(), request, true);
  ASSERT_TRUE(recovered) << recovered.error().text();
  EXPECT_THAT(recovered->missing, IsEmpty());
  EXPECT_EQ(row("a")->state, MountState::mounted);
  EXPECT_THAT(references_to("a"), ElementsAre("c"));
  ASSERT_TRUE(release("c"));
  EXPECT_FALSE(mounted_in_kernel("a"));
  EXPECT_EQ(fake->calls(Operation::mount), mounts);
  expect_nothing_left();
}

TEST_F(ManagerAdopt, AFolderOfAMountToo) {
  fake->manner.folder = "data";
  const std::string point = mount_elsewhere("a");
  EXPECT_EQ(adopt({{volume("a"), point, ""}})[0].what, What::found);
  EXPECT_EQ(row("a")->mounted_at(), fake->mount_point("a"));
  const auto recovered = manager->recover(
      context(), {.owner = "run", .live = {{.id = "c", .volumes = {want("a")}}}, .orphans = {}}, true);
  ASSERT_TRUE(recovered) << recovered.error().text();
  EXPECT_THAT(recovered->missing, IsEmpty());
  EXPECT_EQ(row("a")->state, MountState::mounted);
  ASSERT_TRUE(release("c"));
  expect_nothing_left();
}

TEST_F(ManagerAdopt, ANewContainerTakesItOver) {
  const std::string point = mount_elsewhere("a");
  adopt({{volume("a"), point, ""}});
  const unsigned mounts = fake->calls(Operation::mount);
  ASSERT_TRUE(acquire("c", {want("a")}));
  EXPECT_EQ(row("a")->mount_point, point);
  EXPECT_EQ(fake->calls(Operation::mount), mounts);
}

}  // namespace
}  // namespace dvdi::volume
