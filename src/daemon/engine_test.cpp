#include "daemon/engine.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "base/fake_clock_test.h"
#include "base/json.h"
#include "daemon/open.h"
#include "linux/mount_table.h"

namespace dvdi {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// The real engine with the local driver, in a private mount namespace.
class EngineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0) return;
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    auto started = HelperPool::start();
    ASSERT_TRUE(started);
    helpers_ = started->release();
  }
  static void TearDownTestSuite() {
    delete helpers_;
    helpers_ = nullptr;
  }
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
    std::string pattern = "/tmp/dvdi-engine-XXXXXX";
    state_dir_ = mkdtemp(pattern.data());
    open();
  }
  void TearDown() override {
    engine_.reset();
    if (!state_dir_.empty()) std::filesystem::remove_all(state_dir_);
  }
  void open(const std::string& policy_file = {}) {
    Config config;
    config.state_dir = state_dir_;
    config.access.policy_file = policy_file;
    auto opened = Engine::open(context_, config, *helpers_);
    ASSERT_TRUE(opened) << opened.error().text();
    engine_ = std::move(*opened);
  }
  static v1::ContainerRequest request(const std::string& id, const std::vector<std::string>& volumes) {
    v1::ContainerRequest request;
    request.mutable_container_id()->set_value(id);
    for (const std::string& name : volumes) {
      v1::Volume* volume = request.mutable_container_info()->add_volumes();
      volume->set_container_path("path-" + name);
      volume->set_mode(v1::Volume::RW);
      volume->mutable_source()->set_type(v1::Volume::Source::DOCKER_VOLUME);
      volume->mutable_source()->mutable_docker_volume()->set_driver("local");
      volume->mutable_source()->mutable_docker_volume()->set_name(name);
    }
    return request;
  }
  std::vector<std::string> event_types() {
    std::vector<std::string> types;
    const auto events = engine_->events(context_, 0, 1000, {});
    EXPECT_TRUE(events);
    for (const EventView& event : *events) {
      const auto value = json::parse(event.json, "an event");
      types.emplace_back(json::text_or_empty(*value, "type"));
    }
    return types;
  }

  static HelperPool* helpers_;
  const Context context_ = Context().with_timeout(std::chrono::minutes(2));
  std::string state_dir_;
  std::unique_ptr<Engine> engine_;
};
HelperPool* EngineTest::helpers_ = nullptr;

TEST_F(EngineTest, OneContainerFromPrepareToCleanup) {
  const auto prepared = engine_->prepare(context_, {.owner = "run"}, request("c1", {"a"}));
  ASSERT_TRUE(prepared) << prepared.error().text();
  ASSERT_EQ(prepared->launch.mounts_size(), 1);
  const auto& mount = prepared->launch.mounts(0);
  EXPECT_EQ(mount.volume(), "local/a");
  EXPECT_TRUE(mount.has_identity());
  EXPECT_EQ(mount.target(), state_dir_ + "/sandboxes/c1/path-a");
  const auto table = MountTable::read();
  EXPECT_NE(table->at(mount.source()), nullptr);
  ASSERT_TRUE(engine_->isolate(context_, prepared->key, ::getpid(), false));
  const auto views = engine_->containers(context_, false);
  ASSERT_THAT(*views, SizeIs(1));
  EXPECT_EQ(views->at(0).state, "running");
  EXPECT_EQ(engine_->container(context_, "c")->id, "c1");

  const auto owed = engine_->cleanup(context_, prepared->key);
  ASSERT_TRUE(owed) << owed.error().text();
  EXPECT_THAT(*owed, IsEmpty());
  EXPECT_EQ(MountTable::read()->at(mount.source()), nullptr);
  EXPECT_FALSE(std::filesystem::exists(state_dir_ + "/sandboxes/c1"));
  EXPECT_THAT(event_types(), testing::ElementsAre(
                                 "dvdi.container.preparing", "dvdi.reference.added", "dvdi.mount.mounting",
                                 "dvdi.volume.seen", "dvdi.mount.mounted", "dvdi.container.prepared",
                                 "dvdi.container.running", "dvdi.reference.removed", "dvdi.mount.unmounting",
                                 "dvdi.container.cleaning", "dvdi.mount.unmounted", "dvdi.container.ended"));
  const auto verified = engine_->verify_events(context_, nullptr);
  ASSERT_TRUE(verified) << verified.error().text();
  EXPECT_EQ(verified->count, 12U);
  const auto usage = engine_->usage(context_, {}, {});
  ASSERT_TRUE(usage);
  ASSERT_THAT(usage->rows, SizeIs(1));
  EXPECT_TRUE(usage->rows.at(0).sum.referenced.nanoseconds > 0);
  EXPECT_EQ(usage->total.mounts, 1U);
}

