// Reads the intervals for a report: there may be ten million of them, so nothing is allocated for a row and
// only those columns are read that the report is about.
#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "store/codec.h"
#include "store/database.h"
#include "store/ledger.h"
#include "store/query.h"

namespace dvdi {

namespace {

struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using RawStatement = std::unique_ptr<sqlite3_stmt, Finalize>;

RawStatement prepare(SQLite::Database& database, const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(database.getHandle(), sql.c_str(), static_cast<int>(sql.size() + 1),
                                      &statement, nullptr);
  if (code != SQLITE_OK) throw SQLite::Exception(database.getHandle(), code);
  return RawStatement(statement);
}

bool next(SQLite::Database& database, sqlite3_stmt* statement) {
  const int code = sqlite3_step(statement);
  if (code != SQLITE_ROW && code != SQLITE_DONE) throw SQLite::Exception(database.getHandle(), code);
  return code == SQLITE_ROW;
}

std::string_view text(sqlite3_stmt* statement, int column) {
  const auto* begin = static_cast<const char*>(sqlite3_column_blob(statement, column));
  if (begin == nullptr) return {};
  return {begin, static_cast<std::size_t>(sqlite3_column_bytes(statement, column))};
}

struct Text {
  const char* column;
  std::string_view UsageRecord::* into;
};

std::vector<Text> texts_of(const UsageColumns& columns) {
  std::vector<Text> texts;
  const auto want = [&](bool wanted, const char* column, std::string_view UsageRecord::* into) {
    if (wanted) texts.push_back({column, into});
  };
  want(columns.driver, "driver", &UsageRecord::driver);
  want(columns.volume, "volume", &UsageRecord::volume);
  want(columns.owner, "owner", &UsageRecord::owner);
  want(columns.container, "container", &UsageRecord::container);
  want(columns.framework, "framework", &UsageRecord::framework);
  want(columns.role, "role", &UsageRecord::role);
  want(columns.principal, "principal", &UsageRecord::principal);
  want(columns.user, "user", &UsageRecord::user);
  want(columns.labels, "labels", &UsageRecord::labels);
  want(columns.type, "volume_type", &UsageRecord::type);
  return texts;
}

constexpr const char* old_usage_sql =
    "SELECT 1 FROM usage_closed WHERE id < ?2 + coalesce((SELECT min(id) FROM usage_closed), 0) AND "
    "start_wall + duration < ?1 LIMIT 1";

// The uses that go on, with the columns of usage_closed, but for the end.
constexpr const char* open_usage_sql = R"sql((
  SELECT 0 AS kind, r.size_bytes AS size_bytes, r.since_wall AS start_wall, r.boot_id AS boot_id,
    r.since_boot AS start_boot, coalesce(json_extract(c.attribution, '$.role'), '') AS role, r.driver AS driver,
    r.volume AS volume, r.volume_type AS volume_type,
    coalesce(json_extract(c.attribution, '$.framework'), '') AS framework,
    coalesce(json_extract(c.attribution, '$.principal'), '') AS principal,
    coalesce(json_extract(c.attribution, '$.user'), '') AS user,
    CASE WHEN json_type(c.attribution, '$.labels') IS NULL THEN '' ELSE
      (SELECT json_group_object(json_extract(value, '$[0]'), json_extract(value, '$[1]'))
       FROM json_each(c.attribution, '$.labels')) END AS labels,
    r.owner AS owner, r.container AS container
    FROM refs AS r JOIN containers AS c ON c.owner = r.owner AND c.id = r.container
  UNION ALL SELECT 1, size_bytes, since_wall, boot_id, since_boot, '', driver, volume, volume_type,
    '', '', '', '', '', '' FROM mounts WHERE state = 'mounted'
  UNION ALL SELECT 2, size_bytes, since_wall, boot_id, since_boot, '', driver, volume, type,
    '', '', '', '', '', '' FROM volumes))sql";

// The columns of every row, in this order; the texts follow.
enum Column { kind, size_bytes, start_wall, duration, first_text };

std::string select(std::string_view first, const std::vector<Text>& texts, std::string_view further) {
  std::string sql = fmt::format("SELECT {}", first);
  for (const Text& one : texts) sql += fmt::format(", {}", one.column);
  return sql + std::string(further);
}

UsageInterval::Kind kind_of(int number) {
  return number == 1   ? UsageInterval::Kind::mounted
         : number == 2 ? UsageInterval::Kind::provisioned
                       : UsageInterval::Kind::referenced;
}

// The first and the last id of the closed intervals; 0 and -1 where there are none. A query for both at once
// would read all of them.
std::pair<std::int64_t, std::int64_t> ids_of_closed(SQLite::Database& database) {
  SQLite::Statement ids(database,
                        "SELECT coalesce((SELECT min(id) FROM usage_closed), 0), "
                        "coalesce((SELECT max(id) FROM usage_closed), -1)");
  ids.executeStep();
  return {ids.getColumn(0).getInt64(), ids.getColumn(1).getInt64()};
}

