#include "store/schema.h"

#include <fmt/format.h>

#include <array>

namespace dvdi {

namespace {

// Migration N is element N - 1. Never change one that was released: add the next. Times are nanoseconds:
// `_wall` since 1970 (UTC), `_boot` since the start of the boot `boot_id`.
constexpr std::array migrations = {
    R"sql(
CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What was last seen of each start of the machine: an interval that a power cut left open ends there.
CREATE TABLE boots (
  boot_id TEXT PRIMARY KEY,
  first_wall INTEGER NOT NULL,
  last_wall INTEGER NOT NULL,
  last_boot INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE containers (
  owner TEXT NOT NULL,
  id TEXT NOT NULL,
  state TEXT NOT NULL,
  digest TEXT NOT NULL,
  attribution TEXT NOT NULL,          -- JSON
  directory TEXT NOT NULL,
  directory_is_ours INTEGER NOT NULL,
  engine_pid INTEGER NOT NULL,
  engine_start INTEGER NOT NULL,
  init_pid INTEGER,                   -- from isolate on
  init_start INTEGER,
  boot_id TEXT NOT NULL,              -- of the processes and of since_boot
  since_wall INTEGER NOT NULL,
  since_boot INTEGER NOT NULL,
  ended_wall INTEGER,
  ended_boot INTEGER,
  ended_boot_id TEXT,
  PRIMARY KEY (owner, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE mounts (
  driver TEXT NOT NULL,
  volume TEXT NOT NULL,
  mount_id TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,
  pending TEXT NOT NULL,
  mount_point TEXT NOT NULL,
  identity TEXT,                      -- JSON; null for a plain directory
  boot_id TEXT NOT NULL,
  since_wall INTEGER NOT NULL,
  since_boot INTEGER NOT NULL,
  mounted_wall INTEGER,
  mounted_boot INTEGER,
  PRIMARY KEY (driver, volume)
) STRICT, WITHOUT ROWID;

CREATE TABLE refs (
  owner TEXT NOT NULL,
  container TEXT NOT NULL,
  driver TEXT NOT NULL,
  volume TEXT NOT NULL,
  exclusive INTEGER NOT NULL,
  uses TEXT NOT NULL,                 -- JSON
  boot_id TEXT NOT NULL,
  since_wall INTEGER NOT NULL,
  since_boot INTEGER NOT NULL,
  PRIMARY KEY (owner, container, driver, volume),
  FOREIGN KEY (owner, container) REFERENCES containers (owner, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX refs_by_volume ON refs (driver, volume);

CREATE TABLE debts (
  driver TEXT NOT NULL,
  volume TEXT NOT NULL,
  mount_id TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  last_error TEXT NOT NULL,
  parked INTEGER NOT NULL,
  boot_id TEXT NOT NULL,
  since_wall INTEGER NOT NULL,
  since_boot INTEGER NOT NULL,
  next_wall INTEGER NOT NULL,
  next_boot INTEGER NOT NULL,
  PRIMARY KEY (driver, volume)
) STRICT, WITHOUT ROWID;

CREATE TABLE foreign_holders (
  driver TEXT NOT NULL,
  volume TEXT NOT NULL,
  mount_point TEXT NOT NULL,
  evidence TEXT NOT NULL,
  boot_id TEXT NOT NULL,
  since_wall INTEGER NOT NULL,
  since_boot INTEGER NOT NULL,
  PRIMARY KEY (driver, volume)
) STRICT, WITHOUT ROWID;

CREATE TABLE volumes (
  driver TEXT NOT NULL,
  volume TEXT NOT NULL,
  created_by_us INTEGER NOT NULL,
  size_bytes INTEGER,
  boot_id TEXT NOT NULL,
  since_wall INTEGER NOT NULL,
  since_boot INTEGER NOT NULL,
  PRIMARY KEY (driver, volume)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,  -- so that SQLite remembers the highest that there was
  body TEXT NOT NULL,                 -- the exact bytes that the hash is over
  hash TEXT NOT NULL
) STRICT;

CREATE TABLE usage_intervals (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,                 -- referenced, mounted, provisioned
  driver TEXT NOT NULL,
  volume TEXT NOT NULL,
  owner TEXT NOT NULL,
  container TEXT NOT NULL,
  framework TEXT NOT NULL,
  role TEXT NOT NULL,
  principal TEXT NOT NULL,
  user TEXT NOT NULL,
  size_bytes INTEGER,
  boot_id TEXT NOT NULL,
  start_wall INTEGER NOT NULL,
  start_boot INTEGER NOT NULL,
  duration INTEGER                    -- null while it is open
) STRICT;
CREATE INDEX usage_open ON usage_intervals (kind, driver, volume, owner, container) WHERE duration IS NULL;
CREATE INDEX usage_by_start ON usage_intervals (start_wall);
)sql",
    R"sql(
ALTER TABLE containers ADD COLUMN watch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mounts ADD COLUMN note TEXT NOT NULL DEFAULT '';

CREATE TABLE staged (
  owner TEXT NOT NULL,
  container TEXT NOT NULL,
  position INTEGER NOT NULL,
  path TEXT NOT NULL UNIQUE,
  identity TEXT,                      -- JSON; null: intended
  boot_id TEXT NOT NULL,
  since_wall INTEGER NOT NULL,
  since_boot INTEGER NOT NULL,
  PRIMARY KEY (owner, container, position)  -- may outlive its container: the mount is still to be taken away
) STRICT, WITHOUT ROWID;
)sql",
    R"sql(
ALTER TABLE containers ADD COLUMN note TEXT NOT NULL DEFAULT '';
)sql",
    R"sql(
ALTER TABLE mounts ADD COLUMN unanswered_boot INTEGER;
)sql",
    R"sql(
ALTER TABLE mounts ADD COLUMN folder TEXT NOT NULL DEFAULT '';
ALTER TABLE mounts ADD COLUMN driver_id TEXT;
)sql",
    R"sql(
-- When an event was written and the bytes of all up to it, for retention: neither is under the hash.
ALTER TABLE events ADD COLUMN wall INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN total_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE events SET wall = t.wall, total_bytes = t.total FROM (
  SELECT sequence, coalesce(unixepoch(json_extract(body, '$.time')), 0) * 1000000000 AS wall,
         sum(length(CAST(body AS BLOB)) + length(hash)) OVER (ORDER BY sequence) AS total
  FROM events WHERE json_valid(body)) AS t
WHERE t.sequence = events.sequence;

ALTER TABLE usage_intervals ADD COLUMN labels TEXT NOT NULL DEFAULT '';       -- JSON object; '': none
ALTER TABLE usage_intervals ADD COLUMN volume_type TEXT NOT NULL DEFAULT '';
ALTER TABLE volumes ADD COLUMN type TEXT NOT NULL DEFAULT '';
ALTER TABLE volumes ADD COLUMN has_secrets INTEGER NOT NULL DEFAULT 0;       -- it was asked for with secret options
ALTER TABLE mounts ADD COLUMN has_secrets INTEGER NOT NULL DEFAULT 0;

-- Where events are carried to. Rows of sinks that are not configured any more stay.
CREATE TABLE sinks (
  name TEXT PRIMARY KEY,
  cursor INTEGER NOT NULL,            -- the highest event number that it has
  replay_until INTEGER NOT NULL,      -- up to there it is sent what it had already; 0: nothing
  undelivered INTEGER NOT NULL,       -- the first number that was dropped and not told it yet; 0: none
  paused INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE drivers (
  name TEXT PRIMARY KEY,
  state TEXT NOT NULL,                -- up, slow, down
  reason TEXT NOT NULL,
  boot_id TEXT NOT NULL,
  since_wall INTEGER NOT NULL,
  since_boot INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
)sql",
    R"sql(
-- Those that ended are remembered for an hour, and may be many more than those that live: neither is looked
-- for among the others.
CREATE INDEX containers_live ON containers (since_wall, owner, id) WHERE state <> 'ended';
CREATE INDEX containers_ended ON containers (ended_boot_id, ended_boot) WHERE state = 'ended';
)sql",
    R"sql(
-- Each page that a transaction changes is written and synced: what a prepare and a cleanup touch lies on as few
-- as can be. A container's row comes into an index and leaves it with its life, not with each of its states.
DROP INDEX containers_live;
DROP INDEX containers_ended;
CREATE INDEX containers_live ON containers (since_wall, owner, id) WHERE ended_wall IS NULL;
CREATE INDEX containers_ended ON containers (ended_boot_id, ended_boot) WHERE ended_wall IS NOT NULL;

-- As it was, but for an index of its own on mount_id.
CREATE TABLE mounts_8 (
  driver TEXT NOT NULL,
  volume TEXT NOT NULL,
  mount_id TEXT NOT NULL,
  state TEXT NOT NULL,
  pending TEXT NOT NULL,
  mount_point TEXT NOT NULL,
  identity TEXT,                      -- JSON; null for a plain directory
  boot_id TEXT NOT NULL,
  since_wall INTEGER NOT NULL,
  since_boot INTEGER NOT NULL,
  mounted_wall INTEGER,
  mounted_boot INTEGER,
  note TEXT NOT NULL DEFAULT '',
  unanswered_boot INTEGER,
  folder TEXT NOT NULL DEFAULT '',
  driver_id TEXT,
  has_secrets INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (driver, volume)
) STRICT, WITHOUT ROWID;
INSERT INTO mounts_8 SELECT driver, volume, mount_id, state, pending, mount_point, identity, boot_id, since_wall, since_boot,
  mounted_wall, mounted_boot, note, unanswered_boot, folder, driver_id, has_secrets FROM mounts;
DROP TABLE mounts;
ALTER TABLE mounts_8 RENAME TO mounts;

-- The highest number of an event that there was, in a row that every transaction writes anyway.
ALTER TABLE boots ADD COLUMN last_event INTEGER NOT NULL DEFAULT 0;
UPDATE boots SET last_event = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0);
CREATE TABLE events_8 (
  sequence INTEGER PRIMARY KEY,
  body TEXT NOT NULL,                 -- the exact bytes that the hash is over
  hash TEXT NOT NULL,
  wall INTEGER NOT NULL,
  total_bytes INTEGER NOT NULL
) STRICT;
INSERT INTO events_8 SELECT sequence, body, hash, wall, total_bytes FROM events ORDER BY sequence;
DROP TABLE events;
ALTER TABLE events_8 RENAME TO events;

-- Intervals that are open, and those that have ended, in the order of their ends. The latter are what a report
-- reads: numbers first.
DROP INDEX usage_open;
CREATE TABLE usage_open (
  kind TEXT NOT NULL,                 -- referenced, mounted, provisioned
  driver TEXT NOT NULL,
  volume TEXT NOT NULL,
  owner TEXT NOT NULL,
  container TEXT NOT NULL,
  framework TEXT NOT NULL,
  role TEXT NOT NULL,
  principal TEXT NOT NULL,
  user TEXT NOT NULL,
  labels TEXT NOT NULL,               -- JSON object; '': none
  volume_type TEXT NOT NULL,
  size_bytes INTEGER,
  boot_id TEXT NOT NULL,
  start_wall INTEGER NOT NULL,
  start_boot INTEGER NOT NULL,
  PRIMARY KEY (kind, driver, volume, owner, container)
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO usage_open SELECT kind, driver, volume, owner, container, framework, role, principal, user, labels,
  volume_type, size_bytes, boot_id, start_wall, start_boot FROM usage_intervals WHERE duration IS NULL ORDER BY id;
CREATE TABLE usage_closed (
  id INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,              -- 0 referenced, 1 mounted, 2 provisioned
  size_bytes INTEGER,
  start_wall INTEGER NOT NULL,
  duration INTEGER NOT NULL,
  role TEXT NOT NULL,
  driver TEXT NOT NULL,
  volume TEXT NOT NULL,
  volume_type TEXT NOT NULL,
  framework TEXT NOT NULL,
  principal TEXT NOT NULL,
  user TEXT NOT NULL,
  labels TEXT NOT NULL,
  owner TEXT NOT NULL,
  container TEXT NOT NULL
) STRICT;
INSERT INTO usage_closed SELECT id, CASE kind WHEN 'mounted' THEN 1 WHEN 'provisioned' THEN 2 ELSE 0 END, size_bytes, start_wall,
  duration, role, driver, volume, volume_type, framework, principal, user, labels, owner, container
  FROM usage_intervals WHERE duration IS NOT NULL ORDER BY id;
DROP TABLE usage_intervals;
)sql",
    R"sql(
-- Whether a volume is held exclusively is asked for each use of it, and it may have many users.
CREATE INDEX refs_exclusive ON refs (driver, volume) WHERE exclusive <> 0;
)sql",
    R"sql(
-- What is used is in the books already: an interval that is open is not written a second time. What it is billed
-- by is as it was when the use began.
ALTER TABLE refs ADD COLUMN size_bytes INTEGER;
ALTER TABLE refs ADD COLUMN volume_type TEXT NOT NULL DEFAULT '';
ALTER TABLE mounts ADD COLUMN size_bytes INTEGER;
ALTER TABLE mounts ADD COLUMN volume_type TEXT NOT NULL DEFAULT '';
UPDATE refs SET size_bytes = o.size_bytes, volume_type = o.volume_type FROM usage_open AS o WHERE o.kind = 'referenced' AND
  o.driver = refs.driver AND o.volume = refs.volume AND o.owner = refs.owner AND o.container = refs.container;
UPDATE mounts SET size_bytes = o.size_bytes, volume_type = o.volume_type FROM usage_open AS o WHERE o.kind = 'mounted' AND
  o.driver = mounts.driver AND o.volume = mounts.volume;
-- One of nothing that is in the books ends with what was last seen of its boot.
INSERT INTO usage_closed (kind, size_bytes, start_wall, duration, role, driver, volume, volume_type, framework, principal,
  user, labels, owner, container)
  SELECT CASE kind WHEN 'mounted' THEN 1 WHEN 'provisioned' THEN 2 ELSE 0 END, size_bytes, start_wall,
    max(0, coalesce((SELECT last_boot FROM boots WHERE boots.boot_id = o.boot_id), start_boot) - start_boot),
    role, driver, volume, volume_type, framework, principal, user, labels, owner, container
  FROM usage_open AS o WHERE NOT CASE kind
    WHEN 'mounted' THEN EXISTS (SELECT 1 FROM mounts AS m WHERE m.driver = o.driver AND m.volume = o.volume AND m.state = 'mounted')
    WHEN 'provisioned' THEN EXISTS (SELECT 1 FROM volumes AS v WHERE v.driver = o.driver AND v.volume = o.volume)
    ELSE EXISTS (SELECT 1 FROM refs AS r WHERE r.driver = o.driver AND r.volume = o.volume AND r.owner = o.owner AND
                 r.container = o.container) END;
DROP TABLE usage_open;
)sql",
};

