#include "base/time_text.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

namespace dvdi {

namespace {

constexpr Duration longest = std::chrono::hours(100 * 365 * 24);

// Exactly `digits` digits from the start of `text`, taken off it.
std::optional<int> take_number(std::string_view& text, std::size_t digits) {
  if (text.size() < digits) return std::nullopt;
  int value = 0;
  for (const char c : text.substr(0, digits)) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  text.remove_prefix(digits);
  return value;
}

bool take(std::string_view& text, std::string_view one_of) {
  if (text.empty() || one_of.find(text.front()) == std::string_view::npos) return false;
  text.remove_prefix(1);
  return true;
}

// "" or ".123": nanoseconds.
std::optional<std::int64_t> take_fraction(std::string_view& text) {
  if (!take(text, ".")) return 0;
  std::int64_t value = 0;
  std::int64_t unit = 100'000'000;
  std::size_t digits = 0;
  for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
    value += (text[digits] - '0') * unit;
    unit /= 10;
  }
  if (digits == 0) return std::nullopt;
  text.remove_prefix(digits);
  return value;
}

// Z, +hh:mm or -hh:mm: minutes east of UTC.
std::optional<int> take_offset(std::string_view& text) {
  if (take(text, "Zz")) return 0;
  if (text.empty()) return std::nullopt;
  const int sign = text.front() == '-' ? -1 : 1;
  if (!take(text, "+-")) return std::nullopt;
  const auto hours = take_number(text, 2);
  if (!hours || !take(text, ":")) return std::nullopt;
  const auto minutes = take_number(text, 2);
  if (!minutes || *hours > 23 || *minutes > 59) return std::nullopt;
  return sign * (*hours * 60 + *minutes);
}

std::optional<Duration> take_unit(std::string_view& text) {
  constexpr std::array<std::pair<std::string_view, Duration>, 6> units = {
      {{"ms", std::chrono::milliseconds(1)},
       {"s", std::chrono::seconds(1)},
       {"m", std::chrono::minutes(1)},
       {"h", std::chrono::hours(1)},
       {"d", std::chrono::days(1)},
       {"w", std::chrono::weeks(1)}}};
  for (const auto& [name, unit] : units) {
    if (!text.starts_with(name)) continue;
    text.remove_prefix(name.size());
    return unit;
  }
  return std::nullopt;
}

}  // namespace

std::optional<Duration> parse_duration(std::string_view text) {
  if (text.empty()) return std::nullopt;
  Duration total{};
  while (!text.empty()) {
    std::int64_t count = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error != std::errc() || count < 0) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (text.empty()) return std::nullopt;  // a number without a unit says nothing
    const auto unit = take_unit(text);
    if (!unit || count > longest / *unit) return std::nullopt;
    total += *unit * count;
    if (total > longest) return std::nullopt;
  }
  return total;
}

std::optional<WallTime> parse_time(std::string_view text) {
  const auto year = take_number(text, 4);
  if (!year || !take(text, "-")) return std::nullopt;
  const auto month = take_number(text, 2);
  if (!month || !take(text, "-")) return std::nullopt;
  const auto day = take_number(text, 2);
  if (!day) return std::nullopt;
  const std::chrono::year_month_day date(std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day)));
  // Nanoseconds in 64 bits end in 2262.
  if (!date.ok() || *year < 1970 || *year > 2261) return std::nullopt;
  const WallTime midnight = std::chrono::sys_days(date);
  if (text.empty()) return midnight;

  if (!take(text, "Tt ")) return std::nullopt;
  const auto hours = take_number(text, 2);
  if (!hours || !take(text, ":")) return std::nullopt;
  const auto minutes = take_number(text, 2);
  if (!minutes || !take(text, ":")) return std::nullopt;
  const auto seconds = take_number(text, 2);
  // 60: a leap second, which counts as the first second of the next minute.
  if (!seconds || *hours > 23 || *minutes > 59 || *seconds > 60) return std::nullopt;
  const auto fraction = take_fraction(text);
  if (!fraction) return std::nullopt;
  const auto offset = take_offset(text);
  if (!offset || !text.empty()) return std::nullopt;
  return midnight + std::chrono::hours(*hours) + std::chrono::minutes(*minutes - *offset) +
         std::chrono::seconds(*seconds) + std::chrono::nanoseconds(*fraction);
}

std::string human_duration(double seconds) {
  if (!(seconds > 0)) return "0s";
  // A tenth, rounded: 59.96 is a minute, not "60.0s".
  if (std::round(seconds * 10) < 600) {
    const auto tenths = std::llround(seconds * 10);
    if (tenths == 0) return "<0.1s";
    return tenths % 10 == 0 ? fmt::format("{}s", tenths / 10)
                            : fmt::format("{}.{}s", tenths / 10, tenths % 10);
  }
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  struct Unit {
    std::int64_t seconds;
    std::string_view name;
  };
  constexpr std::array<Unit, 4> units = {{{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}}};
  for (std::size_t i = 0; i + 1 < units.size(); ++i) {
    if (whole < units[i].seconds) continue;
    const auto rest = whole % units[i].seconds / units[i + 1].seconds;
    const auto large = fmt::format("{}{}", whole / units[i].seconds, units[i].name);
    return rest == 0 ? large : fmt::format("{} {}{}", large, rest, units[i + 1].name);
  }
  return fmt::format("{}s", whole);
}

std::string human_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  constexpr std::array<std::string_view, 6> units = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1,023.95 would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, units[unit]);
}

}  // namespace dvdi
