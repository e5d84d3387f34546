#include "volume/manager_test_support.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/json.h"
#include "driver/test_namespace.h"
#include "linux/process.h"
#include "volume/state.h"

namespace dvdi::volume {

namespace {

// Once for the program, before it has threads: the namespace, then the helpers inside it.
struct Ground {
  const Clock& outlives_the_helpers = system_clock();  // a static too: made first, destroyed last
  Status entered = driver::enter_private_mount_namespace();
  Result<std::unique_ptr<HelperPool>> helpers = HelperPool::start();
};

Ground& ground() {
  static Ground the_ground;
  return the_ground;
}

template <class T>
T read(Ledger& ledger, const std::function<Result<T>(Reader&)>& what) {
  T out{};
  const auto done = ledger.read(Context(), "test", [&](Reader& reader) -> Status {
    DVDI_TRY(out, what(reader));
    return {};
  });
  EXPECT_TRUE(done) << done.error().text();
  return out;
}

constexpr const char* count_transactions = R"sql(
CREATE TABLE IF NOT EXISTS test_transactions (count INTEGER NOT NULL) STRICT;
INSERT INTO test_transactions SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM test_transactions);
CREATE TRIGGER IF NOT EXISTS test_count_insert AFTER INSERT ON boots BEGIN UPDATE test_transactions SET count = count + 1; END;
CREATE TRIGGER IF NOT EXISTS test_count_update AFTER UPDATE ON boots BEGIN UPDATE test_transactions SET count = count + 1; END;
)sql";

}  // namespace

void ManagerTest::SetUp() {
  if (!ground().entered) GTEST_SKIP() << ground().entered.error().text();
  ASSERT_TRUE(ground().helpers) << ground().helpers.error().text();
  std::string pattern = "/tmp/dvdi-volume-XXXXXX";
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  folder = pattern;
  ASSERT_EQ(::mount("test", folder.c_str(), "tmpfs", 0, nullptr), 0);
  fake = add_driver("fake");
  restart();
  // Every transaction writes the table `boots` once, so its triggers count commits.
  SQLite::Database database(folder + "/state.db", SQLite::OPEN_READWRITE, 10000);
  database.exec(count_transactions);
}

void ManagerTest::TearDown() {
  if (folder.empty()) return;
  manager.reset();
  locks.reset();
  ledger.reset();
  ::umount2(folder.c_str(), MNT_DETACH);
  ::rmdir(folder.c_str());
}

void ManagerTest::restart() {
  manager.reset();
  locks.reset();
  ledger.reset();
  auto opened = Ledger::open(Context(clock), folder + "/state.db");
  ASSERT_TRUE(opened) << opened.error().text();
  ledger = *std::move(opened);
  auto opened_locks = KeyedLocks::open(folder + "/locks");
  ASSERT_TRUE(opened_locks) << opened_locks.error().text();
  locks = *std::move(opened_locks);
  manager = std::make_unique<Manager>(Manager::Parts{*ledger, catalog, *locks, **ground().helpers}, policy);
}

std::vector<std::string> ManagerTest::recover() {
  const auto forgotten = manager->forget_other_boots(context());
  EXPECT_TRUE(forgotten) << forgotten.error().text();
  const auto dead = manager->dead_containers(context(), "run");
  EXPECT_TRUE(dead) << dead.error().text();
  if (dead) {
    for (const ContainerKey& key : *dead) {
      const auto released = manager->release(context(), key, "");
      EXPECT_TRUE(released) << released.error().text();
    }
  }
  return manager->settle(context());
}

void ManagerTest::bury(const std::string& id) {
  put([&](Transaction& transaction) -> Status {
    DVDI_TRY(auto found, transaction.container(container(id)));
    if (!found) return {};
    found->engine.start_ticks += 1;  // the pid is somebody else's now
    return transaction.put(*found);
  });
}

void ManagerTest::settle_all() {
  for (int i = 0; i < 4; ++i) {
    clock.advance(std::chrono::minutes(6));
    static_cast<void>(manager->settle(context()));
  }
}