// As a Mesos agent asks: it binds by path, and gets private mounts of ours.
TEST_F(EngineTest, AContainerThatAnotherProgramLaunches) {
  const auto mounts = [&] {
    std::vector<std::string> found;
    const auto table = MountTable::read();
    for (const MountEntry* entry : table->beneath(state_dir_)) found.emplace_back(entry->mount_point);
    return found;
  };
  std::filesystem::create_directories(state_dir_ + "/agent/c");
  v1::ContainerRequest wanted = request("parent.child", {"a", "b"});
  wanted.set_directory(state_dir_ + "/agent/c");
  wanted.mutable_container_info()->mutable_volumes(1)->set_mode(v1::Volume::RO);
  const Api::PrepareOptions agent{.owner = "/agent", .staged = true};
  const auto prepared = engine_->prepare(context_, agent, wanted);
  ASSERT_TRUE(prepared) << prepared.error().text();
  ASSERT_EQ(prepared->launch.mounts_size(), 2);
  const auto open_new = [&](int mount) {
    const std::string path = prepared->launch.mounts(mount).source() + "/x";
    return UniqueFd(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  };
  EXPECT_TRUE(open_new(0));
  EXPECT_FALSE(open_new(1));
  EXPECT_EQ(errno, EROFS);

  engine_.reset();
  open();
  engine_->settle(context_);
  const auto again = engine_->prepare(context_, agent, wanted);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->launch.SerializeAsString(), prepared->launch.SerializeAsString());
  ASSERT_TRUE(engine_->isolate(context_, prepared->key, ::getpid(), false));

  UniqueFd busy = open_new(0);
  ASSERT_TRUE(busy);
  auto owed = engine_->cleanup(context_, prepared->key);
  ASSERT_TRUE(owed) << owed.error().text();
  // Both volumes stay mounted below a mount that could not be taken away.
  std::string reasons;
  for (const auto& one : *owed) reasons += one.driver + "/" + one.volume + ": " + one.reason + "\n";
  EXPECT_THAT(reasons,
              testing::AllOf(HasSubstr("local/a: "), HasSubstr("local/b: "), HasSubstr("staged mounts")));
  EXPECT_THAT(mounts(), testing::Contains(prepared->launch.mounts(0).source()));
  busy.reset();
  engine_->settle(context_);
  EXPECT_THAT(engine_->notices(),
              testing::Contains("private mounts of container /agent/parent.child were taken away"));
  EXPECT_THAT(mounts(), testing::Not(testing::Contains(HasSubstr("/staged"))));
  for (const char* name : {"a", "b"})
    static_cast<void>(::umount((state_dir_ + "/local/mnt/" + name).c_str()));
  static_cast<void>(::umount((state_dir_ + "/local/mnt").c_str()));
}

TEST_F(EngineTest, APrepareThatFailsInTheSecondIsolatorLeavesNothing) {
  v1::ContainerRequest wrong = request("c1", {"a"});
  wrong.mutable_container_info()->mutable_volumes(0)->set_container_path("/dvdi/does/not/exist");
  const auto prepared = engine_->prepare(context_, {.owner = "run"}, wrong);
  ASSERT_FALSE(prepared);
  EXPECT_THAT(prepared.error().text(), HasSubstr("/dvdi/does/not/exist"));
  EXPECT_THAT(*engine_->containers(context_, false), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(state_dir_ + "/sandboxes/c1"));
  const auto views = engine_->volumes(context_, false);
  ASSERT_THAT(views->volumes, SizeIs(1));
  EXPECT_EQ(views->volumes[0].state, "");
  // A container whose prepare failed is not remembered: the same id may be tried again at once.
  const auto again = engine_->prepare(context_, {.owner = "run"}, request("c1", {"a"}));
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_TRUE(engine_->cleanup(context_, again->key));
}

