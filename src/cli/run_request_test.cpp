#include "cli/run_request.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "linux/fd.h"
#include "spec/request.h"

namespace dvdi::cli {
namespace {

using testing::HasSubstr;

class RunRequestTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "dvdi-request-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& text) {
    const auto path = folder_ / "request.json";
    std::ofstream(path) << text;
    return path;
  }

  std::filesystem::path folder_;
  const std::array<const char*, 1> no_environment_ = {nullptr};
};

TEST_F(RunRequestTest, ReadsUpToTheLimitAndNoFurther) {
  EXPECT_EQ(read_bounded(file("12345"), 5), "12345");
  const auto longer = read_bounded(file("123456"), 5);
  ASSERT_FALSE(longer);
  EXPECT_EQ(longer.error().code, Code::invalid_argument);
  EXPECT_THAT(longer.error().message, HasSubstr("request.json"));
}

TEST_F(RunRequestTest, AnEndlessFileIsRefused) {
  const auto endless = read_bounded("/dev/zero", 1 << 20);
  ASSERT_FALSE(endless);
  EXPECT_THAT(endless.error().message, HasSubstr("larger than 1048576 bytes"));
}

TEST_F(RunRequestTest, NamesAFileThatCannotBeRead) {
  const auto missing = read_bounded(folder_ / "missing", 5);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Code::not_found);
  EXPECT_THAT(missing.error().message, HasSubstr("missing"));
  EXPECT_FALSE(read_bounded(folder_, 5));
}

TEST_F(RunRequestTest, ReadsStandardInput) {
  const UniqueFd input(::open(file("from stdin").c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd saved(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
  ASSERT_GE(::dup2(input.get(), STDIN_FILENO), 0);
  const auto text = read_bounded("-", 100);
  ::dup2(saved.get(), STDIN_FILENO);
  EXPECT_EQ(text, "from stdin");
}

TEST_F(RunRequestTest, BringsFileOptionsAndEnvironmentTogether) {
  RunCommand command;
  command.file = file(R"([{"container_path": "data", "mode": "RW", "source": {"type": "DOCKER_VOLUME",
                          "docker_volume": {"driver": "rc", "name": "a"}}}])");
  command.volumes = {"local/b:more:ro"};
  command.user = "nobody";
  command.id = "c1";
  command.environment = {{"K", "V=1"}};
  command.command = {"ls", "-l"};
  const std::array<const char*, 5> environment = {"PATH=/bin", "DVDI_VOLUME_NAME=v", "DVDI_VOLUME_DRIVER=rc",
                                                  "DVDI_STATE_DIR=/elsewhere", nullptr};
  const auto request = run_request(command, environment.data());
  ASSERT_TRUE(request) << request.error().text();
  ASSERT_EQ(request->container_info().volumes_size(), 3);
  EXPECT_EQ(request->container_info().volumes(0).source().docker_volume().name(), "a");
  EXPECT_EQ(request->container_info().volumes(1).source().docker_volume().name(), "b");
  EXPECT_EQ(request->container_info().volumes(1).mode(), v1::Volume::RO);
  EXPECT_EQ(request->container_info().volumes(2).source().docker_volume().name(), "v");
  EXPECT_EQ(request->container_id().value(), "c1");
  EXPECT_EQ(request->command().user(), "nobody");
  EXPECT_EQ(request->command().arguments_size(), 2);
  ASSERT_EQ(request->command().environment().variables_size(), 1);
  EXPECT_EQ(request->command().environment().variables(0).name(), "K");
  EXPECT_EQ(request->command().environment().variables(0).value(), "V=1");
}

TEST_F(RunRequestTest, NeedsSomethingToRun) {
  RunCommand command;
  command.volumes = {"local/b:more"};
  const auto request = run_request(command, no_environment_.data());
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().code, Code::invalid_argument);
  EXPECT_THAT(request.error().text(), HasSubstr("--"));
}

TEST_F(RunRequestTest, HandsOnWhatIsWrong) {
  RunCommand command;
  command.volumes = {"no volume"};
  command.command = {"x"};
  const auto request = run_request(command, no_environment_.data());
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().code, Code::invalid_argument);
}

TEST_F(RunRequestTest, ARequestThatIsOnlyLookedAtNeedsNoCommand) {
  const auto path = file(R"([{"container_path": "data", "mode": "RW", "source": {"type": "DOCKER_VOLUME",
                              "docker_volume": {"driver": "local", "name": "v"}}}])");
  const std::array<const char*, 3> environment = {"DVDI_VOLUME_NAME=w", "DVDI_VOLUME_DRIVER=local", nullptr};
  const auto request = file_request(path, environment.data());
  ASSERT_TRUE(request) << request.error().text();
  EXPECT_EQ(request->container_info().volumes_size(), 2);
  EXPECT_FALSE(file_request(folder_ / "nothing", no_environment_.data()));
}

}  // namespace
}  // namespace dvdi::cli
