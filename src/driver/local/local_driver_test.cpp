#include "driver/local/local_driver.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "driver/conformance_test.h"
#include "linux/file_lock.h"
#include "linux/mount_table.h"

namespace dvdi::driver::local {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

Context minute() { return Context().with_timeout(std::chrono::minutes(1)); }

std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A folder of our own with a driver on it; unmounts what a failed test left.
class LocalSubject final : public Subject {
 public:
  explicit LocalSubject(Options options) : options_(std::move(options)) {
    std::string pattern = testing::TempDir() + "dvdi-local-XXXXXX";
    root_ = std::filesystem::canonical(::mkdtemp(pattern.data()));
    helpers_ = HelperPool::start().value();
    driver_ = std::make_unique<LocalDriver>(directory(), *helpers_);
  }
  ~LocalSubject() override {
    driver_.reset();
    helpers_.reset();
    if (const auto table = MountTable::read()) {
      const auto mine = table->beneath(root_);
      for (auto one = mine.rbegin(); one != mine.rend(); ++one) {
        ::umount2(std::string((*one)->mount_point).c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
      }
    }
    std::filesystem::remove_all(root_);
  }

  Driver& driver() override { return *driver_; }
  Options options() const override { return options_; }
  std::vector<std::string> odd_names() const override {
    std::string bytes;
    for (int byte = 1; byte < 256; ++byte) bytes += static_cast<char>(byte);
    return {"0",   "a.b-c_d", ".",   "..", ".new-x", "a/../../b",           "/etc",
            "a b", "a%2Fb",   "a/b", "~",  "\n",     std::string(255, 'x'), std::string(254, 'x') + "y",
            "-rf", bytes};
  }
  bool keeps_data() const override {
    const auto type = options_.find("type");
    return type == options_.end() || type->second != "tmpfs";
  }

  std::string directory() const { return root_ + "/local"; }
  const std::string& root() const { return root_; }
  HelperPool& helpers() { return *helpers_; }

 private:
  Options options_;
  std::string root_;
  std::unique_ptr<HelperPool> helpers_;
  std::unique_ptr<LocalDriver> driver_;
};

SubjectFactory with(Options options) {
  return [options]() -> Result<std::unique_ptr<Subject>> { return std::make_unique<LocalSubject>(options); };
}

}  // namespace
}  // namespace dvdi::driver::local

namespace dvdi::driver {
INSTANTIATE_TEST_SUITE_P(Dir, DriverConformance, testing::Values(local::with({})));
INSTANTIATE_TEST_SUITE_P(Tmpfs, DriverConformance,
                         testing::Values(local::with({{"type", "tmpfs"}, {"size", "4M"}})));
INSTANTIATE_TEST_SUITE_P(Ext4, DriverConformance,
                         testing::Values(local::with({{"type", "image"}, {"size", "8M"}})));
}  // namespace dvdi::driver

namespace dvdi::driver::local {
namespace {

class LocalDriverTest : public testing::Test {
 protected:
  void SetUp() override {
    if (auto entered = enter_private_mount_namespace(); !entered) GTEST_SKIP() << entered.error().text();
    subject_ = std::make_unique<LocalSubject>(Options{});
  }
  Driver& driver() { return subject_->driver(); }
  void create(const std::string& volume, const Options& options = {}) {
    const auto created = driver().create(minute(), volume, options);
    ASSERT_TRUE(created) << created.error().text();
  }
  std::string mount(const std::string& volume) {
    const auto mounted = driver().mount(minute(), volume, "id");
    EXPECT_TRUE(mounted) << mounted.error().text();
    return mounted.value_or("/dvdi-test-not-mounted");
  }
  void unmount(const std::string& volume) {
    const auto unmounted = driver().unmount(minute(), volume, "id");
    EXPECT_TRUE(unmounted) << unmounted.error().text();
  }
  // Everything that is mounted in the test's folder.
  std::vector<std::string> mounts() {
    std::vector<std::string> points;
    const MountTable table = MountTable::read().value();
    for (const MountEntry* one : table.beneath(subject_->root())) points.emplace_back(one->mount_point);
    return points;
  }
  // Until the next call.
  const MountEntry& entry(const std::string& path) {
    table_ = MountTable::read().value();
    const MountEntry* found = table_.at(path);
    EXPECT_NE(found, nullptr) << path;
    static const MountEntry none;
    return found == nullptr ? none : *found;
  }
  std::string volumes() const { return subject_->directory() + "/volumes"; }

