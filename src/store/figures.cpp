#include "store/figures.h"

#include <algorithm>

#include "store/codec.h"
#include "store/database.h"
#include "store/ledger.h"

namespace dvdi {

namespace {

constexpr const char* count_containers_sql =
    "SELECT CASE WHEN owner IN ('run', 'dvdcli') THEN owner WHEN owner LIKE 'uid:%' THEN 'user' "
    "WHEN owner LIKE '/%' THEN 'agent' ELSE 'other' END AS kind, state, count(*) FROM containers "
    "WHERE state != 'ended' GROUP BY kind, state";
constexpr const char* count_mounts_sql = "SELECT state, count(*) FROM mounts GROUP BY state";
constexpr const char* count_lost_sql =
    "SELECT driver, count(*) FROM mounts WHERE state = 'unknown' AND pending = 'lost' GROUP BY driver";
constexpr const char* count_staged_sql = "SELECT count(*) FROM staged";
constexpr const char* count_references_sql = "SELECT driver, count(*) FROM refs GROUP BY driver";
constexpr const char* count_foreign_sql = "SELECT driver, count(*) FROM foreign_holders GROUP BY driver";
// The clock of the boot measures; a debt of another boot, of which there are none after a start, goes by the
// time of day.
constexpr const char* count_debts_sql =
    "SELECT driver, count(*), sum(parked), max(CASE WHEN boot_id = ?1 THEN ?3 - since_boot ELSE ?2 - "
    "since_wall "
    "END) FROM debts GROUP BY driver";
constexpr const char* first_event_size_sql =
    "SELECT sequence, total_bytes, length(CAST(body AS BLOB)) + length(hash) FROM events ORDER BY sequence "
    "LIMIT 1";
constexpr const char* last_event_size_sql =
    "SELECT sequence, total_bytes FROM events ORDER BY sequence DESC LIMIT 1";

}  // namespace

Result<LedgerFigures> Reader::figures(const Moment& now) {
  LedgerFigures figures;
  DVDI_TRY(figures.drivers, drivers());
  DVDI_TRY(figures.sinks, sinks());
  return guarded("count what is in the ledger", [&]() -> Result<LedgerFigures> {
    const auto number = [](SQLite::Statement& row, int column) {
      return static_cast<std::uint64_t>(std::max<std::int64_t>(0, row.getColumn(column).getInt64()));
    };
    auto& containers = connection_->statement(count_containers_sql);
    while (containers.executeStep())
      figures.containers[{containers.getColumn(0).getString(), containers.getColumn(1).getString()}] =
          number(containers, 2);
    auto& mounts = connection_->statement(count_mounts_sql);
    while (mounts.executeStep()) figures.mounts[mounts.getColumn(0).getString()] = number(mounts, 1);
    auto& staged = connection_->statement(count_staged_sql);
    if (staged.executeStep()) figures.staged = number(staged, 0);

    using OfDriver = LedgerFigures::OfDriver;
    const auto by_driver = [&](const char* sql, std::uint64_t OfDriver::* into) {
      auto& row = connection_->statement(sql);
      while (row.executeStep()) figures.by_driver[row.getColumn(0).getString()].*into = number(row, 1);
    };
    by_driver(count_references_sql, &OfDriver::references);
    by_driver(count_lost_sql, &OfDriver::lost);
    by_driver(count_foreign_sql, &OfDriver::foreign);
    auto& debts = connection_->statement(count_debts_sql);
    Binder{debts}(now);
    while (debts.executeStep()) {
      OfDriver& one = figures.by_driver[debts.getColumn(0).getString()];
      one.owed = number(debts, 1);
      one.parked = number(debts, 2);
      one.oldest_owed = Duration(number(debts, 3));
    }

    auto& first = connection_->statement(first_event_size_sql);
    auto& last = connection_->statement(last_event_size_sql);
    if (first.executeStep() && last.executeStep()) {
      figures.first_event = number(first, 0);
      figures.last_event = number(last, 0);
      figures.event_bytes = number(last, 1) - number(first, 1) + number(first, 2);
    }
    return figures;
  });
}

}  // namespace dvdi
