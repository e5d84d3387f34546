#include "launcher/user.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "linux/beneath.h"

namespace dvdi::launcher {
namespace {

namespace fs = std::filesystem;

const FileAccounts& accounts() {
  static const FileAccounts all(
      "root:x:0:0:root:/root:/bin/bash\n"
      "# a comment\n"
      "broken:x:notanumber:5::/:/bin/sh\n"
      "minus:x:4294967295:4294967295::/:/bin/sh\n"
      "short:x:9\n"
      "alice:x:1000:1001:Alice,,,:/home/alice:/bin/zsh\n"
      "bare:x:1002:1002:::\n"
      "2000:x:77:78::/home/digits:/bin/sh\n",
      "root:x:0:\n"
      "alice:x:1001:\n"
      "disk:x:6:alice\n"
      "video:x:44:bob,alice,carol\n"
      "alicex:x:45:alicex\n"
      "bad:x:zz:alice\n");
  return all;
}

TEST(ResolveIdentity, ANameHasItsGroups) {
  auto identity = resolve_identity(accounts(), "alice");
  ASSERT_TRUE(identity) << identity.error().text();
  EXPECT_TRUE(identity->change);
  EXPECT_EQ(identity->uid, 1000U);
  EXPECT_EQ(identity->gid, 1001U);
  EXPECT_EQ(identity->groups, (std::vector<gid_t>{1001, 6, 44}));
  EXPECT_EQ(identity->home, "/home/alice");
  EXPECT_EQ(identity->shell, "/bin/zsh");
  EXPECT_EQ(identity->name, "alice");
}

TEST(ResolveIdentity, ANumberOfAnAccountIsThatAccount) {
  auto identity = resolve_identity(accounts(), "1000");
  ASSERT_TRUE(identity) << identity.error().text();
  EXPECT_EQ(identity->name, "alice");
  EXPECT_EQ(identity->groups.size(), 3U);
}

TEST(ResolveIdentity, AGroupThatIsNamedIsTheOnlyOne) {
  for (const char* text : {"alice:video", "1000:44", "alice:44"}) {
    auto identity = resolve_identity(accounts(), text);
    ASSERT_TRUE(identity) << text << ": " << identity.error().text();
    EXPECT_EQ(identity->gid, 44U) << text;
    EXPECT_EQ(identity->groups, std::vector<gid_t>{44}) << text;
  }
}

TEST(ResolveIdentity, ANumberWithoutAnAccountNeedsAGroup) {
  auto refused = resolve_identity(accounts(), "5000");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::invalid_argument);
  EXPECT_NE(refused.error().hint.find("5000:GROUP"), std::string::npos);
  auto identity = resolve_identity(accounts(), "5000:6000");
  ASSERT_TRUE(identity) << identity.error().text();
  EXPECT_EQ(identity->uid, 5000U);
  EXPECT_EQ(identity->gid, 6000U);
  EXPECT_EQ(identity->home, "/");
  EXPECT_EQ(identity->name, "5000");
}

TEST(ResolveIdentity, ANameOfDigitsComesBeforeTheNumber) {
  auto identity = resolve_identity(accounts(), "2000");
  ASSERT_TRUE(identity) << identity.error().text();
  EXPECT_EQ(identity->uid, 77U);
}

TEST(ResolveIdentity, EmptyFieldsOfAnAccountHaveDefaults) {
  auto identity = resolve_identity(accounts(), "bare");
  ASSERT_TRUE(identity) << identity.error().text();
  EXPECT_EQ(identity->home, "/");
  EXPECT_EQ(identity->shell, "/bin/sh");
}

TEST(ResolveIdentity, RefusesWhatIsNoUser) {
  for (const char* text :
       {"nobody-here", ":", ":root", "alice:", "alice:nogroup", "broken", "short", "minus", "4294967295",
        "4294967295:0", "0:4294967295", "-1:0", "1000x:0", "1:2:3", " 0:0"}) {
    auto identity = resolve_identity(accounts(), text);
    ASSERT_FALSE(identity) << text;
    EXPECT_EQ(identity.error().code, Code::invalid_argument) << text;
  }
  EXPECT_FALSE(resolve_identity(accounts(), std::string(10'000, 'a')));
}

TEST(ResolveIdentity, NoUserKeepsTheCallersIdentity) {
  auto identity = resolve_identity(HostAccounts{}, "");
  ASSERT_TRUE(identity) << identity.error().text();
  EXPECT_FALSE(identity->change);
  EXPECT_EQ(identity->uid, ::geteuid());
}

TEST(HostAccounts, KnowsRoot) {
  auto identity = resolve_identity(HostAccounts{}, "root");
  ASSERT_TRUE(identity) << identity.error().text();
  EXPECT_EQ(identity->uid, 0U);
  EXPECT_EQ(identity->home, "/root");
  EXPECT_EQ(resolve_identity(HostAccounts{}, "no-such-user-of-dvdi").error().code, Code::invalid_argument);
}

class FilesOfARoot : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "dvdi-user-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    top_ = pattern;
    fs::create_directories(top_ / "root/etc");
    auto fd = open_directory(top_ / "root");
    ASSERT_TRUE(fd);
    root_ = std::move(*fd);
  }
  void TearDown() override { fs::remove_all(top_); }
  fs::path top_;
  UniqueFd root_;
};

TEST_F(FilesOfARoot, AreReadBeneathIt) {
  std::ofstream(top_ / "root/etc/real") << "eve:x:5:5::/:/bin/sh\n";
  fs::create_symlink("/etc/real", top_ / "root/etc/passwd");
  auto read = FileAccounts::read(root_.get());
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_TRUE(read->user("eve"));
  EXPECT_FALSE(read->user("root")) << "not the host's";
}

TEST_F(FilesOfARoot, MayBeMissing) {
  auto read = FileAccounts::read(root_.get());
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_EQ(read->user("root").error().code, Code::not_found);
}

TEST_F(FilesOfARoot, MayBeAttacks) {
  ASSERT_EQ(::mkfifo((top_ / "root/etc/passwd").c_str(), 0644), 0);
  EXPECT_EQ(FileAccounts::read(root_.get()).error().code, Code::failed_precondition) << "a pipe";
  fs::remove(top_ / "root/etc/passwd");
  std::ofstream(top_ / "root/etc/passwd");
  fs::resize_file(top_ / "root/etc/passwd", 1U << 30);
  EXPECT_EQ(FileAccounts::read(root_.get()).error().code, Code::failed_precondition) << "huge";
  fs::remove(top_ / "root/etc/passwd");
  fs::create_symlink(top_ / "outside", top_ / "root/etc/passwd");
  std::ofstream(top_ / "outside") << "mallory:x:0:0::/:/bin/sh\n";
  auto read = FileAccounts::read(root_.get());
  EXPECT_TRUE(!read || !read->user("mallory")) << "followed a link out of the root";
}

}  // namespace
}  // namespace dvdi::launcher
