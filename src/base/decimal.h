// Decimal numbers with a fixed number of digits after the point, as whole numbers of their smallest unit:
// what is added up or paid for is exact, never a double.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dvdi {

__extension__ using Wide = unsigned __int128;

// "12.50" for 12500 units of 10^-3: `decimals` digits after the point, without the zeros at the end beyond
// the first `least` of them.
std::string decimal_text(Wide units, unsigned decimals, unsigned least = 0);

// Reads digits, and a point with at least one digit on either side of it if there is one. nullopt: it is
// something else (a sign, an exponent, a space), has more than `decimals` digits after the point or more than
// `whole` before it (zeros at the beginning count), or does not fit.
std::optional<Wide> parse_decimal(std::string_view text, unsigned decimals, unsigned whole);

}  // namespace dvdi