std::shared_ptr<FakeDriver> ManagerTest::add_driver(const std::string& name) {
  const std::string mounts = folder + "/mounts-" + name;
  EXPECT_EQ(::mkdir(mounts.c_str(), 0755), 0);
  drivers[name] = std::make_shared<FakeDriver>(name, mounts, clock, kill);
  catalog.add(drivers[name]);
  return drivers[name];
}

Request ManagerTest::want(const std::string& name, bool exclusive) {
  return {.volume = volume(name), .exclusive = exclusive, .uses = {{.container_path = "/data"}}};
}

Request ManagerTest::want_of(const std::string& driver_name, const std::string& name) {
  return {.volume = {driver_name, name}};
}

Holder ManagerTest::holder(const std::string& id, const std::string& digest) {
  return {.key = container(id), .digest = digest};
}

Result<std::vector<Mounted>> ManagerTest::acquire(const std::string& id,
                                                  const std::vector<Request>& requests) {
  return manager->acquire(context(), holder(id), requests);
}

Result<std::vector<Owed>> ManagerTest::release(const std::string& id, const std::string& keep_mounted) {
  return manager->release(context(), container(id), keep_mounted);
}

std::optional<MountRow> ManagerTest::row(const std::string& name) const {
  return read<std::optional<MountRow>>(*ledger, [&](Reader& reader) { return reader.mount(volume(name)); });
}

std::optional<DebtRow> ManagerTest::debt(const std::string& name) const {
  return read<std::optional<DebtRow>>(*ledger, [&](Reader& reader) { return reader.debt(volume(name)); });
}

std::optional<ForeignRow> ManagerTest::foreign(const std::string& name) const {
  return read<std::optional<ForeignRow>>(*ledger,
                                         [&](Reader& reader) { return reader.foreign(volume(name)); });
}

std::optional<ContainerRow> ManagerTest::container_row(const std::string& id) const {
  return read<std::optional<ContainerRow>>(*ledger,
                                           [&](Reader& reader) { return reader.container(container(id)); });
}

std::vector<std::string> ManagerTest::references_to(const std::string& name) const {
  std::vector<std::string> out;
  for (const auto& one : read<std::vector<ReferenceRow>>(
           *ledger, [&](Reader& reader) { return reader.references_to(volume(name)); })) {
    out.push_back(one.container.id);
  }
  return out;
}

std::vector<ManagerTest::SeenUsage> ManagerTest::usage() const {
  std::vector<SeenUsage> out;
  const UsageColumns columns{.driver = true, .volume = true, .owner = true, .container = true};
  const Moment now = ledger->now(clock);
  const auto done = ledger->read(Context(), "test", [&](Reader& reader) {
    return reader.usage(now, WallTime(), now.wall + std::chrono::hours(1), columns,
                        [&](const UsageRecord& one) {
                          SeenUsage& seen = out.emplace_back();
                          seen.kind = one.kind;
                          seen.volume = {std::string(one.driver), std::string(one.volume)};
                          seen.container = {std::string(one.owner), std::string(one.container)};
                          seen.size_bytes = one.size_bytes;
                          seen.start = one.start;
                          seen.duration = one.duration;
                          seen.open = one.open;
                          return true;
                        });
  });
  EXPECT_TRUE(done) << done.error().text();
  std::ranges::stable_sort(out, {}, &SeenUsage::start);
  return out;
}

std::vector<std::string> ManagerTest::intervals(UsageInterval::Kind kind, const std::string& name) const {
  std::vector<std::string> out;
  for (const SeenUsage& one : usage()) {
    if (one.kind == kind && one.volume == volume(name)) out.emplace_back(one.open ? "open" : "closed");
  }
  return out;
}