  std::unique_ptr<LocalSubject> subject_;
  MountTable table_;
};

TEST_F(LocalDriverTest, EveryMountIsNosuidNodevAndLiesInASharedMountOfOurs) {
  create("d");
  create("t", {{"type", "tmpfs"}, {"size", "1M"}});
  create("i", {{"type", "image"}, {"size", "8M"}});
  for (const char* volume : {"d", "t", "i"}) {
    const std::string point = mount(volume);
    EXPECT_THAT(entry(point).options, HasSubstr("nosuid,nodev")) << volume;
    EXPECT_TRUE(entry(subject_->directory() + "/mnt").shared);
  }
  for (const char* volume : {"d", "t", "i"}) unmount(volume);
}

TEST_F(LocalDriverTest, NothingIsMountedOnceTheLastVolumeIsUnmounted) {
  create("a");
  create("b");
  mount("a");
  mount("b");
  EXPECT_EQ(mounts().size(), 3U);
  unmount("a");
  EXPECT_EQ(mounts().size(), 2U);
  unmount("b");
  EXPECT_THAT(mounts(), IsEmpty());
  EXPECT_TRUE(std::filesystem::is_empty(subject_->directory() + "/mnt"));
}

// As after a kill before the volume was mounted, or between its unmount and that of the folder.
TEST_F(LocalDriverTest, AnUnmountThatFindsNothingMountedTakesTheFoldersOwnMountAway) {
  create("a");
  create("b");
  for (const char* volume : {"a", "b"}) {
    const std::string point = mount(volume);
    ASSERT_EQ(::umount2(point.c_str(), UMOUNT_NOFOLLOW), 0);
  }
  mount("b");
  unmount("a");
  EXPECT_EQ(mounts().size(), 2U) << "b is mounted in it";
  const std::string point = mount("a");
  unmount("b");
  ASSERT_EQ(::umount2(point.c_str(), UMOUNT_NOFOLLOW), 0);
  EXPECT_EQ(mounts().size(), 1U);
  unmount("a");
  EXPECT_THAT(mounts(), IsEmpty());
}

TEST_F(LocalDriverTest, AMountThatFailsLeavesNothing) {
  create("i", {{"type", "image"}, {"size", "8M"}});
  std::filesystem::resize_file(volumes() + "/i/image", 0);
  const auto mounted = driver().mount(minute(), "i", "id");
  ASSERT_FALSE(mounted);
  EXPECT_EQ(mounted.error().outcome, Outcome::refused);
  EXPECT_THAT(mounts(), IsEmpty());
  EXPECT_EQ(std::filesystem::file_size(volumes() + "/i/image"), 0U) << "a damaged image was touched";
}

TEST_F(LocalDriverTest, TheQuotaOfAnImageAndOfATmpfsStopsAWriter) {
  create("i", {{"type", "image"}, {"size", "8M"}});
  create("t", {{"type", "tmpfs"}, {"size", "8M"}});
  for (const char* volume : {"i", "t"}) {
    const UniqueFd file(::open((mount(volume) + "/big").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(file);
    const std::string piece(std::size_t{1} << 20, 'x');
    int error = 0;
    std::size_t written = 0;
    for (int i = 0; i < 20 && error == 0; ++i) {
      const ssize_t put = ::write(file.get(), piece.data(), piece.size());
      if (put < 0) error = errno;
      if (put > 0) written += static_cast<std::size_t>(put);
    }
    EXPECT_EQ(error, ENOSPC) << volume;
    EXPECT_GT(written, 3U << 20) << volume;
    EXPECT_LE(written, 8U << 20) << volume;
  }
  for (const char* volume : {"i", "t"}) unmount(volume);
}

TEST_F(LocalDriverTest, AnXfsImageWorks) {
  create("x", {{"type", "image"}, {"size", "300M"}, {"fstype", "xfs"}, {"mode", "1777"}, {"uid", "7"}});
  const std::string point = mount("x");
  EXPECT_EQ(entry(point).fs_type, "xfs");
  struct stat info{};
  ASSERT_EQ(::stat(point.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777U, 01777U);
  EXPECT_EQ(info.st_uid, 7U);
  unmount("x");
}

TEST_F(LocalDriverTest, CreatingAgainNeitherFormatsNorChangesAnything) {
  const Options options{{"type", "image"}, {"size", "8M"}};
  create("i", options);
  std::ofstream(mount("i") + "/f") << "kept";
  create("i", options);  // also while it is mounted
  unmount("i");
  const std::string before = slurp(volumes() + "/i/image");
  create("i", options);
  create("i");  // without a demand
  EXPECT_EQ(slurp(volumes() + "/i/image"), before);
  EXPECT_EQ(slurp(mount("i") + "/f"), "kept");
  unmount("i");
}

TEST_F(LocalDriverTest, OtherOptionsAreRefused) {
  create("v", {{"size", "1"}});
  const auto created = driver().create(minute(), "v", {{"size", "2"}});
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().code, Code::already_exists);
  EXPECT_THAT(created.error().message, HasSubstr("size is 1073741824 bytes, not 2147483648"));
  EXPECT_FALSE(driver().create(minute(), "v", {{"type", "tmpfs"}, {"size", "1"}}));
  EXPECT_EQ(driver().create(minute(), "w", {{"iops", "1"}}).error().code, Code::invalid_argument);
  EXPECT_EQ(driver().create(minute(), "", {}).error().code, Code::invalid_argument);
  EXPECT_EQ(driver().create(minute(), std::string(256, 'a'), {}).error().code, Code::invalid_argument);
}

TEST_F(LocalDriverTest, AFolderThatTheDriverDidNotMakeIsLeftAlone) {
  create("other");
  std::filesystem::create_directory(volumes() + "/v");
  std::ofstream(volumes() + "/v/image") << "precious";
  for (const Options& options : {Options{}, Options{{"type", "image"}, {"size", "8M"}}}) {
    const auto created = driver().create(minute(), "v", options);
    ASSERT_FALSE(created);
    EXPECT_EQ(created.error().code, Code::corrupted);
  }
  EXPECT_FALSE(driver().mount(minute(), "v", "id"));
  EXPECT_FALSE(driver().remove(minute(), "v"));
  EXPECT_EQ(slurp(volumes() + "/v/image"), "precious");
}

TEST_F(LocalDriverTest, OwnerAndModeAreSetOnceAndALaterChangeStays) {
  for (const Options& kind : {Options{{"type", "dir"}}, Options{{"type", "image"}, {"size", "8M"}}}) {
    Options options = kind;
    options.insert({{"mode", "2770"}, {"uid", "12"}, {"gid", "34"}});
    const std::string volume = kind.at("type");
    create(volume, options);
    const std::string point = mount(volume);
    struct stat info{};
    ASSERT_EQ(::stat(point.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777U, 02770U);
    EXPECT_EQ(info.st_uid, 12U);
    EXPECT_EQ(info.st_gid, 34U);
    ASSERT_EQ(::chmod(point.c_str(), 0711), 0);
    unmount(volume);
    ASSERT_EQ(::stat(mount(volume).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777U, 0711U);
    unmount(volume);
  }
}

TEST_F(LocalDriverTest, WhatIsEnforcedIsTold) {
  create("d", {{"size", "100"}});
  create("t", {{"type", "tmpfs"}, {"size", "1M"}});
  const auto folder = driver().get(minute(), "d").value();
  EXPECT_EQ(folder.size_bytes, 100ULL << 30);
  EXPECT_EQ(folder.status.at("size_enforced"), "no");
  EXPECT_EQ(driver().get(minute(), "t").value().status.at("size_enforced"), "yes");
}

TEST_F(LocalDriverTest, ABusyVolumeNamesWhoHoldsIt) {
  create("v");
  const UniqueFd file(::open((mount("v") + "/f").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_TRUE(file);
  const auto unmounted = driver().unmount(minute(), "v", "id");
  ASSERT_FALSE(unmounted);
  EXPECT_EQ(unmounted.error().code, Code::failed_precondition);
  EXPECT_EQ(unmounted.error().outcome, Outcome::refused);
  EXPECT_THAT(unmounted.error().hint, HasSubstr("(pid " + std::to_string(::getpid()) + ")"));
}

TEST_F(LocalDriverTest, AMountInsideAVolumeIsNamed) {
  create("v");
  const std::string inner = mount("v") + "/inner";
  std::filesystem::create_directory(inner);
  ASSERT_EQ(::mount("test", inner.c_str(), "tmpfs", 0, nullptr), 0);
  EXPECT_THAT(driver().unmount(minute(), "v", "id").error().hint, HasSubstr(inner));
}

TEST_F(LocalDriverTest, AMountedVolumeIsNotRemoved) {
  create("v");
  const std::string point = mount("v");
  std::ofstream(point + "/f") << "kept";
  const auto removed = driver().remove(minute(), "v");
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().code, Code::failed_precondition);
  EXPECT_EQ(slurp(point + "/f"), "kept");
  unmount("v");
  EXPECT_TRUE(driver().remove(minute(), "v"));
  EXPECT_TRUE(std::filesystem::is_empty(volumes()));
}

TEST_F(LocalDriverTest, WhatIsMountedOverAVolumeIsNotTakenForIt) {
  create("v");
  const std::string point = mount("v");
  ASSERT_EQ(::mount("stranger", point.c_str(), "tmpfs", 0, nullptr), 0);
  EXPECT_EQ(driver().mount(minute(), "v", "id").error().code, Code::failed_precondition);
}

TEST_F(LocalDriverTest, UnmountEndsAllLayers) {
  create("v");
  const std::string point = mount("v");
  // As when a mount that was given up as stuck comes through after another was made.
  ASSERT_EQ(::mount(point.c_str(), point.c_str(), nullptr, MS_BIND, nullptr), 0);
  unmount("v");
  EXPECT_THAT(mounts(), IsEmpty());
}

TEST_F(LocalDriverTest, AnImageThatAnotherNamespaceStillHoldsGetsNoSecondLoopDevice) {
  create("i", {{"type", "image"}, {"size", "8M"}});
  const std::string point = mount("i");
  const std::string device(entry(point).source);
  std::array<int, 2> ready{};
  std::array<int, 2> end{};
  ASSERT_EQ(::pipe2(ready.data(), O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(end.data(), O_CLOEXEC), 0);
  const std::string elsewhere = subject_->root() + "/elsewhere";
  std::filesystem::create_directory(elsewhere);
  const pid_t holder = ::fork();
  if (holder == 0) {
    // Bound elsewhere, as for a task, in a namespace that no unmount of ours reaches.
    char byte = 'r';
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount(point.c_str(), elsewhere.c_str(), nullptr, MS_BIND, nullptr) != 0) {
      ::_exit(1);
    }
    ::close(end[1]);
    if (::write(ready[1], &byte, 1) == 1) (void)!::read(end[0], &byte, 1);
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  unmount("i");
  EXPECT_EQ(entry(mount("i")).source, device);
  unmount("i");
  for (const int fd : {ready[0], ready[1], end[0], end[1]}) ::close(fd);
  ::waitpid(holder, nullptr, 0);
  // With its last user the device is free.
  EXPECT_FALSE(std::filesystem::exists("/sys/block/" + device.substr(5) + "/loop"));
}

TEST_F(LocalDriverTest, ARemainderOfAKilledCreateOrRemoveIsNoVolumeAndGoes) {
  create("v");
  std::filesystem::create_directories(volumes() + "/.new-half/data");
  std::ofstream(volumes() + "/.new-half/image") << "half";
  std::filesystem::create_directories(volumes() + "/.old-gone/data/deep");
  std::filesystem::create_directories(volumes() + "/.old-v/data/deep");
  EXPECT_EQ(driver().list(minute()).value().size(), 1U);
  create("half");
  EXPECT_EQ(driver().list(minute()).value().size(), 2U);
  EXPECT_FALSE(std::filesystem::exists(volumes() + "/.old-gone"));
  EXPECT_FALSE(std::filesystem::exists(volumes() + "/half/image"));
  EXPECT_TRUE(driver().remove(minute(), "v"));
  EXPECT_FALSE(std::filesystem::exists(volumes() + "/.old-v"));
}

TEST_F(LocalDriverTest, ADamagedRecordIsAnErrorThatStopsNeitherTheOthersNorAnUnmount) {
  create("bad");
  create("good");
  mount("bad");
  std::ofstream(volumes() + "/bad/volume.json") << "{";
  EXPECT_EQ(driver().get(minute(), "bad").error().code, Code::corrupted);
  EXPECT_EQ(driver().mount(minute(), "bad", "id").error().code, Code::corrupted);
  EXPECT_EQ(driver().create(minute(), "bad", {}).error().code, Code::corrupted);
  const auto all = driver().list(minute());
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 2U);
  EXPECT_EQ((*all)[0].name, "bad");
  EXPECT_THAT((*all)[0].status.at("error"), HasSubstr("volume.json"));
  unmount("bad");
  EXPECT_TRUE(std::filesystem::exists(volumes() + "/bad/data"));
}

TEST_F(LocalDriverTest, StateSurvivesTheProgram) {
  create("v", {{"mode", "700"}});
  const std::string point = mount("v");
  std::ofstream(point + "/f") << "kept";
  LocalDriver other(subject_->directory(), subject_->helpers());
  EXPECT_EQ(other.path(minute(), "v").value(), point);
  EXPECT_EQ(other.mount(minute(), "v", "id").value(), point);
  EXPECT_TRUE(other.unmount(minute(), "v", "id"));
  EXPECT_EQ(driver().path(minute(), "v").value(), "");
  EXPECT_EQ(slurp(mount("v") + "/f"), "kept");
  unmount("v");
}

TEST_F(LocalDriverTest, ACallThatWaitsForAnotherOnTheSameVolumeEndsByItsDeadline) {
  create("v");
  const auto locks = KeyedLocks::open(subject_->directory() + "/locks").value();
  const auto held = locks->acquire(minute(), "v", "hold").value();
  const auto mounted = driver().mount(Context().with_timeout(std::chrono::milliseconds(20)), "v", "id");
  EXPECT_EQ(mounted.error().code, Code::deadline_exceeded);
  EXPECT_EQ(mounted.error().outcome, Outcome::not_sent);
  EXPECT_TRUE(driver().get(minute(), "v")) << "a look must not wait";
}

// Two drivers as two programs have them: descriptors, locks and helpers of their own.
TEST_F(LocalDriverTest, SeveralAtOnceOnOneDirectory) {
  LocalDriver other(subject_->directory(), subject_->helpers());
  std::vector<std::jthread> threads;
  std::atomic<int> wrong = 0;
  for (int thread = 0; thread < 6; ++thread) {
    threads.emplace_back([&, thread] {
      Driver& mine = thread % 2 == 0 ? driver() : other;
      const std::string volume = "v" + std::to_string(thread % 3);
      for (int round = 0; round < 8; ++round) {
        const auto created = mine.create(minute(), volume, {});
        const auto mounted = mine.mount(minute(), volume, "id");
        const auto unmounted = mine.unmount(minute(), volume, "id");
        if (!created || !mounted || !unmounted) ++wrong;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(wrong, 0);
  EXPECT_THAT(mounts(), IsEmpty());
}

}  // namespace
}  // namespace dvdi::driver::local
