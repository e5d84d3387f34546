#include "store/damage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/failpoint.h"
#include "base/time_text.h"
#include "linux/fd.h"
#include "linux/process.h"
#include "store/database.h"
#include "store/rebuilt.h"
#include "store/schema.h"
#include "store/suspect.h"
#include "store/wal_check.h"

namespace dvdi {

namespace {

constexpr std::string_view infix = ".damaged-";
constexpr std::array parts = {"", "-wal", "-shm"};
// How far a younger dvdi's schema may be ahead: a number beyond that is no number of ours.
constexpr int plausible_versions = 1000;

std::string boot_file(const std::string& path) { return path + "-boot"; }

// -1: it is not there.
Result<std::int64_t> size_of(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0) return std::int64_t{status.st_size};
  if (errno == ENOENT) return std::int64_t{-1};
  return os_error("look at " + path, errno);
}

// The tables of the state, which every decision to unmount rests on. They stay small; events and usage do
// not.
constexpr std::array state_tables = {"meta", "boots", "containers", "mounts",
                                     "refs", "debts", "volumes",    "foreign_holders"};
constexpr std::array state_tables_since_2 = {"staged"};

// Rows that no version of this program writes. Each statement gives the number of such rows. A boot that is
// not in `boots` would make a mount that is there one of another boot.
struct RowCheck {
  const char* table;
  int since_version;
  const char* nonsense;  // the condition
};
constexpr const char* of_no_boot =
    "boot_id NOT IN (SELECT boot_id FROM boots) OR since_wall < 0 OR since_boot < 0";
constexpr std::array row_checks = {
    RowCheck{"boots", 1, "length(boot_id) = 0 OR last_boot < 0 OR last_wall < 0"},
    RowCheck{
        "containers", 1,
        "state NOT IN ('preparing', 'prepared', 'running', 'cleaning', 'ended') OR owner = '' OR id = '' OR "
        "engine_pid <= 0 OR engine_start < 0 OR (init_pid IS NULL) <> (init_start IS NULL) OR init_pid <= 0 "
        "OR "
        "directory_is_ours NOT IN (0, 1) OR NOT json_valid(attribution) OR (state = 'ended') <> (ended_boot "
        "IS "
        "NOT NULL)"},
    RowCheck{
        "mounts", 1,
        "state NOT IN ('mounting', 'mounted', 'unmounting', 'unknown') OR pending NOT IN ('none', 'mount', "
        "'unmount', 'refused', 'lost', 'found') OR mount_id = '' OR driver = '' OR volume = '' OR "
        "mount_point = "
        "'/' OR (mount_point <> '' AND substr(mount_point, 1, 1) <> '/') OR (state = 'mounted' AND "
        "mount_point = "
        "'') OR (identity IS NOT NULL AND (NOT json_valid(identity) OR json_type(identity, '$.mount_id') IS "
        "NOT "
        "'integer' OR json_type(identity, '$.major') IS NOT 'integer' OR json_type(identity, '$.minor') IS "
        "NOT "
        "'integer' OR json_type(identity, '$.root') IS NOT 'text'))"},
    RowCheck{"refs", 1, "driver = '' OR volume = '' OR exclusive NOT IN (0, 1) OR NOT json_valid(uses)"},
    RowCheck{"debts", 1, "mount_id = '' OR attempts < 0 OR parked NOT IN (0, 1)"},
    RowCheck{"volumes", 1, "driver = '' OR volume = '' OR size_bytes < 0"},
    RowCheck{"foreign_holders", 1, "driver = '' OR volume = ''"},
    RowCheck{"staged", 2, "substr(path, 1, 1) <> '/' OR (identity IS NOT NULL AND NOT json_valid(identity))"},
};

std::string name_of_file(const std::string& path) { return std::filesystem::path(path).filename().string(); }

class Examination {
 public:
  explicit Examination(SQLite::Database& database) : database_(database) {}

