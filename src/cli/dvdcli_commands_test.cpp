#include "cli/dvdcli_commands.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <set>

#include "cli/fake_api_test.h"
#include "daemon/client.h"
#include "linux/fd.h"

namespace dvdi::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using Verb = DvdcliCommand::Verb;

class DvdcliTest : public testing::Test {
 protected:
  // What it writes to standard output.
  std::string run(const DvdcliCommand& command) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    const UniqueFd reader(ends[0]);
    UniqueFd writer(ends[1]);
    Output out(writer.get());
    const DvdcliServices services{
        .open = [this](const Context& context) -> Result<std::unique_ptr<Api>> {
          limit_ = context.remaining();
          if (away_ > 0) {
            --away_;
            return std::make_unique<FakeApi>(away_scene_);
          }
          return std::make_unique<FakeApi>(scene_);
        },
        .say = [this](std::string_view text) { said_.emplace_back(text); },
        .write_error_line = [this](std::string_view line) { lines_.emplace_back(line); }};
    status_ = dvdcli(Context(), command, services, out);
    writer.reset();
    std::string text;
    std::array<char, 4096> piece{};
    for (ssize_t count = 0; (count = ::read(reader.get(), piece.data(), piece.size())) > 0;)
      text.append(piece.data(), static_cast<std::size_t>(count));
    return text;
  }
  static DvdcliCommand of(Verb verb) { return {.verb = verb, .driver = "rc", .name = "v"}; }
  void mounted(const std::string& state = "mounted") {
    scene_.volumes.volumes = {{.driver = "rc", .name = "v", .state = state, .mount_point = "/mnt/v"}};
  }
  void have_container() {
    scene_.containers = {{.owner = "dvdcli", .id = dvdcli_container("rc", "v").id, .state = "prepared"}};
  }
  std::string calls() {
    std::string text;
    for (const std::string& one : scene_.calls) text += one + "; ";
    return text;
  }

  Scene scene_, away_scene_;
  unsigned away_ = 0;
  Duration limit_{};
  Status status_;
  std::vector<std::string> said_, lines_;
};

TEST_F(DvdcliTest, MountPreparesOneVolumeOnTheHostAndPrintsItsMountPointAlone) {
  mounted();
  DvdcliCommand command = of(Verb::mount);
  command.options = {{"remote", "loc:a=b,c"}};
  EXPECT_EQ(run(command), "/mnt/v\n");
  EXPECT_TRUE(status_) << status_.error().text();
  EXPECT_THAT(calls(), StartsWith("prepare dvdcli; "));
  EXPECT_THAT(said_, IsEmpty());
  EXPECT_THAT(lines_, IsEmpty());
  EXPECT_EQ(scene_.request.container_id().value(), dvdcli_container("rc", "v").id);
  EXPECT_EQ(scene_.request.directory(), "/");  // else a sandbox would be made
  ASSERT_EQ(scene_.request.container_info().volumes_size(), 1);
  const auto& docker = scene_.request.container_info().volumes(0).source().docker_volume();
  EXPECT_EQ(docker.driver() + "/" + docker.name(), "rc/v");
  std::vector<std::string> options;
  for (const auto& one : docker.driver_options().parameter())
    options.push_back(one.key() + "=" + one.value());
  EXPECT_THAT(options, ElementsAre("dvdi.host-only=true", "remote=loc:a=b,c"));
}

TEST_F(DvdcliTest, ExplicitCreateByFlagOrByOption) {
  mounted();
  DvdcliCommand by_flag = of(Verb::mount);
  by_flag.explicit_create = true;
  DvdcliCommand by_option = of(Verb::mount);
  by_option.options = {{"dvdi.explicit-create", "true"}};
  for (const DvdcliCommand& command : {by_flag, by_option}) {
    run(command);
    const auto& options =
        scene_.request.container_info().volumes(0).source().docker_volume().driver_options().parameter();
    ASSERT_EQ(options.size(), 2);
    EXPECT_EQ(options[1].key() + "=" + options[1].value(), "dvdi.explicit-create=true");
  }
}

