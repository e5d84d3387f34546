#include "linux/mount_api.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "linux/bind_source.h"
#include "linux/mount_table.h"
#include "linux/user_namespace.h"

namespace dvdi {
namespace {

namespace fs = std::filesystem;

// Every test runs in one mount namespace of this program's own.
class MountApi : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0) return;
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  }
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root to mount";
    std::string pattern = fs::temp_directory_path() / "dvdi-mount-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    top_ = pattern;
    fs::create_directories(top_ / "source");
    fs::create_directories(top_ / "target");
    mount_tmpfs(top_ / "source", "vol-a");
    fs::create_directories(top_ / "source/sub");
    mount_tmpfs(top_ / "source/sub", "vol-b");
  }
  void TearDown() override {
    if (top_.empty()) return;
    ::umount2((top_ / "target").c_str(), MNT_DETACH);
    ::umount2((top_ / "source").c_str(), MNT_DETACH);
    fs::remove_all(top_);
  }

  static void mount_tmpfs(const fs::path& path, const char* name) {
    ASSERT_EQ(::mount(name, path.c_str(), "tmpfs", 0, "size=1m"), 0) << path;
  }
  v1::ContainerMountInfo instruction(std::uint32_t flags) const {
    v1::ContainerMountInfo info;
    info.set_source(top_ / "source");
    info.set_target(top_ / "target");
    info.set_flags(flags | MS_BIND | MS_REC);
    info.set_volume("local/a");
    return info;
  }
  void attach(const BindSource& source) const {
    auto target = open_directory(top_ / "target");
    ASSERT_TRUE(target) << target.error().text();
    const auto status = attach_mount(source.mount.get(), target->get());
    ASSERT_TRUE(status) << status.error().text();
  }
  static bool has_option(const fs::path& path, std::string_view option) {
    const auto table = MountTable::read();
    EXPECT_TRUE(table);
    const MountEntry* entry = table->at(path.native());
    EXPECT_NE(entry, nullptr) << path;
    if (entry == nullptr) return false;
    return ("," + std::string(entry->options) + ",").find(fmt_option(option)) != std::string::npos;
  }
  static std::string fmt_option(std::string_view option) { return "," + std::string(option) + ","; }

  fs::path top_;
};

TEST_F(MountApi, ReadOnlyNosuidNodevHoldForSubmounts) {
  auto source = open_bind_source(instruction(MS_RDONLY | MS_NOSUID | MS_NODEV));
  ASSERT_TRUE(source) << source.error().text();
  EXPECT_EQ(source->kind, Leaf::directory);
  attach(*source);
  for (const char* path : {"target", "target/sub"}) {
    EXPECT_TRUE(has_option(top_ / path, "ro")) << path;
    EXPECT_TRUE(has_option(top_ / path, "nosuid")) << path;
    EXPECT_TRUE(has_option(top_ / path, "nodev")) << path;
    EXPECT_FALSE(std::ofstream(top_ / path / "x")) << path << " can be written to";
  }
  EXPECT_TRUE(has_option(top_ / "source", "rw")) << "the source itself must not change";
  EXPECT_TRUE(std::ofstream(top_ / "source/sub/x"));
}

TEST_F(MountApi, FlagsThatAreLeftOutAreTakenFromTheVolumeButNotFromWhatIsBelowIt) {
  for (const char* path : {"source", "source/sub"}) {
    ASSERT_EQ(::mount(nullptr, (top_ / path).c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV,
                      nullptr),
              0);
  }
  auto source = open_bind_source(instruction(MS_NODEV));
  ASSERT_TRUE(source) << source.error().text();
  attach(*source);
  EXPECT_FALSE(has_option(top_ / "target", "nosuid"));
  EXPECT_TRUE(has_option(top_ / "target", "nodev"));
  EXPECT_TRUE(has_option(top_ / "target/sub", "nosuid"));
  EXPECT_TRUE(has_option(top_ / "source", "nosuid")) << "the source itself must not change";
}

TEST_F(MountApi, WithoutRecursionTheSubmountIsNotThere) {
  v1::ContainerMountInfo info = instruction(0);
  info.set_flags(MS_BIND);
  auto source = open_bind_source(info);
  ASSERT_TRUE(source) << source.error().text();
  attach(*source);
  const auto table = MountTable::read();
  ASSERT_TRUE(table);
  EXPECT_EQ(table->beneath((top_ / "target").native()).size(), 1U);
}

TEST_F(MountApi, ASourceThatIsAFile) {
  std::ofstream(top_ / "source/file") << "x";
  v1::ContainerMountInfo info = instruction(0);
  info.set_source(top_ / "source/file");
  auto source = open_bind_source(info);
  ASSERT_TRUE(source) << source.error().text();
  EXPECT_EQ(source->kind, Leaf::file);
  auto target = open_directory(top_ / "target");
  ASSERT_TRUE(target);
  const auto status = attach_mount(source->mount.get(), target->get());
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::failed_precondition);
}

TEST_F(MountApi, RefusesFlagsItDoesNotKnow) {
  v1::ContainerMountInfo info = instruction(MS_NOEXEC);
  EXPECT_EQ(open_bind_source(info).error().code, Code::unsupported);
  info.set_flags(MS_RDONLY);
  EXPECT_EQ(open_bind_source(info).error().code, Code::unsupported) << "not a bind mount";
  info = instruction(0);
  info.set_source("source");
  EXPECT_EQ(open_bind_source(info).error().code, Code::invalid_argument);
}