  // The first thing that is wrong; "" if nothing is.
  std::string run(bool everything) {
    const int version = database_.execAndGet("PRAGMA user_version").getInt();
    const int tables = database_.execAndGet("SELECT count(*) FROM sqlite_master").getInt();
    if (version == 0 && tables == 0) return {};  // a start was killed before it made the tables
    if (version < 1 || version > schema_version() + plausible_versions || tables == 0) {
      return fmt::format("its schema has version {} and {} objects", version, tables);
    }
    if (database_.execAndGet("PRAGMA application_id").getInt() != ledger_application_id()) {
      return "its application id is not that of dvdi";
    }
    if (version > schema_version()) return {};  // a younger dvdi's, which knows more
    if (everything) {
      if (std::string wrong = pragma("PRAGMA integrity_check(1)"); !wrong.empty()) return wrong;
    }
    for (const char* table : state_tables) {
      if (std::string wrong = table_is_whole(table); !wrong.empty()) return wrong;
    }
    if (version >= 2) {
      for (const char* table : state_tables_since_2) {
        if (std::string wrong = table_is_whole(table); !wrong.empty()) return wrong;
      }
    }
    if (SQLite::Statement orphan(database_, "PRAGMA foreign_key_check(refs)"); orphan.executeStep()) {
      return "a reference has no container";
    }
    for (const RowCheck& check : row_checks) {
      if (check.since_version > version) continue;
      if (std::string wrong = rows_make_sense(check); !wrong.empty()) return wrong;
    }
    return ends_can_be_read(version);
  }

 private:
  std::string pragma(const std::string& sql) {
    const std::string answer = database_.execAndGet(sql).getString();
    return answer == "ok" ? std::string() : answer;
  }
  // With its indexes: one that lacks a row hides a container that uses a volume.
  std::string table_is_whole(const char* table) {
    if (database_
            .execAndGet(
                fmt::format("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '{}'", table))
            .getInt() != 1) {
      return fmt::format("table {} is not there", table);
    }
    std::string wrong = pragma(fmt::format("PRAGMA integrity_check('{}')", table));
    return wrong.empty() ? wrong : fmt::format("table {}: {}", table, wrong);
  }
  std::string rows_make_sense(const RowCheck& check) {
    const bool has_moment = std::string_view(check.table) != "boots";
    const int wrong =
        database_
            .execAndGet(fmt::format("SELECT count(*) FROM {} WHERE {}{}{}", check.table, check.nonsense,
                                    has_moment ? " OR " : "", has_moment ? of_no_boot : ""))
            .getInt();
    return wrong == 0 ? std::string()
                      : fmt::format("{} rows of table {} say what dvdi never writes", wrong, check.table);
  }
  // Where the next transaction will write.
  std::string ends_can_be_read(int version) {
    const int events = database_.execAndGet("SELECT count(*) FROM (SELECT 1 FROM events LIMIT 1)").getInt();
    if (events > 0) {
      SQLite::Statement newest(database_,
                               "SELECT sequence, body, hash FROM events ORDER BY sequence DESC LIMIT 1");
      if (!newest.executeStep() || newest.getColumn(2).getString().size() != 64) {
        return "the newest event cannot be read";
      }
    }
    if (version < 8) return {};  // usage was in one table, which the migration reads
    database_.execAndGet("SELECT max(id) FROM usage_closed");
    if (version < 10) database_.execAndGet("SELECT count(*) FROM usage_open");
    return {};
  }

  SQLite::Database& database_;
};

// Not damage: what has to do with rights, space, other processes, a device that fails.
bool speaks_of_damage(const SQLite::Exception& exception) {
  switch (exception.getErrorCode() & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR:  // a table or column that is not there, a text that is no JSON
    case SQLITE_FORMAT:
    case SQLITE_MISMATCH:
    case SQLITE_TOOBIG:
      return true;
    default:
      return false;
  }
}

// What the file itself shows, without SQLite, which looks at a page only when it needs it.
struct RawLook {
  std::string wrong;        // certainly
  bool suspicious = false;  // a checkpoint that was killed leaves that, too
};

Result<RawLook> look_at_file(const std::string& path, std::int64_t size, bool has_log) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return os_error("open " + path, errno);
  std::array<unsigned char, 100> header{};
  const ssize_t got = ::pread(fd.get(), header.data(), header.size(), 0);
  if (got < 0) return os_error("read " + path, errno);
  constexpr std::string_view magic("SQLite format 3\0", 16);
  if (got < static_cast<ssize_t>(header.size()) ||
      !std::equal(
          magic.begin(), magic.end(), header.begin(),
          [](char one, unsigned char other) { return static_cast<unsigned char>(one) == other; })) {
    return RawLook{.wrong = "it does not begin as a database does"};
  }
  // https://sqlite.org/fileformat.html
  const std::int64_t written = (std::int64_t{header[16]} << 8U) | header[17];
  const std::int64_t page = written == 1 ? 65536 : written;
  if (page < 512) return RawLook{.wrong = "its header is damaged"};
  std::int64_t pages = 0;
  for (std::size_t i = 28; i < 32; ++i) pages = (pages << 8U) | header[i];
  const bool odd = size % page != 0 || pages * page > size;
  if (odd && !has_log) return RawLook{.wrong = fmt::format("it is cut short: {} bytes", size)};
  return RawLook{.wrong = {}, .suspicious = odd};
}

