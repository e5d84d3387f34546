// An agent comes back and names its containers (scenarios 12, 13, 18, 19), the machine was restarted (17),
// the disk is full (16).
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "linux/process.h"
#include "linux/waiting_child_test.h"
#include "volume/manager_test_support.h"
#include "volume/state.h"

namespace dvdi::volume {
namespace {

using test::WaitingChild;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

const std::string agent = "/var/lib/agent";

// In a mount namespace of its own, with copies of all mounts.
bool has_own_mounts() { return ::unshare(CLONE_NEWNS) == 0; }

class ManagerRecover : public ManagerTest {
 protected:
  static ContainerKey key(const std::string& id) { return {agent, id}; }
  void prepare(const std::string& id, const std::vector<Request>& requests) {
    Holder one = holder(id);
    one.key = key(id);
    const auto mounted = manager->acquire(context(), one, requests);
    ASSERT_TRUE(mounted) << mounted.error().text();
  }
  void start(const std::string& id, const ProcessIdentity& init) {
    ASSERT_TRUE(manager->started(context(), key(id), init, false));
  }
  static ProcessIdentity alive() { return *identify_process(::getppid()); }
  static ProcessIdentity gone() {
    ProcessIdentity one = alive();
    ++one.start_ticks;
    return one;
  }
  Recovered recover_agent(const std::vector<std::string>& live, const std::vector<std::string>& orphans = {},
                          bool complete = true, bool may_unmount = true) {
    RecoverRequest request{.owner = agent, .complete = complete, .orphans = orphans};
    for (const std::string& id : live) request.live.push_back({.id = id});
    return recover_request(request, may_unmount);
  }
  Recovered recover_request(const RecoverRequest& request, bool may_unmount = true) {
    const auto done = manager->recover(context(), request, may_unmount);
    EXPECT_TRUE(done) << done.error().text();
    return done ? *done : Recovered();
  }
  static std::vector<std::string> ids(const std::vector<Recovered::Kept>& kept) {
    std::vector<std::string> out;
    for (const auto& one : kept) out.push_back(one.id);
    return out;
  }
  ContainerState state_of(const std::string& id) {
    std::optional<ContainerRow> found = row_of(id);
    return found ? found->state : ContainerState::ended;
  }
  std::optional<ContainerRow> row_of(const std::string& id) {
    std::optional<ContainerRow> found;
    EXPECT_TRUE(ledger->read(context(), "test", [&](Reader& reader) -> Status {
      DVDI_TRY(found, reader.container(key(id)));
      return {};
    }));
    return found;
  }
  void forget_all_but_mounts() {  // as if the ledger had been rebuilt
    put([](Transaction& transaction) -> Status {
      DVDI_TRY(const auto references, transaction.references());
      for (const auto& one : references) DVDI_CHECK(transaction.erase_reference(one.container, one.volume));
      DVDI_TRY(const auto containers, transaction.containers());
      for (const auto& one : containers) DVDI_CHECK(transaction.erase(one.key));
      return {};
    });
  }
};

TEST_F(ManagerRecover, OnlyWhatIsProvedDeadIsDropped) {
  prepare("dead", {want("a"), want("shared")});
  prepare("ran", {want("b")});
  start("ran", gone());
  prepare("lives", {want("c"), want("shared")});
  start("lives", alive());
  prepare("listed", {want("d")});
  start("listed", gone());
  prepare("orphan", {want("e")});
  start("orphan", gone());
  ASSERT_TRUE(acquire("other", {want("f")}));
  fake->behave();
  const auto before = fake->log().size();

  const Recovered recovered = recover_agent({"listed"}, {"orphan"});
  EXPECT_THAT(recovered.dropped, UnorderedElementsAre("dead", "ran"));
  EXPECT_THAT(ids(recovered.kept), ElementsAre("lives"));
  EXPECT_THAT(recovered.kept[0].reason, HasSubstr(std::to_string(::getppid())));
  EXPECT_THAT(recovered.owed, IsEmpty());
  EXPECT_EQ(row_of("lives")->note, recovered.kept[0].reason);
  EXPECT_THAT(events(fmt::format("container/{}/lives", agent)), Contains("container.kept"));
  auto log = fake->log();
  log.erase(log.begin(), log.begin() + static_cast<std::ptrdiff_t>(before));
  EXPECT_THAT(log, UnorderedElementsAre("unmount a", "unmount b"));
  EXPECT_THAT(references_to("shared"), ElementsAre("lives"));
  for (const char* name : {"c", "d", "e", "f", "shared"}) EXPECT_TRUE(mounted_in_kernel(name)) << name;
  EXPECT_EQ(state_of("dead"), ContainerState::ended);
  EXPECT_EQ(container_row("other")->state, ContainerState::prepared) << "another owner's";
  expect_consistent();

  const auto written = events();
  const Recovered again = recover_agent({"listed"}, {"orphan"});
  EXPECT_THAT(again.dropped, IsEmpty());
  EXPECT_THAT(ids(again.kept), ElementsAre("lives"));
  EXPECT_EQ(events(), written) << "the same again is no news";
  recover_agent({"listed", "lives"}, {"orphan"});
  EXPECT_EQ(row_of("lives")->note, "");
}

// Scenario 18.
TEST_F(ManagerRecover, AnIncompleteListDropsNothing) {
  prepare("dead", {want("a")});
  const auto log = fake->log();
  const Recovered incomplete = recover_agent({}, {}, false);
  EXPECT_THAT(ids(incomplete.kept), ElementsAre("dead"));
  EXPECT_THAT(incomplete.kept[0].reason, HasSubstr("not complete"));
  const Recovered may_not = recover_agent({}, {}, true, false);
  EXPECT_THAT(ids(may_not.kept), ElementsAre("dead"));
  EXPECT_EQ(fake->log(), log);
  EXPECT_THAT(references_to("a"), ElementsAre("dead"));
  EXPECT_FALSE(debt("a"));
  EXPECT_THAT(recover_agent({}).dropped, ElementsAre("dead"));
}

TEST_F(ManagerRecover, AContainerThatACallWorksOnIsKept) {
  prepare("c", {want("a")});
  auto others = KeyedLocks::open(folder + "/locks");
  ASSERT_TRUE(others);
  {
    const auto held = (*others)->try_acquire(container_lock_name(key("c")));
    ASSERT_TRUE(held && *held);
    const Recovered recovered = recover_agent({});
    EXPECT_THAT(ids(recovered.kept), ElementsAre("c"));
    EXPECT_THAT(recovered.kept[0].reason, HasSubstr("call"));
    EXPECT_TRUE(mounted_in_kernel("a"));
  }
  EXPECT_THAT(recover_agent({}).dropped, ElementsAre("c"));
}

TEST_F(ManagerRecover, AContainerThatAnotherProcessWorksOnIsKept) {
  Holder one = holder("c");
  one.key = key("c");
  one.worker = alive();
  ASSERT_TRUE(manager->acquire(context(), one, {want("a")}));
  EXPECT_THAT(ids(recover_agent({}).kept), ElementsAre("c"));
  put([&](Transaction& transaction) -> Status {
    DVDI_TRY(auto row, transaction.container(key("c")));
    ++row->engine.start_ticks;
    return transaction.put(*row);
  });
  EXPECT_THAT(recover_agent({}).dropped, ElementsAre("c"));
}

TEST_F(ManagerRecover, AProcessThatHasTheMountsKeepsTheContainerOfADeadInit) {
  prepare("c", {want("a")});
  start("c", gone());
  {
    const WaitingChild holds(has_own_mounts);
    EXPECT_TRUE(holds.ready());
    const Recovered recovered = recover_agent({});
    ASSERT_THAT(ids(recovered.kept), ElementsAre("c"));
    EXPECT_THAT(recovered.kept[0].reason, HasSubstr(std::to_string(holds.pid())));
    EXPECT_THAT(recovered.kept[0].reason, HasSubstr("fake/a"));
    EXPECT_TRUE(mounted_in_kernel("a"));
  }
  EXPECT_THAT(recover_agent({}).dropped, ElementsAre("c"));
  EXPECT_FALSE(mounted_in_kernel("a"));
}

TEST_F(ManagerRecover, TheNamespaceOfALiveContainerThatSharesTheVolumeIsNoObstacle) {
  prepare("dead", {want("a")});
  start("dead", gone());
  prepare("lives", {want("a")});
  const WaitingChild task(has_own_mounts);
  EXPECT_TRUE(task.ready());
  start("lives", *identify_process(task.pid()));
  EXPECT_THAT(recover_agent({"lives"}).dropped, ElementsAre("dead"));
  EXPECT_TRUE(mounted_in_kernel("a"));
  EXPECT_THAT(references_to("a"), ElementsAre("lives"));
}

TEST_F(ManagerRecover, ALiveChildKeepsItsParentAndDeadOnesGoBeforeTheirs) {
  prepare("p", {want("a")});
  prepare("p.dead", {want("b")});
  prepare("p.lives", {want("c")});
  prepare("q", {want("d")});
  prepare("q.x", {want("e")});
  prepare("q.x.y", {want("f")});
  const Recovered recovered = recover_agent({"p.lives"});
  EXPECT_THAT(recovered.dropped, ElementsAre("q.x.y", "p.dead", "q.x", "q"));
  EXPECT_THAT(ids(recovered.kept), ElementsAre("p"));
  EXPECT_THAT(recovered.kept[0].reason, HasSubstr("p.lives"));
  const Recovered later = recover_agent({});
  EXPECT_THAT(later.dropped, ElementsAre("p.lives", "p"));
  expect_nothing_left();
}

TEST_F(ManagerRecover, AKeptChildKeepsItsParent) {
  prepare("p", {});
  prepare("p.c", {want("a")});
  start("p.c", alive());
  EXPECT_THAT(ids(recover_agent({}).kept), ElementsAre("p.c", "p"));
}

TEST_F(ManagerRecover, WhatHasStagedMountsIsLeftToTheChainWithItsParents) {
  prepare("p", {want("a")});
  prepare("p.c", {want("b")});
  put([&](Transaction& transaction) {
    return transaction.put(
        StagedRow{.container = key("p.c"), .path = folder + "/staged/1", .since = transaction.now()});
  });
  const Recovered recovered = recover_agent({});
  EXPECT_THAT(recovered.to_clean_up, ElementsAre("p.c", "p"));
  EXPECT_THAT(recovered.dropped, IsEmpty());
  EXPECT_TRUE(mounted_in_kernel("b"));
}

// Scenarios 12 and 13: recovery needs no driver.
TEST_F(ManagerRecover, LiveContainersKeepTheirVolumesWithoutAnyCall) {
  prepare("c", {want("a"), want("b")});
  start("c", *identify_process(::getpid()));
  const auto log = fake->log();
  restart();
  RecoverRequest request{.owner = agent};
  request.live.push_back({.id = "c", .init = ::getppid()});
  const Recovered recovered = recover_request(request);
  EXPECT_EQ(fake->log(), log);
  EXPECT_THAT(recovered.dropped, IsEmpty());
  EXPECT_EQ(row_of("c")->init, alive()) << "a changed process is recorded";
  EXPECT_EQ(state_of("c"), ContainerState::running);
  const auto written = events();
  recover_request(request);
  EXPECT_EQ(events(), written);
}

TEST_F(ManagerRecover, LiveContainersThatTheLedgerDoesNotKnowComeBack) {
  prepare("old", {want("a"), want("b")});
  forget_all_but_mounts();
  put([&](Transaction& transaction) -> Status {  // `b` was found, `a` is known
    DVDI_TRY(auto found, transaction.mount(volume("b")));
    found->pending = MountRow::Pending::found;
    return transition(transaction, *found, MountState::unknown, {});
  });
  const auto log = fake->log();
  RecoverRequest request{.owner = agent};
  request.live.push_back({.id = "old",
                          .init = ::getppid(),
                          .attribution = {.role = "r"},
                          .volumes = {want("a"), want("b"), want("never")}});
  request.live.push_back({.id = "pidless", .volumes = {want("a")}});
  const Recovered recovered = recover_request(request);
  EXPECT_EQ(fake->log(), log);
  ASSERT_THAT(recovered.missing, SizeIs(1));
  EXPECT_EQ(recovered.missing[0].id, "old");
  EXPECT_EQ(recovered.missing[0].volume, "never");
  EXPECT_EQ(row_of("old")->init, alive());
  EXPECT_EQ(row_of("old")->attribution.role, "r");
  EXPECT_EQ(state_of("old"), ContainerState::running);
  EXPECT_EQ(state_of("pidless"), ContainerState::running);
  EXPECT_EQ(row("b")->state, MountState::mounted);
  EXPECT_THAT(references_to("a"), UnorderedElementsAre("old", "pidless"));
  EXPECT_THAT(references_to("never"), ElementsAre("old")) << "nobody may take it away from under it";
  EXPECT_THAT(intervals(UsageInterval::Kind::mounted, "b"), Contains("open"));

  EXPECT_THAT(ids(recover_agent({"old"}).kept), ElementsAre("pidless")) << "nothing proves it dead";
  const auto written = events();
  recover_agent({"old", "pidless"});
  EXPECT_EQ(events().size(), written.size());
  ASSERT_TRUE(manager->release(context(), key("old"), ""));
  ASSERT_TRUE(manager->release(context(), key("pidless"), ""));
  expect_nothing_left();
}

TEST_F(ManagerRecover, AListThatIsOlderThanACleanupBringsNothingBack) {
  prepare("c", {want("a")});
  ASSERT_TRUE(manager->release(context(), key("c"), ""));
  RecoverRequest request{.owner = agent};
  request.live.push_back({.id = "c", .volumes = {want("a")}});
  const Recovered recovered = recover_request(request);
  ASSERT_THAT(recovered.missing, SizeIs(1));
  EXPECT_THAT(recovered.missing[0].reason, HasSubstr("cleaned up"));
  EXPECT_EQ(state_of("c"), ContainerState::ended);
  expect_nothing_left();
}

// A driver that hangs: the books are right all the same, and another driver's volume is unmounted.
TEST_F(ManagerRecover, ADriverThatHangsDoesNotHoldUpRecovery) {
  auto other = add_driver("other");
  prepare("c", {want("a"), want("b"), want_of("other", "x")});
  fake->fail(Operation::unmount, "", Fault::time_out, 10);
  const BootTime before = clock.boot();
  const Recovered recovered = recover_agent({});
  EXPECT_LT(clock.boot() - before, policy.recover_wait * 2) << "as the test's clock counts";
  EXPECT_THAT(recovered.dropped, ElementsAre("c"));
  EXPECT_FALSE(recovered.owed.empty());
  EXPECT_EQ(state_of("c"), ContainerState::ended);
  EXPECT_EQ(rows_in("refs"), 0);
  fake->behave();
  settle_all();
  expect_nothing_left();
}

TEST_F(ManagerRecover, ThousandsOfContainersTakeFewTransactions) {
  constexpr int count = 3000;
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(acquire("holder" + std::to_string(i), {want("v" + std::to_string(i))}));
  RecoverRequest request{.owner = agent};
  for (int i = 0; i < count; ++i) {
    request.live.push_back({.id = "c" + std::to_string(i), .volumes = {want("v0"), want("v1"), want("v2")}});
  }
  const auto log = fake->log();
  auto transactions_before = transactions();
  EXPECT_THAT(recover_request(request).missing, IsEmpty());
  EXPECT_LE(transactions() - transactions_before, count / 500);
  transactions_before = transactions();
  recover_request(request);
  EXPECT_EQ(transactions(), transactions_before) << "nothing to write when all is known";
  EXPECT_EQ(rows_in("refs"), 3 * count + 3);
  put([](Transaction& transaction) -> Status {  // as prepared ones that never ran
    DVDI_TRY(const auto all, transaction.containers());
    for (ContainerRow one : all) {
      one.state = ContainerState::prepared;
      if (one.key.owner == agent) DVDI_CHECK(transaction.put(one));
    }
    return {};
  });
  transactions_before = transactions();
  EXPECT_THAT(recover_agent({}).dropped, SizeIs(count));
  EXPECT_LE(transactions() - transactions_before, count / 500);
  EXPECT_EQ(fake->log(), log) << "others use the volumes";
  EXPECT_EQ(rows_in("refs"), 3);
}

// A found mount that somebody took over is unmounted only with proof that nobody from before has it.
TEST_F(ManagerRecover, AMountFromBeforeTheRebuildStaysWhileAnotherNamespaceHasIt) {
  ASSERT_TRUE(acquire("old", {want("a")}));
  forget_all_but_mounts();
  put([&](Transaction& transaction) -> Status {
    DVDI_TRY(auto found, transaction.mount(volume("a")));
    found->pending = MountRow::Pending::found;
    return transition(transaction, *found, MountState::unknown, {});
  });
  settle_all();
  EXPECT_TRUE(mounted_in_kernel("a")) << "settling never unmounts what was found";
  {
    const WaitingChild old_task(has_own_mounts);
    EXPECT_TRUE(old_task.ready());
    ASSERT_TRUE(acquire("new", {want("a")}));
    EXPECT_EQ(fake->calls(Operation::mount), 1U) << "taken over";
    EXPECT_EQ(row("a")->state, MountState::mounted);
    const auto owed = release("new");
    ASSERT_TRUE(owed);
    ASSERT_THAT(*owed, SizeIs(1));
    EXPECT_THAT((*owed)[0].reason, HasSubstr(std::to_string(old_task.pid())));
    EXPECT_TRUE(mounted_in_kernel("a"));
    EXPECT_EQ(row("a")->pending, MountRow::Pending::found);
    EXPECT_FALSE(debt("a"));
  }
  ASSERT_TRUE(acquire("newer", {want("a")}));
  ASSERT_TRUE(release("newer"));
  EXPECT_FALSE(mounted_in_kernel("a"));
  EXPECT_FALSE(row("a"));
}

TEST_F(ManagerRecover, AFoundMountThatWentIsMountedAfresh) {
  ASSERT_TRUE(acquire("old", {want("a")}));
  forget_all_but_mounts();
  put([&](Transaction& transaction) -> Status {
    DVDI_TRY(auto found, transaction.mount(volume("a")));
    found->pending = MountRow::Pending::found;
    return transition(transaction, *found, MountState::unknown, {});
  });
  const std::string old_id = row("a")->mount_id;
  ASSERT_TRUE(fake->unmount(Context(), "a", old_id));
  ASSERT_TRUE(acquire("new", {want("a")}));
  EXPECT_EQ(row("a")->state, MountState::mounted);
  EXPECT_NE(row("a")->mount_id, old_id);
  EXPECT_EQ(row("a")->pending, MountRow::Pending::none);
}

// Scenario 17, and rows of staged mounts, whose containers could else never go.
TEST_F(ManagerRecover, ARestartOfTheMachineClosesReferencesAndForgetsStagedMounts) {
  prepare("c", {want("a")});
  put([&](Transaction& transaction) -> Status {
    Moment old = transaction.now();
    old.boot_id = "another";
    DVDI_CHECK(transaction.put(StagedRow{.container = key("c"), .path = "/x", .since = old}));
    DVDI_TRY(auto references, transaction.references());
    for (auto& one : references) {
      one.since = old;
      DVDI_CHECK(transaction.put(one));
    }
    DVDI_TRY(auto containers, transaction.containers());
    for (auto& one : containers) {
      one.since = old;
      DVDI_CHECK(transaction.put(one));
    }
    return {};
  });
  ASSERT_TRUE(manager->forget_other_boots(context()));
  EXPECT_EQ(rows_in("staged"), 0);
  EXPECT_EQ(rows_in("refs"), 0);
  EXPECT_EQ(state_of("c"), ContainerState::ended);
  bool said = false;
  for (const json::value& body : event_bodies()) {
    if (json::text_or_empty(body, "type") != "dvdi.reference.removed") continue;
    said = json::text_or_empty(*json::find(body, "data"), "reason") == "the machine was restarted";
  }
  EXPECT_TRUE(said);
  put([&](Transaction& transaction) { return transaction.erase(key("c")); });
}

// Scenario 16.
TEST_F(ManagerRecover, AFullDiskFailsCleanlyAndMountsNothing) {
  ASSERT_TRUE(acquire("before", {want("z")}));
  ASSERT_EQ(::mount("none", folder.c_str(), nullptr, MS_REMOUNT, "size=4m"), 0);
  {
    const int fd = ::open((folder + "/filler").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0);
    std::array<char, 4096> block{};
    while (::write(fd, block.data(), block.size()) > 0) {
    }
    ::close(fd);
  }
  // Some free pages of the log are written anew first: soon there is none.
  Error error;
  int prepared = 0;
  for (;; ++prepared) {
    const auto tried = acquire("c" + std::to_string(prepared), {want("v" + std::to_string(prepared))});
    if (!tried) {
      error = tried.error();
      break;
    }
    ASSERT_LT(prepared, 100);
  }
  EXPECT_EQ(error.code, Code::resource_exhausted) << error.text();
  EXPECT_THAT(error.hint, HasSubstr("free space"));
  ASSERT_EQ(::unlink((folder + "/filler").c_str()), 0);
  settle_all();
  expect_consistent();
  for (int i = 0; i < prepared; ++i) ASSERT_TRUE(release("c" + std::to_string(i)));
  ASSERT_TRUE(release("before"));
  settle_all();
  expect_nothing_left();
}

}  // namespace
}  // namespace dvdi::volume
