#include "event/usage.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <ranges>
#include <set>
#include <thread>

#include "base/text.h"
#include "event/usage_groups.h"

namespace dvdi {

namespace {

using Kind = UsageInterval::Kind;
using What = UsageKey::What;

constexpr std::string_view label_prefix = "label:";
constexpr std::array<std::pair<const char*, What>, 11> key_names = {{{"volume", What::volume},
                                                                     {"driver", What::driver},
                                                                     {"type", What::type},
                                                                     {"owner", What::owner},
                                                                     {"framework", What::framework},
                                                                     {"role", What::role},
                                                                     {"principal", What::principal},
                                                                     {"user", What::user},
                                                                     {"container", What::container},
                                                                     {"day", What::day},
                                                                     {"hour", What::hour}}};
constexpr std::size_t max_label_bytes = 1024;
// Of prices that were looked up: beyond it they are looked up again.
constexpr std::size_t most_known_prices = 100'000;
constexpr std::uint64_t most_threads = 4;  // of a report: each has groups of its own until its end

Error wrong_keys(std::string message) {
  std::string known;
  for (const auto& [name, what] : key_names) known += fmt::format("{}, ", name);
  return Error{.code = Code::invalid_argument,
               .message = std::move(message),
               .hint = fmt::format("one or more of {}label:KEY, with commas: role,day", known)};
}

bool is_time(const UsageKey& key) { return key.what == What::day || key.what == What::hour; }

UsageColumns columns_of(const std::vector<UsageKey>& keys, UsageColumns columns) {
  for (const UsageKey& key : keys) {
    columns.driver |= key.what == What::driver || key.what == What::volume;
    columns.volume |= key.what == What::volume;
    columns.type |= key.what == What::type;
    columns.owner |= key.what == What::owner || key.what == What::container;
    columns.container |= key.what == What::container;
    columns.framework |= key.what == What::framework;
    columns.role |= key.what == What::role;
    columns.principal |= key.what == What::principal;
    columns.user |= key.what == What::user;
    columns.labels |= key.what == What::label;
  }
  return columns;
}

// The time groups' numbers: hours or days since 1970, moved so that earlier ones are numbers, too.
constexpr std::int64_t zero_time = std::int64_t{1} << 31U;

template <class Unit>
std::uint32_t time_number(WallTime time) {
  return static_cast<std::uint32_t>(std::chrono::floor<Unit>(time).time_since_epoch().count() + zero_time);
}

std::string time_text(What what, std::uint32_t number) {
  const std::int64_t units = static_cast<std::int64_t>(number) - zero_time;
  const std::chrono::sys_time<std::chrono::hours> hour{
      std::chrono::hours(what == What::day ? units * 24 : units)};
  const auto day = std::chrono::floor<std::chrono::days>(hour);
  const std::chrono::year_month_day date(day);
  std::string text = fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()),
                                 static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
  if (what == What::hour) text += fmt::format("T{:02}:00:00Z", (hour - day).count());
  return text;
}

template <class Unit>
WallTime next_border(WallTime time) {
  const std::int64_t begin =
      std::chrono::time_point_cast<Duration>(std::chrono::floor<Unit>(time)).time_since_epoch().count();
  std::int64_t border = 0;
  if (__builtin_add_overflow(begin, Duration(Unit(1)).count(), &border)) return WallTime::max();
  return WallTime(Duration(border));
}

Wide nano_gib_hours(Duration time, std::uint64_t size_bytes) {
  constexpr Wide divisor = Wide{3600} << 30U;
  return (static_cast<Wide>(time.count()) * size_bytes + divisor / 2) / divisor;
}

UsageFigure& figure_of(UsageSum& sum, Kind kind) {
  return kind == Kind::referenced ? sum.referenced : kind == Kind::mounted ? sum.mounted : sum.provisioned;
}

// One report while it is made.
class Report {
 public:
  Report(const Context& context, const UsageQuery& query, std::vector<UsageKey> keys)
      : context_(context),
        query_(query),
        keys_(std::move(keys)),
        since_(query.since.value_or(WallTime::min())),
        // Without an end of its own a report counts all that was measured, also where somebody set the clock
        // back meanwhile.
        until_(query.until.value_or(WallTime::max())),
        texts_(keys_.size()),
        key_(keys_.size()),
        sums_(keys_.size()) {
    for (const UsageKey& key : keys_) {
      by_hour_ |= key.what == What::hour;
      by_day_ |= key.what == What::day;
    }
    if (!query_.prices) return;
    for (const PriceRule& rule : query_.prices->rules) {
      priced_by_.driver |= rule.driver.has_value();
      priced_by_.volume |= rule.volume.has_value();
      priced_by_.type |= rule.type.has_value();
    }
  }