struct Findings {
  std::optional<std::string> damage;
  std::unique_ptr<Connection> open;  // that it was looked at with, where nothing is wrong
};

Result<Findings> examine(const Context& context, const std::string& path, bool everything) {
  const auto damaged = [&](const std::string& how) {
    return Findings{.damage = fmt::format("{}: {}", path, how), .open = {}};
  };
  auto connection = Connection::open(path, false);
  if (!connection && connection.error().code == Code::corrupted) return damaged(connection.error().message);
  if (!connection) return fail(std::move(connection).error());
  (*connection)->wait_for_locks(context);
  const bool suspected = is_suspected(path);
  try {
    const ReadScope scope(**connection);  // one lock for all that is read
    const std::string wrong = Examination((*connection)->database()).run(suspected || everything);
    if (!wrong.empty()) return damaged(wrong);
  } catch (const SQLite::Exception& exception) {
    if (speaks_of_damage(exception)) return damaged(exception.what());
    return fail(database_error("check the state database", exception));
  }
  if (suspected) clear_suspicion(path);
  return Findings{.damage = {}, .open = *std::move(connection)};
}

// That the index was written in this boot: one that a power cut left behind may be older than the log.
bool opened_in_this_boot(const std::string& path) {
  const auto boot = boot_id();
  std::string last;
  std::getline(std::ifstream(boot_file(path)), last);
  return boot && !last.empty() && last == *boot;
}

// Best effort: without it, one check less is made.
void note_this_boot(const std::string& path) {
  const auto boot = boot_id();
  if (!boot || opened_in_this_boot(path)) return;
  const UniqueFd fd(
      ::open(boot_file(path).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd) static_cast<void>(!::write(fd.get(), boot->data(), boot->size()));
}

Status sync_folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return os_error("sync " + folder, errno);
  return {};
}

std::string time_name(WallTime now) {
  std::string text = rfc3339(now).substr(0, 19) + "Z";  // 2026-11-24T23:15:00Z, without what shells dislike
  std::erase(text, '-');
  std::erase(text, ':');
  return text;
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

// Where to: a log without its database belongs to the database that an interrupted start set aside last.
std::string place_aside(const std::string& path, WallTime now) {
  if (!exists(path)) {
    const auto before = databases_set_aside(path);
    if (!before.empty() && !exists(before.back() + "-wal") && !exists(before.back() + "-shm"))
      return before.back();
  }
  const std::string first = path + std::string(infix) + time_name(now);
  std::string place = first;
  const auto taken = [&] {
    return std::ranges::any_of(parts, [&](const char* part) { return exists(place + part); });
  };
  for (int i = 2; taken(); ++i) place = fmt::format("{}-{}", first, i);
  return place;
}

Status record_rebuilt(const Context& context, Ledger& ledger, const std::string& aside,
                      const std::string& why) {
  return ledger.write(
      context, "record that the ledger is a new one", [&](Transaction& transaction) -> Status {
        DVDI_CHECK(put(transaction,
                       RebuiltBooks{.when = transaction.now(), .aside = aside, .why = why, .answered = {}}));
        Event event;
        event.type = "dvdi.ledger.rebuilt";
        event.reason = why;
        if (!aside.empty()) event.details["aside"] = aside;
        event.trace_id = context.trace_id();
        return transaction.record(event);
      });
}

Result<Findings> look_for_damage(const Context& context, const std::string& path) {
  const auto damaged = [](std::string how) { return Findings{.damage = std::move(how), .open = {}}; };
  DVDI_TRY(const std::int64_t size, size_of(path));
  DVDI_TRY(const std::int64_t log, size_of(path + "-wal"));
  DVDI_TRY(const std::int64_t index, size_of(path + "-shm"));
  if (size <= 0) {
    const std::string how = size < 0 ? "is not there" : "is empty";
    // The database file is made before these are, and is never empty again.
    if (log > 0 || index >= 0) return damaged(fmt::format("{} {}, and its log is there", path, how));
    const std::filesystem::path folder = std::filesystem::path(path).parent_path();
    const bool used = exists((folder / "local").string()) || exists((folder / "sandboxes").string());
    if (used && databases_set_aside(path).empty()) {
      return damaged(fmt::format("{} {}, and this state directory was in use", path, how));
    }
    return Findings{};
  }
  if (opened_in_this_boot(path)) {
    DVDI_TRY(auto how, find_log_damage(path + "-wal", path + "-shm"));
    if (how) return damaged(*std::move(how));
  }
  DVDI_TRY(const RawLook look, look_at_file(path, size, log > 0));
  if (!look.wrong.empty()) return damaged(fmt::format("{}: {}", path, look.wrong));
  return examine(context, path, look.suspicious);
}

}  // namespace

