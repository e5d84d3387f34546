// A ledger that an older dvdi has written is one of this dvdi afterwards, with all that was in it.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <stdlib.h>

#include <filesystem>

#include "base/fake_clock_test.h"
#include "base/sha256.h"
#include "store/ledger.h"
#include "store/schema.h"
#include "store/usage_test_support.h"

namespace dvdi {
namespace {

using testing::SizeIs;
using testing::UnorderedElementsAre;
using Kind = UsageInterval::Kind;

constexpr std::int64_t second = 1'000'000'000;

class Migration : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/dvdi-migration-XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return folder_ + "/state.db"; }
  Context context() const { return Context(clock_); }

  // As version 7 wrote it: two containers, one of them ended, a mounted volume, three events of which the
  // last was removed, and an interval of each kind.
  void write_version_7() {
    auto connection = Connection::open(path(), false);
    ASSERT_TRUE(connection);
    ASSERT_TRUE(migrate(**connection, 7));
    SQLite::Database& database = (*connection)->database();
    boot_ = *dvdi::boot_id();
    const auto exec = [&](std::string sql) {
      for (std::size_t at = 0; (at = sql.find("BOOT", at)) != std::string::npos;) sql.replace(at, 4, boot_);
      database.exec(sql);
    };
    exec("INSERT INTO meta VALUES ('node_id', 'n')");
    exec("INSERT INTO boots VALUES ('BOOT', 5, 5, 5), ('old', 1, 2, 40000000000)");
    exec(
        "INSERT INTO containers (owner, id, state, digest, attribution, directory, directory_is_ours, "
        "engine_pid, engine_start, "
        "boot_id, since_wall, since_boot, ended_wall, ended_boot, ended_boot_id, watch, note) VALUES "
        "('run', 'lives', 'running', 'd', '{\"role\":\"r\",\"labels\":[[\"k\",\"l\"]]}', '/x', 1, 7, 8, "
        "'BOOT', 5, 6, NULL, NULL, NULL, "
        "1, 'n'), "
        "('run', 'ended', 'ended', 'd', '{}', '/x', 1, 7, 8, 'BOOT', 5, 6, 7, 8, 'BOOT', 0, '')");
    exec(
        "INSERT INTO mounts (driver, volume, mount_id, state, pending, mount_point, boot_id, since_wall, "
        "since_boot, mounted_wall, "
        "mounted_boot, note, unanswered_boot, folder, driver_id, has_secrets) VALUES "
        "('d', 'v', 'id', 'mounted', 'none', '/m', 'BOOT', 5, 6, 7, 8, 'x', 9, 'data', 'other', 1)");
    exec("INSERT INTO refs VALUES ('run', 'lives', 'd', 'v', 0, '[]', 'BOOT', 5, 6)");
    std::string previous = genesis_hash();
    for (std::uint64_t number = 1; number <= 3; ++number) {
      const std::string body = event_body({.type = "dvdi.test"}, number, "n", previous, clock_.wall());
      previous = sha256_hex(body);
      SQLite::Statement insert(database, "INSERT INTO events VALUES (?, ?, ?, ?, ?)");
      insert.bind(1, static_cast<std::int64_t>(number));
      insert.bind(2, body);
      insert.bind(3, previous);
      insert.bind(4, static_cast<std::int64_t>(number));
      insert.bind(5, static_cast<std::int64_t>(1000 * number));
      insert.exec();
    }
    exec("DELETE FROM events WHERE sequence = 3");
    const auto interval = [&](const std::string& values) {
      exec(
          "INSERT INTO usage_intervals (kind, driver, volume, owner, container, framework, role, principal, "
          "user, size_bytes, "
          "boot_id, start_wall, start_boot, duration, labels, volume_type) VALUES (" +
          values + ")");
    };
    interval(
        "'referenced', 'd', 'v', 'run', 'lives', 'f', 'r', 'p', 'u', 7, 'BOOT', 100, 200, NULL, "
        "'{\"k\":\"l\"}', 'gp3'");
    interval("'mounted', 'd', 'w', '', '', '', '', '', '', NULL, 'old', 100, 10000000000, NULL, '', ''");
    interval("'mounted', 'd', 'v', '', '', '', '', '', '', 9, 'BOOT', 100, 200, 5000000000, '', 'io2'");
    interval("'provisioned', 'd', 'v', '', '', '', '', '', '', 9, 'BOOT', 100, 200, 6000000000, '', 'io2'");
    interval(
        "'referenced', 'd', 'v', 'run', 'ended', 'f', 'r', 'p', 'u', 7, 'BOOT', 100, 200, 7000000000, '', "
        "''");
  }

  FakeClock clock_;
  std::string folder_, boot_;
};

