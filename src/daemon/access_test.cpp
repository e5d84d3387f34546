#include "daemon/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "linux/waiting_child_test.h"

namespace dvdi {
namespace {

using test::WaitingChild;
using testing::ElementsAre;
using testing::HasSubstr;

const Caller root{.uid = 0, .gid = 0, .pid = 1};
const Caller alice{.uid = 1000, .gid = 1000, .pid = 2};
const std::vector<gid_t> no_groups;

constexpr std::array every_action = {Action::recover,       Action::prepare,         Action::isolate,
                                     Action::cleanup,       Action::read_containers, Action::read_volumes,
                                     Action::read_events,   Action::verify_events,   Action::read_usage,
                                     Action::read_drivers,  Action::read_metrics,    Action::create_volume,
                                     Action::remove_volume, Action::release_volume};

TEST(Access, StandingComesFromTheKernelsCredentials) {
  EXPECT_EQ(standing_of({}, root, {}), Standing::root);
  EXPECT_EQ(standing_of({}, alice, {5}), Standing::stranger) << "no group is allowed";
  const AccessRules group{.group = 5};
  EXPECT_EQ(standing_of(group, root, {}), Standing::root);
  EXPECT_EQ(standing_of(group, alice, {}), Standing::stranger);
  EXPECT_EQ(standing_of(group, alice, {4, 5}), Standing::member);
  EXPECT_EQ(standing_of(group, {.uid = 1, .gid = 5}, {}), Standing::member);
  EXPECT_EQ(standing_of({.group = 0}, {.uid = 1, .gid = 7}, {}), Standing::stranger);
}

TEST(Access, RootMayEverythingAndAStrangerNothing) {
  for (const Action action : every_action) {
    EXPECT_FALSE(refuse(Standing::root, root, action, "any"));
    const auto refused = refuse(Standing::stranger, alice, action, "uid:1000");
    ASSERT_TRUE(refused) << action_name(action);
    EXPECT_EQ(refused->rule, "members only");
    EXPECT_EQ(refused->error.code, Code::permission_denied);
  }
}

TEST(Access, AMemberMayWithItsOwnContainersAndLook) {
  for (const Action action : every_action) {
    const bool own = action == Action::prepare || action == Action::isolate || action == Action::cleanup;
    const bool look =
        action == Action::read_containers || action == Action::read_volumes || action == Action::read_events;
    EXPECT_EQ(!refuse(Standing::member, alice, action, "uid:1000"), own || look) << action_name(action);
    for (const std::string other : {"run", "uid:1001", "uid:10000", "uid:1000/", "uid:01000", ""}) {
      EXPECT_EQ(!refuse(Standing::member, alice, action, other), look) << action_name(action) << " " << other;
    }
  }
  const auto refused = refuse(Standing::member, alice, Action::cleanup, "run");
  EXPECT_EQ(refused->rule, "own containers only");
  EXPECT_THAT(refused->error.text(), HasSubstr("uid 1000 may not cleanup for the owner 'run'"));
  EXPECT_THAT(refused->error.text(), HasSubstr("uid:1000"));
  EXPECT_EQ(refuse(Standing::member, alice, Action::recover, "uid:1000")->rule, "root only");
}

std::string adopted(v1::ContainerRequest request, std::optional<MemberUser> user = {},
                    const std::vector<gid_t>& groups = {5}) {
  const auto refused = adopt_request(Standing::member, alice, groups, user, request);
  return refused ? refused->rule : "as " + request.command().user() + " for " + request.attribution().user();
}

TEST(Access, AMembersRequestIsForItsOwnUser) {
  EXPECT_EQ(adopted({}), "as 1000:1000 for 1000");
  v1::ContainerRequest named;
  named.mutable_command()->set_user("alice");
  named.mutable_attribution()->set_user("alice");
  EXPECT_EQ(adopted(named), "own user only") << "nobody knows that user";
  EXPECT_EQ(adopted(named, MemberUser{.uid = 1000, .gid = 1000}), "as 1000:1000 for 1000");
  EXPECT_EQ(adopted(named, MemberUser{.uid = 1000, .gid = 5}), "as 1000:5 for 1000");
  EXPECT_EQ(adopted(named, MemberUser{.uid = 1000, .gid = 0}), "own groups only");
  EXPECT_EQ(adopted(named, MemberUser{.uid = 0, .gid = 1000}), "own user only");
  named.mutable_command()->set_user("alice:staff");
  EXPECT_EQ(adopted(named, MemberUser{.uid = 1000, .gid = 5}), "as 1000:5 for 1000");
  v1::ContainerRequest claimed;
  claimed.mutable_attribution()->set_user("bob");
  EXPECT_EQ(adopted(claimed), "own user only");
}

TEST(Access, AMemberClaimsNothing) {
  v1::ContainerRequest request;
  request.set_directory("/home/alice/box");
  EXPECT_EQ(adopted(request), "no directory");
  request.Clear();
  request.set_rootfs("/");
  EXPECT_EQ(adopted(request), "no rootfs");
  request.Clear();
  request.mutable_attribution()->set_role("web");
  EXPECT_EQ(adopted(request), "no role");
  request.Clear();
  request.mutable_attribution()->set_principal("p");
  EXPECT_EQ(adopted(request), "no principal");
  request.Clear();
  request.mutable_attribution()->set_framework_id("f");
  EXPECT_EQ(adopted(request), "no framework");
  request.set_directory("/x");
  const std::string before = request.SerializeAsString();
  EXPECT_FALSE(adopt_request(Standing::root, root, no_groups, {}, request));
  EXPECT_EQ(request.SerializeAsString(), before) << "root's stays as it is";
  EXPECT_TRUE(adopt_request(Standing::stranger, alice, no_groups, {}, request));
}

TEST(Access, AMemberSeesWhatIsItsOwn) {
  const ContainerView own{.owner = "uid:1000", .id = "a"};
  const ContainerView other{.owner = "run", .id = "b"};
  EXPECT_TRUE(may_see(Standing::root, root, other));
  EXPECT_TRUE(may_see(Standing::member, alice, own));
  EXPECT_FALSE(may_see(Standing::member, alice, other));
  EXPECT_FALSE(may_see(Standing::stranger, alice, own));

  VolumeView volume{.driver = "d", .name = "v", .containers = {"run/b", "uid:1000/a", "uid:10000/c"}};
  volume.owed = VolumeView::Debt{.since = "s", .last_error = "pid 7 holds /home/bob"};
  volume.foreign_evidence = "of bob";
  EXPECT_EQ(seen_of(Standing::root, root, volume)->containers.size(), 3U);
  const auto seen = seen_of(Standing::member, alice, volume);
  ASSERT_TRUE(seen);
  EXPECT_THAT(seen->containers, ElementsAre("uid:1000/a"));
  EXPECT_EQ(seen->owed->last_error, "");
  EXPECT_EQ(seen->foreign_evidence, "");
  EXPECT_FALSE(seen_of(Standing::stranger, alice, volume));
  volume.containers = {"uid:10000/c"};
  EXPECT_FALSE(seen_of(Standing::member, alice, volume));
}

TEST(Access, AMemberSeesEventsOfItsContainersOnly) {
  const auto may = [](const std::string& data) {
    return may_see_event(Standing::member, alice, R"({"type":"t","data":)" + data + "}");
  };
  EXPECT_TRUE(may(R"({"owner":"uid:1000","container":"a"})"));
  EXPECT_FALSE(may(R"({"owner":"run","container":"a"})"));
  EXPECT_FALSE(may(R"({"driver":"d","volume":"v"})"));
  EXPECT_FALSE(may(R"({"labels":{"owner":"uid:1000"}})"));
  EXPECT_FALSE(may_see_event(Standing::member, alice, "no json"));
  EXPECT_FALSE(may_see_event(Standing::stranger, alice, R"({"data":{"owner":"uid:1000"}})"));
  EXPECT_TRUE(may_see_event(Standing::root, root, R"({"data":{"owner":"run"}})"));
}

TEST(Access, AProcessIsItsUsersOrNot) {
  WaitingChild child;
  const auto opened = open_process_of(::getuid(), child.pid());
  ASSERT_TRUE(opened) << opened.error().text();
  EXPECT_TRUE(has_not_ended(*opened));
  EXPECT_EQ(open_process_of(::getuid() + 1, child.pid()).error().code, Code::permission_denied);
  const pid_t was = child.pid();
  child.end();
  EXPECT_FALSE(has_not_ended(*opened));
  EXPECT_EQ(open_process_of(::getuid(), was).error().code, Code::not_found);
  EXPECT_EQ(open_process_of(0, 0).error().code, Code::not_found);
  EXPECT_EQ(open_process_of(0, -1).error().code, Code::not_found);
}

TEST(Access, AProcessThatHasEndedIsNobodysEvenWhileItsNumberIsTaken) {
  WaitingChild child;
  const auto opened = open_process_of(::getuid(), child.pid());
  ASSERT_TRUE(opened) << opened.error().text();
  ::kill(child.pid(), SIGKILL);
  siginfo_t info{};
  // It has ended and is not waited for: /proc still tells whose it was.
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(open_process_of(::getuid(), child.pid()).error().code, Code::not_found);
}

TEST(Access, AProcessWithOtherRightsIsNobodys) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  WaitingChild child(
      [] { return ::setresuid(static_cast<uid_t>(-1), uid_t{1000}, static_cast<uid_t>(-1)) == 0; });
  ASSERT_TRUE(child.ready());
  EXPECT_EQ(open_process_of(0, child.pid()).error().code, Code::permission_denied);
  EXPECT_EQ(open_process_of(1000, child.pid()).error().code, Code::permission_denied);
}

TEST(Access, GroupsOfThePeerAreTheKernels) {
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  const UniqueFd one(pair[0]);
  const UniqueFd other(pair[1]);
  std::vector<gid_t> own(65536);
  own.resize(static_cast<std::size_t>(::getgroups(static_cast<int>(own.size()), own.data())));
  const auto groups = peer_groups(one.get());
  ASSERT_TRUE(groups) << groups.error().text();
  EXPECT_THAT(*groups, testing::UnorderedElementsAreArray(own));
}

TEST(Access, AGroupIsFoundByNameAndNumber) {
  EXPECT_FALSE(*find_group(""));
  EXPECT_EQ(**find_group("root"), 0U);
  EXPECT_EQ(**find_group("4711"), 4711U);
  EXPECT_THAT(find_group("no-such-group-here").error().text(), HasSubstr("no group 'no-such-group-here'"));
}

TEST(DenialGate, OneAMinuteOfEachCallerAndRuleWithTheirNumber) {
  DenialGate gate;
  const BootTime start{};
  const Denial denial{.caller = alice, .action = "recover", .rule = "root only"};
  const auto count = [&](const Denial& one, Duration after) {
    const auto passed = gate.pass(one, start + after);
    return passed ? passed->count : 0;
  };
  using std::chrono::seconds;
  EXPECT_EQ(count(denial, seconds(0)), 1U);
  EXPECT_EQ(count(denial, seconds(1)), 0U);
  EXPECT_EQ(count(denial, seconds(59)), 0U);
  Denial other = denial;
  other.rule = "no role";
  EXPECT_EQ(count(other, seconds(59)), 1U);
  other = denial;
  other.caller.uid = 1001;
  EXPECT_EQ(count(other, seconds(59)), 1U);
  EXPECT_EQ(count(denial, seconds(60)), 3U) << "two were not recorded, and this one";
  EXPECT_EQ(count(denial, seconds(120)), 1U);
}

TEST(DenialGate, ManyCallersShareAPlace) {
  DenialGate gate;
  const BootTime now{};
  std::size_t passed = 0;
  for (std::uint32_t uid = 1; uid <= 2 * DenialGate::max_kept; ++uid) {
    if (gate.pass({.caller = {.uid = uid}, .rule = "r"}, now)) ++passed;
  }
  EXPECT_EQ(passed, DenialGate::max_kept + 1);
  EXPECT_TRUE(gate.pass({.caller = {.uid = 100'000}, .rule = "r"}, now + std::chrono::minutes(2)))
      << "those of long ago make room";
}

}  // namespace
}  // namespace dvdi