TEST_F(EngineTest, AContainerIsOneProcesss) {
  std::array<int, 2> prepared{}, finish{};
  ASSERT_EQ(::pipe2(prepared.data(), O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(finish.data(), O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(finish[1]);
    auto helpers = HelperPool::start();
    Config config;
    config.state_dir = state_dir_;
    auto engine = Engine::open(context_, config, **helpers);
    const auto done = (*engine)->prepare(context_, {.owner = "run"}, request("c1", {"a"}));
    char byte = done ? 'y' : 'n';
    if (::write(prepared[1], &byte, 1) != 1) ::_exit(1);
    static_cast<void>(::read(finish[0], &byte, 1));  // until the parent closes it
    ::_exit(done && (*engine)->cleanup(context_, done->key) ? 0 : 1);
  }
  char byte = 0;
  ASSERT_EQ(::read(prepared[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  const auto second = engine_->prepare(context_, {.owner = "run"}, request("c1", {"a"}));
  EXPECT_FALSE(second);
  EXPECT_TRUE(second || second.error().code == Code::conflict) << second.error().text();
  EXPECT_TRUE(std::filesystem::exists(state_dir_ + "/sandboxes/c1"));
  for (const int fd : {finish[0], finish[1], prepared[0], prepared[1]}) ::close(fd);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(EngineTest, AContainerWhoseProcessesAreGoneIsCleanedUpByTheNextEngine) {
  const pid_t child = ::fork();
  if (child == 0) {
    // A dvdi run that is killed right after prepare: its helpers go with it.
    auto helpers = HelperPool::start();
    Config config;
    config.state_dir = state_dir_;
    auto engine = Engine::open(context_, config, **helpers);
    const bool prepared =
        engine && (*engine)->prepare(context_, {.owner = "run"}, request("dead", {"a"})).has_value();
    ::_exit(prepared ? 7 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(WEXITSTATUS(status), 7);
  ASSERT_THAT(*engine_->containers(context_, false), SizeIs(1));
  engine_->settle(context_);
  EXPECT_THAT(*engine_->containers(context_, false), IsEmpty());
  EXPECT_THAT(engine_->notices(), testing::Contains(HasSubstr("dead")));
  EXPECT_TRUE(MountTable::read()->beneath(state_dir_ + "/local").empty());
  EXPECT_FALSE(std::filesystem::exists(state_dir_ + "/sandboxes/dead"));
}

TEST_F(EngineTest, SandboxesOfNobodyGoAfterAnHour) {
  ASSERT_TRUE(engine_->prepare(context_, {.owner = "run"}, request("c1", {"a"})));
  const std::string stray = state_dir_ + "/sandboxes/stray";
  ASSERT_TRUE(std::filesystem::create_directories(stray + "/data"));
  FakeClock clock;
  clock.wall_now = system_clock().wall() + std::chrono::minutes(59);
  EXPECT_THAT(engine_->tidy(Context(clock)), IsEmpty());
  EXPECT_TRUE(std::filesystem::exists(stray)) << "its container may be on its way into the ledger";
  clock.wall_now += std::chrono::minutes(2);
  EXPECT_THAT(engine_->tidy(Context(clock)), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(stray));
  EXPECT_TRUE(std::filesystem::exists(state_dir_ + "/sandboxes/c1"));
  EXPECT_TRUE(engine_->cleanup(context_, {.owner = "run", .id = "c1"}));
  EXPECT_FALSE(std::filesystem::exists(state_dir_ + "/sandboxes/c1"));
}

TEST_F(EngineTest, AContainerThatIsAliveIsLeftAlone) {
  const auto prepared = engine_->prepare(context_, {.owner = "run"}, request("alive", {"a"}));
  ASSERT_TRUE(prepared);
  open();  // a second engine, while the first one's process lives
  engine_->settle(context_);
  EXPECT_THAT(*engine_->containers(context_, false), SizeIs(1));
  EXPECT_TRUE(engine_->cleanup(context_, prepared->key));
}

TEST_F(EngineTest, VolumesCanBeCreatedLookedAtAndRemovedButNotWhileInUse) {
  ASSERT_TRUE(engine_->create_volume(context_, "local", "a", {}));
  EXPECT_EQ(engine_->volume(context_, "local", "a")->name, "a");
  const auto prepared = engine_->prepare(context_, {.owner = "run"}, request("c1", {"a"}));
  ASSERT_TRUE(prepared);
  const auto refused = engine_->remove_volume(context_, "local", "a");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(), HasSubstr("run/c1"));
  ASSERT_TRUE(engine_->cleanup(context_, prepared->key));
  EXPECT_TRUE(engine_->remove_volume(context_, "local", "a"));
  EXPECT_FALSE(engine_->volume(context_, "local", "a"));
  EXPECT_FALSE(engine_->volume(context_, "no-such-driver", "a"));
}

TEST_F(EngineTest, EventsThatSomebodyRemovedAtEitherEndAreMissed) {
  const auto remove_where = [&](const std::string& where) {
    const auto done =
        run_program(context_, {"python3", "-c",
                               "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
                               "c.execute('DELETE FROM events WHERE ' + sys.argv[2]); c.commit()",
                               state_dir_ + "/state.db", where});
    ASSERT_TRUE(done && done->exit_code == 0) << (done ? done->output : done.error().text());
  };
  for (const char* name : {"a", "b", "c", "d"}) {
    ASSERT_TRUE(engine_->create_volume(context_, "local", name, {}));
  }
  ASSERT_TRUE(engine_->verify_events(context_, nullptr));
  remove_where("sequence = 4");
  EXPECT_THAT(engine_->verify_events(context_, nullptr).error().text(),
              HasSubstr("events 4 to 4 are missing"));
  ASSERT_TRUE(engine_->create_volume(context_, "local", "e", {}));  // does not take the number again
  EXPECT_THAT(engine_->verify_events(context_, nullptr).error().text(), HasSubstr("event 5"));
  remove_where("sequence > 3");
  remove_where("sequence = 1");
  EXPECT_THAT(engine_->verify_events(context_, nullptr).error().text(),
              HasSubstr("events 1 to 1 are missing"));
}

TEST_F(EngineTest, AStateDirectoryThatOthersCanWriteIsRefused) {
  engine_.reset();
  ASSERT_EQ(::chmod(state_dir_.c_str(), 0777), 0);
  Config config;
  config.state_dir = state_dir_;
  const auto opened = Engine::open(context_, config, *helpers_);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::permission_denied);
}

TEST_F(EngineTest, ADaemonsLockKeepsCommandsOut) {
  engine_.reset();
  const auto daemon = try_lock_file(state_dir_ + "/engine.lock", true);
  ASSERT_TRUE(daemon && *daemon);
  Config config;
  config.state_dir = state_dir_;
  const auto opened = Engine::open(context_, config, *helpers_);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::unavailable);
}

// Scenario 15.
TEST_F(EngineTest, ADamagedDatabaseIsSetAsideAndNothingLiveIsUnmounted) {
  const auto prepared = engine_->prepare(context_, {.owner = "run"}, request("c1", {"a"}));
  ASSERT_TRUE(prepared) << prepared.error().text();
  const std::string mount_point = prepared->launch.mounts(0).source();
  engine_.reset();
  std::filesystem::resize_file(state_dir_ + "/state.db-wal", 5000);
  open();
  engine_->settle(context_);
  EXPECT_NE(MountTable::read()->at(mount_point), nullptr);
  EXPECT_THAT(event_types(), testing::ElementsAre("dvdi.ledger.rebuilt", "dvdi.mount.unknown"));
  EXPECT_EQ(engine_->volume(context_, "local", "a")->state, "unknown");
  EXPECT_TRUE(std::filesystem::exists(state_dir_ + "/sandboxes/c1"));
  std::vector<std::string> said;
  // Of its own: a helper can make namespaces once.
  const auto others = HelperPool::start();
  ASSERT_TRUE(others);
  for (const Finding& finding : diagnose(context_, {.state_dir = state_dir_}, **others)) {
    if (finding.level == Finding::Level::warning) said.push_back(finding.subject + ": " + finding.text);
  }
  EXPECT_THAT(said, testing::Contains(HasSubstr("state: " + state_dir_ + "/state.db.damaged-")));
  EXPECT_THAT(said, testing::Contains(HasSubstr("volume local/a: is mounted at " + mount_point)));

  // A second command finds a whole ledger, beside this one, too.
  Config config;
  config.state_dir = state_dir_;
  ASSERT_TRUE(Engine::open(context_, config, *helpers_));
  const auto again = engine_->prepare(context_, {.owner = "run"}, request("c2", {"a"}));
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->launch.mounts(0).source(), mount_point) << "taken over";
  ASSERT_TRUE(engine_->cleanup(context_, again->key));
  EXPECT_EQ(MountTable::read()->at(mount_point), nullptr) << "no other namespace has it";
  static_cast<void>(::umount((state_dir_ + "/local/mnt").c_str()));
}

TEST_F(EngineTest, TheDoctorFindsThisMachineFitAndChangesNothing) {
  const auto before = engine_->events(context_, 0, 1000, {})->size();
  for (const Finding& finding : diagnose(context_, {.state_dir = state_dir_}, *helpers_)) {
    EXPECT_NE(finding.level, Finding::Level::problem) << finding.subject << ": " << finding.text;
  }
  EXPECT_EQ(engine_->events(context_, 0, 1000, {})->size(), before);
}

// The policy is a file of root's, in a folder that the test removes.
class EnginePolicyTest : public EngineTest {
 protected:
  std::string write_policy(const std::string& text) {
    const std::string path = state_dir_ + "/policy.toml";
    std::ofstream(path) << text;
    std::filesystem::permissions(path, std::filesystem::perms(0600));
    return path;
  }
  void with_policy(const std::string& text) {
    engine_.reset();
    open(write_policy(text));
  }
  static void add_option(v1::ContainerRequest& request, const std::string& key, const std::string& value) {
    auto& parameter = *request.mutable_container_info()
                           ->mutable_volumes(0)
                           ->mutable_source()
                           ->mutable_docker_volume()
                           ->mutable_driver_options()
                           ->add_parameter();
    parameter.set_key(key);
    parameter.set_value(value);
  }
  std::vector<std::string> events(const std::string& type) {
    std::vector<std::string> found;
    const auto all = engine_->events(context_, 0, 10'000, {});
    for (const EventView& event : *all) {
      if (event.json.contains("\"type\":\"" + type + "\"")) found.push_back(event.json);
    }
    return found;
  }
};

TEST_F(EnginePolicyTest, SetuidProgramsNeedAPolicyThatPermitsThem) {
  v1::ContainerRequest wanted = request("c1", {"a"});
  add_option(wanted, "dvdi.suid", "true");
  const auto refused = engine_->prepare(context_, {}, wanted);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::permission_denied);
  EXPECT_THAT(*engine_->containers(context_, true), IsEmpty()) << "nothing was begun";

  with_policy("[[rule]]\nname = \"all\"\neffect = \"allow\"\npermit = [\"suid\"]\n");
  const auto prepared = engine_->prepare(context_, {}, wanted);
  ASSERT_TRUE(prepared) << prepared.error().text();
  EXPECT_EQ(prepared->launch.mounts(0).flags(), MS_BIND | MS_REC | MS_NODEV);
  EXPECT_TRUE(engine_->cleanup(context_, prepared->key));
}

TEST_F(EnginePolicyTest, APrincipalIsFilledInAndRecorded) {
  with_policy("default = \"allow\"\n[principals.role]\nweb = \"team-web\"\n");
  v1::ContainerRequest wanted = request("c1", {"a"});
  wanted.mutable_attribution()->set_role("web");
  const auto prepared = engine_->prepare(context_, {}, wanted);
  ASSERT_TRUE(prepared) << prepared.error().text();
  EXPECT_EQ(engine_->container(context_, "c1")->principal, "team-web");
  EXPECT_TRUE(engine_->prepare(context_, {}, wanted)) << "the same again is the same request";
  EXPECT_TRUE(engine_->cleanup(context_, prepared->key));
}

TEST_F(EnginePolicyTest, ARefusalIsRecordedOnceAMinuteWithTheCaller) {
  with_policy("");
  const Context caller = context_.with_caller({.uid = 1000, .gid = 1001, .pid = 7});
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(engine_->prepare(caller, {}, request("c1", {"a"})));
  const auto denied = events("dvdi.access.denied");
  ASSERT_THAT(denied, SizeIs(1));
  EXPECT_THAT(denied[0], HasSubstr(R"("peer":{"uid":1000,"gid":1001,"pid":7})"));
  EXPECT_THAT(denied[0], HasSubstr(R"("action":"prepare")"));
  EXPECT_THAT(denied[0], HasSubstr(R"("what":"run/c1")"));
}

TEST_F(EnginePolicyTest, AHostPathThatLeadsElsewhereIsRefusedAndRolledBack) {
  std::filesystem::create_directories(state_dir_ + "/allowed");
  std::filesystem::create_directory_symlink("/etc", state_dir_ + "/allowed/link");
  with_policy("[[rule]]\nname = \"paths\"\neffect = \"allow\"\nhost_paths = [\"" + state_dir_ +
              "/allowed/*\"]\n");
  v1::ContainerRequest wanted = request("c1", {});
  v1::Volume& volume = *wanted.mutable_container_info()->add_volumes();
  volume.set_mode(v1::Volume::RO);
  volume.set_container_path("there");
  volume.set_host_path(state_dir_ + "/allowed/link");
  const auto refused = engine_->prepare(context_, {}, wanted);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::permission_denied);
  EXPECT_THAT(refused.error().text(), HasSubstr("/etc may not be used"));
  EXPECT_THAT(*engine_->containers(context_, false), IsEmpty());

  std::filesystem::create_directories(state_dir_ + "/allowed/real");
  volume.set_host_path(state_dir_ + "/allowed/real");
  const auto prepared = engine_->prepare(context_, {}, wanted);
  ASSERT_TRUE(prepared) << prepared.error().text();
  EXPECT_TRUE(engine_->cleanup(context_, prepared->key));
}

TEST_F(EnginePolicyTest, AUserOfTheHostIsTheSameByNameAndByNumber) {
  with_policy("default = \"allow\"\n[[rule]]\nname = \"no\"\neffect = \"deny\"\nusers = [\"nobody\"]\n");
  v1::ContainerRequest wanted = request("c1", {"a"});
  wanted.mutable_command()->set_user("65534:65534");
  EXPECT_FALSE(engine_->prepare(context_, {}, wanted));
  wanted.mutable_command()->set_user("nobody");
  EXPECT_FALSE(engine_->prepare(context_, {}, wanted));
  wanted.mutable_command()->set_user("root");
  EXPECT_TRUE(engine_->prepare(context_, {}, wanted));
  EXPECT_TRUE(engine_->cleanup(context_, {.owner = "run", .id = "c1"}));
}

TEST_F(EnginePolicyTest, WithAPolicyThatIsWrongNothingWorks) {
  engine_.reset();
  Config config;
  config.state_dir = state_dir_;
  config.access.policy_file = write_policy("[[rule]]\nname = \"x\"\n");
  EXPECT_FALSE(Engine::open(context_, config, *helpers_));
  config.access.policy_file = state_dir_ + "/not-there.toml";
  EXPECT_FALSE(Engine::open(context_, config, *helpers_));
  config.access.policy_file = write_policy("");
  std::filesystem::permissions(config.access.policy_file, std::filesystem::perms(0666));
  const auto others = Engine::open(context_, config, *helpers_);
  ASSERT_FALSE(others);
  EXPECT_EQ(others.error().code, Code::permission_denied);
}

}  // namespace
}  // namespace dvdi
