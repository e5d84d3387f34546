// Usage: the intervals of the ledger added up by whatever somebody is charged for.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/decimal.h"
#include "event/prices.h"
#include "store/ledger.h"

namespace dvdi {

inline constexpr std::size_t max_usage_keys = 8;
inline constexpr std::size_t max_usage_groups = 1'000'000;
inline constexpr unsigned seconds_decimals = 9;   // whole nanoseconds
inline constexpr unsigned gib_hour_decimals = 9;  // see UsageFigure

// What one groups by.
struct UsageKey {
  enum class What {
    volume,
    driver,
    type,
    owner,
    framework,
    role,
    principal,
    user,
    container,
    day,
    hour,
    label
  } what = What::volume;
  std::string label = {};  // whose value, of a label
};

// `volume`, `label:team` and so on: at least one, at most max_usage_keys, each once. invalid_argument, saying
// which there are, for others.
Result<std::vector<UsageKey>> usage_keys(const std::vector<std::string>& by);

// Whole numbers, so that sums are the same whichever way one groups or cuts.
struct UsageFigure {
  Wide nanoseconds = 0;
  // 10^-9 GiB-hours; 0 for a volume whose size is not known. Like the cost the difference of what was rounded
  // from the interval's beginning to the end and to the begin of the piece: pieces add up to the whole.
  Wide nano_gib_hours = 0;
  Wide cost = 0;  // 10^-12 of the currency
};

// Three figures that are never added to one another: a container referred to the volume, the volume was
// mounted on this node, the volume was known to exist. What they cost may be added.
struct UsageSum {
  UsageFigure referenced, mounted, provisioned;
  std::uint64_t mounts = 0;  // that began in the time of the report
  Wide mounts_cost = 0;
  Wide cost() const { return referenced.cost + mounted.cost + provisioned.cost + mounts_cost; }
};

struct UsageRow {
  std::vector<std::string> group;  // a value for each key; "" where nobody said
  UsageSum sum;
};

struct UsageReport {
  std::vector<std::string> by;
  std::string currency;        // "": without prices
  std::vector<UsageRow> rows;  // in the order of their groups
  UsageSum total;
};

struct UsageQuery {
  // A mount and a volume's existence belong to no container: what only containers have is "" for them.
  std::vector<std::string> by = {"volume"};
  std::optional<WallTime> since = {}, until = {};  // until: now, if absent
  std::optional<PriceList> prices = {};
  std::size_t most_groups = max_usage_groups;  // resource_exhausted beyond
  // For each so many one thread reads, at most four and at most one more than half of the processors.
  std::uint64_t intervals_a_thread = 500'000;
};

// How many intervals were read, of how many; 0 of 0 where that is not known.
using UsageProgress = std::function<void(std::uint64_t, std::uint64_t)>;

// Intervals still open count up to now. A mount belongs to the group and the report of its beginning.
Result<UsageReport> usage_report(const Context& context, Ledger& ledger, const UsageQuery& query,
                                 const UsageProgress& progress = {});

}  // namespace dvdi
