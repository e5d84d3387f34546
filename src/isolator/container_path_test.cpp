#include "isolator/container_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "isolator/test_support.h"

namespace dvdi::isolator {
namespace {

using test::helpers;
using test::TempDir;
using testing::ElementsAre;
using testing::HasSubstr;

const View host{.sandbox = "/var/sb", .sandbox_in_container = "/var/sb", .rootfs = ""};
const View rootfs{.sandbox = "/var/sb", .sandbox_in_container = "/mnt/sandbox", .rootfs = "/image"};

std::string place_text(const View& view, std::string_view path) {
  const auto place = place_of(view, path);
  if (!place) return std::string(code_name(place.error().code));
  const char* names[] = {"host ", "sandbox ", "rootfs "};
  return names[place->beneath] + place->path();
}

TEST(PlaceOf, TheTableOfMesos) {
  EXPECT_EQ(place_text(rootfs, "/data"), "rootfs /image/data");
  EXPECT_EQ(place_text(rootfs, "data"), "sandbox /var/sb/data");
  EXPECT_EQ(place_text(host, "/data"), "host /data");
  EXPECT_EQ(place_text(host, "data"), "sandbox /var/sb/data");
}

TEST(PlaceOf, SeesThroughDotsAndSlashes) {
  EXPECT_EQ(place_text(host, "./a//b/./c/"), "sandbox /var/sb/a/b/c");
  EXPECT_EQ(place_text(rootfs, "//a/./b/"), "rootfs /image/a/b");
  EXPECT_EQ(place_text(host, "..a/b.."), "sandbox /var/sb/..a/b..");
}

TEST(PlaceOf, AnAbsolutePathInThePlaceOfTheSandboxMeansTheSandbox) {
  EXPECT_EQ(place_text(rootfs, "/mnt/sandbox/data"), "sandbox /var/sb/data");
  EXPECT_EQ(place_text(host, "/var/sb/data"), "sandbox /var/sb/data");
  EXPECT_EQ(place_text(host, "/var/sb2/data"), "host /var/sb2/data");
}

TEST(PlaceOf, RefusesWhatLeavesOrHidesTheSandbox) {
  for (const char* path : {"", ".", "./", "/", "//", "..", "../x", "a/../b", "/a/../../b", "/a/.."}) {
    EXPECT_EQ(place_text(host, path), "invalid_argument") << path;
    EXPECT_EQ(place_text(rootfs, path), "invalid_argument") << path;
  }
  EXPECT_EQ(place_text(host, "/var"), "invalid_argument");
  EXPECT_EQ(place_text(host, "/var/sb"), "invalid_argument");
  EXPECT_EQ(place_text(rootfs, "/mnt"), "invalid_argument");
  EXPECT_EQ(place_text(rootfs, "/mnt/sandbox/"), "invalid_argument");
  EXPECT_EQ(place_text(host, std::string(10'000, 'a')), "invalid_argument");
  EXPECT_EQ(place_text(host, std::string_view("a\0b", 3)), "invalid_argument");
}

TEST(ParentsFirst, PutsWhatLiesInAFolderRightAfterIt) {
  std::vector<std::string> paths = {"/a-b", "/a/b/c", "/b", "/a", "/a/b", "/a b"};
  std::ranges::sort(paths, parents_first);
  EXPECT_THAT(paths, ElementsAre("/a", "/a/b", "/a/b/c", "/a b", "/a-b", "/b"));
  EXPECT_TRUE(lies_in("/a/b", "/a"));
  EXPECT_FALSE(lies_in("/ab", "/a"));
  EXPECT_FALSE(lies_in("/a", "/a"));
}

TEST(MakePath, MakesWhatIsMissingForItsOwnerAndLeavesTheRest) {
  if (::geteuid() != 0) GTEST_SKIP() << "changes owners: needs root";
  const TempDir dir;
  dir.make_folder("there");
  const auto made = make_path(dir.text(), "there/a/b", {.owner = Owner{.uid = 1234, .gid = 5678}});
  ASSERT_TRUE(made) << made.error().text();
  EXPECT_TRUE(made->made);
  EXPECT_EQ(made->info.path, dir / "there/a/b");
  EXPECT_EQ(made->info.mode, 0755U);
  for (const char* path : {"there/a", "there/a/b"}) {
    struct stat status{};
    ASSERT_EQ(::stat((dir / path).c_str(), &status), 0);
    EXPECT_EQ(status.st_uid, 1234U);
    EXPECT_EQ(status.st_gid, 5678U);
  }
  struct stat status{};
  ASSERT_EQ(::stat((dir / "there").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 0U);
  const auto again = make_path(dir.text(), "there/a/b", {.owner = Owner{}});
  ASSERT_TRUE(again);
  EXPECT_FALSE(again->made);
  EXPECT_EQ(again->info.uid, 1234U);
}

TEST(MakePath, FollowsNoLinkUnlessItStaysInside) {
  const TempDir dir;
  const TempDir outside;
  dir.make_folder("etc");
  std::filesystem::create_symlink(outside.text(), dir / "out");
  std::filesystem::create_symlink("/etc", dir / "in");
  std::filesystem::create_symlink("../../../../..", dir / "up");
  for (const char* path : {"out/x", "in/x", "up/x", "out"}) {
    const auto made = make_path(dir.text(), path, {.links = Links::none});
    ASSERT_FALSE(made) << path;
    EXPECT_THAT(made.error().text(), HasSubstr("symbolic link"));
  }
  const auto inside = make_path(dir.text(), "in/x", {.links = Links::inside});
  ASSERT_TRUE(inside) << inside.error().text();
  EXPECT_EQ(inside->info.path, dir / "etc/x");
  const auto up = make_path(dir.text(), "up/y", {.links = Links::inside});
  ASSERT_TRUE(up) << up.error().text();
  EXPECT_EQ(up->info.path, dir / "y");
  EXPECT_FALSE(make_path(dir.text(), "out/x", {.links = Links::inside}));
  EXPECT_TRUE(std::filesystem::is_empty(outside.text()));
}

TEST(LookBeneath, TellsNothingThereFromALink) {
  const TempDir dir;
  const auto nothing = look_beneath(dir.text(), "a/b");
  ASSERT_TRUE(nothing);
  EXPECT_FALSE(nothing->has_value());
  std::filesystem::create_symlink("/etc", dir / "link");
  EXPECT_FALSE(look_beneath(dir.text(), "link"));
  EXPECT_FALSE(look_beneath(dir.text(), "link/passwd"));
}

TEST(InspectPath, GivesTheRealPathOrNotFound) {
  const TempDir dir;
  std::ofstream(dir / "file") << "x";
  std::filesystem::create_symlink(dir / "file", dir / "link");
  const auto info = inspect_path(Context(), helpers(), dir / "link");
  ASSERT_TRUE(info) << info.error().text();
  EXPECT_EQ(info->path, dir / "file");
  EXPECT_FALSE(info->directory);
  const auto nothing = inspect_path(Context(), helpers(), dir / "nothing");
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().code, Code::not_found);
}

TEST(MakeInVolume, MakesOnlyWhereItMayAndFollowsNoLink) {
  const TempDir volume;
  const auto refused = make_in_volume(Context(), helpers(), volume.text(), "a/b", Leaf::directory, false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::not_found);
  const auto made = make_in_volume(Context(), helpers(), volume.text(), "a/b", Leaf::directory, true);
  ASSERT_TRUE(made) << made.error().text();
  EXPECT_EQ(made->path, volume / "a/b");
  EXPECT_TRUE(make_in_volume(Context(), helpers(), volume.text(), "a/b", Leaf::directory, false));
  std::filesystem::create_symlink("/tmp", volume / "link");
  EXPECT_FALSE(make_in_volume(Context(), helpers(), volume.text(), "link/x", Leaf::directory, true));
}

}  // namespace
}  // namespace dvdi::isolator