  // `look` as of Reader::usage.
  Status read(Reader& reader, ReadPart part, const Moment& now,
              const std::function<bool(std::uint64_t)>& look) {
    DVDI_CHECK(reader.usage(
        now, since_, until_, columns_of(keys_, priced_by_),
        [&](const UsageRecord& record) {
          add(record);
          return good();
        },
        look, part));
    DVDI_CHECK(context_.check("add up the usage"));
    if (problem_) return *problem_;
    return {};
  }

  // Adds what another one of the same query has read.
  Status add(Report& other) {
    for (std::size_t group = 0; group < other.sums_.size(); ++group) {
      const std::uint32_t* key = other.sums_.key(group);
      for (std::size_t i = 0; i < keys_.size(); ++i) {
        key_[i] = is_time(keys_[i]) ? key[i] : texts_[i].of(other.texts_[i].text(key[i]));
      }
      if (!add_up(sums_.of(key_.data()), other.sums_.sum(group))) return too_expensive();
      if (sums_.size() > query_.most_groups) return too_many_groups();
      if (++pieces_ % look_after == 0) DVDI_CHECK(context_.check("add up the usage"));
    }
    return {};
  }

  Result<UsageReport> result() {
    UsageReport report{.by = query_.by, .currency = query_.prices ? query_.prices->currency : std::string()};
    for (std::size_t group = 0; group < sums_.size(); ++group) {
      if (!add_up(report.total, sums_.sum(group))) return too_expensive();
    }
    report.rows.reserve(sums_.size());
    for (const std::uint32_t group : order()) {
      UsageRow& row = report.rows.emplace_back();
      row.sum = sums_.sum(group);
      row.group.reserve(keys_.size());
      for (std::size_t i = 0; i < keys_.size(); ++i) {
        const std::uint32_t number = sums_.key(group)[i];
        row.group.push_back(is_time(keys_[i]) ? time_text(keys_[i].what, number) : texts_[i].text(number));
      }
    }
    return report;
  }

 private:
  bool good() const { return !problem_; }

  static Error too_expensive() {
    return Error{.code = Code::invalid_argument,
                 .message = "the costs do not fit into 26 digits before the point",
                 .hint = "is a price wrong, or the size of a volume?"};
  }

  void add(const UsageRecord& record) {
    const WallTime end = std::min(record.end(), until_);
    WallTime from = std::max(record.start, since_);
    const bool begins = record.kind == Kind::mounted && record.start >= since_;
    if (!begins && from >= end) return;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (!is_time(keys_[i])) key_[i] = texts_[i].of(value(keys_[i], record));
    }
    const Prices* prices = query_.prices ? &prices_for(record) : nullptr;
    if (begins) {
      UsageSum& sum = group_at(record.start);
      ++sum.mounts;
      if (prices != nullptr) pay(sum.mounts_cost, (*prices)[static_cast<std::size_t>(Priced::per_mount)]);
    }
    const auto kind = static_cast<std::size_t>(record.kind);
    const std::uint64_t size = record.size_bytes.value_or(0);
    const auto cost_to = [&](WallTime time) -> Wide {
      const auto cost = cost_up_to(time - record.start, size, (*prices)[kind], (*prices)[kind + 3]);
      if (!cost) problem_ = too_expensive();
      return cost.value_or(0);
    };
    Wide gib_hours_before = 0, cost_before = 0;
    if (from > record.start) {
      gib_hours_before = nano_gib_hours(from - record.start, size);
      if (prices != nullptr) cost_before = cost_to(from);
    }
    while (from < end && good()) {
      WallTime to = end;
      if (by_hour_) {
        to = std::min(end, next_border<std::chrono::hours>(from));
      } else if (by_day_) {
        to = std::min(end, next_border<std::chrono::days>(from));
      }
      UsageFigure& figure = figure_of(group_at(from), record.kind);
      figure.nanoseconds += static_cast<Wide>((to - from).count());
      if (size != 0) {
        const Wide gib_hours = nano_gib_hours(to - record.start, size);
        figure.nano_gib_hours += gib_hours - gib_hours_before;
        gib_hours_before = gib_hours;
      }
      if (prices != nullptr) {
        const Wide cost = cost_to(to);
        pay(figure.cost, cost - cost_before);
        cost_before = cost;
      }
      from = to;
      if (++pieces_ % look_after == 0 && context_.cancelled()) return;
    }
  }

