// ARCHITECTURE.md's table of states: what is in it happens and writes the event it names, nothing else does.
#include "volume/state.h"

#include <fmt/format.h>

#include <map>

#include "volume/books.h"
#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using enum MountState;
using testing::ElementsAre;

using StateTest = ManagerTest;

constexpr std::array all_states = {absent, mounting, mounted, unmounting, unknown};

// As the table says, by hand: not taken from the code.
const std::map<std::pair<MountState, MountState>, std::string> table = {
    {{absent, mounting}, "mount.mounting"},    {{absent, unknown}, "mount.unknown"},
    {{mounting, mounted}, "mount.mounted"},    {{mounting, absent}, "mount.failed"},
    {{mounting, unknown}, "mount.unknown"},    {{mounted, unmounting}, "mount.unmounting"},
    {{mounted, unknown}, "mount.unknown"},     {{mounted, absent}, "mount.unmounted"},
    {{unmounting, absent}, "mount.unmounted"}, {{unmounting, unknown}, "mount.unknown"},
    {{unknown, mounted}, "mount.mounted"},     {{unknown, unmounting}, "mount.unmounting"},
    {{unknown, mounting}, "mount.mounting"},   {{unknown, absent}, "mount.unmounted"},
};

TEST_F(StateTest, EveryPairIsAllowedExactlyWhereTheTableHasIt) {
  for (const MountState from : all_states) {
    for (const MountState to : all_states) {
      SCOPED_TRACE(std::string(mount_state_name(from)) + " to " + std::string(mount_state_name(to)));
      const std::string name = std::string(mount_state_name(from)) + "-" + std::string(mount_state_name(to));
      MountRow mount = new_mount(volume(name));
      mount.state = from;
      if (from != absent) put([&](Transaction& transaction) { return transaction.put(mount); });
      const auto before = events().size();
      const auto done = ledger->write(context(), "test", [&](Transaction& transaction) {
        MountRow copy = mount;
        return transition(transaction, copy, to, {});
      });
      const auto found = table.find({from, to});
      if (found == table.end()) {
        ASSERT_FALSE(done);
        EXPECT_EQ(done.error().code, Code::internal);
        EXPECT_EQ(events().size(), before);
        EXPECT_EQ(row(name) ? row(name)->state : absent, from);
      } else {
        ASSERT_TRUE(done) << done.error().text();
        EXPECT_THAT(events("volume/fake/" + name), ElementsAre(found->second));
        EXPECT_EQ(row(name) ? row(name)->state : absent, to);
      }
    }
  }
}

TEST_F(StateTest, AnotherBootEndsEveryStateAsLost) {
  for (const MountState from : {mounting, mounted, unmounting, unknown}) {
    const std::string name(mount_state_name(from));
    MountRow mount = new_mount(volume(name));
    mount.state = from;
    put([&](Transaction& transaction) -> Status {
      DVDI_CHECK(transaction.put(mount));
      return transition(transaction, mount, absent, {.lost = true});
    });
    EXPECT_THAT(events("volume/fake/" + name), ElementsAre("mount.lost"));
  }
}

TEST_F(StateTest, MountedTimeIsOpenExactlyWhileMounted) {
  MountRow mount = new_mount(volume("a"));
  const auto go = [&](MountState to) {
    put([&](Transaction& transaction) { return transition(transaction, mount, to, {}); });
    return intervals(UsageInterval::Kind::mounted, "a");
  };
  EXPECT_THAT(go(mounting), ElementsAre());
  EXPECT_THAT(go(mounted), ElementsAre("open"));
  EXPECT_THAT(go(unknown), ElementsAre("closed"));
  EXPECT_THAT(go(mounted), ElementsAre("closed", "open"));
  EXPECT_THAT(go(unmounting), ElementsAre("closed", "closed"));
  EXPECT_THAT(go(absent), ElementsAre("closed", "closed"));
}

TEST_F(StateTest, WhatIsPendingBelongsToUnknownOnly) {
  MountRow mount = new_mount(volume("a"));
  mount.pending = MountRow::Pending::mount;
  put([&](Transaction& transaction) { return transition(transaction, mount, mounting, {}); });
  EXPECT_EQ(row("a")->pending, MountRow::Pending::none);
  mount.pending = MountRow::Pending::unmount;
  put([&](Transaction& transaction) { return transition(transaction, mount, unknown, {}); });
  EXPECT_EQ(row("a")->pending, MountRow::Pending::unmount);
}

