#include "isolator/staged_mounts.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "isolator/shared_filesystem.h"
#include "isolator/staged_work.h"
#include "isolator/test_support.h"
#include "linux/beneath.h"
#include "linux/mount_api.h"
#include "linux/mount_table.h"

namespace dvdi::isolator {
namespace {

using test::helpers;
using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

// Volumes are tmpfs mounts of the test; the ledger and the kernel are real.
struct StagedMountsTest : testing::Test {
  TempDir dir;
  std::string state = dir.make_folder("state");
  std::string sandbox = dir.make_folder("sandbox");
  std::vector<std::string> volumes;  // mounted by the test
  std::unique_ptr<KeyedLocks> locks = *KeyedLocks::open(dir / "locks");
  std::unique_ptr<Ledger> ledger = *Ledger::open(Context(), dir / "state.db");
  std::unique_ptr<StagedMounts> isolator = made();
  ContainerKey key{.owner = "/agent", .id = "parent.child"};
  v1::ContainerRequest request;
  v1::ContainerLaunchInfo launch;

  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
    if (::mount("none", dir.text().c_str(), "tmpfs", 0, nullptr) != 0) GTEST_SKIP() << "cannot mount";
    ASSERT_EQ(::umount(dir.text().c_str()), 0);
  }
  void TearDown() override {
    isolator.reset();
    for (const std::string& point : mounts()) ::umount2(point.c_str(), MNT_DETACH);
  }

  std::unique_ptr<StagedMounts> made() {
    return std::make_unique<StagedMounts>(StagedMounts::Parts{*ledger, helpers(), *locks},
                                          StagedMounts::Options{.state_dir = state});
  }
  // What is mounted in the test's folder, deepest first.
  std::vector<std::string> mounts() const {
    std::vector<std::string> found;
    const auto table = MountTable::read();
    for (const MountEntry* entry : table->beneath(dir.text()))
      found.emplace(found.begin(), entry->mount_point);
    return found;
  }
  std::vector<std::string> staged() const {
    std::vector<std::string> found;
    std::ranges::copy_if(mounts(), std::back_inserter(found),
                         [&](const std::string& point) { return point.starts_with(state); });
    return found;
  }
  std::string volume(const std::string& name) {
    const std::string path = dir.make_folder(name);
    EXPECT_EQ(::mount(name.c_str(), path.c_str(), "tmpfs", 0, "size=64k"), 0);
    return path;
  }
  // As shared filesystem writes it.
  v1::ContainerMountInfo& instruct(const std::string& source, std::uint32_t flags = 0) {
    v1::ContainerMountInfo& mount = *launch.add_mounts();
    mount.set_source(source);
    mount.set_target(sandbox + "/data");
    mount.set_flags(MS_BIND | MS_REC | MS_NOSUID | MS_NODEV | flags);
    mount.set_volume("d/" + source);
    mount.set_beneath(v1::ContainerMountInfo::SANDBOX);
    const auto fd = open_directory(source);
    if (fd) *mount.mutable_identity() = *mount_identity(fd->get());
    launch.set_sandbox(sandbox);
    launch.set_rootfs("/rootfs");
    return mount;
  }
  Result<v1::ContainerLaunchInfo> prepare(bool for_others = true) {
    Preparation preparation{.key = key,
                            .request = request,
                            .digest = "digest",
                            .directory = sandbox,
                            .staged = for_others,
                            .working = {},
                            .host_paths = {},
                            .launch = launch};
    DVDI_CHECK(isolator->prepare(Context(), preparation));
    return preparation.launch;
  }
  v1::ContainerLaunchInfo must_prepare() {
    auto answer = prepare();
    EXPECT_TRUE(answer) << answer.error().text();
    return answer ? *answer : v1::ContainerLaunchInfo();
  }
  std::string cleanup() {
    const auto owed = isolator->cleanup(Context(), key, {});
    return owed ? "" : owed.error().text();
  }
  std::vector<StagedRow> rows() {
    std::vector<StagedRow> found;
    EXPECT_TRUE(ledger->read(Context(), "test", [&](Reader& reader) -> Status {
      DVDI_TRY(found, reader.staged());
      return {};
    }));
    return found;
  }
  void write(const std::function<Status(Transaction&)>& work) {
    const auto written = ledger->write(Context(), "test", work);
    ASSERT_TRUE(written) << written.error().text();
  }
  void put_container(ContainerState what) {
    write([&](Transaction& transaction) {
      ContainerRow row{.key = key, .state = what, .digest = "digest"};
      row.since = transaction.now();
      row.engine = {.pid = 1, .start_ticks = 1, .boot_id = transaction.now().boot_id};
      if (what == ContainerState::ended) row.ended = transaction.now();
      return transaction.put(row);
    });
  }
  static int write_file(const std::string& path) {
    const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) return errno;
    ::close(fd);
    return 0;
  }
};

