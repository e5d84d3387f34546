#include "event/prices.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <boost/multiprecision/cpp_int.hpp>
#include <cctype>

#include "base/glob.h"
#include "base/text.h"

namespace dvdi {

namespace {

constexpr unsigned gib_bits = 30;
constexpr std::uint64_t nanoseconds_an_hour = 3'600'000'000'000;

unsigned bits(Wide number) {
  const auto high = static_cast<std::uint64_t>(number >> 64U);
  return high != 0 ? 64U + static_cast<unsigned>(std::bit_width(high))
                   : static_cast<unsigned>(std::bit_width(static_cast<std::uint64_t>(number)));
}

// The same with numbers that are long enough for any price of any volume.
std::optional<Wide> long_cost(std::uint64_t time, std::uint64_t size_bytes, Wide gib_hour, Wide hour) {
  using Long = boost::multiprecision::uint512_t;
  const Long an_hour = Long(nanoseconds_an_hour) << gib_bits;
  const Long exact = (Long(gib_hour) * size_bytes + (Long(hour) << gib_bits)) * time;
  const Long rounded = (exact + an_hour / 2) / an_hour;
  if (rounded > Long(~Wide{0})) return std::nullopt;
  return static_cast<Wide>(rounded);
}

bool fits(const std::optional<std::string>& pattern, std::string_view text) {
  return !pattern || glob_matches(*pattern, text);
}

}  // namespace

Result<Wide> parse_price(std::string_view text) {
  const auto price = parse_decimal(text, money_decimals, price_whole_digits);
  if (price) return *price;
  return Error{
      .code = Code::invalid_argument,
      .message = fmt::format(
          "'{}' is no price: digits, and a point if need be (\"0.00012\"), at most {} before and {} after it",
          printable(text, 60), price_whole_digits, money_decimals)};
}

Status check_currency(std::string_view currency) {
  const bool good = !currency.empty() && currency.size() <= max_currency_bytes &&
                    std::isalpha(static_cast<unsigned char>(currency.front())) != 0 &&
                    std::ranges::all_of(currency, [](unsigned char c) {
                      return std::isalnum(c) != 0 || c == '-' || c == '_' || c == ' ';
                    });
  if (good) return {};
  return Error{.code = Code::invalid_argument,
               .message = fmt::format(
                   "'{}' is no currency: letters and digits such as \"EUR\", at most {}, a letter first",
                   printable(currency, 60), max_currency_bytes)};
}

Prices prices_of(const PriceList& list, std::string_view driver, std::string_view volume,
                 std::string_view type) {
  Prices prices{};
  std::array<bool, price_names.size()> known{};
  for (const PriceRule& rule : list.rules) {
    if (!fits(rule.driver, driver) || !fits(rule.volume, volume) || !fits(rule.type, type)) continue;
    for (std::size_t i = 0; i < prices.size(); ++i) {
      if (known[i] || !rule.prices[i]) continue;
      prices[i] = *rule.prices[i];
      known[i] = true;
    }
  }
  return prices;
}

std::optional<Wide> cost_up_to(Duration time, std::uint64_t size_bytes, Wide gib_hour, Wide hour) {
  const auto length = static_cast<std::uint64_t>(std::max<std::int64_t>(0, time.count()));
  const bool short_enough =
      bits(gib_hour) + bits(size_bytes) + bits(length) <= 126 && bits(hour) + gib_bits + bits(length) <= 126;
  if (!short_enough) return long_cost(length, size_bytes, gib_hour, hour);
  constexpr Wide an_hour = static_cast<Wide>(nanoseconds_an_hour) << gib_bits;
  const Wide exact = (gib_hour * size_bytes + (hour << gib_bits)) * length;
  return ((exact + an_hour / 2) >> gib_bits) / nanoseconds_an_hour;
}

}  // namespace dvdi