constexpr int application_id = 0x64766469;  // "dvdi"

}  // namespace

int ledger_application_id() { return application_id; }
int schema_version() { return static_cast<int>(migrations.size()); }

Status migrate(Connection& connection) { return migrate(connection, schema_version()); }

Status migrate(Connection& connection, int version) {
  SQLite::Database& database = connection.database();
  const auto version_of = [&] { return database.execAndGet("PRAGMA user_version").getInt(); };
  DVDI_TRY(const int before, guarded("read the schema version", version_of));
  if (before == version) return {};
  return guarded("migrate the state database", [&]() -> Status {
    SQLite::Transaction transaction(database, SQLite::TransactionBehavior::IMMEDIATE);
    const int found = version_of();  // another process may have been first
    if (found > schema_version()) {
      return Error{
          .code = Code::failed_precondition,
          .message = fmt::format("the state database has schema version {}, this dvdi knows up to {}", found,
                                 schema_version()),
          .hint = "a younger dvdi has written it: use that one, or another state directory"};
    }
    for (int next = found; next < version; ++next) {
      database.exec(migrations.at(static_cast<std::size_t>(next)));
    }
    database.exec(fmt::format("PRAGMA application_id={}", application_id));
    database.exec(fmt::format("PRAGMA user_version={}", version));
    transaction.commit();
    return {};
  });
}

}  // namespace dvdi