TEST_F(StagedMountsTest, ComesAfterTheInstructions) {
  EXPECT_THAT(isolator->needs(), ElementsAre(Property::mount_instructions));
  EXPECT_THAT(SharedFilesystem(helpers()).provides(), ElementsAre(Property::mount_instructions));
}

TEST_F(StagedMountsTest, NothingForOurOwnLauncher) {
  instruct(volume("a"));
  const auto answer = prepare(false);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->SerializeAsString(), launch.SerializeAsString());
  EXPECT_THAT(staged(), IsEmpty());
  EXPECT_EQ(cleanup(), "");
  EXPECT_NE(::access((state + "/staged").c_str(), F_OK), 0);
}

TEST_F(StagedMountsTest, TheAnswerHasWhatAnotherLauncherCanUseAndNothingElse) {
  instruct(volume("a"));
  instruct(volume("b"), MS_RDONLY);
  const auto answer = must_prepare();
  ASSERT_EQ(answer.mounts_size(), 2);
  v1::ContainerLaunchInfo expected;
  expected.add_clone_namespaces(CLONE_NEWNS);
  for (int i = 0; i < 2; ++i) {
    auto& mount = *expected.add_mounts();
    mount.set_target(sandbox + "/data");
    mount.set_source(answer.mounts(i).source());
    mount.set_flags(MS_BIND | MS_REC);
  }
  EXPECT_EQ(answer.SerializeAsString(), expected.SerializeAsString());
  EXPECT_THAT(answer.mounts(0).source(), AllOf(StartsWith(state + "/staged/"), testing::EndsWith("/0")));
  EXPECT_THAT(answer.mounts(1).source(), AllOf(StartsWith(state + "/staged/"), testing::EndsWith("/1")));
  EXPECT_EQ(write_file(answer.mounts(0).source() + "/x"), 0);
  EXPECT_EQ(write_file(answer.mounts(1).source() + "/x"), EROFS);
  EXPECT_THAT(rows(), SizeIs(2));
  EXPECT_EQ(cleanup(), "");
  EXPECT_THAT(staged(), IsEmpty());
  EXPECT_THAT(rows(), IsEmpty());
  EXPECT_EQ(::access((dir / "a/x").c_str(), F_OK), 0);  // the volume's data is where it was
}

TEST_F(StagedMountsTest, AContainerWithoutMountsKeepsItsNamespaces) {
  const auto answer = must_prepare();
  EXPECT_EQ(answer.ByteSizeLong(), 0U);
}

TEST_F(StagedMountsTest, FlagsHoldForWhatIsMountedBelow) {
  const std::string top = volume("a");
  const std::string below = dir.make_folder("a/below");
  ASSERT_EQ(::mount("below", below.c_str(), "tmpfs", 0, "size=64k"), 0);
  instruct(top, MS_RDONLY);
  const auto answer = must_prepare();
  EXPECT_EQ(write_file(answer.mounts(0).source() + "/below/x"), EROFS);
  EXPECT_EQ(write_file(below + "/x"), 0);
  const auto table = MountTable::read();
  const MountEntry* entry = table->at(answer.mounts(0).source() + "/below");
  ASSERT_NE(entry, nullptr);
  EXPECT_THAT(entry->options, AllOf(HasSubstr("nosuid"), HasSubstr("nodev"), HasSubstr("ro")));
  EXPECT_EQ(cleanup(), "");
  EXPECT_THAT(staged(), IsEmpty());
}

TEST_F(StagedMountsTest, LiesInASharedFolderAndIsPrivateItself) {
  instruct(volume("a"));
  const auto answer = must_prepare();
  const auto table = MountTable::read();
  ASSERT_NE(table->at(state + "/staged"), nullptr);
  EXPECT_TRUE(table->at(state + "/staged")->shared);
  ASSERT_NE(table->at(answer.mounts(0).source()), nullptr);
  EXPECT_FALSE(table->at(answer.mounts(0).source())->shared);
}

