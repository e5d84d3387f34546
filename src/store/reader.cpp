#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "store/codec.h"
#include "store/database.h"
#include "store/ledger.h"

namespace dvdi {

namespace {

// A state that no version of ours writes means a damaged row: it reads as the state that is always settled.
MountState mount_state_of(const std::string& name) {
  for (const auto state : {MountState::mounting, MountState::mounted, MountState::unmounting}) {
    if (name == mount_state_name(state)) return state;
  }
  return MountState::unknown;
}

ContainerState container_state_of(const std::string& name) {
  for (const auto state : {ContainerState::preparing, ContainerState::prepared, ContainerState::running,
                           ContainerState::ended}) {
    if (name == container_state_name(state)) return state;
  }
  return ContainerState::cleaning;
}

MountRow::Pending pending_of(const std::string& name) {
  if (name == "mount") return MountRow::Pending::mount;
  if (name == "unmount") return MountRow::Pending::unmount;
  if (name == "refused") return MountRow::Pending::refused;
  if (name == "lost") return MountRow::Pending::lost;
  if (name == "found") return MountRow::Pending::found;
  return MountRow::Pending::none;
}

std::optional<std::uint64_t> size_of(Columns& columns) {
  if (columns.is_null()) {
    columns.skip();
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(columns.number());
}

ContainerRow read_container(SQLite::Statement& statement) {
  Columns columns(statement);
  ContainerRow row;
  row.key = columns.container();
  row.state = container_state_of(columns.text());
  row.digest = columns.text();
  row.attribution = attribution_of(columns.text());
  row.directory = columns.text();
  row.directory_is_ours = columns.flag();
  row.engine.pid = static_cast<pid_t>(columns.number());
  row.engine.start_ticks = static_cast<std::uint64_t>(columns.number());
  if (columns.is_null()) {
    columns.skip(2);
  } else {
    row.init.emplace();
    row.init->pid = static_cast<pid_t>(columns.number());
    row.init->start_ticks = static_cast<std::uint64_t>(columns.number());
  }
  row.since = columns.moment();
  row.engine.boot_id = row.since.boot_id;
  if (row.init) row.init->boot_id = row.since.boot_id;
  if (columns.is_null()) {
    columns.skip(3);
  } else {
    row.ended = columns.moment();
  }
  row.watch = columns.flag();
  row.note = columns.text();
  return row;
}

MountRow read_mount(SQLite::Statement& statement) {
  Columns columns(statement);
  MountRow row;
  row.volume = columns.volume();
  row.mount_id = columns.text();
  row.state = mount_state_of(columns.text());
  row.pending = pending_of(columns.text());
  row.mount_point = columns.text();
  if (columns.is_null()) {
    columns.skip();
  } else {
    row.identity = identity_of(columns.text());
  }
  row.since = columns.moment();
  if (columns.is_null()) {
    columns.skip(2);
  } else {
    row.mounted_since.emplace();
    row.mounted_since->boot_id = row.since.boot_id;
    row.mounted_since->wall = columns.wall();
    row.mounted_since->boot = columns.boot();
  }
  row.note = columns.text();
  if (columns.is_null()) {
    columns.skip();
  } else {
    row.unanswered = columns.boot();
  }
  row.folder = columns.text();
  if (!columns.is_null()) row.driver_id = columns.text();
  return row;
}

ReferenceRow read_reference(SQLite::Statement& statement) {
  Columns columns(statement);
  ReferenceRow row;
  row.container = columns.container();
  row.volume = columns.volume();
  row.exclusive = columns.flag();
  row.uses = uses_of(columns.text());
  row.since = columns.moment();
  return row;
}

DebtRow read_debt(SQLite::Statement& statement) {
  Columns columns(statement);
  DebtRow row;
  row.volume = columns.volume();
  row.mount_id = columns.text();
  row.attempts = static_cast<unsigned>(columns.number());
  row.last_error = columns.text();
  row.parked = columns.flag();
  row.since = columns.moment();
  row.next_try.boot_id = row.since.boot_id;
  row.next_try.wall = columns.wall();
  row.next_try.boot = columns.boot();
  return row;
}

ContainerKey read_container_key(SQLite::Statement& statement) { return Columns(statement).container(); }

StagedRow read_staged(SQLite::Statement& statement) {
  Columns columns(statement);
  StagedRow row;
  row.container = columns.container();
  row.position = static_cast<unsigned>(columns.number());
  row.path = columns.text();
  if (columns.is_null()) {
    columns.skip();
  } else {
    row.identity = identity_of(columns.text());
  }
  row.since = columns.moment();
  return row;
}

ForeignRow read_foreign(SQLite::Statement& statement) {
  Columns columns(statement);
  ForeignRow row;
  row.volume = columns.volume();
  row.mount_point = columns.text();
  row.evidence = columns.text();
  row.since = columns.moment();
  return row;
}

VolumeRow read_volume(SQLite::Statement& statement) {
  Columns columns(statement);
  VolumeRow row;
  row.volume = columns.volume();
  row.created_by_us = columns.flag();
  row.size_bytes = size_of(columns);
  row.since = columns.moment();
  return row;
}

template <class Row>
Result<std::vector<Row>> all(std::string_view what, SQLite::Statement& statement,
                             Row (*read)(SQLite::Statement&)) {
  return guarded(what, [&] {
    std::vector<Row> rows;
    while (statement.executeStep()) rows.push_back(read(statement));
    return rows;
  });
}

template <class Row>
Result<std::optional<Row>> one(std::string_view what, SQLite::Statement& statement,
                               Row (*read)(SQLite::Statement&)) {
  return guarded(what, [&] {
    std::optional<Row> row;
    if (statement.executeStep()) row = read(statement);
    statement.reset();
    return row;
  });
}

// Every query of whole containers: what read_container() reads, in its order.
#define DVDI_CONTAINER_COLUMNS                                                                            \
  "owner, id, state, digest, attribution, directory, directory_is_ours, engine_pid, engine_start, "       \
  "init_pid, init_start, boot_id, since_wall, since_boot, ended_boot_id, ended_wall, ended_boot, watch, " \
  "note"
constexpr const char* containers_sql = "SELECT " DVDI_CONTAINER_COLUMNS
                                       " FROM containers "
                                       "ORDER BY since_wall, owner, id";
constexpr const char* live_containers_sql = "SELECT " DVDI_CONTAINER_COLUMNS
                                            " FROM containers "
                                            "WHERE state <> 'ended' ORDER BY since_wall, owner, id";
constexpr const char* oldest_end_sql =
    "SELECT ended_boot_id, ended_wall, ended_boot FROM containers WHERE state = 'ended' AND ended_boot IS "
    "NOT NULL "
    "ORDER BY ended_boot_id = ?, ended_boot LIMIT 1";
constexpr const char* container_sql = "SELECT " DVDI_CONTAINER_COLUMNS
                                      " FROM containers "
                                      "WHERE owner = ? AND id = ?";
// Every query of mounts: what read_mount() reads, in its order.
#define DVDI_MOUNT_COLUMNS                                                                             \
  "driver, volume, mount_id, state, pending, mount_point, identity, boot_id, since_wall, since_boot, " \
  "mounted_wall, mounted_boot, note, unanswered_boot, folder, driver_id"
constexpr const char* mounts_sql = "SELECT " DVDI_MOUNT_COLUMNS " FROM mounts";
constexpr const char* unreferenced_mounts_sql =
    "SELECT " DVDI_MOUNT_COLUMNS
    " FROM mounts WHERE NOT EXISTS (SELECT 1 FROM refs WHERE "
    "refs.driver = mounts.driver AND refs.volume = mounts.volume)";
constexpr const char* mount_sql = "SELECT " DVDI_MOUNT_COLUMNS " FROM mounts WHERE driver = ? AND volume = ?";
constexpr const char* references_sql =
    "SELECT owner, container, driver, volume, exclusive, uses, boot_id, since_wall, since_boot FROM refs";
constexpr const char* references_to_sql =
    "SELECT owner, container, driver, volume, exclusive, uses, boot_id, since_wall, since_boot FROM refs "
    "WHERE driver = ? AND volume = ?";
constexpr const char* is_referenced_sql = "SELECT 1 FROM refs WHERE driver = ? AND volume = ? LIMIT 1";
constexpr const char* meta_sql = "SELECT value FROM meta WHERE name = ?";
constexpr const char* references_of_sql =
    "SELECT owner, container, driver, volume, exclusive, uses, boot_id, since_wall, since_boot FROM refs "
    "WHERE owner = ? AND container = ?";
constexpr const char* debts_sql =
    "SELECT driver, volume, mount_id, attempts, last_error, parked, boot_id, since_wall, since_boot, "
    "next_wall, "
    "next_boot FROM debts";
constexpr const char* debt_sql =
    "SELECT driver, volume, mount_id, attempts, last_error, parked, boot_id, since_wall, since_boot, "
    "next_wall, "
    "next_boot FROM debts WHERE driver = ? AND volume = ?";
constexpr const char* staged_sql =
    "SELECT owner, container, position, path, identity, boot_id, since_wall, since_boot FROM staged";
constexpr const char* staged_of_sql =
    "SELECT owner, container, position, path, identity, boot_id, since_wall, since_boot FROM staged "
    "WHERE owner = ? AND container = ? ORDER BY position";
constexpr const char* staged_leftovers_sql =
    "SELECT DISTINCT staged.owner, staged.container FROM staged LEFT JOIN containers ON containers.owner = "
    "staged.owner AND containers.id = staged.container WHERE containers.id IS NULL OR containers.state = "
    "'ended' OR containers.boot_id <> ?";
constexpr const char* foreigns_sql =
    "SELECT driver, volume, mount_point, evidence, boot_id, since_wall, since_boot FROM foreign_holders";
constexpr const char* foreign_sql =
    "SELECT driver, volume, mount_point, evidence, boot_id, since_wall, since_boot FROM foreign_holders "
    "WHERE driver = ? AND volume = ?";
constexpr const char* volumes_sql =
    "SELECT driver, volume, created_by_us, size_bytes, boot_id, since_wall, since_boot FROM volumes";
constexpr const char* volume_sql =
    "SELECT driver, volume, created_by_us, size_bytes, boot_id, since_wall, since_boot FROM volumes "
    "WHERE driver = ? AND volume = ?";
constexpr const char* events_sql =
    "SELECT sequence, body, hash FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?";
constexpr const char* head_sql = "SELECT sequence, hash FROM events ORDER BY sequence DESC LIMIT 1";
constexpr const char* highest_sql = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";
constexpr const char* boots_sql = "SELECT boot_id, last_boot FROM boots";
constexpr const char* usage_sql =
    "SELECT kind, driver, volume, owner, container, framework, role, principal, user, size_bytes, boot_id, "
    "start_wall, "
    "start_boot, duration FROM usage_intervals WHERE start_wall < ? ORDER BY start_wall, id";

#undef DVDI_CONTAINER_COLUMNS

}  // namespace

Result<std::optional<ContainerRow>> Reader::container(const ContainerKey& key) {
  auto& statement = connection_->statement(container_sql);
  Binder{statement}(key);
  return one("read a container", statement, read_container);
}

Result<std::vector<ContainerRow>> Reader::containers() {
  return all("read the containers", connection_->statement(containers_sql), read_container);
}

Result<std::vector<ContainerRow>> Reader::live_containers() {
  return all("read the containers", connection_->statement(live_containers_sql), read_container);
}

Result<std::optional<Moment>> Reader::oldest_end(const std::string& boot_id) {
  auto& statement = connection_->statement(oldest_end_sql);
  Binder{statement}(boot_id);
  return one<Moment>("look for ended containers", statement,
                     [](SQLite::Statement& found) { return Columns(found).moment(); });
}

Result<std::optional<MountRow>> Reader::mount(const VolumeKey& volume) {
  auto& statement = connection_->statement(mount_sql);
  Binder{statement}(volume);
  return one("read a mount", statement, read_mount);
}

Result<std::vector<MountRow>> Reader::mounts() {
  return all("read the mounts", connection_->statement(mounts_sql), read_mount);
}

Result<std::vector<MountRow>> Reader::unreferenced_mounts() {
  return all("read the mounts that nobody refers to", connection_->statement(unreferenced_mounts_sql),
             read_mount);
}

Result<std::vector<ReferenceRow>> Reader::references() {
  return all("read the references", connection_->statement(references_sql), read_reference);
}

Result<std::vector<ReferenceRow>> Reader::references_to(const VolumeKey& volume) {
  auto& statement = connection_->statement(references_to_sql);
  Binder{statement}(volume);
  return all("read a volume's references", statement, read_reference);
}

Result<bool> Reader::is_referenced(const VolumeKey& volume) {
  return guarded("look for a volume's references", [&] {
    auto& statement = connection_->statement(is_referenced_sql);
    Binder{statement}(volume);
    const bool found = statement.executeStep();
    statement.reset();
    return found;
  });
}

Result<std::string> Reader::meta(const std::string& name) {
  return guarded("read a fact of the ledger", [&] {
    auto& statement = connection_->statement(meta_sql);
    Binder{statement}(name);
    std::string value;
    if (statement.executeStep()) value = Columns(statement).text();
    statement.reset();
    return value;
  });
}

Result<std::vector<ReferenceRow>> Reader::references_of(const ContainerKey& container) {
  auto& statement = connection_->statement(references_of_sql);
  Binder{statement}(container);
  return all("read a container's references", statement, read_reference);
}

Result<std::optional<DebtRow>> Reader::debt(const VolumeKey& volume) {
  auto& statement = connection_->statement(debt_sql);
  Binder{statement}(volume);
  return one("read a debt", statement, read_debt);
}

Result<std::vector<DebtRow>> Reader::debts() {
  return all("read the debts", connection_->statement(debts_sql), read_debt);
}

Result<std::vector<StagedRow>> Reader::staged() {
  return all("list staged mounts", connection_->statement(staged_sql), read_staged);
}

Result<std::vector<ContainerKey>> Reader::staged_leftovers(const std::string& boot_id) {
  auto& statement = connection_->statement(staged_leftovers_sql);
  Binder{statement}(boot_id);
  return all("list the staged mounts that are left behind", statement, read_container_key);
}

Result<std::vector<StagedRow>> Reader::staged_of(const ContainerKey& container) {
  auto& statement = connection_->statement(staged_of_sql);
  Binder{statement}(container);
  return all("list the staged mounts of a container", statement, read_staged);
}

Result<std::optional<ForeignRow>> Reader::foreign(const VolumeKey& volume) {
  auto& statement = connection_->statement(foreign_sql);
  Binder{statement}(volume);
  return one("read a foreign holder", statement, read_foreign);
}

Result<std::vector<ForeignRow>> Reader::foreigns() {
  return all("read the foreign holders", connection_->statement(foreigns_sql), read_foreign);
}

Result<std::optional<VolumeRow>> Reader::volume(const VolumeKey& volume) {
  auto& statement = connection_->statement(volume_sql);
  Binder{statement}(volume);
  return one("read a volume", statement, read_volume);
}

Result<std::vector<VolumeRow>> Reader::volumes() {
  return all("read the volumes", connection_->statement(volumes_sql), read_volume);
}

Result<std::vector<StoredEvent>> Reader::events(std::uint64_t after, std::size_t limit) {
  return guarded("read events", [&] {
    auto& statement = connection_->statement(events_sql);
    Binder{statement}(static_cast<std::int64_t>(after))(static_cast<std::int64_t>(limit));
    std::vector<StoredEvent> events;
    while (statement.executeStep()) {
      Columns columns(statement);
      StoredEvent event;
      event.sequence = static_cast<std::uint64_t>(columns.number());
      event.body = columns.text();
      event.hash = columns.text();
      events.push_back(std::move(event));
    }
    return events;
  });
}

Result<std::pair<std::uint64_t, std::string>> Reader::head() {
  return guarded("read the newest event", [&] {
    auto& statement = connection_->statement(head_sql);
    std::pair<std::uint64_t, std::string> head{0, genesis_hash()};
    if (statement.executeStep()) {
      Columns columns(statement);
      head.first = static_cast<std::uint64_t>(columns.number());
      head.second = columns.text();
    }
    statement.reset();
    return head;
  });
}

Result<std::uint64_t> Reader::highest_event() {
  return guarded("read the number of the newest event", [&] {
    auto& statement = connection_->statement(highest_sql);
    std::uint64_t highest = 0;
    if (statement.executeStep()) highest = static_cast<std::uint64_t>(Columns(statement).number());
    statement.reset();
    return highest;
  });
}

Status Reader::usage(const Moment& now, WallTime since, WallTime until,
                     const std::function<bool(const UsageInterval&)>& visit) {
  return guarded("read the usage", [&] {
    std::unordered_map<std::string, BootTime> last_seen;
    auto& boots = connection_->statement(boots_sql);
    while (boots.executeStep()) {
      Columns columns(boots);
      std::string boot = columns.text();
      last_seen[std::move(boot)] = columns.boot();
    }
    last_seen[now.boot_id] = now.boot;

    auto& statement = connection_->statement(usage_sql);
    Binder{statement}(until);
    while (statement.executeStep()) {
      Columns columns(statement);
      UsageInterval interval;
      const std::string kind = columns.text();
      if (kind == "mounted") interval.kind = UsageInterval::Kind::mounted;
      if (kind == "provisioned") interval.kind = UsageInterval::Kind::provisioned;
      interval.volume = columns.volume();
      interval.container = columns.container();
      interval.attribution.framework = columns.text();
      interval.attribution.role = columns.text();
      interval.attribution.principal = columns.text();
      interval.attribution.user = columns.text();
      interval.size_bytes = size_of(columns);
      const Moment start = columns.moment();
      interval.start = start.wall;
      interval.open = columns.is_null();
      // Always start plus measured duration, never a difference of wall clock times: setting the clock
      // changes no bill.
      interval.duration = interval.open ? std::max(Duration::zero(), last_seen[start.boot_id] - start.boot)
                                        : Duration(columns.number());
      if (interval.start + interval.duration < since) continue;
      if (!visit(interval)) break;
    }
    statement.reset();
  });
}

}  // namespace dvdi
