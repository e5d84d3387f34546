// One SQLite connection: prepared statements kept, exceptions of SQLiteCpp turned into Results. Only for this
// folder.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/context.h"

namespace dvdi {

// For one thread at a time.
class Connection {
 public:
  static Result<std::unique_ptr<Connection>> open(const std::string& path, bool read_only);

  // The statement, ready to bind: kept, reset and without bindings. The text must be a literal.
  SQLite::Statement& statement(const char* sql);
  SQLite::Database& database() { return database_; }
  // A statement that was left in its middle, by an exception, would keep later transactions at what it has
  // seen.
  void end_statements() noexcept;
  void end_reading() noexcept;  // of a ReadScope

  // How long SQLite waits for another process's lock: what the context leaves, a minute at most.
  void wait_for_locks(const Context& context);

 private:
  explicit Connection(SQLite::Database database) : database_(std::move(database)) {}
  SQLite::Database database_;
  std::unordered_map<const char*, std::unique_ptr<SQLite::Statement>> statements_;
};

// One state of the database for all statements in a scope. (SQLite::Transaction compiles its statements each
// time.)
class ReadScope {
 public:
  explicit ReadScope(Connection& connection) : connection_(connection) {
    connection.statement("BEGIN").exec();
  }
  ~ReadScope() { connection_.end_reading(); }
  ReadScope(const ReadScope&) = delete;
  ReadScope& operator=(const ReadScope&) = delete;

 private:
  Connection& connection_;
};

// Declared after a transaction, so that it goes before its end: a statement that was left in its middle keeps
// a transaction from ending.
class EndStatements {
 public:
  explicit EndStatements(Connection& connection) : connection_(connection) {}
  ~EndStatements() { connection_.end_statements(); }
  EndStatements(const EndStatements&) = delete;
  EndStatements& operator=(const EndStatements&) = delete;

 private:
  Connection& connection_;
};

Error database_error(std::string_view what, const SQLite::Exception& exception);

template <class T>
struct ResultOf {
  using type = Result<T>;
};
template <class T>
struct ResultOf<Result<T>> {
  using type = Result<T>;
};

// Runs `work`, which may throw SQLite::Exception and may itself return a Result.
template <class Work>
auto guarded(std::string_view what, Work work) -> typename ResultOf<decltype(work())>::type {
  try {
    if constexpr (std::is_void_v<decltype(work())>) {
      work();
      return {};
    } else {
      return work();
    }
  } catch (const SQLite::Exception& exception) {
    return database_error(what, exception);
  }
}

}  // namespace dvdi
