// The parts of the local driver that need no helper: options, records, deletion, formatting.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "driver/local/image.h"
#include "driver/local/options.h"
#include "driver/local/volume_record.h"
#include "driver/test_namespace.h"
#include "linux/holders.h"
#include "linux/remove_tree.h"

namespace dvdi::driver::local {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = testing::TempDir() + "dvdi-local-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    fd_.reset(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }

 private:
  std::string path_;
  UniqueFd fd_;
};

std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(LocalOptions, Sizes) {
  EXPECT_EQ(parse_size("100"), 100ULL << 30);
  EXPECT_EQ(parse_size("1B"), 1U);
  EXPECT_EQ(parse_size("3k"), 3U << 10);
  EXPECT_EQ(parse_size("3KiB"), 3U << 10);
  EXPECT_EQ(parse_size("16M"), 16U << 20);
  EXPECT_EQ(parse_size("2G"), parse_size("2"));
  EXPECT_EQ(parse_size("1024T"), 1ULL << 50);
  for (const char* text : {"", "0", "0M", "-1", "1.5G", "1MB", "M", "1 G", "1025T", "18446744073709551616",
                           "99999999999T", "1X", "0x10"}) {
    EXPECT_EQ(parse_size(text), std::nullopt) << text;
  }
}

TEST(LocalOptions, EverythingWrongIsToldAtOnceAndWhatIsKnown) {
  const auto result = parse_options({{"type", "disk"},
                                     {"mode", "9"},
                                     {"uid", "-1"},
                                     {"gid", "4294967295"},
                                     {"fstype", "vfat"},
                                     {"size", "1MB"},
                                     {"iops", "3"}});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::invalid_argument);
  for (const char* part :
       {"type=disk", "mode=9", "uid=-1", "gid=4294967295", "fstype=vfat", "size=1MB", "'iops'"}) {
    EXPECT_THAT(result.error().message, HasSubstr(part));
  }
  EXPECT_THAT(result.error().hint, HasSubstr("fstype=ext4|xfs"));
  EXPECT_FALSE(parse_options({{"mode", "10000"}}));
}

TEST(LocalOptions, WhatMakesNoSenseTogether) {
  const auto problem = [](const Options& options) {
    const auto complete_options = complete(parse_options(options).value());
    return complete_options ? std::string() : complete_options.error().message;
  };
  EXPECT_EQ(problem({}), "");
  EXPECT_EQ(problem({{"size", "100"}}), "");
  EXPECT_THAT(problem({{"type", "tmpfs"}}), HasSubstr("needs a size"));
  EXPECT_THAT(problem({{"type", "image"}}), HasSubstr("needs a size"));
  EXPECT_THAT(problem({{"fstype", "xfs"}}), HasSubstr("only for type=image"));
  EXPECT_THAT(problem({{"type", "image"}, {"fstype", "xfs"}, {"size", "299M"}}), HasSubstr("at least 300M"));
  EXPECT_EQ(problem({{"type", "image"}, {"fstype", "xfs"}, {"size", "300M"}}), "");
  EXPECT_THAT(problem({{"type", "image"}, {"size", "1M"}}), HasSubstr("at least 4M"));
}

TEST(LocalOptions, OnlyWhatIsStatedIsCompared) {
  const VolumeOptions volume =
      complete(parse_options({{"type", "image"}, {"size", "1G"}, {"mode", "1777"}}).value()).value();
  const auto different = [&](const Options& options) {
    return differences(parse_options(options).value(), volume);
  };
  EXPECT_THAT(different({}), IsEmpty());
  EXPECT_THAT(different({{"size", "1"}, {"mode", "01777"}, {"fstype", "ext4"}}), IsEmpty());
  EXPECT_THAT(different({{"size", "2"}, {"uid", "7"}}),
              ElementsAre("size is 1073741824 bytes, not 2147483648", "uid is 0, not 7"));
  EXPECT_THAT(different({{"type", "dir"}, {"fstype", "xfs"}, {"gid", "1"}, {"mode", "1"}}),
              testing::SizeIs(4));
  EXPECT_THAT(differences(parse_options({{"fstype", "ext4"}}).value(), VolumeOptions{}),
              ElementsAre("fstype is not set, not ext4"));
}

