// Mounts that go without us: unmounted by somebody, or their server (FUSE, network) is gone, stopped or
// hangs.
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "linux/fuse_test_server.h"
#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class ManagerLost : public ManagerTest {
 protected:
  using Kind = UsageInterval::Kind;
  using Pending = MountRow::Pending;

  void TearDown() override {
    servers.clear();  // frees whoever waits for them
    ManagerTest::TearDown();
  }

  // Behind the driver's and the manager's back.
  void unmount_by_hand(const std::string& name) {
    ASSERT_EQ(::umount2(fake->mount_point(name).c_str(), MNT_DETACH), 0);
  }
  bool note_vanished(const std::vector<std::string>& expected) {
    const auto compared = manager->note_vanished(context());
    EXPECT_TRUE(compared) << compared.error().text();
    return compared && names(compared->lost) == expected;
  }
  Probed probe() {
    const auto probed = manager->probe(context());
    EXPECT_TRUE(probed) << probed.error().text();
    return probed.value_or(Probed());
  }
  static std::vector<std::string> names(const std::vector<VolumeKey>& keys) {
    std::vector<std::string> out;
    for (const VolumeKey& key : keys) out.push_back(key.name);
    return out;
  }
  bool is_lost(const std::string& name) const {
    const auto found = row(name);
    return found && found->state == MountState::unknown && found->pending == Pending::lost;
  }
  std::string state_of(const std::string& name) const {
    const auto found = row(name);
    return std::string(found ? mount_state_name(found->state) : "none");
  }
  std::string last_event(const std::string& name, const char* member) const {
    std::string text;
    for (const json::value& body : event_bodies()) {
      if (json::text_or_empty(body, "subject") == "volume/fake/" + name) {
        text = json::text_or_empty(*json::find(body, "data"), member);
      }
    }
    return text;
  }

  std::map<std::string, std::unique_ptr<FuseTestServer>> servers;
};

// The fake driver's mounts are FUSE mounts that this process serves.
class ManagerServed : public ManagerLost {
 protected:
  void SetUp() override {
    ManagerLost::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (::access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << os_error("/dev/fuse", errno).message;
    fake->manner.mounts = [this](const std::string& volume, const std::string& at) {
      servers[volume] = FuseTestServer::mount(at, volume);
      return servers[volume] != nullptr;
    };
  }
  // For tests of servers that do not answer: what waits for them waits that long.
  void be_impatient() {
    policy.probe_patience = std::chrono::milliseconds(100);
    policy.use_patience = std::chrono::milliseconds(100);
    restart();
  }
  void kill_server(const std::string& name) { servers.at(name).reset(); }
  void wait_until_unfenced() {
    while (!manager->fenced(context()).empty()) std::this_thread::yield();
  }
};

TEST_F(ManagerLost, OneThatIsMountedAfreshWhileAnotherIsMountedIsAnsweredAsItIsThen) {
  const auto before = acquire("c1", {want("a")});
  ASSERT_TRUE(before);
  fake->hold(Operation::mount, "b");
  Result<std::vector<Mounted>> answer = std::vector<Mounted>();
  std::jthread prepare([&] { answer = acquire("c2", {want("a"), want("b")}); });
  fake->wait_until_held();
  unmount_by_hand("a");
  ASSERT_TRUE(acquire("c4", {want("x")})) << "takes the numbers that the kernel would give again";
  const auto afresh = acquire("c3", {want("a")});
  ASSERT_TRUE(afresh);
  ASSERT_NE(afresh->at(0).identity, before->at(0).identity);
  fake->let_go();
  prepare.join();
  ASSERT_TRUE(answer) << answer.error().text();
  ASSERT_THAT(*answer, SizeIs(2));
  EXPECT_EQ(answer->at(0).identity, afresh->at(0).identity);
  EXPECT_EQ(answer->at(1).volume.name, "b");
  for (const char* id : {"c1", "c2", "c3", "c4"}) ASSERT_TRUE(release(id));
  expect_consistent();
}

TEST_F(ManagerLost, OneThatIsLostWhileAnotherIsMountedFailsThePrepare) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  fake->hold(Operation::mount, "b");
  std::jthread prepare([&] {
    const auto mounted = acquire("c2", {want("a"), want("b")});
    ASSERT_FALSE(mounted);
    EXPECT_EQ(mounted.error().code, Code::unavailable);
    EXPECT_THAT(mounted.error().message, HasSubstr("lost while another was mounted"));
  });
  fake->wait_until_held();
  unmount_by_hand("a");
  EXPECT_TRUE(note_vanished({"a"}));
  fake->let_go();
  prepare.join();
  EXPECT_FALSE(container_row("c2"));
  EXPECT_FALSE(row("b")) << "given back";
  ASSERT_TRUE(acquire("c2", {want("a"), want("b")})) << "mounted afresh";
  EXPECT_TRUE(mounted_in_kernel("a"));
  ASSERT_TRUE(release("c1"));
  ASSERT_TRUE(release("c2"));
  expect_consistent();
  EXPECT_EQ(rows_in("mounts"), 0);
}