std::vector<json::value> ManagerTest::event_bodies() const {
  std::vector<json::value> out;
  for (const StoredEvent& one :
       read<std::vector<StoredEvent>>(*ledger, [&](Reader& reader) { return reader.events(0, 1'000'000); })) {
    auto body = json::parse(one.body, "event");
    EXPECT_TRUE(body) << body.error().text();
    if (body) out.push_back(*std::move(body));
  }
  return out;
}

std::vector<std::string> ManagerTest::events(const std::string& subject) const {
  std::vector<std::string> out;
  for (const json::value& body : event_bodies()) {
    if (!subject.empty() && json::text_or_empty(body, "subject") != subject) continue;
    out.emplace_back(json::text_or_empty(body, "type").substr(std::string_view("dvdi.").size()));
  }
  return out;
}

bool ManagerTest::mounted_in_kernel(const std::string& name) const {
  const auto table = MountTable::read();
  EXPECT_TRUE(table) << table.error().text();
  return table && table->at(fake->mount_point(name)) != nullptr;
}

std::size_t ManagerTest::kernel_mounts() const {
  const auto table = MountTable::read();
  EXPECT_TRUE(table) << table.error().text();
  return table ? table->beneath(folder).size() - 1 : 0;  // without the folder itself
}

std::int64_t ManagerTest::transactions() const {
  SQLite::Database database(folder + "/state.db", SQLite::OPEN_READONLY, 10000);
  return database.execAndGet("SELECT count FROM test_transactions").getInt64();
}

std::int64_t ManagerTest::rows_in(const std::string& table) const {
  SQLite::Database database(folder + "/state.db", SQLite::OPEN_READONLY, 10000);
  return database.execAndGet("SELECT count(*) FROM " + table).getInt64();
}

void ManagerTest::put(const std::function<Status(Transaction&)>& work) {
  const auto written = ledger->write(context(), "test", work);
  ASSERT_TRUE(written) << written.error().text();
}

void ManagerTest::expect_consistent() const {
  expect_events_consistent();
  expect_usage_consistent();
  expect_mounts_consistent();
}

void ManagerTest::expect_events_consistent() const {
  EventVerifier verifier;
  for (const StoredEvent& one :
       read<std::vector<StoredEvent>>(*ledger, [&](Reader& reader) { return reader.events(0, 1'000'000); })) {
    const auto good = verifier.next(one);
    ASSERT_TRUE(good) << good.error().text();
  }
  const std::map<std::string_view, MountState> by_name = {
      {"absent", MountState::absent},    {"mounting", MountState::mounting},
      {"mounted", MountState::mounted},  {"unmounting", MountState::unmounting},
      {"unknown", MountState::unknown},  {"failed", MountState::absent},
      {"unmounted", MountState::absent}, {"lost", MountState::absent},
  };
  constexpr std::string_view prefix = "dvdi.mount.";
  std::map<std::string, MountState> last;
  for (const json::value& body : event_bodies()) {
    const std::string_view type = json::text_or_empty(body, "type");
    if (!type.starts_with(prefix)) continue;
    const std::string subject(json::text_or_empty(body, "subject"));
    const MountState from = by_name.at(json::text_or_empty(*json::find(body, "data"), "from"));
    const auto said = json::text_or_empty(*json::find(body, "data"), "to");  // of `lost`, which has two ends
    const MountState to = by_name.at(said.empty() ? type.substr(prefix.size()) : said);
    const auto known = last.try_emplace(subject, MountState::absent).first;
    EXPECT_EQ(from, known->second) << subject << ": an event is missing before " << type;
    EXPECT_TRUE(check_transition(from, to)) << subject << ": " << type;
    known->second = to;
  }
  for (const auto& [subject, state] : last) {
    const auto slash = subject.find('/', std::string_view("volume/").size());
    const VolumeKey key{subject.substr(7, slash - 7), subject.substr(slash + 1)};
    const auto now =
        read<std::optional<MountRow>>(*ledger, [&](Reader& reader) { return reader.mount(key); });
    EXPECT_EQ(now ? now->state : MountState::absent, state) << subject << ": row and events differ";
  }
}

