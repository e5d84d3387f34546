#include "store/codec.h"
#include "store/database.h"
#include "store/ledger.h"
#include "store/query.h"

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
  if (columns.is_null()) {
    columns.skip();
  } else {
    row.driver_id = columns.text();
  }
  row.has_secrets = columns.flag();
  row.size_bytes = size_of(columns);
  row.volume_type = columns.text();
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
  row.size_bytes = size_of(columns);
  row.volume_type = columns.text();
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
  row.type = columns.text();
  row.has_secrets = columns.flag();
  return row;
}

SinkRow read_sink(SQLite::Statement& statement) {
  Columns columns(statement);
  SinkRow row;
  row.name = columns.text();
  row.cursor = static_cast<std::uint64_t>(columns.number());
  row.replay_until = static_cast<std::uint64_t>(columns.number());
  row.undelivered = static_cast<std::uint64_t>(columns.number());
  row.paused = columns.flag();
  return row;
}

DriverRow read_driver(SQLite::Statement& statement) {
  Columns columns(statement);
  DriverRow row;
  row.name = columns.text();
  row.state = driver_state_of(columns.text());
  row.reason = columns.text();
  row.since = columns.moment();
  return row;
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
                                            "WHERE ended_wall IS NULL ORDER BY since_wall, owner, id";
constexpr const char* live_containers_of_sql =
    "SELECT " DVDI_CONTAINER_COLUMNS
    " FROM containers INDEXED BY containers_live "
    "WHERE ended_wall IS NULL AND owner = ? ORDER BY since_wall, owner, id";
constexpr const char* live_ids_sql =
    "SELECT id FROM containers INDEXED BY containers_live WHERE ended_wall IS NULL";
constexpr const char* other_boots_sql =
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM refs WHERE boot_id <> ?1) OR "
    "EXISTS (SELECT 1 FROM mounts WHERE boot_id <> ?1) OR "
    "EXISTS (SELECT 1 FROM debts WHERE boot_id <> ?1) OR "
    "EXISTS (SELECT 1 FROM foreign_holders WHERE boot_id <> ?1) OR "
    "EXISTS (SELECT 1 FROM containers INDEXED BY containers_live "
    "WHERE ended_wall IS NULL AND boot_id <> ?1) OR "
    "EXISTS (SELECT 1 FROM volumes WHERE boot_id <> ?1) OR "
    "EXISTS (SELECT 1 FROM staged WHERE boot_id <> ?1)";
constexpr const char* containers_to_look_after_sql =
    "SELECT " DVDI_CONTAINER_COLUMNS
    " FROM containers INDEXED BY containers_live "
    "WHERE ended_wall IS NULL AND (state = 'cleaning' OR watch <> 0 OR owner = ?)";
// By its index: the first of another boot, else the first of this one.
constexpr const char* oldest_end_sql =
    "SELECT * FROM (SELECT ended_boot_id, ended_wall, ended_boot FROM containers WHERE ended_wall IS NOT "
    "NULL AND "
    "ended_boot_id < ?1 LIMIT 1) UNION ALL "
    "SELECT * FROM (SELECT ended_boot_id, ended_wall, ended_boot FROM containers WHERE ended_wall IS NOT "
    "NULL AND "
    "ended_boot_id > ?1 LIMIT 1) UNION ALL "
    "SELECT * FROM (SELECT ended_boot_id, ended_wall, ended_boot FROM containers WHERE ended_wall IS NOT "
    "NULL AND "
    "ended_boot_id = ?1 ORDER BY ended_boot LIMIT 1) LIMIT 1";
constexpr const char* children_sql =
    "SELECT id FROM containers WHERE owner = ?1 AND id > ?2 || '.' AND id < ?2 || '/' AND state <> 'ended'";
constexpr const char* container_sql = "SELECT " DVDI_CONTAINER_COLUMNS
                                      " FROM containers "
                                      "WHERE owner = ? AND id = ?";
// Every query of mounts: what read_mount() reads, in its order.
#define DVDI_MOUNT_COLUMNS                                                                             \
  "driver, volume, mount_id, state, pending, mount_point, identity, boot_id, since_wall, since_boot, " \
  "mounted_wall, mounted_boot, note, unanswered_boot, folder, driver_id, has_secrets, size_bytes, "    \
  "volume_type"
constexpr const char* mounts_sql = "SELECT " DVDI_MOUNT_COLUMNS " FROM mounts";
constexpr const char* mounts_since_sql =
    "SELECT " DVDI_MOUNT_COLUMNS " FROM mounts WHERE since_boot >= ?2 OR boot_id <> ?1";
constexpr const char* unreferenced_mounts_sql =
    "SELECT " DVDI_MOUNT_COLUMNS
    " FROM mounts WHERE NOT EXISTS (SELECT 1 FROM refs WHERE "
    "refs.driver = mounts.driver AND refs.volume = mounts.volume)";
constexpr const char* mount_sql = "SELECT " DVDI_MOUNT_COLUMNS " FROM mounts WHERE driver = ? AND volume = ?";
// Every query of references: what read_reference() reads, in its order.
#define DVDI_REFERENCE_COLUMNS                                                                       \
  "owner, container, driver, volume, exclusive, uses, boot_id, since_wall, since_boot, size_bytes, " \
  "volume_type"
constexpr const char* references_sql = "SELECT " DVDI_REFERENCE_COLUMNS " FROM refs";
constexpr const char* references_to_sql = "SELECT " DVDI_REFERENCE_COLUMNS
                                          " FROM refs "
                                          "WHERE driver = ? AND volume = ?";
// By the index of exclusive references, or at the second of all at the latest.
constexpr const char* exclusive_reference_sql =
    "SELECT " DVDI_REFERENCE_COLUMNS
    " FROM refs "
    "WHERE driver = ?3 AND volume = ?4 AND exclusive <> 0 AND NOT (owner = ?1 AND container = ?2) LIMIT 1";
