#include "base/decimal.h"

#include <algorithm>

namespace dvdi {

std::string decimal_text(Wide units, unsigned decimals, unsigned least) {
  std::string digits;  // the last first
  do {
    digits.push_back(static_cast<char>('0' + static_cast<int>(units % 10)));
    units /= 10;
  } while (units != 0);
  if (digits.size() <= decimals) digits.resize(std::size_t{decimals} + 1, '0');
  std::ranges::reverse(digits);
  std::string fraction = digits.substr(digits.size() - decimals);
  digits.resize(digits.size() - decimals);
  while (fraction.size() > least && fraction.back() == '0') fraction.pop_back();
  return fraction.empty() ? digits : digits + "." + fraction;
}

std::optional<Wide> parse_decimal(std::string_view text, unsigned decimals, unsigned whole) {
  constexpr Wide most = ~Wide{0};
  const auto point = text.find('.');
  const std::string_view before = text.substr(0, point);
  const std::string_view after =
      point == std::string_view::npos ? std::string_view("0") : text.substr(point + 1);
  if (before.empty() || after.empty() || before.size() > whole) return std::nullopt;
  if (point != std::string_view::npos && after.size() > decimals) return std::nullopt;
  Wide units = 0;
  const auto put = [&](char c) {
    const auto digit = static_cast<Wide>(c - '0');
    if (c < '0' || c > '9' || units > (most - digit) / 10) return false;
    units = units * 10 + digit;
    return true;
  };
  for (const char c : before) {
    if (!put(c)) return std::nullopt;
  }
  for (unsigned i = 0; i < decimals; ++i) {
    if (!put(i < after.size() ? after[i] : '0')) return std::nullopt;
  }
  return units;
}

}  // namespace dvdi