TEST_F(ManagerLost, AMountThatVanishesIsLostOnce) {
  ASSERT_TRUE(acquire("c1", {want("a"), want("b")}));
  EXPECT_TRUE(note_vanished({}));
  unmount_by_hand("a");
  EXPECT_TRUE(note_vanished({"a"}));
  EXPECT_TRUE(is_lost("a"));
  EXPECT_THAT(row("a")->note, HasSubstr("does not show it"));
  EXPECT_EQ(row("b")->state, MountState::mounted);
  EXPECT_EQ(events("volume/fake/a").back(), "mount.lost");
  EXPECT_THAT(last_event("a", "reason"), HasSubstr("does not show it"));
  EXPECT_EQ(last_event("a", "to"), "unknown");
  EXPECT_THAT(intervals(Kind::mounted, "a"), ElementsAre("closed"));
  EXPECT_THAT(references_to("a"), ElementsAre("c1")) << "the task keeps what it has";
  const auto before = transactions();
  EXPECT_TRUE(note_vanished({}));
  EXPECT_EQ(transactions(), before);
  expect_consistent();
}

TEST_F(ManagerLost, AVolumeThatSomebodyIsAtWorkOnIsLeftToHim) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  unmount_by_hand("a");
  {
    const auto held = locks->acquire(context(), "volume fake/a", "test");
    ASSERT_TRUE(held);
    EXPECT_TRUE(note_vanished({}));
    EXPECT_EQ(state_of("a"), "mounted");
  }
  EXPECT_TRUE(note_vanished({"a"}));
}

TEST_F(ManagerLost, TheNextUserGetsAFreshMountAndTheOthersKeepTheirReferences) {
  for (const bool forgets : {false, true}) {
    const std::string one = forgets ? "the driver forgot the volume" : "the driver counts us still";
    SCOPED_TRACE(one);
    ASSERT_TRUE(acquire(one + "c1", {want("a")}));
    const std::string id = row("a")->mount_id;
    unmount_by_hand("a");
    if (forgets) fake->forget();
    ASSERT_TRUE(note_vanished({"a"}));
    const auto second = acquire(one + "c2", {want("a")});
    ASSERT_TRUE(second) << second.error().text();
    EXPECT_TRUE(mounted_in_kernel("a"));
    EXPECT_NE(row("a")->mount_id, id);
    EXPECT_EQ(row("a")->identity, second->front().identity);
    EXPECT_THAT(fake->users("a"), ElementsAre(row("a")->mount_id));
    EXPECT_THAT(references_to("a"), testing::UnorderedElementsAre(one + "c1", one + "c2"));
    const auto log = fake->log();
    EXPECT_THAT(std::vector(log.end() - 3, log.end()), ElementsAre("unmount a", "create a", "mount a"));
    EXPECT_TRUE(row("a")->note.empty());
    expect_consistent();
    ASSERT_TRUE(release(one + "c1"));
    EXPECT_TRUE(mounted_in_kernel("a")) << "the fresh mount is the volume's now";
    ASSERT_TRUE(release(one + "c2"));
    fake->forget();
    expect_nothing_left();
  }
}

