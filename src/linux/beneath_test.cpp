#include "linux/beneath.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace dvdi {
namespace {

namespace fs = std::filesystem;

class Beneath : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "dvdi-beneath-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    top_ = pattern;
    fs::create_directories(top_ / "root");
    fs::create_directories(top_ / "outside");
    auto root = open_directory(top_ / "root");
    ASSERT_TRUE(root) << root.error().text();
    root_ = std::move(*root);
  }
  void TearDown() override { fs::remove_all(top_); }

  static mode_t mode_of(const fs::path& path) {
    struct stat status{};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
    return status.st_mode & 07777;
  }

  fs::path top_;
  UniqueFd root_;
};

TEST_F(Beneath, MakesWhatIsMissingAndSaysWhatItMade) {
  fs::create_directories(top_ / "root/a");
  const mode_t umask_before = ::umask(0077);
  auto created = create_beneath(root_.get(), "/a//b/./c", {.mode = 0751});
  const mode_t umask_after = ::umask(umask_before);
  ASSERT_TRUE(created) << created.error().text();
  EXPECT_EQ(created->made, (std::vector<std::string>{"a/b", "a/b/c"}));
  EXPECT_EQ(mode_of(top_ / "root/a/b"), 0751U) << "the umask must not count";
  EXPECT_EQ(mode_of(top_ / "root/a/b/c"), 0751U);
  EXPECT_EQ(umask_after, mode_t{0077}) << "and must not be changed";

  auto again = create_beneath(root_.get(), "a/b/c", {});
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_TRUE(again->made.empty());
  EXPECT_EQ(mode_of(top_ / "root/a/b/c"), 0751U) << "what is there stays as it is";
}

TEST_F(Beneath, MakesAFile) {
  auto created = create_beneath(root_.get(), "etc/file", {.leaf = Leaf::file});
  ASSERT_TRUE(created) << created.error().text();
  EXPECT_TRUE(fs::is_regular_file(top_ / "root/etc/file"));
  EXPECT_EQ(mode_of(top_ / "root/etc/file"), 0644U);

  auto folder = create_beneath(root_.get(), "etc", {.leaf = Leaf::file});
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().code, Code::failed_precondition);
  EXPECT_FALSE(create_beneath(root_.get(), "etc/file/below", {}));
  EXPECT_FALSE(create_beneath(root_.get(), "etc/file", {})) << "a file where a folder is to be";
}

TEST_F(Beneath, RefusesDotDot) {
  for (const std::string_view path : {"..", "a/../../outside", "a/..", "../outside/x"}) {
    auto created = create_beneath(root_.get(), path, {.links = Links::inside});
    ASSERT_FALSE(created) << path;
    EXPECT_EQ(created.error().code, Code::invalid_argument) << path;
  }
  EXPECT_TRUE(fs::is_empty(top_ / "outside"));
  EXPECT_TRUE(fs::is_empty(top_ / "root"));
  auto opened = open_beneath(root_.get(), "../outside", O_PATH, Links::none);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::failed_precondition);
}

TEST_F(Beneath, RefusesLongPathsAndNul) {
  EXPECT_EQ(create_beneath(root_.get(), std::string(10'000, 'a'), {}).error().code, Code::invalid_argument);
  EXPECT_EQ(open_beneath(root_.get(), std::string(10'000, 'a'), O_PATH, Links::none).error().code,
            Code::invalid_argument);
  EXPECT_EQ(create_beneath(root_.get(), std::string_view("a\0b", 3), {}).error().code,
            Code::invalid_argument);
}

TEST_F(Beneath, FollowsNoLinkWhereNoneIsAllowed) {
  fs::create_directory_symlink(top_ / "outside", top_ / "root/out");
  fs::create_directories(top_ / "root/real");
  fs::create_directory_symlink("real", top_ / "root/in");
  for (const std::string_view path : {"out", "out/x", "in", "in/x"}) {
    auto created = create_beneath(root_.get(), path, {});
    ASSERT_FALSE(created) << path;
    EXPECT_EQ(created.error().code, Code::failed_precondition) << path;
    EXPECT_NE(created.error().message.find("symbolic link"), std::string::npos);
  }
  EXPECT_TRUE(fs::is_empty(top_ / "outside"));
}

TEST_F(Beneath, ALinkInARootFileSystemStaysInIt) {
  // /var/run -> /run, and one that means the host's folder when it is read from outside.
  fs::create_directories(top_ / "root/run");
  fs::create_directories(top_ / "root/var");
  fs::create_directory_symlink("/run", top_ / "root/var/run");
  fs::create_directory_symlink(top_ / "outside", top_ / "root/host");
  fs::create_directory_symlink("../../../../outside", top_ / "root/up");

  auto created = create_beneath(root_.get(), "var/run/app", {.links = Links::inside});
  ASSERT_TRUE(created) << created.error().text();
  EXPECT_TRUE(fs::is_directory(top_ / "root/run/app"));

  for (const std::string_view path : {"host/x", "up/x"}) {
    auto refused = create_beneath(root_.get(), path, {.links = Links::inside});
    ASSERT_FALSE(refused) << path;
    EXPECT_EQ(refused.error().code, Code::failed_precondition);
  }
  EXPECT_TRUE(fs::is_empty(top_ / "outside"));
}

TEST_F(Beneath, FollowsNoMagicLink) {
  auto root = open_directory("/");
  ASSERT_TRUE(root);
  auto opened = open_beneath(root->get(), "proc/self/cwd", O_PATH, Links::inside);
  EXPECT_FALSE(opened);
}

}  // namespace
}  // namespace dvdi