Result<std::optional<std::string>> find_damage(const Context& context, const std::string& path) {
  DVDI_TRY(Findings found, look_for_damage(context, path));
  return std::move(found.damage);
}

// The order matters: without its database a log is of no use to SQLite, which deletes it; a database without
// its log is one of an earlier moment that looks whole. So the database goes first, and a log without one is
// what find_damage() sees after a crash in between.
Result<std::string> set_aside(const std::string& path, WallTime now) {
  const std::string place = place_aside(path, now);
  for (const char* part : parts) {
    const std::string from = path + part;
    failpoint("store.aside.before", from);
    if (::rename(from.c_str(), (place + part).c_str()) != 0 && errno != ENOENT) {
      Error error = os_error(fmt::format("set the damaged {} aside", from), errno);
      error.hint = fmt::format("move {}* to another place by hand, do not delete them", path);
      return error;
    }
    DVDI_CHECK(sync_folder_of(path));
    failpoint("store.aside.after", from);
  }
  clear_suspicion(path);
  return place;
}

std::vector<std::string> databases_set_aside(const std::string& path) {
  const std::string prefix = name_of_file(path) + std::string(infix);
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::directory_iterator one(std::filesystem::path(path).parent_path(), error), end;
       !error && one != end; one.increment(error)) {
    std::string name = one->path().filename().string();
    if (!name.starts_with(prefix)) continue;
    for (const char* part : {"-wal", "-shm"}) {
      if (name.ends_with(part)) name.resize(name.size() - std::string_view(part).size());
    }
    found.push_back((one->path().parent_path() / name).string());
  }
  std::ranges::sort(found);
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

Result<std::unique_ptr<Ledger>> open_whole(const Context& context, const std::string& path,
                                           OpenFor how_long) {
  DVDI_TRY(Findings found, look_for_damage(context, path));
  auto why = std::move(found.damage);
  std::string aside;
  if (why) {
    DVDI_TRY(aside, set_aside(path, context.clock().wall()));
    if (!exists(aside) && !exists(aside + "-wal") && !exists(aside + "-shm")) aside.clear();
  }
  if (!found.open) {
    // SQLite makes its files as permissive as the umask says; those that belong to the database take its
    // mode. Not where it is open: with any descriptor of the file all locks of this process go.
    const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) return os_error("open " + path, errno);
  }
  DVDI_TRY(auto ledger, found.open ? Ledger::open(context, path, how_long, std::move(found.open))
                                   : Ledger::open(context, path, how_long));
  note_this_boot(path);
  if (!why) {
    // A start that was killed, or had no space, after it had set the database aside.
    const auto before = databases_set_aside(path);
    bool unfinished = false;
    if (!before.empty()) {
      DVDI_CHECK(ledger->read(context, "look for the beginning of the books", [&](Reader& reader) -> Status {
        DVDI_TRY(const std::uint64_t events, reader.highest_event());
        DVDI_TRY(const auto books, rebuilt_books(reader));
        unfinished = events == 0 && !books;
        return {};
      }));
    }
    if (!unfinished) return ledger;
    aside = before.back();
    why = "the database was found damaged by an earlier start, which did not come to its end";
  }
  DVDI_CHECK(record_rebuilt(context, *ledger, aside, *why));
  return ledger;
}

}  // namespace dvdi
