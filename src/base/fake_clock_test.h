// A clock that stands still until a test moves it.
#pragma once

#include "base/clock.h"

namespace dvdi {

class FakeClock final : public Clock {
 public:
  BootTime boot() const override { return boot_now; }
  WallTime wall() const override { return wall_now; }
  void advance(Duration by) {
    boot_now += by;
    wall_now += by;
  }

  BootTime boot_now{std::chrono::hours(1)};
  WallTime wall_now{std::chrono::days(20000)};
};

}  // namespace dvdi