  UsageSum& group_at(WallTime time) {
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (keys_[i].what == What::hour) key_[i] = time_number<std::chrono::hours>(time);
      if (keys_[i].what == What::day) key_[i] = time_number<std::chrono::days>(time);
    }
    UsageSum& sum = sums_.of(key_.data());
    if (sums_.size() > query_.most_groups) problem_ = too_many_groups();
    return sum;
  }

  Error too_many_groups() const {
    return Error{.code = Code::resource_exhausted,
                 .message = fmt::format("usage by {} has more than {} groups", fmt::join(query_.by, ","),
                                        query_.most_groups),
                 .hint =
                     "group coarser (day instead of hour, role instead of container), or ask for less "
                     "time: --since, --until"};
  }

  // A sum of money only grows; that a total is too large is found out when it is made.
  void pay(Wide& sum, Wide cost) {
    if (__builtin_add_overflow(sum, cost, &sum)) problem_ = too_expensive();
  }

  static bool add_up(UsageSum& total, const UsageSum& sum) {
    bool fits = true;
    const auto add_figure = [&](UsageFigure& into, const UsageFigure& one) {
      into.nanoseconds += one.nanoseconds;
      into.nano_gib_hours += one.nano_gib_hours;
      fits = !__builtin_add_overflow(into.cost, one.cost, &into.cost) && fits;
    };
    add_figure(total.referenced, sum.referenced);
    add_figure(total.mounted, sum.mounted);
    add_figure(total.provisioned, sum.provisioned);
    total.mounts += sum.mounts;
    fits = !__builtin_add_overflow(total.mounts_cost, sum.mounts_cost, &total.mounts_cost) && fits;
    // So that cost() of it, and of every group in it, is right.
    Wide all = total.mounts_cost;
    for (const UsageFigure* one : {&total.referenced, &total.mounted, &total.provisioned}) {
      fits = !__builtin_add_overflow(all, one->cost, &all) && fits;
    }
    return fits;
  }

  // Valid until the next call.
  std::string_view value(const UsageKey& key, const UsageRecord& record) {
    const auto both = [&](std::string_view before, std::string_view after) -> std::string_view {
      buffer_.assign(before);
      buffer_ += '/';
      buffer_ += after;
      return buffer_;
    };
    switch (key.what) {
      case What::volume:
        return both(record.driver, record.volume);
      case What::driver:
        return record.driver;
      case What::type:
        return record.type;
      case What::owner:
        return record.owner;
      case What::framework:
        return record.framework;
      case What::role:
        return record.role;
      case What::principal:
        return record.principal;
      case What::user:
        return record.user;
      case What::container:
        return record.container.empty() ? std::string_view() : both(record.owner, record.container);
      case What::label:
        if (record.labels.empty()) return {};
        buffer_ = label_of(record.labels, key.label);
        return buffer_;
      case What::day:
      case What::hour:
        break;
    }
    return {};
  }

  const Prices& prices_for(const UsageRecord& record) {
    // What no rule is about is the same for all: fewer prices to look up.
    buffer_.clear();
    if (priced_by_.driver) buffer_ += record.driver;
    buffer_ += '/';  // no driver's name has one
    if (priced_by_.volume) buffer_ += record.volume;
    buffer_ += '\0';
    if (priced_by_.type) buffer_ += record.type;
    if (known_prices_.size() >= most_known_prices) {
      priced_.clear();
      known_prices_.clear();
    }
    const std::uint32_t number = priced_.of(buffer_);
    if (number == known_prices_.size()) {
      known_prices_.push_back(prices_of(*query_.prices, record.driver, record.volume, record.type));
    }
    return known_prices_[number];
  }

  std::vector<std::uint32_t> order() {
    std::vector<std::vector<std::uint32_t>> ranks(keys_.size());
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (!is_time(keys_[i])) ranks[i] = texts_[i].ranks();
    }
    std::vector<std::uint32_t> order(sums_.size());
    std::iota(order.begin(), order.end(), 0U);
    std::ranges::sort(order, [&](std::uint32_t a, std::uint32_t b) {
      const std::uint32_t* one = sums_.key(a);
      const std::uint32_t* other = sums_.key(b);
      for (std::size_t i = 0; i < keys_.size(); ++i) {
        if (one[i] == other[i]) continue;
        return is_time(keys_[i]) ? one[i] < other[i] : ranks[i][one[i]] < ranks[i][other[i]];
      }
      return false;
    });
    return order;
  }

  static constexpr std::uint64_t look_after = std::uint64_t{1} << 20U;

  const Context& context_;
  const UsageQuery& query_;
  const std::vector<UsageKey> keys_;
  const WallTime since_, until_;
  bool by_day_ = false, by_hour_ = false;
  UsageColumns priced_by_;          // what prices depend on
  std::vector<TextNumbers> texts_;  // of each key
  std::vector<std::uint32_t> key_;  // of the interval that is added
  GroupSums sums_;
  TextNumbers priced_;
  std::vector<Prices> known_prices_;
  std::string buffer_;
  std::uint64_t pieces_ = 0;
  std::optional<Error> problem_;
};

}  // namespace

