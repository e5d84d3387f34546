// What the tests of prices and of reports reckon with.
#pragma once

#include <cstdint>

#include "event/prices.h"

namespace dvdi {

inline constexpr Wide unit = 1'000'000'000'000;  // of the currency
inline constexpr std::uint64_t gib = std::uint64_t{1} << 30U;

}  // namespace dvdi
