// What usage costs: rules that turn time, GiB-hours and mounts into money, exactly.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/decimal.h"
#include "base/result.h"

namespace dvdi {

inline constexpr unsigned money_decimals = 12;  // an amount is a whole number of 10^-12 of the currency
inline constexpr unsigned price_whole_digits = 12;
inline constexpr std::size_t max_price_rules = 1000;
inline constexpr std::size_t max_price_pattern_bytes = 1000;
inline constexpr std::size_t max_currency_bytes = 16;

// What has a price, in the order of price_names.
enum class Priced : std::uint8_t {
  referenced_gib_hour,
  mounted_gib_hour,
  provisioned_gib_hour,
  referenced_hour,
  mounted_hour,
  provisioned_hour,
  per_mount
};
inline constexpr std::array<const char*, 7> price_names = {
    "referenced_gib_hour", "mounted_gib_hour", "provisioned_gib_hour", "referenced_hour", "mounted_hour",
    "provisioned_hour",    "per_mount"};

struct PriceRule {
  std::optional<std::string> driver, volume, type;             // globs; absent: whatever it is
  std::array<std::optional<Wide>, price_names.size()> prices;  // absent: this rule says nothing of it
};

struct PriceList {
  std::string currency;
  std::vector<PriceRule> rules;  // for each price the first that matches and has it
};

// A price as it is written. The error says what is wrong with it, not where.
Result<Wide> parse_price(std::string_view text);
// Letters, digits, and what stands between them; invalid_argument otherwise.
Status check_currency(std::string_view currency);

// The prices of one volume; 0 where no rule has one.
using Prices = std::array<Wide, price_names.size()>;
Prices prices_of(const PriceList& list, std::string_view driver, std::string_view volume,
                 std::string_view type);

// The cost of a volume of that size from the beginning of an interval to `time` after it, rounded to a whole
// unit: half a unit is one. A piece of the interval costs the difference of two of these, so pieces add up to
// the whole however it is cut. nullopt: beyond what a Wide holds.
std::optional<Wide> cost_up_to(Duration time, std::uint64_t size_bytes, Wide gib_hour, Wide hour);

}  // namespace dvdi