TEST_F(ManagerLost, TheLastContainerOfALostVolumeEndsWithoutADebt) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  unmount_by_hand("a");
  ASSERT_TRUE(note_vanished({"a"}));
  fake->fail(Operation::unmount, "a", Fault::refuse);
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, IsEmpty());
  EXPECT_EQ(fake->calls(Operation::unmount), 1U);
  EXPECT_FALSE(row("a"));
  fake->forget();
  expect_nothing_left();
}

TEST_F(ManagerLost, ALostMountWhoseDriverIsAwayIsOwedSoThatItsBooksComeRight) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  unmount_by_hand("a");
  ASSERT_TRUE(note_vanished({"a"}));
  fake->fail(Operation::unmount, "a", Fault::not_sent);
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, SizeIs(1));
  EXPECT_THAT(fake->users("a"), SizeIs(1));
  settle_all();
  EXPECT_THAT(fake->users("a"), IsEmpty());
  EXPECT_FALSE(debt("a"));
  expect_consistent();
}

TEST_F(ManagerLost, AnUnmountThatIsKeptBackIsOwedAndALostOneIsSettledLater) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  unmount_by_hand("a");
  ASSERT_TRUE(note_vanished({"a"}));
  const auto owed = release("c1", "somebody still uses it");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, SizeIs(1));
  EXPECT_EQ(fake->calls(Operation::unmount), 0U);
  settle_all();
  fake->forget();
  expect_nothing_left();
}

TEST_F(ManagerLost, ALostMountThatNobodyRefersToIsSettled) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  unmount_by_hand("a");
  ASSERT_TRUE(note_vanished({"a"}));
  // As if killed between the two.
  put([&](Transaction& transaction) { return transaction.erase_reference(container("c1"), volume("a")); });
  EXPECT_THAT(manager->settle(context()), ElementsAre(HasSubstr("a mount that was lost: settled")));
  EXPECT_FALSE(row("a"));
  fake->forget();
  EXPECT_EQ(kernel_mounts(), 0U);
}

TEST_F(ManagerLost, AMountThatIsHiddenIsLostUntilItIsSeenAgain) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_EQ(::mount("other", fake->mount_point("a").c_str(), "tmpfs", 0, nullptr), 0);
  EXPECT_TRUE(note_vanished({"a"}));
  ASSERT_EQ(::umount2(fake->mount_point("a").c_str(), 0), 0);
  EXPECT_TRUE(note_vanished({}));
  EXPECT_EQ(state_of("a"), "mounted");
  EXPECT_EQ(row("a")->pending, Pending::none);
  EXPECT_TRUE(row("a")->note.empty());
  EXPECT_EQ(events("volume/fake/a").back(), "mount.mounted");
  EXPECT_THAT(last_event("a", "reason"), HasSubstr("again"));
  EXPECT_THAT(intervals(Kind::mounted, "a"), ElementsAre("closed", "open"));
  expect_consistent();
  ASSERT_TRUE(release("c1"));
  expect_nothing_left();
}

TEST_F(ManagerLost, WithoutAServerThereIsNothingToProbe) {
  EXPECT_FALSE(probe().anything);
  ASSERT_TRUE(acquire("c1", {want("a")}));
  EXPECT_FALSE(probe().anything);
}