TEST_F(StagedMountsTest, AnotherMountThanTheVolumesIsRefused) {
  auto& mount = instruct(volume("a"));
  mount.mutable_identity()->set_mount_id(mount.identity().mount_id() + 100000);
  const auto answer = prepare();
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Code::failed_precondition);
  EXPECT_THAT(answer.error().message, HasSubstr("expected mount"));
  EXPECT_THAT(rows(), SizeIs(1));  // the intent, for the roll-back
  EXPECT_EQ(cleanup(), "");
  EXPECT_THAT(staged(), IsEmpty());
  EXPECT_THAT(rows(), IsEmpty());
}

TEST_F(StagedMountsTest, OneThatFailsLeavesNothingOfTheOthersAfterTheRollBack) {
  instruct(volume("a"));
  instruct(dir.make_folder("b")).mutable_identity()->set_root("/another");
  ASSERT_FALSE(prepare());
  EXPECT_THAT(staged(), SizeIs(2));  // the first, and the folder
  EXPECT_EQ(cleanup(), "");
  EXPECT_THAT(staged(), IsEmpty());
}

TEST_F(StagedMountsTest, AFileIsStagedOnAFile) {
  const std::string folder = volume("a");
  ASSERT_EQ(write_file(folder + "/file"), 0);
  auto& mount = instruct(folder);
  mount.set_source(folder + "/file");
  const auto answer = must_prepare();
  struct stat status{};
  ASSERT_EQ(::stat(answer.mounts(0).source().c_str(), &status), 0);
  EXPECT_TRUE(S_ISREG(status.st_mode));
  EXPECT_EQ(cleanup(), "");
  EXPECT_THAT(staged(), IsEmpty());
}

TEST_F(StagedMountsTest, RepeatedTheAnswerIsTheSameWithoutANewMount) {
  instruct(volume("a"));
  const auto first = must_prepare();
  const auto ids = [&] {
    std::vector<std::uint64_t> found;
    const auto table = MountTable::read();
    for (const MountEntry* entry : table->beneath(dir.text())) found.push_back(entry->id);
    return found;
  };
  const auto before = ids();
  const auto known = rows();
  isolator = made();  // as after a restart of the daemon
  EXPECT_EQ(must_prepare().SerializeAsString(), first.SerializeAsString());
  EXPECT_EQ(ids(), before);
  ASSERT_THAT(rows(), SizeIs(1));
  EXPECT_EQ(rows().front().identity, known.front().identity);
}

TEST_F(StagedMountsTest, OneThatVanishedIsMadeAgain) {
  instruct(volume("a"));
  const auto first = must_prepare();
  ASSERT_EQ(::umount(first.mounts(0).source().c_str()), 0);
  EXPECT_EQ(must_prepare().SerializeAsString(), first.SerializeAsString());
  EXPECT_EQ(write_file(first.mounts(0).source() + "/x"), 0);
  EXPECT_EQ(::access((dir / "a/x").c_str(), F_OK), 0);
}

TEST_F(StagedMountsTest, OneOfAVolumeThatWasMountedAfreshIsMadeAgain) {
  const std::string path = volume("a");
  instruct(path);
  const auto first = must_prepare();
  ASSERT_EQ(::umount2(path.c_str(), MNT_DETACH), 0);
  volume("a");
  launch.Clear();
  instruct(path);
  EXPECT_EQ(must_prepare().SerializeAsString(), first.SerializeAsString());
  EXPECT_EQ(write_file(first.mounts(0).source() + "/x"), 0);
  EXPECT_EQ(::access((path + "/x").c_str(), F_OK), 0);
}

TEST_F(StagedMountsTest, KilledBetweenTheIntentAndItsRecord) {
  // The row says what was intended; a mount is there, and perhaps one on top of it that came late.
  instruct(volume("a"));
  const auto answer = must_prepare();
  const std::string place = answer.mounts(0).source();
  ASSERT_EQ(::mount("late", place.c_str(), "tmpfs", 0, "size=64k"), 0);
  StagedRow row = rows().front();
  row.identity.reset();
  write([&](Transaction& transaction) { return transaction.put(row); });
  isolator = made();
  EXPECT_EQ(must_prepare().SerializeAsString(), answer.SerializeAsString());
  EXPECT_THAT(staged(), SizeIs(2));  // the folder and one mount
  EXPECT_EQ(write_file(place + "/x"), 0);
  EXPECT_EQ(::access((dir / "a/x").c_str(), F_OK), 0);
}

