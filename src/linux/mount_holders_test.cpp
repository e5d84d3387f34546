#include "linux/mount_holders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <functional>

#include "linux/mount_table.h"
#include "linux/waiting_child_test.h"

namespace dvdi {
namespace {

using test::WaitingChild;
using testing::HasSubstr;

// Done in a mount namespace of its own.
std::function<bool()> elsewhere(std::function<bool()> work) {
  return [work = std::move(work)] { return ::unshare(CLONE_NEWNS) == 0 && work(); };
}

// A folder of the test's own with one tmpfs `source`, which `mode` makes private or shared.
class MountHolders : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    std::string pattern = "/tmp/dvdi-holders-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    ASSERT_EQ(::mount("top", folder.c_str(), "tmpfs", 0, nullptr), 0);
    mount_tree(MS_PRIVATE);
  }
  void TearDown() override {
    if (folder.empty()) return;
    ::umount2(folder.c_str(), MNT_DETACH);
    ::rmdir(folder.c_str());
  }
  void mount_tree(unsigned long mode) {
    if (!source.empty()) {
      ASSERT_EQ(::umount2(source.c_str(), 0), 0);
    }
    ASSERT_EQ(::mount("none", folder.c_str(), nullptr, mode, nullptr), 0);
    source = folder + "/source";
    ::mkdir(source.c_str(), 0755);
    ::mkdir((folder + "/other").c_str(), 0755);
    ASSERT_EQ(::mount("volume", source.c_str(), "tmpfs", 0, nullptr), 0);
    ::mkdir((source + "/sub").c_str(), 0755);
    const auto table = MountTable::read();
    ASSERT_TRUE(table);
    const MountEntry* entry = table->at(source);
    ASSERT_NE(entry, nullptr);
    tree = {.major = entry->major,
            .minor = entry->minor,
            .root = std::string(entry->root),
            .mount_point = source};
  }
  MountHolder holder(const std::function<bool(std::size_t, std::uint64_t)>& ignore = {}) const {
    const auto found = find_mount_holders(Context(), {tree}, ignore);
    EXPECT_TRUE(found) << found.error().text();
    return found ? found->front() : MountHolder{};
  }
  std::string folder, source;
  MountedTree tree;
};

TEST_F(MountHolders, NobodyInThisNamespaceCounts) {
  const WaitingChild child;
  ASSERT_TRUE(child.ready());
  EXPECT_EQ(holder().pid, 0);
}

TEST_F(MountHolders, ACopyInANamespaceOfItsOwnIsFoundUntilItsProcessEnds) {
  {
    const WaitingChild child(elsewhere([] { return true; }));
    ASSERT_TRUE(child.ready());
    const MountHolder found = holder();
    EXPECT_EQ(found.pid, child.pid());
    EXPECT_EQ(found.mount_point, source);
    EXPECT_EQ(found.mount_namespace, *mount_namespace_of(child.pid()));
    EXPECT_THAT(found.text(), HasSubstr("mount_holders"));
    const std::uint64_t its = found.mount_namespace;
    EXPECT_EQ(holder([&](std::size_t, std::uint64_t one) { return one == its; }).pid, 0);
    EXPECT_EQ(holder([&](std::size_t, std::uint64_t one) { return one != its; }).pid, child.pid());
  }
  EXPECT_EQ(holder().pid, 0);
}

TEST_F(MountHolders, ItIsFoundAlsoAfterItIsUnmountedHere) {
  const WaitingChild child(elsewhere([] { return true; }));
  ASSERT_TRUE(child.ready());
  ASSERT_EQ(::umount2(source.c_str(), 0), 0);
  EXPECT_EQ(holder().pid, child.pid());
}

TEST_F(MountHolders, AFolderOfItBoundElsewhereIsFound) {
  const WaitingChild child(elsewhere([&] {
    return ::mount((source + "/sub").c_str(), (folder + "/other").c_str(), nullptr, MS_BIND, nullptr) == 0 &&
           ::umount2(source.c_str(), 0) == 0;
  }));
  ASSERT_TRUE(child.ready());
  const MountHolder found = holder();
  EXPECT_EQ(found.pid, child.pid());
  EXPECT_EQ(found.mount_point, folder + "/other");
}

