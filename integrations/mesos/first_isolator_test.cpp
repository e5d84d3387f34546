#include "first_isolator.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "protobuf_test_support.h"

namespace dvdi_mesos {
namespace {

using testing::HasSubstr;

class FormerState : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "dvdi-former-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    path = folder + "/dvdimounts.pb";
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  static std::string mount(const std::string& container, const std::string& volume) {
    return field(1, container) + field(2, "rexray") + field(3, volume) +
           field(4, "/var/lib/rexray/volumes/" + volume) + field(5, "size=5,iops=150") + field(6, "/data") +
           field(7, "/usr/bin/dvdcli") + field(8, "false");
  }
  static std::string list(const std::vector<std::string>& messages) {
    std::string bytes;
    for (const std::string& one : messages) bytes += field(1, one);
    return bytes;
  }
  void write(const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
  // "": it was read.
  std::string read() {
    std::string error;
    mounts = {};
    if (read_former_state(path, mounts, error)) return {};
    EXPECT_TRUE(mounts.empty());
    EXPECT_FALSE(error.empty());
    return error;
  }

  std::string folder, path;
  std::vector<FormerMount> mounts;
};

TEST_F(FormerState, ItsMountsInTheirOrder) {
  EXPECT_FALSE(has_former_state(path));
  EXPECT_FALSE(has_former_state(""));
  write(list({mount("c1", "a"), mount("c2", "b")}));
  EXPECT_TRUE(has_former_state(path));
  ASSERT_EQ(read(), "");
  ASSERT_EQ(mounts.size(), 2U);
  EXPECT_EQ(mounts[0].container, "c1");
  EXPECT_EQ(mounts[0].driver, "rexray");
  EXPECT_EQ(mounts[0].volume, "a");
  EXPECT_EQ(mounts[0].mount_point, "/var/lib/rexray/volumes/a");
  EXPECT_EQ(mounts[0].options, "size=5,iops=150");
  EXPECT_EQ(mounts[0].container_path, "/data");
  EXPECT_EQ(mounts[1].container, "c2");
}

// As Mesos' checkpoint() writes a message: the old module used that.
TEST_F(FormerState, WithItsLengthBeforeIt) {
  for (const std::string& message : {list({mount("c1", "a"), mount("c2", "b")}), std::string()}) {
    const auto length = static_cast<std::uint32_t>(message.size());
    std::string bytes(sizeof length, '\0');
    std::memcpy(bytes.data(), &length, sizeof length);
    write(bytes + message);
    EXPECT_EQ(read(), "");
    EXPECT_EQ(mounts.size(), message.empty() ? 0U : 2U);
    if (message.empty()) continue;
    write(bytes + message.substr(1));
    EXPECT_NE(read(), "");
  }
}

TEST_F(FormerState, AnEmptyOneHasNone) {
  write("");
  EXPECT_EQ(read(), "");
}

TEST_F(FormerState, AMountWithoutAPlaceIsInIt) {
  write(list({field(1, "c") + field(2, "d") + field(3, "v")}));
  EXPECT_EQ(read(), "");
  EXPECT_EQ(mounts.at(0).mount_point, "");
}

TEST_F(FormerState, FieldsThatAreNotKnownAreIgnored) {
  write(number_field(2, 1) + list({mount("c", "a") + number_field(99, 7)}));
  EXPECT_EQ(read(), "");
  EXPECT_EQ(mounts.size(), 1U);
}

TEST_F(FormerState, EveryCutIsNoticedOrEndsBetweenTwoMounts) {
  const std::string one = list({mount("c1", "a")});
  const std::string whole = one + list({mount("c2", "b")});
  for (std::size_t size = 1; size < whole.size(); ++size) {
    write(whole.substr(0, size));
    EXPECT_EQ(read().empty(), size == one.size()) << size;
  }
}

TEST_F(FormerState, WhatIsWrongIsNamed) {
  write(list({mount("c1", "a"), field(1, "c")}));
  EXPECT_THAT(read(), HasSubstr("its mount 2 names no volume and driver"));
  write(list({field(2, "d") + field(3, "v") + field(4, "/m")}));
  EXPECT_THAT(read(), HasSubstr("names no container"));
  write(list({mount("c", "a") + number_field(3, 7)}));
  EXPECT_THAT(read(), HasSubstr("field 3"));
  write(number_field(1, 7));
  EXPECT_THAT(read(), HasSubstr("no message"));
}

TEST_F(FormerState, WhatIsNoSuchFileIsNotRead) {
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_THAT(read(), HasSubstr("no regular file"));
  std::filesystem::remove(path);
  std::filesystem::create_symlink("/etc/passwd", path);
  EXPECT_THAT(read(), HasSubstr("cannot be opened"));
  std::filesystem::remove(path);
  write("");
  std::filesystem::resize_file(path, max_former_state_bytes + 1);
  EXPECT_THAT(read(), HasSubstr("larger"));
}

TEST_F(FormerState, ItIsSetAsideOnce) {
  write("x");
  std::string error;
  EXPECT_TRUE(set_former_state_aside(path, error));
  EXPECT_FALSE(has_former_state(path));
  EXPECT_TRUE(std::filesystem::exists(path + ".adopted"));
  EXPECT_FALSE(set_former_state_aside(path, error));
  EXPECT_THAT(error, HasSubstr("No such file"));
}

}  // namespace
}  // namespace dvdi_mesos