constexpr const char* other_reference_sql =
    "SELECT " DVDI_REFERENCE_COLUMNS
    " FROM refs "
    "WHERE driver = ?3 AND volume = ?4 AND NOT (owner = ?1 AND container = ?2) LIMIT 1";
constexpr const char* reference_sql = "SELECT " DVDI_REFERENCE_COLUMNS
                                      " FROM refs "
                                      "WHERE owner = ?1 AND container = ?2 AND driver = ?3 AND volume = ?4";
constexpr const char* is_referenced_sql = "SELECT 1 FROM refs WHERE driver = ? AND volume = ? LIMIT 1";
constexpr const char* meta_sql = "SELECT value FROM meta WHERE name = ?";
constexpr const char* references_of_sql = "SELECT " DVDI_REFERENCE_COLUMNS
                                          " FROM refs "
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
    "SELECT driver, volume, created_by_us, size_bytes, boot_id, since_wall, since_boot, type, has_secrets "
    "FROM volumes";
constexpr const char* volume_sql =
    "SELECT driver, volume, created_by_us, size_bytes, boot_id, since_wall, since_boot, type, has_secrets "
    "FROM volumes WHERE driver = ? AND volume = ?";
constexpr const char* sink_sql =
    "SELECT name, cursor, replay_until, undelivered, paused FROM sinks WHERE name = ?";
constexpr const char* sinks_sql =
    "SELECT name, cursor, replay_until, undelivered, paused FROM sinks ORDER BY name";
constexpr const char* driver_sql =
    "SELECT name, state, reason, boot_id, since_wall, since_boot FROM drivers WHERE name = ?";
constexpr const char* has_volumes_sql =
    "SELECT 1 FROM volumes WHERE driver = ?1 UNION ALL SELECT 1 FROM mounts WHERE driver = ?1 AND state <> "
    "'mounting' LIMIT 1";
constexpr const char* drivers_sql =
    "SELECT name, state, reason, boot_id, since_wall, since_boot FROM drivers ORDER BY name";

#undef DVDI_CONTAINER_COLUMNS
#undef DVDI_MOUNT_COLUMNS
#undef DVDI_REFERENCE_COLUMNS

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

Result<std::vector<ContainerRow>> Reader::live_containers_of(const std::string& owner) {
  auto& statement = connection_->statement(live_containers_of_sql);
  Binder{statement}(owner);
  return all("read an owner's containers that live", statement, read_container);
}

Result<std::set<std::string>> Reader::live_ids() {
  return guarded("read the ids of the containers that live", [&] {
    auto& statement = connection_->statement(live_ids_sql);
    std::set<std::string> ids;
    while (statement.executeStep()) ids.insert(statement.getColumn(0).getString());
    return ids;
  });
}

Result<bool> Reader::has_rows_of_other_boots(const std::string& boot_id) {
  auto& statement = connection_->statement(other_boots_sql);
  Binder{statement}(boot_id);
  return any("look for rows of another boot", statement);
}

Result<std::vector<ContainerRow>> Reader::containers_to_look_after(const std::string& owner) {
  auto& statement = connection_->statement(containers_to_look_after_sql);
  Binder{statement}(owner);
  return all("read the containers", statement, read_container);
}

Result<std::vector<std::string>> Reader::live_children(const ContainerKey& parent) {
  auto& statement = connection_->statement(children_sql);
  Binder{statement}(parent);
  return all<std::string>("look for nested containers", statement,
                          [](SQLite::Statement& found) { return found.getColumn(0).getString(); });
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

Result<std::vector<MountRow>> Reader::mounts_since(const Moment& moment) {
  auto& statement = connection_->statement(mounts_since_sql);
  Binder{statement}(moment.boot_id)(moment.boot);
  return all("read the mounts that changed", statement, read_mount);
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

Result<std::optional<ReferenceRow>> Reader::reference(const ContainerKey& container,
                                                      const VolumeKey& volume) {
  auto& statement = connection_->statement(reference_sql);
  Binder{statement}(container)(volume);
  return one("read a reference", statement, read_reference);
}

Result<std::optional<ReferenceRow>> Reader::reference_in_the_way(const ContainerKey& container,
                                                                 const VolumeKey& volume, bool exclusive) {
  auto& statement = connection_->statement(exclusive ? other_reference_sql : exclusive_reference_sql);
  Binder{statement}(container)(volume);
  return one("look for exclusive users of a volume", statement, read_reference);
}

Result<bool> Reader::is_referenced(const VolumeKey& volume) {
  auto& statement = connection_->statement(is_referenced_sql);
  Binder{statement}(volume);
  return any("look for a volume's references", statement);
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

Result<std::optional<SinkRow>> Reader::sink(const std::string& name) {
  auto& statement = connection_->statement(sink_sql);
  Binder{statement}(name);
  return one("read how far a sink is", statement, read_sink);
}

Result<std::vector<SinkRow>> Reader::sinks() {
  return all("read how far the sinks are", connection_->statement(sinks_sql), read_sink);
}

Result<std::optional<DriverRow>> Reader::driver(const std::string& name) {
  auto& statement = connection_->statement(driver_sql);
  Binder{statement}(name);
  return one("read a driver's state", statement, read_driver);
}

Result<bool> Reader::has_volumes_of(const std::string& driver) {
  auto& statement = connection_->statement(has_volumes_sql);
  Binder{statement}(driver);
  return any("look for a driver's volumes", statement);
}

Result<std::vector<DriverRow>> Reader::drivers() {
  return all("read the drivers' states", connection_->statement(drivers_sql), read_driver);
}

}  // namespace dvdi