TEST_F(MountApi, IdentityOfAMount) {
  auto fd = open_directory(top_ / "source/sub");
  ASSERT_TRUE(fd);
  auto identity = mount_identity(fd->get());
  ASSERT_TRUE(identity) << identity.error().text();
  EXPECT_EQ(identity->source(), "vol-b");
  EXPECT_EQ(identity->fs_type(), "tmpfs");
  EXPECT_EQ(identity->root(), "/");
  EXPECT_EQ(identity->mount_point(), (top_ / "source/sub").native());
  EXPECT_TRUE(check_mount_identity(fd->get(), *identity));

  // A folder in the mount lies in it, too.
  fs::create_directories(top_ / "source/sub/folder");
  auto inside = open_directory(top_ / "source/sub/folder");
  ASSERT_TRUE(inside);
  EXPECT_TRUE(check_mount_identity(inside->get(), *identity));

  // Each field alone makes it another mount.
  const auto differs = [&](auto change) {
    v1::MountIdentity other = *identity;
    change(other);
    return !check_mount_identity(fd->get(), other);
  };
  EXPECT_TRUE(differs([](auto& other) { other.set_mount_id(other.mount_id() + 1'000'000); }));
  EXPECT_TRUE(differs([](auto& other) { other.set_minor(other.minor() + 1); }));
  EXPECT_TRUE(differs([](auto& other) { other.set_root("/elsewhere"); }));
  EXPECT_TRUE(differs([](auto& other) { other.set_source("vol-a"); }));
  EXPECT_TRUE(differs([](auto& other) { other.set_fs_type("ext4"); }));
}

TEST_F(MountApi, ASourceThatWasUnmountedIsRefused) {
  v1::ContainerMountInfo info = instruction(0);
  info.set_source(top_ / "source/sub");
  auto fd = open_directory(top_ / "source/sub");
  ASSERT_TRUE(fd);
  auto identity = mount_identity(fd->get());
  ASSERT_TRUE(identity) << identity.error().text();
  *info.mutable_identity() = *identity;
  EXPECT_TRUE(open_bind_source(info));

  ASSERT_EQ(::umount2((top_ / "source/sub").c_str(), MNT_DETACH), 0);
  auto refused = open_bind_source(info);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::failed_precondition);
  EXPECT_EQ(refused.error().volume, "local/a");
  EXPECT_NE(refused.error().message.find("'vol-a'"), std::string::npos) << refused.error().text();
  EXPECT_NE(refused.error().message.find("'vol-b'"), std::string::npos) << refused.error().text();
}

TEST_F(MountApi, OwnersAreExchanged) {
  std::ofstream(top_ / "source/roots");
  std::ofstream(top_ / "source/users");
  std::ofstream(top_ / "source/others");
  ASSERT_EQ(::chown((top_ / "source/users").c_str(), 1234, 1235), 0);
  ASSERT_EQ(::chown((top_ / "source/others").c_str(), 77, 78), 0);
  v1::ContainerMountInfo info = instruction(0);
  auto* map = info.mutable_idmap();
  map->set_from_uid(0);
  map->set_to_uid(1234);
  map->set_from_gid(0);
  map->set_to_gid(1235);
  auto source = open_bind_source(info);
  if (!kernel_features().idmapped_tmpfs) {
    ASSERT_FALSE(source);
    EXPECT_EQ(source.error().code, Code::unsupported);
    EXPECT_NE(source.error().message.find("tmpfs"), std::string::npos);
    return;
  }
  ASSERT_TRUE(source) << source.error().text();
  attach(*source);
  const auto owner = [&](const char* path) {
    struct stat status{};
    EXPECT_EQ(::stat((top_ / path).c_str(), &status), 0) << path;
    return std::pair(status.st_uid, status.st_gid);
  };
  EXPECT_EQ(owner("target/roots"), std::pair(1234U, 1235U));
  EXPECT_EQ(owner("target/users"), std::pair(0U, 0U));
  EXPECT_EQ(owner("target/others"), std::pair(77U, 78U));
  std::ofstream(top_ / "target/new");
  EXPECT_EQ(owner("source/new"), std::pair(1234U, 1235U)) << "root's new file is stored as the other's";
}

TEST_F(MountApi, AFileSystemThatCannotMapOwnersIsNamed) {
  // proc has never been able to.
  v1::ContainerMountInfo::IdMap map;
  map.set_to_uid(1000);
  map.set_to_gid(1000);
  auto user_namespace = make_user_namespace(map);
  ASSERT_TRUE(user_namespace) << user_namespace.error().text();
  auto proc = new_filesystem("proc", {}, MOUNT_ATTR_NOSUID);
  ASSERT_TRUE(proc) << proc.error().text();
  auto target = open_directory(top_ / "target");
  ASSERT_TRUE(target);
  ASSERT_TRUE(attach_mount(proc->get(), target->get()));
  auto fd = open_directory(top_ / "target");
  ASSERT_TRUE(fd);
  auto copy = clone_mount(fd->get(), Depth::top);
  ASSERT_TRUE(copy) << copy.error().text();
  const auto status = set_mount_idmap(copy->get(), user_namespace->get(), Depth::top);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::unsupported);
}

TEST_F(MountApi, AnOwnerMappingIsAPermutation) {
  const std::vector<std::pair<unsigned, unsigned>> pairs = {
      {0, 1}, {5, 6}, {1000, 0}, {7, 7}, {0, 4294967294U}, {4294967293U, 4294967294U}};
  for (const auto& [from, to] : pairs) {
    v1::ContainerMountInfo::IdMap map;
    map.set_from_uid(from);
    map.set_to_uid(to);
    auto fd = make_user_namespace(map);
    EXPECT_TRUE(fd) << from << " " << to << ": " << fd.error().text();
  }
  v1::ContainerMountInfo::IdMap none;
  none.set_to_uid(4294967295U);
  EXPECT_EQ(make_user_namespace(none).error().code, Code::invalid_argument);
}

}  // namespace
}  // namespace dvdi
