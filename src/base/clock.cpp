#include "base/clock.h"

#include <fmt/format.h>
#include <time.h>

namespace dvdi {

namespace {

class SystemClock final : public Clock {
 public:
  BootTime boot() const override { return BootTime(read(CLOCK_BOOTTIME)); }
  WallTime wall() const override { return WallTime(read(CLOCK_REALTIME)); }

 private:
  static Duration read(clockid_t id) {
    timespec now{};
    clock_gettime(id, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  }
};

}  // namespace

const Clock& system_clock() {
  // Never destroyed: what is static elsewhere may ask it until the very end of the process.
  static const SystemClock& clock = *new SystemClock;
  return clock;
}

std::string rfc3339(WallTime time) {
  const auto days = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(days);
  const std::chrono::hh_mm_ss clock(std::chrono::floor<std::chrono::microseconds>(time - days));
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count(),
                     clock.subseconds().count());
}

}  // namespace dvdi