void ManagerTest::expect_usage_consistent() const {
  std::multiset<std::string> open, due;
  for (const SeenUsage& one : usage()) {
    if (!one.open) continue;
    const char* kind = one.kind == UsageInterval::Kind::referenced ? "referenced"
                       : one.kind == UsageInterval::Kind::mounted  ? "mounted"
                                                                   : "provisioned";
    open.insert(fmt::format("{} {} {}", kind, one.volume.text(), one.container.text()));
  }
  for (const auto& one :
       read<std::vector<ReferenceRow>>(*ledger, [](Reader& reader) { return reader.references(); })) {
    due.insert(fmt::format("referenced {} {}", one.volume.text(), one.container.text()));
  }
  for (const auto& one :
       read<std::vector<MountRow>>(*ledger, [](Reader& reader) { return reader.mounts(); })) {
    if (one.state == MountState::mounted) due.insert(fmt::format("mounted {} /", one.volume.text()));
  }
  for (const auto& one :
       read<std::vector<VolumeRow>>(*ledger, [](Reader& reader) { return reader.volumes(); })) {
    due.insert(fmt::format("provisioned {} /", one.volume.text()));
  }
  EXPECT_EQ(open, due);
}

void ManagerTest::expect_mounts_consistent() const {
  const auto table = MountTable::read();
  ASSERT_TRUE(table) << table.error().text();
  std::set<VolumeKey> known;
  for (const auto& one :
       read<std::vector<MountRow>>(*ledger, [](Reader& reader) { return reader.mounts(); })) {
    known.insert(one.volume);
    const auto debt_of =
        read<std::optional<DebtRow>>(*ledger, [&](Reader& reader) { return reader.debt(one.volume); });
    const auto references = read<std::vector<ReferenceRow>>(
        *ledger, [&](Reader& reader) { return reader.references_to(one.volume); });
    const bool found = one.pending == MountRow::Pending::found;
    EXPECT_TRUE(found || debt_of || !references.empty()) << one.volume.text() << " is mounted for nobody";
    EXPECT_TRUE(!debt_of || debt_of->mount_id == one.mount_id) << one.volume.text();
    if (one.state == MountState::mounted && one.identity) {
      EXPECT_NE(table->at(one.mount_point), nullptr) << one.volume.text() << " is not mounted";
      EXPECT_FALSE(debt_of) << one.volume.text() << " is mounted and owed";
    }
  }
  for (const auto& one : read<std::vector<DebtRow>>(*ledger, [](Reader& reader) { return reader.debts(); })) {
    EXPECT_TRUE(known.contains(one.volume)) << one.volume.text() << ": a debt without a mount";
  }
  for (const auto& [name, one] : drivers) {
    for (const MountEntry* entry : table->beneath(folder + "/mounts-" + name)) {
      const VolumeKey key{name, std::string(entry->source)};
      const auto foreign_holder =
          read<std::optional<ForeignRow>>(*ledger, [&](Reader& reader) { return reader.foreign(key); });
      EXPECT_TRUE(known.contains(key) || foreign_holder)
          << entry->mount_point << " is mounted, no row says so";
    }
  }
}

void ManagerTest::expect_nothing_left() const {
  expect_consistent();
  EXPECT_EQ(rows_in("mounts"), 0);
  EXPECT_EQ(rows_in("refs"), 0);
  EXPECT_EQ(rows_in("debts"), 0);
  EXPECT_EQ(rows_in("foreign_holders"), 0);
  EXPECT_EQ(kernel_mounts(), 0U);
  for (const auto& [name, one] : drivers) {
    EXPECT_EQ(one->kernel_mounts(), one->kernel_unmounts()) << name;
    const auto volumes = one->list(Context());
    ASSERT_TRUE(volumes);
    for (const auto& info : *volumes) {
      EXPECT_TRUE(one->users(info.name).empty()) << name << "/" << info.name << " has users in the driver";
    }
  }
}

}  // namespace dvdi::volume
