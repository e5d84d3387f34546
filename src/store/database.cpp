#include "store/database.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>

#include "base/planted_bug.h"

namespace dvdi {

namespace {

// Two statements of one text at the same time would share their position; the store steps each to its end.
void configure(SQLite::Database& database, bool read_only) {
  sqlite3* handle = database.getHandle();
  // A checkpoint at each close would cost every short command two more syncs; the automatic one bounds the
  // log.
  sqlite3_db_config(handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_extended_result_codes(handle, 1);
  if (!read_only) {
    database.exec("PRAGMA journal_mode=WAL");
    database.exec(planted_bug == 1 ? "PRAGMA synchronous=NORMAL" : "PRAGMA synchronous=FULL");
    database.exec("PRAGMA journal_size_limit=16777216");
  }
  database.exec("PRAGMA foreign_keys=ON");
  database.exec("PRAGMA temp_store=MEMORY");
  // Of each connection, 512 KiB: what a transaction touches is far less, and the kernel has the rest.
  database.exec("PRAGMA cache_size=-512");
}

}  // namespace

Error database_error(std::string_view what, const SQLite::Exception& exception) {
  Error error{.code = Code::io, .message = fmt::format("{}: the state database: {}", what, exception.what())};
  switch (exception.getErrorCode() & 0xff) {
    case SQLITE_FULL:
      error.code = Code::resource_exhausted;
      error.hint = "free space on the file system of the state directory and repeat";
      break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      error.code = Code::deadline_exceeded;
      error.hint = "another dvdi command held the state database too long; repeat";
      break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      error.code = Code::corrupted;
      error.hint =
          "end what uses it (the daemon, other commands) and start again: the next start alone checks it, "
          "sets it "
          "aside if it is damaged and rebuilds the books; see `dvdi doctor`";
      break;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
    case SQLITE_AUTH:
      error.code = Code::permission_denied;
      error.hint = "dvdi needs root, or a state directory of your own (--state-dir)";
      break;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
      error.code = Code::internal;
      break;
    default:
      break;
  }
  return error;
}

Result<std::unique_ptr<Connection>> Connection::open(const std::string& path, bool read_only) {
  const std::string what = fmt::format("open {}", path);
  return guarded(what, [&] {
    // No locks of SQLite's own at each call: one thread at a time uses it.
    const int flags = (read_only ? SQLite::OPEN_READONLY : SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE) |
                      SQLite::OPEN_NOMUTEX;
    SQLite::Database database(path, flags, 10'000);
    configure(database, read_only);
    return std::unique_ptr<Connection>(new Connection(std::move(database)));
  });
}

SQLite::Statement& Connection::statement(const char* sql) {
  auto& kept = statements_[sql];
  if (!kept) kept = std::make_unique<SQLite::Statement>(database_, sql);
  kept->tryReset();
  kept->clearBindings();
  return *kept;
}

void Connection::end_statements() noexcept {
  // One that could not be prepared has its place here, and nothing in it.
  for (const auto& [sql, kept] : statements_) {
    if (kept) kept->tryReset();
  }
}

void Connection::end_reading() noexcept {
  // It has written nothing: there is nothing that it could fail to keep.
  static_cast<void>(guarded("end reading", [&] { statement("COMMIT").exec(); }));
}

void Connection::wait_for_locks(const Context& context) {
  using std::chrono::milliseconds;
  const auto wait = std::min<Duration>(context.remaining(), std::chrono::minutes(1));
  database_.setBusyTimeout(static_cast<int>(std::chrono::duration_cast<milliseconds>(wait).count()));
}

}  // namespace dvdi