// Those of that part: there is hardly a gap in them.
std::pair<std::int64_t, std::int64_t> ids_of(SQLite::Database& database, ReadPart part) {
  const auto [first, last] = ids_of_closed(database);
  const auto border = [from = first, all = last - first + 1, of = part.of](unsigned number) {
    return from + all / of * number + all % of * number / of;
  };
  return {border(part.number), border(part.number + 1) - 1};
}

}  // namespace

WallTime UsageRecord::end() const {
  std::int64_t sum = 0;
  if (__builtin_add_overflow(start.time_since_epoch().count(), duration.count(), &sum))
    return WallTime::max();
  return WallTime(Duration(sum));
}

std::string label_of(std::string_view labels, std::string_view key) {
  for (auto& [name, value] : labels_of(std::string(labels))) {
    if (name == key) return std::move(value);
  }
  return {};
}

Result<std::uint64_t> Reader::usage_intervals() {
  return guarded("count the usage intervals", [&] {
    const auto [first, last] = ids_of_closed(connection_->database());
    return static_cast<std::uint64_t>(std::max<std::int64_t>(0, last - first + 1));
  });
}

Result<bool> Reader::has_usage_before(WallTime time) {
  auto& statement = connection_->statement(old_usage_sql);
  Binder{statement}(time)(usage_window);
  return any("look for old usage", statement);
}

Status Reader::usage(const Moment& now, WallTime since, WallTime until, const UsageColumns& columns,
                     const std::function<bool(const UsageRecord&)>& visit,
                     const std::function<bool(std::uint64_t)>& look, ReadPart part) {
  return guarded("read the usage", [&] {
    SQLite::Database& database = connection_->database();
    const std::vector<Text> texts = texts_of(columns);
    UsageRecord record;
    bool wanted = true;
    std::uint64_t read = 0;
    constexpr std::uint64_t look_after = std::uint64_t{1} << 16U;
    const auto visit_row = [&](sqlite3_stmt* row) {
      ++read;
      if (read % look_after == 0 && look && !look(look_after)) {
        wanted = false;
        return;
      }
      record.kind = kind_of(sqlite3_column_int(row, kind));
      record.size_bytes.reset();
      if (sqlite3_column_type(row, size_bytes) != SQLITE_NULL) {
        record.size_bytes =
            static_cast<std::uint64_t>(std::max<std::int64_t>(0, sqlite3_column_int64(row, size_bytes)));
      }
      record.start = wall_time(sqlite3_column_int64(row, start_wall));
      if (record.start >= until || record.end() < since) return;
      for (std::size_t i = 0; i < texts.size(); ++i) {
        record.*texts[i].into = text(row, first_text + static_cast<int>(i));
      }
      wanted = visit(record);
    };

    // How long ago an interval began that reaches into the report nobody knows: all of them are read.
    const RawStatement closed = prepare(database, select("kind, size_bytes, start_wall, duration", texts,
                                                         " FROM usage_closed WHERE id BETWEEN ?1 AND ?2"));
    const auto [first, last] = ids_of(database, part);
    sqlite3_bind_int64(closed.get(), 1, first);
    sqlite3_bind_int64(closed.get(), 2, last);
    while (wanted && next(database, closed.get())) {
      record.open = false;
      record.duration = Duration(std::max<std::int64_t>(0, sqlite3_column_int64(closed.get(), duration)));
      visit_row(closed.get());
    }

    if (part.number != 0) return;
    // What is open, or was left open by a power cut.
    const RawStatement open = prepare(
        database,
        select("kind, size_bytes, start_wall, 0", texts,
               fmt::format(
                   ", start_boot, CASE WHEN i.boot_id = ?1 THEN ?2 ELSE coalesce(last_boot, start_boot) END"
                   " FROM {} AS i LEFT JOIN boots USING (boot_id)",
                   open_usage_sql)));
    sqlite3_bind_text(open.get(), 1, now.boot_id.data(), static_cast<int>(now.boot_id.size()), SQLITE_STATIC);
    sqlite3_bind_int64(open.get(), 2, nanoseconds(now.boot));
    const int after_texts = first_text + static_cast<int>(texts.size());
    while (wanted && next(database, open.get())) {
      record.open = true;
      // Always start plus measured duration, never a difference of wall clock times: setting the clock
      // changes no bill.
      record.duration =
          Duration(std::max<std::int64_t>(0, sqlite3_column_int64(open.get(), after_texts + 1) -
                                                 sqlite3_column_int64(open.get(), after_texts)));
      visit_row(open.get());
    }
  });
}

}  // namespace dvdi