TEST(SizeOf, ReadsWhatDriversMean) {
  constexpr std::uint64_t gib = std::uint64_t{1} << 30U;
  const auto size = [](const std::string& text) { return size_of({{"size", text}}); };
  EXPECT_EQ(size("10"), 10 * gib);
  EXPECT_EQ(size("1G"), gib);
  EXPECT_EQ(size("1GiB"), gib);
  EXPECT_EQ(size("512M"), gib / 2);
  EXPECT_EQ(size("2K"), 2048U);
  EXPECT_EQ(size("7B"), 7U);
  EXPECT_EQ(size("1T"), gib * 1024);
  for (const char* wrong :
       {"", "G", "-1", "1.5G", "1GG", "1X", "big", "99999999999T", "99999999999999999999"}) {
    EXPECT_EQ(size(wrong), std::nullopt) << wrong;
  }
  EXPECT_EQ(size_of({}), std::nullopt);
}

TEST(FactsOf, KeepATypeButNeverASecret) {
  const Policy policy;
  const auto type = [&](const driver::Options& options) { return facts_of(options, policy).type; };
  for (const char* name : {"type", "volumetype", "volume_type", "volume-type", "VolumeType", "TYPE"}) {
    EXPECT_EQ(type({{name, "gp3"}}), "gp3") << name;
  }
  EXPECT_EQ(type({{"fstype", "ext4"}, {"volumetypes", "x"}, {"size", "1"}}), "");
  EXPECT_EQ(type({{"volumetype", "b"}, {"type", "a"}}), "a");
  EXPECT_EQ(type({{"type", std::string(255, 'x')}}), std::string(255, 'x'));
  EXPECT_EQ(type({{"type", std::string(256, 'x')}}), "");
  EXPECT_EQ(facts_of({{"size", "1"}}, policy).size_bytes, std::uint64_t{1} << 30U);
  Policy careful;
  careful.secret_options = {"Type"};
  EXPECT_EQ(facts_of({{"volumetype", "hunter2"}}, careful).type, "");
}

TEST_F(StateTest, UsageIsOfTheTypeThatTheVolumeHasAndOfWhoHasIt) {
  const driver::Options options = {{"type", "gp3"}, {"size", "1"}};
  ContainerRow container{.key = {"run", "c"}};
  container.attribution.role = "r";
  container.attribution.labels = {{"team", "a"}};
  MountRow mount = new_mount(volume("a"));
  put([&](Transaction& transaction) -> Status {
    DVDI_CHECK(transaction.put(container));
    Request request{.volume = volume("a"), .options = options};
    DVDI_CHECK(
        add_reference(transaction, container, request, policy, "t"));  // before anybody knows the volume
    DVDI_CHECK(transition(transaction, mount, mounting, {}));
    DVDI_CHECK(note_volume(transaction, volume("a"), false, facts_of(options, policy), "t"));
    DVDI_CHECK(transition(transaction, mount, mounted, {}));
    container.key.id = "d";
    DVDI_CHECK(transaction.put(container));
    return add_reference(transaction, container, {.volume = volume("a")}, policy,
                         "t");  // says no type itself
  });
  const auto intervals = [&](bool open) {
    std::vector<std::string> found;
    const auto read = ledger->read(context(), "test", [&](Reader& reader) {
      const UsageColumns columns{.type = true, .container = true, .role = true, .labels = true};
      return reader.usage(
          ledger->now(clock), WallTime::min(), WallTime::max(), columns, [&](const UsageRecord& record) {
            if (record.open != open) return true;
            found.push_back(fmt::format("{} {} {} {} {} {}", static_cast<int>(record.kind), record.container,
                                        record.role, record.type, *record.size_bytes >> 30U, record.labels));
            return true;
          });
    });
    EXPECT_TRUE(read) << read.error().text();
    return found;
  };
  const std::string by_c = R"(0 c r gp3 1 {"team":"a"})";
  const std::string by_d = R"(0 d r gp3 1 {"team":"a"})";
  EXPECT_THAT(intervals(true), testing::UnorderedElementsAre(by_c, by_d, "1   gp3 1 ", "2   gp3 1 "));
  EXPECT_THAT(intervals(false), testing::IsEmpty());

  // What ends is billed as what went on; and a mount is one only while it is mounted.
  put([&](Transaction& transaction) -> Status {
    DVDI_TRY(const auto reference, transaction.reference(container.key, volume("a")));
    DVDI_CHECK(unrefer(transaction, container, *reference, "t"));
    return transition(transaction, mount, unmounting, {});
  });
  EXPECT_THAT(intervals(true), testing::UnorderedElementsAre(by_c, "2   gp3 1 "));
  EXPECT_THAT(intervals(false), testing::UnorderedElementsAre(by_d, "1   gp3 1 "));
  put([&](Transaction& transaction) -> Status {
    DVDI_CHECK(transition(transaction, mount, absent, {}));
    return forget_volume(transaction, volume("a"), "t");
  });
  EXPECT_THAT(intervals(true), testing::ElementsAre(by_c));
  EXPECT_THAT(intervals(false), testing::UnorderedElementsAre(by_d, "1   gp3 1 ", "2   gp3 1 "));
}

}  // namespace
}  // namespace dvdi::volume