TEST_F(Migration, OfVersion7KeepsEverything) {
  write_version_7();
  auto ledger = Ledger::open(context(), path());
  ASSERT_TRUE(ledger) << ledger.error().text();
  EXPECT_EQ((*ledger)->node_id(), "n");
  std::vector<std::string> intervals;
  ASSERT_TRUE((*ledger)->read(context(), "test", [&](Reader& reader) -> Status {
    DVDI_TRY(const auto live, reader.live_containers());
    EXPECT_THAT(live, SizeIs(1));
    EXPECT_EQ(live.at(0).key.id, "lives");
    EXPECT_EQ(live.at(0).attribution.role, "r");
    EXPECT_TRUE(live.at(0).watch);
    DVDI_TRY(const auto all, reader.containers());
    EXPECT_THAT(all, SizeIs(2));
    DVDI_TRY(const auto mount, reader.mount({"d", "v"}));
    EXPECT_EQ(mount->mount_id, "id");
    EXPECT_EQ(mount->state, MountState::mounted);
    EXPECT_EQ(mount->note, "x");
    EXPECT_EQ(mount->folder, "data");
    EXPECT_EQ(mount->driver_id, "other");
    EXPECT_TRUE(mount->has_secrets);
    EXPECT_EQ(mount->mounted_since->boot, BootTime(Duration(8)));
    EXPECT_EQ(mount->unanswered, BootTime(Duration(9)));
    DVDI_TRY(const auto events, reader.events(0, 10));
    EXPECT_THAT(events, SizeIs(2));
    EventVerifier verifier;
    for (const StoredEvent& one : events) EXPECT_TRUE(verifier.next(one));
    DVDI_TRY(const std::uint64_t highest, reader.highest_event());
    EXPECT_EQ(highest, 3U) << "what was removed from the end is still missed";
    DVDI_TRY(const auto span, reader.event_span());
    EXPECT_EQ(span->last, 2U);
    return reader.usage((*ledger)->now(clock_), WallTime::min(), WallTime::max(),
                        {.volume = true, .type = true, .container = true, .role = true, .labels = true},
                        [&](const UsageRecord& one) {
                          intervals.push_back(fmt::format(
                              "{} {} {} {} {} {} {} {} {}", static_cast<int>(one.kind), one.volume,
                              one.container, one.role, one.type, one.size_bytes.value_or(0), one.labels,
                              one.open, one.open && one.volume == "v" ? 0 : one.duration.count() / second));
                          return true;
                        });
  }));
  EXPECT_THAT(intervals, UnorderedElementsAre("0 v lives r gp3 7 {\"k\":\"l\"} true 0", "1 v    0  true 0",
                                              "1 w    0  false 30", "1 v   io2 9  false 5",
                                              "2 v   io2 9  false 6", "0 v ended r  7  false 7"))
      << "what goes on is in the books; what is not there (w) ended with its boot";

  // And it goes on from there.
  ASSERT_TRUE((*ledger)->write(context(), "test", [&](Transaction& tx) -> Status {
    DVDI_CHECK(tx.record({.type = "dvdi.test"}));
    DVDI_TRY(const auto reference, tx.reference({"run", "lives"}, {"d", "v"}));
    EXPECT_EQ(reference->size_bytes, 7U);
    return end_use(tx, {.volume = {"d", "v"}, .container = {"run", "lives"}});
  }));
  ASSERT_TRUE((*ledger)->read(context(), "test", [&](Reader& reader) -> Status {
    DVDI_TRY(const auto events, reader.events(2, 10));
    EXPECT_EQ(events.at(0).sequence, 4U);
    std::size_t open = 0, all = 0;
    DVDI_CHECK(reader.usage((*ledger)->now(clock_), WallTime::min(), WallTime::max(), {},
                            [&](const UsageRecord& one) {
                              ++all;
                              open += one.open ? 1 : 0;
                              return true;
                            }));
    EXPECT_EQ(all, 6U);
    EXPECT_EQ(open, 1U) << "the mount";
    return {};
  }));
}

TEST_F(Migration, FromEachVersionEndsAtTheSameTables) {
  const auto tables = [&](int from) {
    const std::string file = fmt::format("{}/{}.db", folder_, from);
    auto connection = Connection::open(file, false);
    EXPECT_TRUE(from == 0 || migrate(**connection, from));
    EXPECT_TRUE(migrate(**connection)) << from;
    std::vector<std::string> all;
    SQLite::Statement found((*connection)->database(),
                            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name");
    while (found.executeStep()) all.push_back(found.getColumn(1).getString());
    return all;
  };
  const auto fresh = tables(0);
  EXPECT_GE(fresh.size(), 12U);
  for (int from = 1; from < schema_version(); ++from) EXPECT_EQ(tables(from), fresh) << from;
}

}  // namespace
}  // namespace dvdi