// A driver that hands out a folder of the volume's own mount, as REX-Ray does.
class ManagerFolder : public ManagerLost {
 protected:
  void SetUp() override {
    ManagerLost::SetUp();
    fake->manner.folder = "data";
  }
  // The answer to a Mount of `name` that the driver claims to have mounted there.
  Result<std::vector<Mounted>> claim(const std::string& name, const std::string& path) {
    std::filesystem::create_directories(path);
    fake->lie(name, path);
    auto got = acquire("claims-" + name, {want(name)});
    fake->behave();
    return got;
  }
};

TEST_F(ManagerFolder, IsSharedAndUnmountedAfterTheLast) {
  const auto first = acquire("c1", {want("a")});
  ASSERT_TRUE(first) << first.error().text();
  EXPECT_EQ(first->front().mount_point, fake->mount_point("a") + "/data");
  EXPECT_EQ(row("a")->mounted_at(), fake->mount_point("a"));
  EXPECT_TRUE(acquire("c2", {want("a")}));
  EXPECT_TRUE(note_vanished({}));
  restart();
  EXPECT_TRUE(acquire("c3", {want("a")}));
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  for (const char* id : {"c1", "c2", "c3"}) EXPECT_TRUE(release(id));
  expect_nothing_left();
}

TEST_F(ManagerFolder, IsLostWithItsMountAndWhereSomethingLiesOverIt) {
  ASSERT_TRUE(acquire("c1", {want("a"), want("b")}));
  unmount_by_hand("a");
  const std::string over = fake->handed_out("b");
  ASSERT_EQ(::mount("over", over.c_str(), "tmpfs", 0, nullptr), 0);
  EXPECT_TRUE(note_vanished({"a", "b"}));
  ASSERT_EQ(::umount2(over.c_str(), MNT_DETACH), 0);
  EXPECT_TRUE(note_vanished({}));
  EXPECT_EQ(state_of("b"), "mounted") << "found again";
  EXPECT_TRUE(acquire("c2", {want("a")}));
  EXPECT_TRUE(release("c1"));
  EXPECT_TRUE(release("c2"));
  EXPECT_FALSE(mounted_in_kernel("b"));
}

TEST_F(ManagerFolder, OfTheHostIsRefused) {
  EXPECT_FALSE(claim("a", folder + "/volumes/a/data")) << "nothing is mounted there";
  const std::string own = folder + "/volumes/b";
  std::filesystem::create_directories(own);
  ASSERT_EQ(::mount("own", own.c_str(), "tmpfs", 0, nullptr), 0);
  EXPECT_FALSE(claim("b", own + "/deeper/data")) << "whose folder that is, the name does not tell";
  EXPECT_FALSE(claim("c", own + "/data")) << "it is another's";
  EXPECT_TRUE(claim("b", own + "/data"));
  EXPECT_TRUE(release("claims-b"));
  ASSERT_EQ(::umount2(own.c_str(), MNT_DETACH), 0);
}

TEST_F(ManagerFolder, ThatIsCalledLikeTheVolumeMustBeNew) {
  const auto got = acquire("c", {want("data")});  // data/data
  ASSERT_TRUE(got) << got.error().text();
  EXPECT_EQ(row("data")->mounted_at(), fake->mount_point("data"));
  EXPECT_TRUE(release("c"));
  // A file system of the host that is called like the volume, and a plain folder in it.
  const std::string host = folder + "/volumes";
  std::filesystem::create_directories(host);
  ASSERT_EQ(::mount("host", host.c_str(), "tmpfs", 0, nullptr), 0);
  EXPECT_FALSE(claim("volumes", host + "/volumes"));
  ASSERT_EQ(::umount2(host.c_str(), MNT_DETACH), 0);
}

