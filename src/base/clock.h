// Time, as a seam: the engine asks a Clock that it was given, so that a test can own time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace dvdi {

using Duration = std::chrono::nanoseconds;

// Time since the machine started, sleep included (CLOCK_BOOTTIME). Durations and deadlines are measured with
// it: setting the wall clock changes neither. Comparable only within one boot.
struct BootClockTag {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = Duration;
  static constexpr bool is_steady = true;
};
using BootTime = std::chrono::time_point<BootClockTag, Duration>;

// Time of day (UTC), for people.
using WallTime = std::chrono::time_point<std::chrono::system_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual BootTime boot() const = 0;
  virtual WallTime wall() const = 0;
};

// The machine's clocks. Thread-safe; lives for the whole process.
const Clock& system_clock();

// RFC 3339, UTC, microseconds: 2026-11-22T10:00:00.000000Z
std::string rfc3339(WallTime time);

}  // namespace dvdi