// What every service in a mount namespace of its own has: it goes when ours goes.
TEST_F(MountHolders, ACopyThatCameByPropagationIsNone) {
  mount_tree(MS_SHARED);
  const WaitingChild slave(
      elsewhere([] { return ::mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0; }));
  ASSERT_TRUE(slave.ready());
  EXPECT_EQ(holder().pid, 0);
  const WaitingChild binds(elsewhere([&] {
    return ::mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0 &&
           ::mount(source.c_str(), (folder + "/other").c_str(), nullptr, MS_BIND, nullptr) == 0;
  }));
  ASSERT_TRUE(binds.ready());
  EXPECT_EQ(holder().pid, binds.pid()) << "a bind of its own is one";
  const WaitingChild on_top(elsewhere([&] {
    return ::mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0 &&
           ::mount(source.c_str(), source.c_str(), nullptr, MS_BIND, nullptr) == 0;
  }));
  ASSERT_TRUE(on_top.ready());
  const std::uint64_t other = *mount_namespace_of(binds.pid());
  EXPECT_EQ(holder([&](std::size_t, std::uint64_t one) { return one == other; }).pid, on_top.pid())
      << "one on the same place, too";
}

TEST_F(MountHolders, AnotherTreeOfTheSameDeviceIsNone) {
  const WaitingChild child(elsewhere([&] {
    return ::mount((source + "/sub").c_str(), (folder + "/other").c_str(), nullptr, MS_BIND, nullptr) == 0 &&
           ::umount2(source.c_str(), 0) == 0;
  }));
  ASSERT_TRUE(child.ready());
  tree.root = "/su";
  EXPECT_EQ(holder().pid, 0);
  tree.root = "/sub";
  EXPECT_EQ(holder().pid, child.pid());
}

TEST_F(MountHolders, TheTableAnswersAsTheKernel) {
  const std::string hidden = source + "/sub";
  ASSERT_EQ(::mount("one", hidden.c_str(), "tmpfs", 0, nullptr), 0);
  ASSERT_EQ(::mount("two", hidden.c_str(), "tmpfs", 0, nullptr), 0) << "on top of it";
  ASSERT_EQ(::mount("cover", (folder + "/other").c_str(), "tmpfs", 0, nullptr), 0);
  ASSERT_EQ(::mkdir((folder + "/other/in").c_str(), 0755), 0);
  ASSERT_EQ(::mount("in", (folder + "/other/in").c_str(), "tmpfs", 0, nullptr), 0);
  ASSERT_EQ(::mount("cover2", (folder + "/other").c_str(), "tmpfs", 0, nullptr), 0) << "hides `in`";
  const auto table = MountTable::read();
  ASSERT_TRUE(table);
  std::vector<std::string> paths = {"/", source, hidden, folder, folder + "/other"};
  for (const MountEntry& one : table->entries()) paths.emplace_back(one.mount_point);
  std::size_t looked_at = 0;
  for (const std::string& path : paths) {
    struct statx status{};
    if (::statx(AT_FDCWD, path.c_str(), AT_NO_AUTOMOUNT, STATX_TYPE | STATX_MNT_ID, &status) != 0)
      continue;  // hidden
    ++looked_at;
    ASSERT_NE(table->containing(path), nullptr) << path;
    EXPECT_EQ(table->containing(path)->id, status.stx_mnt_id) << path;
  }
  EXPECT_GE(looked_at, 5U);
  EXPECT_EQ(table->at(hidden)->source, "two");
  EXPECT_EQ(table->at(folder + "/other/in"), nullptr);
  EXPECT_EQ(table->at(""), nullptr);
  EXPECT_EQ(table->at("relative"), nullptr);
}

TEST_F(MountHolders, TheWatchedTableIsReadAgainWhenItHasChanged) {
  WatchedMountTable watched;
  const auto before = watched.now();
  ASSERT_TRUE(before);
  EXPECT_EQ(watched.now()->get(), before->get()) << "nothing has changed: the same table";
  const std::string place = source + "/sub";
  ASSERT_EQ(::mount("new", place.c_str(), "tmpfs", 0, nullptr), 0);
  const auto after = watched.now();
  ASSERT_NE((*after)->at(place), nullptr);
  EXPECT_EQ((*after)->at(place)->source, "new");
  EXPECT_EQ((*before)->at(place), nullptr) << "whoever has the old one keeps it";
  EXPECT_EQ(watched.now()->get(), after->get());
  ASSERT_EQ(::umount2(place.c_str(), 0), 0);
  EXPECT_EQ((*watched.now())->at(place), nullptr);
}

}  // namespace
}  // namespace dvdi
