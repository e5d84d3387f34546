#include "store/ledger.h"

#include <fmt/format.h>

#include <filesystem>
#include <set>

#include "base/random.h"
#include "base/sync.h"
#include "linux/process.h"
#include "store/codec.h"
#include "store/database.h"
#include "store/group_commit.h"
#include "store/schema.h"
#include "store/suspect.h"

namespace dvdi {

struct Ledger::State {
  std::string path;
  std::string node_id;
  std::string boot_id;
  std::unique_ptr<GroupCommit> commits;
  Mutex counting;
  Condition counted;
  std::uint64_t written = 0;
  std::multiset<std::uint64_t> waited_for;  // each waiter's number: nobody else is woken
  WriteTimes times;                         // under `counting`, as is `written`
  Mutex reading;
  std::unique_ptr<Connection> reader;
  Mutex reading_long;
  Condition read_long;
  unsigned long_reads = 0;
  Mutex looking;
  std::unique_ptr<Connection> looker;  // for figures(): made for the first one
};

namespace {

constexpr const char* seen_sql =
    "INSERT INTO boots (boot_id, first_wall, last_wall, last_boot, last_event) VALUES (?1, ?2, ?2, ?3, "
    "coalesce((SELECT max(sequence) FROM events), 0)) "
    "ON CONFLICT (boot_id) DO UPDATE SET last_wall = excluded.last_wall, last_boot = max(last_boot, "
    "excluded.last_boot), last_event = max(last_event, excluded.last_event)";

// Every transaction notes when it was: an interval left open by a power cut ends no earlier than that.
Status note_boot(Connection& connection, const Moment& now) {
  return guarded("note the time", [&] {
    auto& statement = connection.statement(seen_sql);
    Binder{statement}(now.boot_id)(now.wall)(now.boot);
    statement.exec();
  });
}

Result<std::string> read_node_id(Connection& connection) {
  return guarded("read the node's id", [&] {
    SQLite::Database& database = connection.database();
    constexpr const char* select = "SELECT value FROM meta WHERE name = 'node_id'";
    SQLite::Statement first(database, select);
    if (first.executeStep()) return first.getColumn(0).getString();
    // The first process wins; a transaction only here, so that later openings write nothing.
    database.exec(
        fmt::format("INSERT OR IGNORE INTO meta (name, value) VALUES ('node_id', '{}')", random_uuid()));
    return database.execAndGet(select).getString();
  });
}

constexpr unsigned most_long_reads = 2;
constexpr unsigned short_log_pages = 128;  // some four times `dvdi run`; SQLite's default is 1000

Status read_on(Connection& connection, std::string_view what, const std::function<Status(Reader&)>& work) {
  return guarded(what, [&]() -> Status {
    const ReadScope scope(connection);
    const EndStatements end(connection);
    Reader reader(connection);
    return work(reader);
  });
}

// What is different after each transaction: the time that it noted (note_boot).
constexpr const char* stamp_sql =
    "SELECT coalesce(group_concat(boot_id || ' ' || last_boot || ' ' || last_event), '') FROM boots";

// One state of the database for the reads of several connections in a scope.
class SameState {
 public:
  // If no state lasted long enough for all of them to begin with it, only the first of them is left.
  explicit SameState(std::vector<std::unique_ptr<Connection>>& connections) {
    for (unsigned attempt = 0; attempt < most_attempts; ++attempt) {
      if (begin(connections)) return;
      scopes_.clear();
    }
    connections.resize(1);
    begin(connections);
  }

 private:
  static constexpr unsigned most_attempts = 10;

  bool begin(std::vector<std::unique_ptr<Connection>>& connections) {
    std::string first;
    for (const auto& connection : connections) {
      scopes_.push_back(std::make_unique<ReadScope>(*connection));
      // The first read begins with the state of its moment.
      SQLite::Statement& statement = connection->statement(stamp_sql);
      statement.executeStep();
      const std::string stamp = statement.getColumn(0).getString();
      statement.reset();
      if (scopes_.size() == 1) {
        first = stamp;
      } else if (stamp != first) {
        return false;
      }
    }
    return true;
  }