TEST_F(DvdcliTest, OptionsOfDvdiThatHaveNoMeaningHereAreRefused) {
  for (const std::string key : {"dvdi.exclusive", "dvdi.host-only", "dvdi.ownership", "dvdi.other"}) {
    DvdcliCommand command = of(Verb::mount);
    command.options = {{key, "true"}};
    EXPECT_EQ(run(command), "");
    ASSERT_FALSE(status_);
    EXPECT_EQ(status_.error().code, Code::invalid_argument);
    EXPECT_THAT(status_.error().text(), HasSubstr(key));
  }
  EXPECT_THAT(scene_.calls, IsEmpty());
}

TEST_F(DvdcliTest, AMountThatFailsPrintsNothingAndNamesTheVolume) {
  scene_.prepared = Error{.code = Code::driver_error, .message = "no remote"};
  EXPECT_EQ(run(of(Verb::mount)), "");
  ASSERT_FALSE(status_);
  EXPECT_EQ(status_.error().driver + "/" + status_.error().volume, "rc/v");
  EXPECT_THAT(status_.error().text(), HasSubstr("no remote"));
}

TEST_F(DvdcliTest, AMountThatIsGoneAgainIsNoSuccess) {
  mounted("lost");
  EXPECT_EQ(run(of(Verb::mount)), "");
  EXPECT_FALSE(status_);
}

TEST_F(DvdcliTest, TheDeadlinesEndBeforeTheAgentKills) {
  mounted();
  run(of(Verb::mount));
  EXPECT_LE(limit_, std::chrono::seconds(110));
  EXPECT_GT(limit_, std::chrono::seconds(100));
  run(of(Verb::unmount));
  EXPECT_LE(limit_, std::chrono::seconds(590));
  EXPECT_GT(limit_, std::chrono::seconds(580));
}

TEST_F(DvdcliTest, ADaemonThatGoesAwayIsAskedForAgain) {
  mounted();
  have_container();
  away_scene_.prepared = daemon_away("gone", Outcome::unknown);
  away_scene_.cleaned = daemon_away("gone", Outcome::unknown);
  away_ = 2;
  EXPECT_EQ(run(of(Verb::mount)), "/mnt/v\n");
  away_ = 2;
  run(of(Verb::unmount));
  EXPECT_TRUE(status_);
  EXPECT_THAT(calls(), HasSubstr("cleanup dvdcli/"));
}

TEST_F(DvdcliTest, UnmountCleansUpTheVolumesContainer) {
  mounted();
  have_container();
  EXPECT_EQ(run(of(Verb::unmount)), "");
  EXPECT_TRUE(status_);
  EXPECT_THAT(calls(), HasSubstr("cleanup dvdcli/" + dvdcli_container("rc", "v").id));
  EXPECT_THAT(said_, IsEmpty());
}

TEST_F(DvdcliTest, AnUnmountThatIsOwedIsAWarning) {
  have_container();
  scene_.cleaned = std::vector<isolator::Owed>{{.driver = "rc", .volume = "v", .reason = "it is busy"}};
  run(of(Verb::unmount));
  EXPECT_TRUE(status_);
  EXPECT_THAT(said_, ElementsAre(AllOf(StartsWith("warning: "), HasSubstr("it is busy"), HasSubstr("owed"))));
}

TEST_F(DvdcliTest, AnUnmountThatCannotBeRecordedFails) {
  have_container();
  scene_.cleaned = Error{.code = Code::io, .message = "disk full"};
  run(of(Verb::unmount));
  ASSERT_FALSE(status_);
  EXPECT_EQ(status_.error().volume, "v");
}