TEST_F(ManagerFolder, ALinkOutOfTheVolumeIsRefused) {
  const std::string own = folder + "/volumes/a";
  std::filesystem::create_directories(own);
  ASSERT_EQ(::mount("own", own.c_str(), "tmpfs", 0, nullptr), 0);
  std::filesystem::create_directories(folder + "/home");
  ASSERT_EQ(::mount("home", (folder + "/home").c_str(), "tmpfs", 0, nullptr), 0);
  std::filesystem::create_directory_symlink(folder + "/home", own + "/data");
  std::filesystem::create_directories(own + "/real");
  std::filesystem::create_directory_symlink("real", own + "/inside");
  fake->lie("a", own + "/data");
  const auto refused = acquire("c1", {want("a")});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(), HasSubstr("leads out of the volume"));
  fake->behave();
  EXPECT_TRUE(claim("a", own + "/inside"));
  EXPECT_TRUE(release("claims-a"));
  ASSERT_EQ(::umount2(own.c_str(), MNT_DETACH), 0);
  ASSERT_EQ(::umount2((folder + "/home").c_str(), MNT_DETACH), 0);
}

TEST_F(ManagerServed, AServerThatLivesIsProbedAndItsMountSharedWithoutADriverCall) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  EXPECT_TRUE(probe().anything);
  const auto before = transactions();
  const Probed again = probe();
  EXPECT_TRUE(again.anything);
  EXPECT_THAT(again.lost, IsEmpty());
  EXPECT_THAT(again.found, IsEmpty());
  EXPECT_EQ(transactions(), before) << "a look writes nothing";
  ASSERT_TRUE(acquire("c2", {want("a")}));
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  ASSERT_TRUE(release("c1"));
  ASSERT_TRUE(release("c2"));
  EXPECT_FALSE(probe().anything);
  expect_nothing_left();
}

// Scenario 21.
TEST_F(ManagerServed, TheDeathOfAServerIsNoticedOnce) {
  ASSERT_TRUE(acquire("c1", {want("a"), want("b")}));
  kill_server("a");
  EXPECT_TRUE(note_vanished({})) << "the kernel's table does not tell";
  const Probed probed = probe();
  EXPECT_TRUE(probed.anything);
  EXPECT_THAT(names(probed.lost), ElementsAre("a"));
  EXPECT_TRUE(is_lost("a"));
  EXPECT_THAT(row("a")->note, HasSubstr("its server is gone: "));
  EXPECT_EQ(events("volume/fake/a").back(), "mount.lost");
  EXPECT_THAT(intervals(Kind::mounted, "a"), ElementsAre("closed"));
  EXPECT_EQ(state_of("b"), "mounted");
  EXPECT_THAT(probe().lost, IsEmpty());
  EXPECT_TRUE(mounted_in_kernel("a")) << "nobody asked for it: it is left alone";
  expect_consistent();
}

TEST_F(ManagerServed, ADeadOneThatSomebodyIsAtWorkOnIsLeftToHim) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  kill_server("a");
  {
    const auto held = locks->acquire(context(), "volume fake/a", "test");
    ASSERT_TRUE(held);
    EXPECT_THAT(probe().lost, IsEmpty());
    EXPECT_EQ(state_of("a"), "mounted");
  }
  EXPECT_THAT(names(probe().lost), ElementsAre("a"));
}

// A probe has the mount open, which makes it busy for the driver's umount(2).
TEST_F(ManagerServed, NoMountIsProbedWhileItsDriverUnmountsIt) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  const auto probe_lock = [this] { return locks->try_acquire("probe fake/a").value(); };

  servers.at("a")->hold();
  const unsigned before = servers.at("a")->requests();
  std::thread probing([this] { probe(); });
  while (servers.at("a")->requests() == before) std::this_thread::yield();
  EXPECT_FALSE(probe_lock()) << "who unmounts it does not wait";
  servers.at("a")->answer();
  probing.join();
  EXPECT_TRUE(probe_lock());

  fake->hold(driver::Operation::unmount, "a");
  std::thread releasing([this] { EXPECT_TRUE(release("c1")); });
  fake->wait_until_held();
  EXPECT_FALSE(probe_lock()) << "it may be probed while its driver unmounts it";
  fake->let_go();
  releasing.join();
  EXPECT_TRUE(probe_lock());
}