Result<std::vector<UsageKey>> usage_keys(const std::vector<std::string>& by) {
  if (by.empty()) return wrong_keys("usage is grouped by something");
  if (by.size() > max_usage_keys)
    return wrong_keys(fmt::format("usage is grouped by {} things at most", max_usage_keys));
  std::vector<UsageKey> keys;
  std::set<std::string_view> once;
  for (const std::string& name : by) {
    if (!once.insert(name).second)
      return wrong_keys(fmt::format("usage is grouped by '{}' twice", printable(name)));
    const auto* const found =
        std::ranges::find(key_names, name, [](const auto& one) { return std::string_view(one.first); });
    if (found != key_names.end()) {
      keys.push_back({.what = found->second});
    } else if (name.starts_with(label_prefix) && name.size() > label_prefix.size() &&
               name.size() <= max_label_bytes) {
      keys.push_back({.what = What::label, .label = name.substr(label_prefix.size())});
    } else {
      return wrong_keys(fmt::format("usage cannot be grouped by '{}'", printable(name)));
    }
  }
  return keys;
}

Result<UsageReport> usage_report(const Context& context, Ledger& ledger, const UsageQuery& query,
                                 const UsageProgress& progress) {
  DVDI_TRY(const auto keys, usage_keys(query.by));
  constexpr std::string_view what = "add up the usage";
  std::uint64_t all = 0;
  DVDI_CHECK(ledger.read(context, what, [&](Reader& reader) -> Status {
    DVDI_TRY(all, reader.usage_intervals());
    return {};
  }));
  const std::uint64_t wanted = all / std::max<std::uint64_t>(1, query.intervals_a_thread) + 1;
  const auto threads = std::min<std::uint64_t>(
      {wanted, std::uint64_t{std::thread::hardware_concurrency()} / 2 + 1, most_threads});
  const Moment now = ledger.now(context.clock());
  std::deque<Report> reports;  // stay where they are
  while (reports.size() < threads) reports.emplace_back(context, query, keys);
  std::atomic<std::uint64_t> read = 0;
  std::atomic<bool> failed = false;
  DVDI_CHECK(
      ledger.read_long(context, what, static_cast<unsigned>(threads), [&](Reader& reader, ReadPart part) {
        auto done = reports[part.number].read(reader, part, now, [&, part](std::uint64_t more) {
          const std::uint64_t sum = read += more;
          if (progress && part.number == 0) progress(sum, std::max(sum, all));
          return !failed && !context.cancelled();
        });
        if (!done) failed = true;  // the others need not go on
        return done;
      }));
  for (Report& other : reports | std::views::drop(1)) DVDI_CHECK(reports.front().add(other));
  return reports.front().result();
}

}  // namespace dvdi
