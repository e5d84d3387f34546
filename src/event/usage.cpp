#include "event/usage.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace dvdi {

namespace {

using Kind = UsageInterval::Kind;
__extension__ using Wide = unsigned __int128;

struct Figure {
  std::int64_t nanoseconds = 0;
  Wide byte_nanoseconds = 0;
};

struct Sum {
  Figure referenced, mounted, provisioned;
  std::uint64_t mounts = 0;
};

std::string day_of(WallTime time) {
  const std::chrono::year_month_day date(std::chrono::floor<std::chrono::days>(time));
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                     static_cast<unsigned>(date.day()));
}

using GroupOf = std::string (*)(const UsageInterval&);

// nullptr for an unknown name; `day` is split by the caller.
GroupOf group_by(const std::string& by) {
  static const std::map<std::string, GroupOf, std::less<>> groups = {
      {"volume", [](const UsageInterval& i) { return i.volume.text(); }},
      {"driver", [](const UsageInterval& i) { return i.volume.driver; }},
      {"owner", [](const UsageInterval& i) { return i.container.owner; }},
      {"framework", [](const UsageInterval& i) { return i.attribution.framework; }},
      {"role", [](const UsageInterval& i) { return i.attribution.role; }},
      {"principal", [](const UsageInterval& i) { return i.attribution.principal; }},
      {"user", [](const UsageInterval& i) { return i.attribution.user; }},
      {"container", [](const UsageInterval& i) { return i.container.id.empty() ? "" : i.container.text(); }},
      {"day", [](const UsageInterval& i) { return day_of(i.start); }},
  };
  const auto found = groups.find(by);
  return found == groups.end() ? nullptr : found->second;
}

void add(Sum& sum, const UsageInterval& interval, Duration duration) {
  Figure& figure = interval.kind == Kind::referenced ? sum.referenced
                   : interval.kind == Kind::mounted  ? sum.mounted
                                                     : sum.provisioned;
  figure.nanoseconds += duration.count();
  figure.byte_nanoseconds +=
      static_cast<Wide>(interval.size_bytes.value_or(0)) * static_cast<Wide>(duration.count());
}

double seconds(const Figure& figure) { return static_cast<double>(figure.nanoseconds) / 1e9; }

double gib_hours(const Figure& figure) {
  constexpr double gib = 1024.0 * 1024.0 * 1024.0;
  return static_cast<double>(figure.byte_nanoseconds) / gib / 3.6e12;
}

}  // namespace

Result<std::vector<UsageRow>> usage_report(const Context& context, Ledger& ledger, const UsageQuery& query) {
  const GroupOf group_of = group_by(query.by);
  if (group_of == nullptr) {
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("usage cannot be grouped by '{}'", query.by),
                 .hint = "volume, driver, owner, framework, role, principal, user, container or day"};
  }
  const Moment now = ledger.now(context.clock());
  const WallTime since = query.since.value_or(WallTime(Duration::zero()));
  // Without an end of its own a report counts all that was measured, also where somebody set the clock back
  // meanwhile.
  const WallTime until = query.until.value_or(WallTime::max());
  const bool by_day = query.by == "day";
  std::map<std::string, Sum> sums;
  DVDI_CHECK(ledger.read(context, "add up the usage", [&](Reader& reader) {
    return reader.usage(now, since, until, [&](const UsageInterval& interval) {
      const WallTime end = std::min(interval.start + interval.duration, until);
      WallTime from = std::max(interval.start, since);
      if (interval.kind == Kind::mounted && interval.start >= since) ++sums[group_of(interval)].mounts;
      while (from < end) {
        const WallTime midnight = std::chrono::floor<std::chrono::days>(from) + std::chrono::days(1);
        const WallTime to = by_day ? std::min(end, midnight) : end;
        add(sums[by_day ? day_of(from) : group_of(interval)], interval, to - from);
        from = to;
      }
      return !context.cancelled();
    });
  }));
  DVDI_CHECK(context.check("add up the usage"));
  std::vector<UsageRow> rows;
  rows.reserve(sums.size());
  for (const auto& [group, sum] : sums) {
    rows.push_back({.group = group,
                    .referenced_seconds = seconds(sum.referenced),
                    .mounted_seconds = seconds(sum.mounted),
                    .provisioned_seconds = seconds(sum.provisioned),
                    .referenced_gib_hours = gib_hours(sum.referenced),
                    .mounted_gib_hours = gib_hours(sum.mounted),
                    .provisioned_gib_hours = gib_hours(sum.provisioned),
                    .mounts = sum.mounts});
  }
  return rows;
}

}  // namespace dvdi