TEST_F(ManagerServed, WhatIsUnmountedIsNotProbed) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  kill_server("a");
  {
    const auto held = locks->acquire(context(), "probe fake/a", "test");
    ASSERT_TRUE(held);
    EXPECT_THAT(probe().lost, IsEmpty());
  }
  EXPECT_THAT(names(probe().lost), ElementsAre("a"));
}

TEST_F(ManagerServed, AServerThatFailsIsLostNotTakenAwayAndFoundAgain) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  servers.at("a")->fail(EIO);
  EXPECT_THAT(names(probe().lost), ElementsAre("a"));
  EXPECT_THAT(row("a")->note, HasSubstr("its server fails"));
  fake->fail(Operation::unmount, "a", Fault::refuse);
  const auto failed = acquire("c2", {want("a")});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::unavailable);
  EXPECT_TRUE(mounted_in_kernel("a")) << "it may come back";
  EXPECT_TRUE(is_lost("a"));
  expect_consistent();
  servers.at("a")->fail(0);
  EXPECT_THAT(names(probe().found), ElementsAre("a"));
  EXPECT_EQ(state_of("a"), "mounted");
  EXPECT_FALSE(debt("a"));
  expect_consistent();
  ASSERT_TRUE(release("c1"));
  expect_nothing_left();
}

TEST_F(ManagerServed, ADeadMountIsTakenAwayAtTheEndOfItsLastContainer) {
  for (const bool noticed : {false, true}) {
    const std::string one = noticed ? "noticed before" : "not noticed before";
    SCOPED_TRACE(one);
    ASSERT_TRUE(acquire(one + "c1", {want("a")}));
    kill_server("a");
    fake->forget();  // the plugin was the server, and was started again
    if (noticed) {
      ASSERT_THAT(probe().lost, SizeIs(1));
    }
    const auto owed = release(one + "c1");
    ASSERT_TRUE(owed);
    EXPECT_THAT(*owed, IsEmpty());
    EXPECT_FALSE(mounted_in_kernel("a"));
    EXPECT_THAT(last_event("a", "reason"), HasSubstr("taken away"));
    expect_nothing_left();
  }
}

TEST_F(ManagerServed, ADeadMountWhoseDriverIsAwayIsTakenAwayAndItsUnmountOwed) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  kill_server("a");
  fake->fail(Operation::unmount, "a", Fault::not_sent);
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, SizeIs(1));
  EXPECT_FALSE(mounted_in_kernel("a"));
  settle_all();
  EXPECT_FALSE(row("a"));
  EXPECT_THAT(fake->users("a"), IsEmpty());
  expect_consistent();
}

TEST_F(ManagerServed, TheNextUserNeverGetsADeadMountNorTheBareDirectory) {
  for (const bool noticed : {false, true}) {
    for (const bool restarted : {false, true}) {
      const std::string one = std::string(noticed ? "noticed before" : "not noticed") +
                              (restarted ? ", driver restarted" : ", driver refuses");
      SCOPED_TRACE(one);
      ASSERT_TRUE(acquire(one + "c1", {want("a")}));
      const std::string id = row("a")->mount_id;
      const auto identity = row("a")->identity;
      kill_server("a");
      if (restarted) {
        fake->forget();
      } else {
        fake->fail(Operation::unmount, "a", Fault::refuse);
      }
      if (noticed) {
        ASSERT_THAT(probe().lost, SizeIs(1));
      }
      const auto second = acquire(one + "c2", {want("a")});
      if (!restarted) {
        // Its books say that it is mounted, and it hands out the place without mounting: an error, no folder.
        ASSERT_FALSE(second);
        EXPECT_EQ(second.error().code, Code::driver_violation);
        fake->forget();
        ASSERT_TRUE(release(one + "c1"));
        settle_all();
        fake->forget();
        expect_nothing_left();
        continue;
      }
      ASSERT_TRUE(second) << second.error().text();
      EXPECT_NE(row("a")->mount_id, id);
      EXPECT_EQ(probe().lost.size(), 0U) << "the new one lives";
      EXPECT_TRUE(mounted_in_kernel("a"));
      EXPECT_THAT(references_to("a"), testing::UnorderedElementsAre(one + "c1", one + "c2"));
      expect_consistent();
      ASSERT_TRUE(release(one + "c1"));
      ASSERT_TRUE(release(one + "c2"));
      expect_nothing_left();
    }
  }
}