TEST_F(StagedMountsTest, KilledBeforeItsRecordAndThenCleanedUp) {
  instruct(volume("a"));
  must_prepare();
  StagedRow row = rows().front();
  row.identity.reset();
  write([&](Transaction& transaction) { return transaction.put(row); });
  EXPECT_EQ(cleanup(), "");
  EXPECT_THAT(staged(), IsEmpty());
  EXPECT_THAT(rows(), IsEmpty());
}

TEST_F(StagedMountsTest, AMountThatNoRowKnowsGoesWithItsContainer) {
  instruct(volume("a"));
  must_prepare();
  write(
      [&](Transaction& transaction) { return transaction.erase_staged(key, 0); });  // books that were rebuilt
  isolator->settle(Context());
  EXPECT_THAT(staged(), SizeIs(2));  // its container may be alive
  EXPECT_EQ(cleanup(), "");
  EXPECT_THAT(staged(), IsEmpty());
}

TEST_F(StagedMountsTest, WhatIsBusyIsReportedAndTriedAgain) {
  instruct(volume("a"));
  instruct(volume("b"));
  const auto answer = must_prepare();
  {
    const UniqueFd busy(::open(answer.mounts(1).source().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(busy);
    const auto error = isolator->cleanup(Context(), key, {});
    ASSERT_FALSE(error);
    EXPECT_EQ(error.error().code, Code::failed_precondition);
    EXPECT_THAT(error.error().text(),
                AllOf(HasSubstr("/1: Device or resource busy"), HasSubstr("isolator_test (pid")));
    ASSERT_THAT(rows(), SizeIs(1));  // the other one is gone
    EXPECT_EQ(rows().front().position, 1U);
  }
  EXPECT_EQ(cleanup(), "");
  EXPECT_THAT(rows(), IsEmpty());
  EXPECT_THAT(staged(), IsEmpty());
}

TEST_F(StagedMountsTest, CleanupOfAnUnknownContainerSucceeds) {
  EXPECT_EQ(cleanup(), "");
  instruct(volume("a"));
  must_prepare();
  EXPECT_EQ(cleanup(), "");
  EXPECT_EQ(cleanup(), "");
}

TEST_F(StagedMountsTest, LeftoversOfContainersThatAreNoMoreAreTakenAway) {
  instruct(volume("a"));
  must_prepare();
  put_container(ContainerState::running);
  EXPECT_THAT(isolator->settle(Context()), IsEmpty());
  EXPECT_THAT(rows(), SizeIs(1));
  put_container(ContainerState::ended);
  {
    const auto held = locks->try_acquire(container_lock_key(key));  // somebody is at work on it
    ASSERT_TRUE(held && *held);
    EXPECT_THAT(isolator->settle(Context()), IsEmpty());
    EXPECT_THAT(rows(), SizeIs(1));
  }
  EXPECT_THAT(isolator->settle(Context()),
              ElementsAre("private mounts of container /agent/parent.child were taken away"));
  EXPECT_THAT(rows(), IsEmpty());
  EXPECT_THAT(staged(), IsEmpty());
}

TEST_F(StagedMountsTest, AVolumeIsNotLetGoOfWhileALeftoverShowsIt) {
  instruct(volume("a"));
  instruct(volume("b"));
  const auto answer = must_prepare();
  const auto put_mount = [&](const std::string& name, int mount) {
    write([&](Transaction& transaction) {
      const v1::MountIdentity& identity = launch.mounts(mount).identity();
      MountRow row{.volume = {"d", name}, .mount_id = name, .state = MountState::mounted};
      row.identity = StoredIdentity{
          .mount_id = identity.mount_id(), .major = identity.major(), .minor = identity.minor()};
      row.since = transaction.now();
      return transaction.put(row);
    });
  };
  put_mount("a", 0);
  put_mount("b", 1);
  const UniqueFd busy(::open(answer.mounts(1).source().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_TRUE(isolator->let_go(Context(), {"d", "a"}));
  const auto held = isolator->let_go(Context(), {"d", "b"});
  ASSERT_FALSE(held);
  EXPECT_EQ(held.error().code, Code::failed_precondition);
  EXPECT_THAT(held.error().text(),
              AllOf(HasSubstr("container '/agent/parent.child'"), HasSubstr("isolator_test (pid")));
  put_container(ContainerState::running);  // not a leftover: its own cleanup sees to it
  EXPECT_TRUE(isolator->let_go(Context(), {"d", "b"}));
}

TEST_F(StagedMountsTest, RecoverTakesWhatIsInNoBooksAndNoList) {
  instruct(volume("a"));
  must_prepare();
  const auto recover = [&](const RecoverRequest& lists) {
    const auto recovered = isolator->recover(Context(), lists, {});
    EXPECT_TRUE(recovered);
    return rows().size();
  };
  EXPECT_EQ(recover({.owner = "/other"}), 1U);
  EXPECT_EQ(recover({.owner = key.owner, .orphans = {key.id}}), 1U);
  EXPECT_EQ(recover({.owner = key.owner, .live = {{.id = key.id}}}), 1U);
  put_container(ContainerState::running);
  EXPECT_EQ(recover({.owner = key.owner}), 1U);
  write([&](Transaction& transaction) { return transaction.erase(key); });
  EXPECT_EQ(recover({.owner = key.owner}), 0U);
  EXPECT_THAT(staged(), IsEmpty());
}

TEST_F(StagedMountsTest, WhatRecoverCannotTakeIsOwedAndNoFailure) {
  instruct(volume("a"));
  const auto answer = must_prepare();
  const UniqueFd busy(::open(answer.mounts(0).source().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto recovered = isolator->recover(Context(), {.owner = key.owner}, {});
  ASSERT_TRUE(recovered);
  ASSERT_THAT(recovered->owed, SizeIs(1));
  EXPECT_THAT(recovered->owed.front().reason, HasSubstr("busy"));
}

TEST_F(StagedMountsTest, RowsOfAnotherBootGo) {
  instruct(volume("a"));
  const auto answer = must_prepare();
  ASSERT_EQ(::umount(answer.mounts(0).source().c_str()), 0);
  put_container(ContainerState::running);
  write([&](Transaction& transaction) -> Status {
    DVDI_TRY(auto row, transaction.container(key));
    row->since.boot_id = "another";
    return transaction.put(*row);
  });
  EXPECT_THAT(isolator->settle(Context()), SizeIs(1));
  EXPECT_THAT(rows(), IsEmpty());
  EXPECT_NE(::access(answer.mounts(0).source().c_str(), F_OK), 0);
}

// An agent in a mount namespace of its own, which receives mounts from the host's: writes a file below each
// path that it is sent, and answers with the error number.
class Agent {
 public:
  Agent() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    ours_.reset(ends[0]);
    const UniqueFd theirs(ends[1]);
    child_ = ::fork();
    if (child_ == 0) {
      ours_.reset();
      work(theirs.get());
    }
    EXPECT_EQ(receive(), 0);  // it has its namespace
  }
  ~Agent() {
    ours_.reset();
    ::waitpid(child_, nullptr, 0);
  }
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;
  int write_below(const std::string& path) {
    EXPECT_EQ(::send(ours_.get(), path.data(), path.size(), 0), static_cast<ssize_t>(path.size()));
    return receive();
  }

 private:
  [[noreturn]] static void work(int socket) {
    int answer = 0;
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0)
      answer = errno;
    for (;;) {
      if (::send(socket, &answer, sizeof answer, MSG_NOSIGNAL) < 0) ::_exit(1);
      std::array<char, 4096> path{};
      const ssize_t got = ::recv(socket, path.data(), path.size() - 8, 0);
      if (got <= 0) ::_exit(0);
      std::strcpy(path.data() + got, "/agent");
      const int fd = ::open(path.data(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
      answer = fd < 0 ? errno : 0;
      if (fd >= 0) ::close(fd);
    }
  }
  int receive() {
    int answer = -1;
    EXPECT_EQ(::recv(ours_.get(), &answer, sizeof answer, 0), static_cast<ssize_t>(sizeof answer));
    return answer;
  }
  UniqueFd ours_;
  pid_t child_ = -1;
};

TEST_F(StagedMountsTest, AnAgentInAnotherNamespaceSeesThemComeAndGo) {
  // Nothing above the folder of staged mounts is shared here.
  instruct(volume("a"));
  instruct(volume("b"), MS_RDONLY);
  must_prepare();
  Agent agent;
  key.id = "another";
  const auto answer = must_prepare();
  EXPECT_EQ(agent.write_below(answer.mounts(0).source()), 0);
  EXPECT_EQ(::access((dir / "a/agent").c_str(), F_OK), 0);
  EXPECT_EQ(agent.write_below(answer.mounts(1).source()), EROFS);
  EXPECT_EQ(cleanup(), "");
  EXPECT_EQ(agent.write_below(answer.mounts(0).source()), ENOENT);
}

}  // namespace
}  // namespace dvdi::isolator
