// Times and durations as people write and read them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace dvdi {

// A whole number with a unit, or several in a row: 500ms, 90s, 15m, 24h, 7d, 2w, 1h30m. At most 100 years.
std::optional<Duration> parse_duration(std::string_view text);

// RFC 3339 (2026-11-22T10:00:00Z, with fractions and an offset if need be), or a date (its midnight, UTC).
std::optional<WallTime> parse_time(std::string_view text);

// The two largest units: 45s, 12m 5s, 3h 12m, 2d 4h. Below a minute with tenths: 0.4s.
std::string human_duration(double seconds);

// Bytes in powers of 1,024: 512 B, 10.0 MiB.
std::string human_bytes(std::uint64_t bytes);

}  // namespace dvdi
