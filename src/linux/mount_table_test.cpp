#include "linux/mount_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "linux/kernel_version.h"

namespace dvdi {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

MountTable table(std::string_view text) {
  auto parsed = MountTable::parse(text);
  EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().message);
  return parsed ? *std::move(parsed) : MountTable();
}

std::string point(const MountEntry* entry) {
  return entry == nullptr ? "-" : std::string(entry->mount_point);
}

TEST(MountTable, ReadsEveryField) {
  const MountTable mounts = table(
      "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
      "36 22 98:7 /a\\040b /mnt/x\\011y\\134z rw,noatime shared:4 master:12 propagate_from:2 - ext3 "
      "/dev/\\043root rw,errors=continue\n");
  ASSERT_EQ(mounts.entries().size(), 2U);
  const MountEntry& entry = mounts.entries()[1];
  EXPECT_EQ(entry.id, 36U);
  EXPECT_EQ(entry.parent, 22U);
  EXPECT_EQ(entry.major, 98U);
  EXPECT_EQ(entry.minor, 7U);
  EXPECT_EQ(entry.root, "/a b");
  EXPECT_EQ(entry.mount_point, "/mnt/x\ty\\z");
  EXPECT_EQ(entry.options, "rw,noatime");
  EXPECT_TRUE(entry.shared);
  EXPECT_EQ(entry.master, 12U);
  EXPECT_EQ(entry.fs_type, "ext3");
  EXPECT_EQ(entry.source, "/dev/#root");
  EXPECT_FALSE(mounts.entries()[0].shared);
}

TEST(MountTable, AnEmptySourceIsNoError) {
  EXPECT_EQ(table("36 22 0:7 / /x rw - fuse  rw\n").entries()[0].source, "");
}

TEST(MountTable, RefusesWhatIsNoMountTable) {
  for (const char* text : {"hello\n", "36 22 98:7 / /x rw\n", "36 22 98 / /x rw - ext3 s rw\n",
                           "a 22 9:8 / /x rw - e s rw\n", "36 22 98:7 / /x rw - ext3 src\n", "\n\n"}) {
    const auto parsed = MountTable::parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code, Code::corrupted);
  }
  EXPECT_THAT(MountTable::parse("1 0 0:1 / / rw - a b c\nbad\n").error().message, HasSubstr("line 2"));
  EXPECT_TRUE(table("").entries().empty());
}

constexpr std::string_view tree =
    "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
    "30 22 0:1 / /mnt rw - tmpfs a rw\n"
    "31 30 0:2 / /mnt/vol rw - tmpfs b rw\n"
    "32 22 0:3 / /mnt2 rw - tmpfs c rw\n";

TEST(MountTable, FindsTheMountOfAPath) {
  const MountTable mounts = table(tree);
  EXPECT_EQ(point(mounts.at("/mnt/vol")), "/mnt/vol");
  EXPECT_EQ(point(mounts.at("/mnt/vol/x")), "-");
  EXPECT_EQ(point(mounts.at("/mnt/volume")), "-");
  EXPECT_EQ(point(mounts.containing("/mnt/vol/x")), "/mnt/vol");
  EXPECT_EQ(point(mounts.containing("/mnt/volume")), "/mnt");
  EXPECT_EQ(point(mounts.containing("/mnt3")), "/");
  EXPECT_EQ(point(mounts.containing("relative")), "-");
  std::vector<std::string> below;
  for (const MountEntry* one : mounts.beneath("/mnt")) below.emplace_back(one->mount_point);
  EXPECT_THAT(below, ElementsAre("/mnt", "/mnt/vol"));
  EXPECT_EQ(mounts.beneath("/").size(), 4U);
}

TEST(MountTable, TextsGoWithTheTable) {
  auto first = std::make_unique<MountTable>(table("1 1 0:1 / /\\134\\040\\04\\ rw - a a rw\n"));
  const MountTable second = std::move(*first);
  first.reset();
  EXPECT_EQ(point(&second.entries().at(0)), "/\\ \\04\\");
  EXPECT_EQ(point(second.at("/\\ \\04\\")), "/\\ \\04\\");
}

TEST(MountTable, AMountOnTheParentHidesWhatWasBelow) {
  const MountTable mounts = table(std::string(tree) + "40 30 0:9 / /mnt rw - tmpfs over rw\n");
  EXPECT_EQ(mounts.at("/mnt")->id, 40U);
  EXPECT_EQ(point(mounts.at("/mnt/vol")), "-");
  EXPECT_EQ(mounts.containing("/mnt/vol/x")->id, 40U);
}

TEST(MountTable, TheTopmostOfAStackIsByParentNotByOrder) {
  const MountTable mounts = table(
      "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
      "41 40 0:2 / /s rw - tmpfs top rw\n"
      "40 22 0:1 / /s rw - tmpfs bottom rw\n");
  EXPECT_EQ(mounts.at("/s")->id, 41U);
}

TEST(MountTable, InAChrootTheRootIsNoMount) {
  const MountTable mounts = table("50 22 0:1 / /proc rw - proc proc rw\n51 50 0:2 / /proc/x rw - a a rw\n");
  EXPECT_EQ(point(mounts.at("/proc")), "/proc");
  EXPECT_EQ(point(mounts.at("/proc/x")), "/proc/x");
  EXPECT_EQ(point(mounts.containing("/tmp")), "-");
}

TEST(MountTable, ACircularTableEnds) {
  EXPECT_NE(table("1 2 0:1 / / rw - a a rw\n2 1 0:1 / / rw - a a rw\n3 3 0:1 / / rw - a a rw\n").at("/"),
            nullptr);
}

TEST(MountTable, ReadsThisProcessAndOthers) {
  const auto mine = MountTable::read();
  ASSERT_TRUE(mine);
  struct stat proc{};
  ASSERT_EQ(::stat("/proc", &proc), 0);
  const MountEntry* entry = mine->at("/proc");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(makedev(entry->major, entry->minor), proc.st_dev);
  EXPECT_EQ(entry->fs_type, "proc");
  const auto by_pid = MountTable::read(::getpid());
  ASSERT_TRUE(by_pid);
  EXPECT_EQ(by_pid->entries().size(), mine->entries().size());
  EXPECT_EQ(MountTable::read(0x7ffffff0).error().code, Code::not_found);
}

TEST(KernelVersion, IsComparedByNumber) {
  EXPECT_EQ(parse_kernel_version("6.1.0-25-amd64"), (KernelVersion{6, 1}));
  EXPECT_LT(parse_kernel_version("6.1"), parse_kernel_version("6.10"));
  EXPECT_EQ(parse_kernel_version("x"), (KernelVersion{0, 0}));
  EXPECT_EQ(parse_kernel_version("7"), (KernelVersion{7, 0}));
}

}  // namespace
}  // namespace dvdi
