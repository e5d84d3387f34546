// Usage: the intervals of the ledger added up by whatever somebody is charged for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "store/ledger.h"

namespace dvdi {

struct UsageRow {
  std::string group;  // the value that one groups by; "" where a container did not say
  // Three figures that are never added to one another: a container referred to the volume, the volume was
  // mounted on this node, the volume was known to exist. GiB-hours count only volumes whose size is known.
  double referenced_seconds = 0, mounted_seconds = 0, provisioned_seconds = 0;
  double referenced_gib_hours = 0, mounted_gib_hours = 0, provisioned_gib_hours = 0;
  std::uint64_t mounts = 0;  // that began in the time of the report
};

struct UsageQuery {
  // volume, driver, owner, framework, role, principal, user, container, day (UTC). A mount and a volume's
  // existence belong to no container: grouped by what only containers have, they are in the group "".
  std::string by = "volume";
  std::optional<WallTime> since, until;  // until: now, if absent
};

// One row a group, in the order of the group. invalid_argument for an unknown `by`. Added up in whole
// nanoseconds and bytes: sums are the same whichever way one groups. Intervals still open count up to now.
Result<std::vector<UsageRow>> usage_report(const Context& context, Ledger& ledger, const UsageQuery& query);

}  // namespace dvdi