TEST_F(DvdcliTest, UnmountWithoutAMountOfOursIsSuccessAndSaysWhoseItIs) {
  run(of(Verb::unmount));
  EXPECT_TRUE(status_);
  EXPECT_THAT(said_, IsEmpty());
  mounted();
  run(of(Verb::unmount));
  EXPECT_TRUE(status_);
  EXPECT_THAT(said_, ElementsAre(HasSubstr("dvdcli has no mount of volume 'v'")));
}

TEST_F(DvdcliTest, CreateAnswersOnStandardErrorOnly) {
  DvdcliCommand command = of(Verb::create);
  command.options = {{"size", "5"}};
  EXPECT_EQ(run(command), "");
  EXPECT_THAT(calls(), HasSubstr("create rc/v size=5"));
  EXPECT_THAT(lines_, ElementsAre("v"));
}

TEST_F(DvdcliTest, RemoveSaysNothing) {
  EXPECT_EQ(run(of(Verb::remove)), "");
  EXPECT_THAT(calls(), HasSubstr("remove rc/v"));
  EXPECT_THAT(lines_, IsEmpty());
  DvdcliCommand held = of(Verb::remove);
  held.name = "held";
  scene_.removed = Error{.code = Code::failed_precondition, .message = "in use"};
  run(held);
  EXPECT_FALSE(status_);
}

TEST_F(DvdcliTest, PathGetAndListPrintOneThingALine) {
  mounted();
  EXPECT_EQ(run(of(Verb::path)), "/mnt/v\n");
  EXPECT_EQ(run(of(Verb::get)), "v\n");
  mounted("");
  EXPECT_EQ(run(of(Verb::path)), "/mnt/v\n");  // mounted by others: what the driver says
  mounted("unknown");
  EXPECT_EQ(run(of(Verb::path)), "");
  EXPECT_TRUE(status_);
  scene_.volumes.volumes.clear();
  EXPECT_EQ(run(of(Verb::get)), "");
  EXPECT_FALSE(status_);
  run(of(Verb::path));
  EXPECT_FALSE(status_);
  scene_.listed = std::vector<std::string>{"a", "b"};
  EXPECT_EQ(run(of(Verb::list)), "a\nb\n");
  EXPECT_THAT(calls(), HasSubstr("list rc"));
  scene_.listed = Error{.code = Code::not_found, .message = "no such driver"};
  EXPECT_EQ(run(of(Verb::list)), "");
  EXPECT_FALSE(status_);
}

TEST_F(DvdcliTest, VersionHasTheOriginalsLines) {
  const std::string text = run(of(Verb::version));
  EXPECT_THAT(text, AllOf(StartsWith("Binary: /"), HasSubstr("\nSemVer: 0."), HasSubstr("\nOsArch: Linux-"),
                          HasSubstr("\nBranch: "), HasSubstr("\nCommit: "), HasSubstr("\nFormed: ")));
  EXPECT_THAT(scene_.calls, IsEmpty());
}

TEST_F(DvdcliTest, AContainersIdIsPlainAndNoTwoVolumesHaveTheSame) {
  const std::string all_bytes = std::string("a/b.c d\xff\n") + std::string(250, 'x');
  const std::vector<std::pair<std::string, std::string>> volumes = {
      {"rc", "v"},   {"rc-v", ""},      {"r", "c-v"},           {"rc", "v.w"},
      {"rc", "v_w"}, {"rc", all_bytes}, {"rc", all_bytes + "y"}};
  std::set<std::string> ids;
  for (const auto& [driver, name] : volumes) {
    const auto key = dvdcli_container(driver, name);
    EXPECT_EQ(key.owner, "dvdcli");
    EXPECT_LE(key.id.size(), 100U);
    EXPECT_THAT(key.id, testing::MatchesRegex("[A-Za-z0-9_-]+"));  // a `.` would nest it in another
    EXPECT_TRUE(ids.insert(key.id).second) << key.id;
  }
  EXPECT_THAT(dvdcli_container("rc", "v").id, StartsWith("rc-v-"));
}

}  // namespace
}  // namespace dvdi::cli