  std::vector<std::unique_ptr<ReadScope>> scopes_;
};

}  // namespace

Ledger::Ledger(std::unique_ptr<State> state) : state_(std::move(state)) {}
Ledger::~Ledger() = default;

Result<std::unique_ptr<Ledger>> Ledger::open(const Context& context, const std::string& path,
                                             OpenFor how_long) {
  DVDI_CHECK(context.check(fmt::format("open {}", path)));
  DVDI_TRY(auto writer, Connection::open(path, false));
  return open(context, path, how_long, std::move(writer));
}

Result<std::unique_ptr<Ledger>> Ledger::open(const Context& context, const std::string& path,
                                             OpenFor how_long, std::unique_ptr<Connection> writer) {
  auto state = std::make_unique<State>();
  state->path = path;
  DVDI_TRY(state->boot_id, dvdi::boot_id());
  writer->wait_for_locks(context);
  if (how_long == OpenFor::a_moment) {
    DVDI_CHECK(guarded(fmt::format("open {}", path), [&]() -> Status {
      writer->database().exec(fmt::format("PRAGMA wal_autocheckpoint={}", short_log_pages));
      return {};
    }));
  }
  DVDI_CHECK(migrate(*writer));
  DVDI_TRY(state->node_id, read_node_id(*writer));
  state->commits = std::make_unique<GroupCommit>(std::move(writer));
  DVDI_TRY(state->reader, Connection::open(path, true));
  return std::unique_ptr<Ledger>(new Ledger(std::move(state)));
}

Status Ledger::check(const std::string& path) {
  DVDI_TRY(const auto connection, Connection::open(path, true));
  DVDI_TRY(const std::string found, guarded(fmt::format("check {}", path), [&] {
             return connection->database().execAndGet("PRAGMA quick_check(1)").getString();
           }));
  if (found == "ok") return {};
  return Error{.code = Code::corrupted, .message = fmt::format("{} is damaged: {}", path, found)};
}

std::uint64_t Ledger::written() const {
  const Lock lock(state_->counting);
  return state_->written;
}

Status Ledger::wait_written(const Context& context, std::uint64_t seen) {
  Lock lock(state_->counting);
  const auto mine = state_->waited_for.insert(seen);
  const auto changed =
      state_->counted.wait(context, lock, [&] { return state_->written > seen; }, "wait for a change");
  state_->waited_for.erase(mine);
  return changed;
}

const std::string& Ledger::node_id() const { return state_->node_id; }
const std::string& Ledger::boot_id() const { return state_->boot_id; }

Moment Ledger::now(const Clock& clock) const {
  return {.wall = clock.wall(), .boot = clock.boot(), .boot_id = state_->boot_id};
}

const std::vector<Duration>& write_time_bounds() {
  using std::chrono::microseconds;
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  static const std::vector<Duration> bounds = {
      microseconds(100),  microseconds(500), milliseconds(1),   milliseconds(2),
      milliseconds(5),    milliseconds(10),  milliseconds(25),  milliseconds(50),
      milliseconds(100),  milliseconds(250), milliseconds(500), seconds(1),
      milliseconds(2500), seconds(5),        seconds(10),       seconds(60)};
  return bounds;
}

WriteTimes Ledger::write_times() const {
  const Lock lock(state_->counting);
  return state_->times;
}

StoreSize Ledger::size() const {
  const auto bytes_of = [](const std::string& path) -> std::uint64_t {
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    return error ? 0 : size;
  };
  std::error_code error;
  const auto space = std::filesystem::space(std::filesystem::path(state_->path).parent_path(), error);
  return {.database_bytes = bytes_of(state_->path),
          .log_bytes = bytes_of(state_->path + "-wal"),
          .free_bytes = error ? 0 : space.available};
}

Status Ledger::write(const Context& context, std::string_view what,
                     const std::function<Status(Transaction&)>& work) {
  DVDI_CHECK(context.check(what));
  GroupCommit::Times times;
  bool somebody_waits = false;
  const auto done = state_->commits->run(
      context, what,
      [&](Connection& connection) {
        Transaction transaction(connection, now(context.clock()), state_->node_id, context.caller());
        return work(transaction);
      },
      [&](Connection& connection) { return note_boot(connection, now(context.clock())); }, times);
  {
    const Lock counting(state_->counting);
    if (done) {
      state_->times.wait.add(write_time_bounds(), times.wait);
      ++state_->written;
      somebody_waits = !state_->waited_for.empty() && *state_->waited_for.begin() < state_->written;
    } else if (!times.refused) {
      ++state_->times.failures;
    }
    if (times.durable) state_->times.commit.add(write_time_bounds(), times.commit);
  }
  if (somebody_waits) state_->counted.notify_all();
  if (!done && done.error().code == Code::corrupted) suspect(state_->path);
  return done;
}

Status Ledger::read(const Context& context, std::string_view what,
                    const std::function<Status(Reader&)>& work) {
  DVDI_CHECK(context.check(what));
  const Lock lock(state_->reading);
  Connection& connection = *state_->reader;
  connection.wait_for_locks(context);
  auto done = read_on(connection, what, work);
  if (!done && done.error().code == Code::corrupted) suspect(state_->path);
  return done;
}

Status Ledger::read_long(const Context& context, std::string_view what,
                         const std::function<Status(Reader&)>& work) {
  return read_long(context, what, 1, [&](Reader& reader, ReadPart) { return work(reader); });
}

Status Ledger::read_long(const Context& context, std::string_view what, unsigned parts,
                         const std::function<Status(Reader&, ReadPart)>& work) {
  {
    Lock lock(state_->reading_long);
    DVDI_CHECK(
        state_->read_long.wait(context, lock, [&] { return state_->long_reads < most_long_reads; }, what));
    ++state_->long_reads;
  }
  struct Place {
    State& state;
    ~Place() {
      {
        const Lock lock(state.reading_long);
        --state.long_reads;
      }
      state.read_long.notify_all();
    }
  };
  const Place place{*state_};
  auto done = [&]() -> Status {
    // Opened for this one: what they have read is not kept in memory afterwards.
    std::vector<std::unique_ptr<Connection>> connections;
    for (unsigned i = 0; i < parts; ++i) {
      DVDI_TRY(auto connection, Connection::open(state_->path, true));
      connection->wait_for_locks(context);
      connections.push_back(std::move(connection));
    }
    return guarded(what, [&]() -> Status {
      const SameState same(connections);
      std::vector<Status> results(connections.size());
      std::vector<std::function<void()>> pieces;
      for (unsigned i = 0; i < connections.size(); ++i) {
        pieces.emplace_back([&, i] {
          const ReadPart part{.number = i, .of = static_cast<unsigned>(connections.size())};
          results[i] = guarded(what, [&]() -> Status {
            const EndStatements end(*connections[i]);
            Reader reader(*connections[i]);
            return work(reader, part);
          });
        });
      }
      run_parallel(std::move(pieces));
      for (Status& result : results) {
        if (!result) return std::move(result);
      }
      return {};
    });
  }();
  if (!done && done.error().code == Code::corrupted) suspect(state_->path);
  return done;
}

Result<LedgerFigures> Ledger::figures(const Context& context) {
  constexpr std::string_view what = "count what is in the ledger";
  DVDI_CHECK(context.check(what));
  const Lock lock(state_->looking);
  if (!state_->looker) {
    DVDI_TRY(state_->looker, Connection::open(state_->path, true));
  }
  Connection& connection = *state_->looker;
  connection.wait_for_locks(context);
  return guarded(what, [&]() -> Result<LedgerFigures> {
    const ReadScope scope(connection);
    const EndStatements end(connection);
    return Reader(connection).figures(now(context.clock()));
  });
}

}  // namespace dvdi