TEST(LocalRecord, FoldersAreSafeAndDifferent) {
  EXPECT_EQ(folder_name("my-vol_1.x"), "my-vol_1.x");
  EXPECT_EQ(folder_name(".."), "%2E.");
  EXPECT_EQ(folder_name("a/b"), "a%2Fb");
  EXPECT_EQ(folder_name(std::string(255, 'a')).size(), 100U + 1 + 32);
  std::vector<std::string> names{"a", "A", "%61", "a%", "~", "..", ".", ".new-a", "a/b", "a%2Fb", "a\nb"};
  for (const char end : {'x', 'y'}) {
    names.push_back(std::string(254, '/') + end);
    names.push_back(std::string(254, 'n') + end);
  }
  names.push_back(folder_name(names.back()));  // the folder's name of another volume
  std::set<std::string> folders;
  for (const std::string& name : names) {
    const std::string folder = folder_name(name);
    EXPECT_TRUE(folders.insert(folder).second) << name;
    EXPECT_LE(folder.size(), 140U);
    EXPECT_EQ(folder.find('/'), std::string::npos);
    EXPECT_NE(folder.front(), '.');
    EXPECT_EQ(unescape(escape(name)).value(), name);
  }
}

TEST(LocalRecord, IsReadBackWhole) {
  std::string name;
  for (int byte = 1; byte < 256; ++byte) name += static_cast<char>(byte);
  const VolumeRecord record{
      .name = name,
      .options =
          complete(parse_options({{"type", "image"}, {"size", "5B"}, {"mode", "750"}, {"uid", "1"}}).value())
              .value_or(VolumeOptions{.type = Type::image, .size_bytes = 1 << 30, .mode = 0750}),
      .created_at = "2026-01-01T00:00:00.000000Z",
      .owner_set = true};
  const auto back = from_json(to_json(record), "test");
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(back->name, record.name);
  EXPECT_EQ(back->options, record.options);
  EXPECT_EQ(back->created_at, record.created_at);
  EXPECT_TRUE(back->owner_set);
}

TEST(LocalRecord, ADamagedOneIsNotTakenForGood) {
  const std::string good = to_json(VolumeRecord{.name = "a", .options = {}, .created_at = "x"});
  ASSERT_TRUE(from_json(good, "t"));
  for (std::size_t size = 0; size + 2 < good.size(); size += 3) {
    EXPECT_EQ(from_json(good.substr(0, size), "t").error().code, Code::corrupted);
  }
  for (const auto& [from, to] : std::initializer_list<std::pair<std::string, std::string>>{
           {"\"version\":1", "\"version\":2"}, {"\"name\":\"a\"", "\"name\":\"%G\""}, {"dir", "rid"}}) {
    std::string bad = good;
    bad.replace(bad.find(from), from.size(), to);
    EXPECT_EQ(from_json(bad, "the file").error().code, Code::corrupted) << bad;
  }
}

TEST(LocalRemoveTree, DeletesWhateverIsInItAndFollowsNoLink) {
  const TemporaryFolder folder;
  const std::string victim = folder.path() + "/victim";
  std::filesystem::create_directories(victim);
  std::ofstream(victim + "/keep") << "x";
  const std::string tree = folder.path() + "/tree";
  std::filesystem::create_directories(tree + "/a/b/c/.dvdi-0");
  std::filesystem::create_directories(tree + "/.dvdi-1/x");
  std::filesystem::create_directory_symlink(victim, tree + "/link");
  std::filesystem::create_directory_symlink(victim, tree + "/a/b/link");
  ASSERT_EQ(::mkfifo((tree + "/a/fifo").c_str(), 0600), 0);
  for (int i = 0; i < 500; ++i) std::ofstream(tree + "/a/b/file" + std::to_string(i)) << i;
  const auto removed = remove_tree(folder.fd(), "tree");
  ASSERT_TRUE(removed) << removed.error().text();
  EXPECT_FALSE(std::filesystem::exists(tree));
  EXPECT_EQ(slurp(victim + "/keep"), "x");
  EXPECT_TRUE(remove_tree(folder.fd(), "tree"));
  // The name itself may be a link.
  std::filesystem::create_directory_symlink(victim, tree);
  ASSERT_TRUE(remove_tree(folder.fd(), "tree"));
  EXPECT_EQ(slurp(victim + "/keep"), "x");
}