TEST_F(ManagerServed, AMountThatIsDeadFromTheBeginningIsNotHandedOut) {
  fake->manner.mounts = [](const std::string& volume, const std::string& at) {
    return FuseTestServer::mount(at, volume) != nullptr;  // and its server ends here
  };
  const auto failed = acquire("c1", {want("a")});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::driver_violation);
  EXPECT_THAT(failed.error().message, HasSubstr("its server is gone"));
  EXPECT_EQ(fake->calls(Operation::unmount), 1U);
  expect_nothing_left();
}

TEST_F(ManagerServed, ADeadMountThatWasThereBeforeOursIsLeftAlone) {
  ASSERT_TRUE(fake->create(Context(), "a", {}));
  ASSERT_TRUE(fake->mount(Context(), "a", "docker"));
  ASSERT_TRUE(acquire("c1", {want("a")}));
  ASSERT_TRUE(foreign("a"));
  kill_server("a");
  ASSERT_THAT(probe().lost, SizeIs(1));
  ASSERT_TRUE(release("c1"));
  EXPECT_FALSE(row("a"));
  EXPECT_TRUE(mounted_in_kernel("a")) << "it is Docker's";
}

TEST_F(ManagerServed, AnUnmountThatWasRefusedAndThenDiesIsNotTakenOver) {
  ASSERT_TRUE(acquire("c1", {want("a")}));
  const std::string id = row("a")->mount_id;
  fake->fail(Operation::unmount, "a", Fault::refuse);
  ASSERT_TRUE(release("c1"));
  ASSERT_EQ(row("a")->pending, Pending::refused);
  kill_server("a");
  ASSERT_TRUE(acquire("c2", {want("a")}));
  EXPECT_NE(row("a")->mount_id, id);
  EXPECT_FALSE(debt("a"));
  EXPECT_THAT(probe().lost, IsEmpty());
  ASSERT_TRUE(release("c2"));
  expect_nothing_left();
}

TEST_F(ManagerServed, AServerThatDoesNotAnswerIsLostAndFoundAgainWhenItDoes) {
  be_impatient();
  ASSERT_TRUE(acquire("c1", {want("a")}));
  servers.at("a")->ignore();
  EXPECT_THAT(names(probe().lost), ElementsAre("a"));
  EXPECT_THAT(row("a")->note, HasSubstr("does not answer"));
  const Probed still = probe();
  EXPECT_TRUE(still.anything) << "it may come back";
  EXPECT_THAT(still.lost, IsEmpty());
  servers.at("a")->answer();
  while (probe().found.empty()) std::this_thread::yield();
  EXPECT_EQ(state_of("a"), "mounted");
  EXPECT_THAT(intervals(Kind::mounted, "a"), ElementsAre("closed", "open"));
  expect_consistent();
  ASSERT_TRUE(release("c1"));
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  expect_nothing_left();
}

TEST_F(ManagerServed, AVolumeThatAnswersAgainIsUsedAsItIs) {
  be_impatient();
  ASSERT_TRUE(acquire("c1", {want("a")}));
  servers.at("a")->ignore();
  ASSERT_THAT(probe().lost, SizeIs(1));
  servers.at("a")->answer();
  policy.use_patience = std::chrono::minutes(1);
  restart();
  ASSERT_TRUE(acquire("c2", {want("a")}));
  EXPECT_EQ(fake->calls(Operation::unmount), 0U);
  EXPECT_EQ(fake->calls(Operation::mount), 1U);
  EXPECT_EQ(state_of("a"), "mounted");
  expect_consistent();
}

