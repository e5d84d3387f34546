#include <algorithm>
#include <array>

#include "base/sha256.h"
#include "store/codec.h"
#include "store/database.h"
#include "store/ledger.h"

namespace dvdi {

namespace {

std::string_view pending_name(MountRow::Pending pending) {
  switch (pending) {
    case MountRow::Pending::none:
      return "none";
    case MountRow::Pending::mount:
      return "mount";
    case MountRow::Pending::unmount:
      return "unmount";
    case MountRow::Pending::refused:
      return "refused";
    case MountRow::Pending::lost:
      return "lost";
    case MountRow::Pending::found:
      return "found";
  }
  return "none";
}

#define DVDI_ADD_CONTAINER                                                                           \
  "INSERT INTO containers (owner, id, state, digest, attribution, directory, directory_is_ours, "    \
  "engine_pid, engine_start, init_pid, init_start, boot_id, since_wall, since_boot, ended_boot_id, " \
  "ended_wall, ended_boot, watch, note) "                                                            \
  "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
constexpr const char* add_container_sql = DVDI_ADD_CONTAINER;
constexpr const char* put_container_sql = DVDI_ADD_CONTAINER
    " ON CONFLICT (owner, id) DO UPDATE SET "
    "state = excluded.state, digest = excluded.digest, attribution = excluded.attribution, "
    "directory = excluded.directory, directory_is_ours = excluded.directory_is_ours, "
    "engine_pid = excluded.engine_pid, engine_start = excluded.engine_start, init_pid = excluded.init_pid, "
    "init_start = excluded.init_start, boot_id = excluded.boot_id, since_wall = excluded.since_wall, "
    "since_boot = excluded.since_boot, ended_boot_id = excluded.ended_boot_id, ended_wall = "
    "excluded.ended_wall, "
    "ended_boot = excluded.ended_boot, watch = excluded.watch, note = excluded.note";
// The same for one that lives on: it stays where it is in every index. SQLite writes the page of an index for
// each of its columns that is set, whatever the value.
constexpr const char* update_live_container_sql =
    "UPDATE containers SET state = ?3, digest = ?4, attribution = ?5, directory = ?6, directory_is_ours = "
    "?7, "
    "engine_pid = ?8, engine_start = ?9, init_pid = ?10, init_start = ?11, watch = ?18, note = ?19 "
    "WHERE owner = ?1 AND id = ?2 AND boot_id = ?12 AND since_wall = ?13 AND since_boot = ?14 "
    "AND ended_wall IS NULL AND ?15 IS NULL AND ?16 IS NULL AND ?17 IS NULL";
constexpr const char* erase_container_sql = "DELETE FROM containers WHERE owner = ? AND id = ?";
// Three statements, so that each goes by the index.
constexpr std::array erase_ended_sql = {
    "DELETE FROM containers WHERE ended_wall IS NOT NULL AND ended_boot_id < ?1",
    "DELETE FROM containers WHERE ended_wall IS NOT NULL AND ended_boot_id > ?1",
    "DELETE FROM containers WHERE ended_wall IS NOT NULL AND ended_boot_id = ?1 AND ended_boot < ?2"};
constexpr const char* put_mount_sql =
    "INSERT OR REPLACE INTO mounts (driver, volume, mount_id, state, pending, mount_point, identity, "
    "boot_id, since_wall, since_boot, mounted_wall, mounted_boot, note, unanswered_boot, folder, driver_id, "
    "has_secrets, size_bytes, volume_type) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
constexpr const char* erase_mount_sql = "DELETE FROM mounts WHERE driver = ? AND volume = ?";
constexpr const char* put_reference_sql =
    "INSERT OR REPLACE INTO refs (owner, container, driver, volume, exclusive, uses, boot_id, since_wall, "
    "since_boot, size_bytes, volume_type) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
constexpr const char* erase_reference_sql =
    "DELETE FROM refs WHERE owner = ? AND container = ? AND driver = ? AND volume = ?";
constexpr const char* put_debt_sql =
    "INSERT OR REPLACE INTO debts (driver, volume, mount_id, attempts, last_error, parked, boot_id, "
    "since_wall, "
    "since_boot, next_wall, next_boot) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
constexpr const char* erase_debt_sql = "DELETE FROM debts WHERE driver = ? AND volume = ?";
constexpr const char* put_staged_sql =
    "INSERT OR REPLACE INTO staged (owner, container, position, path, identity, boot_id, since_wall, "
    "since_boot) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
constexpr const char* erase_staged_sql =
    "DELETE FROM staged WHERE owner = ? AND container = ? AND position = ?";
constexpr const char* put_foreign_sql =
    "INSERT OR REPLACE INTO foreign_holders (driver, volume, mount_point, evidence, boot_id, since_wall, "
    "since_boot) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)";
constexpr const char* erase_foreign_sql = "DELETE FROM foreign_holders WHERE driver = ? AND volume = ?";
constexpr const char* put_volume_sql =
    "INSERT OR REPLACE INTO volumes (driver, volume, created_by_us, size_bytes, boot_id, since_wall, "
    "since_boot, type, has_secrets) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
constexpr const char* erase_volume_sql = "DELETE FROM volumes WHERE driver = ? AND volume = ?";
constexpr const char* put_sink_sql =
    "INSERT OR REPLACE INTO sinks (name, cursor, replay_until, undelivered, paused) VALUES (?, ?, ?, ?, ?)";
constexpr const char* put_driver_sql =
    "INSERT OR REPLACE INTO drivers (name, state, reason, boot_id, since_wall, since_boot) "
    "VALUES (?, ?, ?, ?, ?, ?)";
constexpr const char* put_meta_sql = "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)";
constexpr const char* event_sql =
    "INSERT INTO events (sequence, body, hash, wall, total_bytes) VALUES (?, ?, ?, ?, ?)";
constexpr const char* erase_events_sql = "DELETE FROM events WHERE sequence <= ?";
// The oldest are first. One that ended later by a clock that was wrong keeps none behind it, and none beyond
// `usage_window` is looked at.
constexpr const char* erase_usage_sql =
    "DELETE FROM usage_closed WHERE id IN (SELECT id FROM usage_closed WHERE id < ?3 + coalesce((SELECT "
    "min(id) "
    "FROM usage_closed), 0) AND start_wall + duration < ?1 ORDER BY id LIMIT ?2)";
// An interval that began in another boot ends with what was last seen of that boot.
constexpr const char* close_usage_sql =
    "INSERT INTO usage_closed (kind, size_bytes, start_wall, duration, role, driver, volume, volume_type, "
    "framework, principal, user, labels, owner, container) VALUES (?1, ?2, ?3, max(0, CASE WHEN ?4 = ?5 THEN "
    "?6 ELSE coalesce((SELECT last_boot FROM boots WHERE boot_id = ?4), ?7) END - ?7), ?8, ?9, ?10, ?11, "
    "?12, ?13, ?14, ?15, ?16, ?17)";

#undef DVDI_ADD_CONTAINER

// How many rows that statement wrote.
int write_container(Connection& connection, const char* sql, const ContainerRow& row) {
  auto& statement = connection.statement(sql);
  Binder bind(statement);
  bind(row.key)(std::string(container_state_name(row.state)))(row.digest)(to_json(row.attribution))(
      row.directory)(row.directory_is_ours)(std::int64_t{row.engine.pid})(
      static_cast<std::int64_t>(row.engine.start_ticks));
  if (row.init) {
    bind(std::int64_t{row.init->pid})(static_cast<std::int64_t>(row.init->start_ticks));
  } else {
    bind.null().null();
  }
  bind(row.since);
  if (row.ended) {
    bind(*row.ended);
  } else {
    bind.null().null().null();
  }
  bind(row.watch)(row.note);
  return statement.exec();
}

}  // namespace

Status Transaction::put(const ContainerRow& row) {
  return guarded("write a container", [&] {
    if (row.ended || write_container(*connection_, update_live_container_sql, row) == 0)
      write_container(*connection_, put_container_sql, row);
  });
}

Status Transaction::add(const ContainerRow& row) {
  return guarded("write a new container", [&] { write_container(*connection_, add_container_sql, row); });
}

Status Transaction::erase(const ContainerKey& key) {
  return guarded("erase a container", [&] {
    auto& statement = connection_->statement(erase_container_sql);
    Binder{statement}(key);
    statement.exec();
  });
}

Status Transaction::erase_containers_ended_before(const Moment& moment) {
  return guarded("forget the containers that ended", [&] {
    for (const char* const sql : erase_ended_sql) {
      auto& statement = connection_->statement(sql);
      Binder bind(statement);
      bind(moment.boot_id);
      if (sql == erase_ended_sql.back()) bind(moment.boot);
      statement.exec();
    }
  });
}

Status Transaction::put(const MountRow& row) {
  return guarded("write a mount", [&] {
    auto& statement = connection_->statement(put_mount_sql);
    Binder bind(statement);
    bind(row.volume)(row.mount_id)(std::string(mount_state_name(row.state)))(
        std::string(pending_name(row.pending)))(row.mount_point);
    if (row.identity) {
      bind(to_json(*row.identity));
    } else {
      bind.null();
    }
    bind(row.since);
    if (row.mounted_since) {
      bind(row.mounted_since->wall)(row.mounted_since->boot);
    } else {
      bind.null().null();
    }
    bind(row.note);
    if (row.unanswered) {
      bind(*row.unanswered);
    } else {
      bind.null();
    }
    bind(row.folder);
    if (row.driver_id) {
      bind(*row.driver_id);
    } else {
      bind.null();
    }
    bind(row.has_secrets)(row.size_bytes)(row.volume_type);
    statement.exec();
  });
}

Status Transaction::erase_mount(const VolumeKey& volume) {
  return guarded("erase a mount", [&] {
    auto& statement = connection_->statement(erase_mount_sql);
    Binder{statement}(volume);
    statement.exec();
  });
}

Status Transaction::put(const ReferenceRow& row) {
  return guarded("write a reference", [&] {
    auto& statement = connection_->statement(put_reference_sql);
    Binder{statement}(row.container)(row.volume)(row.exclusive)(to_json(row.uses))(row.since)(row.size_bytes)(
        row.volume_type);
    statement.exec();
  });
}

Status Transaction::erase_reference(const ContainerKey& container, const VolumeKey& volume) {
  return guarded("erase a reference", [&] {
    auto& statement = connection_->statement(erase_reference_sql);
    Binder{statement}(container)(volume);
    statement.exec();
  });
}

Status Transaction::put(const DebtRow& row) {
  return guarded("write a debt", [&] {
    auto& statement = connection_->statement(put_debt_sql);
    Binder{statement}(row.volume)(row.mount_id)(std::int64_t{row.attempts})(row.last_error)(row.parked)(
        row.since)(row.next_try.wall)(row.next_try.boot);
    statement.exec();
  });
}

Status Transaction::erase_debt(const VolumeKey& volume) {
  return guarded("erase a debt", [&] {
    auto& statement = connection_->statement(erase_debt_sql);
    Binder{statement}(volume);
    statement.exec();
  });
}

Status Transaction::put(const StagedRow& row) {
  return guarded("write a staged mount", [&] {
    auto& statement = connection_->statement(put_staged_sql);
    Binder bind(statement);
    bind(row.container)(std::int64_t{row.position})(row.path);
    if (row.identity) {
      bind(to_json(*row.identity));
    } else {
      bind.null();
    }
    bind(row.since);
    statement.exec();
  });
}

Status Transaction::erase_staged(const ContainerKey& container, unsigned position) {
  return guarded("erase a staged mount", [&] {
    auto& statement = connection_->statement(erase_staged_sql);
    Binder{statement}(container)(std::int64_t{position});
    statement.exec();
  });
}

Status Transaction::put(const ForeignRow& row) {
  return guarded("write a foreign holder", [&] {
    auto& statement = connection_->statement(put_foreign_sql);
    Binder{statement}(row.volume)(row.mount_point)(row.evidence)(row.since);
    statement.exec();
  });
}

Status Transaction::erase_foreign(const VolumeKey& volume) {
  return guarded("erase a foreign holder", [&] {
    auto& statement = connection_->statement(erase_foreign_sql);
    Binder{statement}(volume);
    statement.exec();
  });
}

Status Transaction::put(const VolumeRow& row) {
  return guarded("write a volume", [&] {
    auto& statement = connection_->statement(put_volume_sql);
    Binder{statement}(row.volume)(row.created_by_us)(row.size_bytes)(row.since)(row.type)(row.has_secrets);
    statement.exec();
  });
}

Status Transaction::erase_volume(const VolumeKey& volume) {
  return guarded("erase a volume", [&] {
    auto& statement = connection_->statement(erase_volume_sql);
    Binder{statement}(volume);
    statement.exec();
  });
}

Status Transaction::put(const SinkRow& row) {
  return guarded("write how far a sink is", [&] {
    auto& statement = connection_->statement(put_sink_sql);
    Binder{statement}(row.name)(static_cast<std::int64_t>(row.cursor))(
        static_cast<std::int64_t>(row.replay_until))(static_cast<std::int64_t>(row.undelivered))(row.paused);
    statement.exec();
  });
}

Status Transaction::put(const DriverRow& row) {
  return guarded("write a driver's state", [&] {
    auto& statement = connection_->statement(put_driver_sql);
    Binder{statement}(row.name)(std::string(driver_state_name(row.state)))(row.reason)(row.since);
    statement.exec();
  });
}

Status Transaction::put_meta(const std::string& name, const std::string& value) {
  return guarded("write a fact of the ledger", [&] {
    auto& statement = connection_->statement(put_meta_sql);
    Binder{statement}(name)(value);
    statement.exec();
  });
}

Status Transaction::erase_events(std::uint64_t up_to) {
  last_event_.reset();
  return guarded("take old events away", [&] {
    auto& statement = connection_->statement(erase_events_sql);
    Binder{statement}(static_cast<std::int64_t>(up_to));
    statement.exec();
  });
}

Result<std::uint64_t> Transaction::erase_usage(WallTime before, std::size_t most) {
  return guarded("take old usage away", [&] {
    auto& statement = connection_->statement(erase_usage_sql);
    Binder{statement}(before)(static_cast<std::int64_t>(most))(usage_window);
    return static_cast<std::uint64_t>(statement.exec());
  });
}

Status Transaction::record(Event event) {
  if (!last_event_) {
    DVDI_TRY(last_event_, last_event());
  }
  event.peer = caller_;
  LastEvent& last = *last_event_;
  const std::string body =
      event_body(event, static_cast<std::uint64_t>(++last.sequence), *node_id_, last.hash, now_.wall);
  last.hash = sha256_hex(body);
  last.total_bytes += static_cast<std::int64_t>(body.size() + last.hash.size());
  auto written = guarded("write an event", [&] {
    auto& statement = connection_->statement(event_sql);
    Binder{statement}(last.sequence)(body)(last.hash)(now_.wall)(last.total_bytes);
    statement.exec();
  });
  if (!written) last_event_.reset();
  return written;
}

Status Transaction::close_usage(const UsageInterval& interval) {
  return guarded("close a usage interval", [&] {
    auto& statement = connection_->statement(close_usage_sql);
    const Attribution& whose = interval.attribution;
    Binder{statement}(static_cast<std::int64_t>(interval.kind))(interval.size_bytes)(interval.start.wall)(
        interval.start.boot_id)(now_.boot_id)(now_.boot)(interval.start.boot)(whose.role)(interval.volume)(
        interval.volume_type)(whose.framework)(whose.principal)(whose.user)(labels_json(whose))(
        interval.container);
    statement.exec();
  });
}

}  // namespace dvdi