TEST(LocalRemoveTree, ATreeOfAnyDepth) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkdirat(folder.fd(), "tree", 0700), 0);
  UniqueFd at(::openat(folder.fd(), "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Deeper than a process has descriptors, and than a path is long.
  for (int depth = 0; depth < 1500; ++depth) {
    ASSERT_EQ(::mkdirat(at.get(), "deep", 0700), 0);
    at.reset(::openat(at.get(), "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at);
  }
  at.reset();
  const auto removed = remove_tree(folder.fd(), "tree");
  ASSERT_TRUE(removed) << removed.error().text();
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "/tree"));
}

TEST(LocalRemoveTree, AMountInItIsRefusedAndLeftAlone) {
  if (auto entered = enter_private_mount_namespace(); !entered) GTEST_SKIP() << entered.error().text();
  const TemporaryFolder folder;
  for (const char* place : {"tree", "tree/a", "tree/a/b"}) {
    std::filesystem::create_directories(folder.path() + "/tree/a/b");
    const std::string mount_point = folder.path() + "/" + place;
    ASSERT_EQ(::mount("test", mount_point.c_str(), "tmpfs", 0, nullptr), 0);
    std::ofstream(mount_point + "/keep") << "x";
    const auto removed = remove_tree(folder.fd(), "tree");
    ASSERT_FALSE(removed) << place;
    EXPECT_EQ(removed.error().code, Code::failed_precondition) << removed.error().text();
    EXPECT_EQ(slurp(mount_point + "/keep"), "x");
    ASSERT_EQ(::umount2(mount_point.c_str(), UMOUNT_NOFOLLOW), 0);
    EXPECT_TRUE(remove_tree(folder.fd(), "tree"));
  }
}

TEST(LocalImage, AFileThatIsThereIsNeverFormatted) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/image";
  std::ofstream(path) << "precious";
  const auto made =
      make_image(Context(), folder.fd(), path, VolumeOptions{.type = Type::image, .size_bytes = 16 << 20});
  ASSERT_FALSE(made);
  EXPECT_EQ(slurp(path), "precious");
}

TEST(LocalImage, ALinkIsNotFollowed) {
  const TemporaryFolder folder;
  std::filesystem::create_symlink(folder.path() + "/elsewhere", folder.path() + "/image");
  EXPECT_FALSE(make_image(Context(), folder.fd(), folder.path() + "/image",
                          VolumeOptions{.type = Type::image, .size_bytes = 16 << 20}));
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "/elsewhere"));
}

TEST(LocalImage, WhereTheFormatterSeesAFileSystemNothingIsFormatted) {
  // make_image() looks at what `path` shows: here a file that holds an ext4, beside the one that it made.
  const TemporaryFolder folder;
  const TemporaryFolder other;
  const VolumeOptions options{.type = Type::image, .size_bytes = 16 << 20};
  const std::string full = other.path() + "/image";
  ASSERT_TRUE(make_image(Context(), other.fd(), full, options));
  const std::string before = slurp(full);
  ASSERT_EQ(before.size(), 16U << 20);
  const auto made = make_image(Context(), folder.fd(), full, options);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::failed_precondition);
  EXPECT_THAT(made.error().message, HasSubstr("ext4"));
  EXPECT_EQ(slurp(full), before);
}

TEST(LocalImage, TheDeadlineHolds) {
  const TemporaryFolder folder;
  const auto made =
      make_image(Context().with_timeout(Duration::zero()), folder.fd(), folder.path() + "/image",
                 VolumeOptions{.type = Type::image, .size_bytes = 16 << 20});
  EXPECT_EQ(made.error().code, Code::deadline_exceeded);
}

TEST(LocalHolders, FindsWhoHasAFileOpenBelowAndNobodyElse) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.path() + "/in/deep");
  std::ofstream open_file(folder.path() + "/in/deep/file");
  const std::string me = "(pid " + std::to_string(::getpid()) + ")";
  EXPECT_THAT(find_holders(Context(), folder.path() + "/in", 10), ElementsAre(HasSubstr(me)));
  EXPECT_THAT(find_holders(Context(), folder.path() + "/i", 10), IsEmpty());
  EXPECT_THAT(find_holders(Context(), folder.path() + "/in", 0), IsEmpty());
  open_file.close();
  EXPECT_THAT(find_holders(Context(), folder.path() + "/in", 10), IsEmpty());
}

}  // namespace
}  // namespace dvdi::driver::local
