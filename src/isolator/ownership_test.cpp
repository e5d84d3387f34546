#include "isolator/ownership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "isolator/test_support.h"
#include "linux/mount_table.h"

namespace dvdi::isolator {
namespace {

using test::helpers;
using test::TempDir;
using testing::HasSubstr;

struct stat look(const std::string& path) {
  struct stat status{};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return status;
}

std::string owner_text(const std::string& user, const std::string& rootfs = {}) {
  const auto owner = find_owner(Context(), helpers(), user, rootfs);
  if (!owner) return std::string(code_name(owner.error().code));
  return std::to_string(owner->uid) + ":" + std::to_string(owner->gid);
}

TEST(FindOwner, OnTheHost) {
  EXPECT_EQ(owner_text(""), "0:0");
  EXPECT_EQ(owner_text("root"), "0:0");
  EXPECT_EQ(owner_text("nobody"), "65534:65534");
  EXPECT_EQ(owner_text("0"), "0:0");
  EXPECT_EQ(owner_text("54321"), "invalid_argument");
  EXPECT_EQ(owner_text("54321:54322"), "54321:54322");
  EXPECT_EQ(owner_text("54321:0"), "54321:0");
  EXPECT_EQ(owner_text("nobody:daemon"), "65534:1");
  EXPECT_EQ(owner_text("no-such-user"), "invalid_argument");
  EXPECT_EQ(owner_text("root:no-such-group"), "invalid_argument");
  EXPECT_EQ(owner_text("4294967295"), "invalid_argument");
}

TEST(FindOwner, InTheRootFileSystemAndNotOnTheHost) {
  const TempDir image;
  image.make_folder("etc");
  std::ofstream(image / "etc/passwd") << "root:x:0:0::/:/bin/sh\napp:x:777:778::/:/bin/sh\n";
  std::ofstream(image / "etc/group") << "root:x:0:\nteam:x:779:app\n";
  EXPECT_EQ(owner_text("app", image.text()), "777:778");
  EXPECT_EQ(owner_text("777", image.text()), "777:778");
  EXPECT_EQ(owner_text("app:team", image.text()), "777:779");
  EXPECT_EQ(owner_text("nobody", image.text()), "invalid_argument");
  // A link in an image must not lead to the host's own file.
  std::filesystem::remove(image / "etc/passwd");
  std::filesystem::create_symlink("../../../../../../etc/passwd", image / "etc/passwd");
  EXPECT_EQ(owner_text("nobody", image.text()), "invalid_argument");
}

struct Policies : testing::Test {
  TempDir volume;
  v1::ContainerMountInfo mount;
  OwnershipRequest request;
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "changes owners: needs root";
    ASSERT_EQ(::chmod(volume.text().c_str(), 0700), 0);
    volume.make_folder("inner");
    request.host_path = volume.text();
    request.target = {.path = "/t", .directory = true, .mode = 02750, .uid = 1234, .gid = 5678};
    request.user = {.uid = 321, .gid = 654};
  }
  Status apply(spec::Ownership policy) {
    request.policy = policy;
    return apply_ownership(Context(), helpers(), request, mount);
  }
};

TEST_F(Policies, NoneChangesNothing) {
  ASSERT_TRUE(apply(spec::Ownership::none));
  EXPECT_EQ(look(volume.text()).st_uid, 0U);
  EXPECT_EQ(look(volume.text()).st_mode & 07777U, 0700U);
  EXPECT_FALSE(mount.has_idmap());
}

TEST_F(Policies, MatchTargetGivesTheTopOwnerAndModeOfTheContainerPath) {
  ASSERT_TRUE(apply(spec::Ownership::match_target));
  EXPECT_EQ(look(volume.text()).st_uid, 1234U);
  EXPECT_EQ(look(volume.text()).st_gid, 5678U);
  EXPECT_EQ(look(volume.text()).st_mode & 07777U, 02750U);
  EXPECT_EQ(look(volume / "inner").st_uid, 0U);
}

TEST_F(Policies, UserGivesTheTopToTheTasksUserAndKeepsTheMode) {
  ASSERT_TRUE(apply(spec::Ownership::user));
  EXPECT_EQ(look(volume.text()).st_uid, 321U);
  EXPECT_EQ(look(volume.text()).st_gid, 654U);
  EXPECT_EQ(look(volume.text()).st_mode & 07777U, 0700U);
  EXPECT_EQ(look(volume / "inner").st_uid, 0U);
}

TEST_F(Policies, IdmapChangesNothingAndTellsTheLauncher) {
  ASSERT_TRUE(apply(spec::Ownership::idmap));
  EXPECT_EQ(look(volume.text()).st_uid, 0U);
  EXPECT_EQ(mount.idmap().from_uid(), 0U);
  EXPECT_EQ(mount.idmap().to_uid(), 321U);
  EXPECT_EQ(mount.idmap().to_gid(), 654U);
  mount.Clear();
  request.user = {};
  ASSERT_TRUE(apply(spec::Ownership::idmap));
  EXPECT_FALSE(mount.has_idmap());
}

TEST_F(Policies, NeverTouchesAFolderThatIsNotTheVolumeAnyMore) {
  v1::MountIdentity identity;
  identity.set_mount_id(1U << 30U);
  request.identity = identity;
  const auto status = apply(spec::Ownership::user);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::failed_precondition);
  EXPECT_EQ(look(volume.text()).st_uid, 0U);
}

TEST_F(Policies, OfTheMountThatItIsAndWhereItCannotBeChanged) {
  const std::string top = volume / "inner";
  if (::mount("tmpfs", top.c_str(), "tmpfs", 0, nullptr) != 0) GTEST_SKIP() << "cannot mount here";
  const auto table = MountTable::read();
  ASSERT_TRUE(table);
  ASSERT_NE(table->at(top), nullptr);
  v1::MountIdentity identity;
  identity.set_mount_id(table->at(top)->id);
  request.identity = identity;
  request.host_path = top;
  EXPECT_TRUE(apply(spec::Ownership::user));
  EXPECT_EQ(look(top).st_uid, 321U);

  ASSERT_EQ(::mount(nullptr, top.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
  EXPECT_TRUE(apply(spec::Ownership::user));  // it is so already
  const auto status = apply(spec::Ownership::match_target);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::unsupported);
  EXPECT_THAT(status.error().text(), HasSubstr("dvdi.ownership=none"));
  ASSERT_EQ(::umount(top.c_str()), 0);
}

}  // namespace
}  // namespace dvdi::isolator