// Scenario 20.
TEST_F(ManagerServed, AStuckHelperFencesItsVolumeAndNoOther) {
  be_impatient();
  ASSERT_TRUE(acquire("c1", {want("a"), want("b")}));
  servers.at("a")->hold();
  const Probed probed = probe();
  EXPECT_THAT(names(probed.lost), ElementsAre("a"));
  const auto fenced = manager->fenced(context());
  ASSERT_THAT(fenced, SizeIs(1));
  EXPECT_THAT(fenced.at("fake/a"), HasSubstr("stuck in the kernel"));
  const unsigned asked = servers.at("a")->requests();
  for (int i = 0; i < 5; ++i) EXPECT_THAT(probe().lost, IsEmpty());
  EXPECT_EQ(servers.at("a")->requests(), asked) << "one helper is enough";
  EXPECT_THAT(manager->fenced(context()), SizeIs(1));
  // The driver is asked all the same, refuses, and the mount stays: unavailable, and said why.
  fake->fail(Operation::unmount, "a", Fault::refuse, 2);
  const auto refused = acquire("c2", {want("a"), want("b")});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::unavailable) << refused.error().text();
  EXPECT_EQ(refused.error().volume, "a");
  EXPECT_EQ(servers.at("a")->requests(), asked);
  ASSERT_TRUE(acquire("c3", {want("b")})) << "others go on";
  EXPECT_TRUE(is_lost("a"));
  EXPECT_THAT(row("a")->note, HasSubstr("stuck in the kernel"));
  expect_consistent();
  // It dies: the helper comes back, the mount is taken away, and the volume is usable.
  kill_server("a");
  wait_until_unfenced();
  fake->forget();
  policy.use_patience = std::chrono::minutes(1);
  restart();
  ASSERT_TRUE(acquire("c4", {want("a")}));
  EXPECT_TRUE(mounted_in_kernel("a"));
  expect_consistent();
}

TEST_F(ManagerServed, ADriverThatSaysYesWhileASilentMountStaysIsNotBelieved) {
  be_impatient();
  fake->manner.unmounting_nothing_succeeds = true;
  ASSERT_TRUE(acquire("c1", {want("a")}));
  servers.at("a")->hold();
  ASSERT_THAT(probe().lost, SizeIs(1));
  fake->forget();
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  ASSERT_THAT(*owed, SizeIs(1));
  EXPECT_THAT(owed->front().reason, HasSubstr("still there"));
  EXPECT_FALSE(foreign("a")) << "nobody else holds it: it hangs";
  expect_consistent();
  kill_server("a");
  wait_until_unfenced();
  policy.use_patience = std::chrono::minutes(1);
  restart();
  settle_all();
  expect_nothing_left();
}

TEST_F(ManagerServed, TheEndOfTheLastContainerOfAStuckVolumeIsOwedAndPaidWhenItIsOver) {
  be_impatient();
  ASSERT_TRUE(acquire("c1", {want("a")}));
  servers.at("a")->hold();
  ASSERT_THAT(probe().lost, SizeIs(1));
  fake->fail(Operation::unmount, "a", Fault::refuse);
  const auto owed = release("c1");
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, SizeIs(1));
  EXPECT_TRUE(is_lost("a"));
  ASSERT_TRUE(debt("a"));
  expect_consistent();
  kill_server("a");
  wait_until_unfenced();
  fake->forget();
  policy.use_patience = std::chrono::minutes(1);
  restart();
  settle_all();
  expect_nothing_left();
}

}  // namespace
}  // namespace dvdi::volume
