// How often something took how long: what a histogram of Prometheus is made of.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace dvdi {

// Not thread-safe. The bounds are the owner's: always the same ones, rising.
struct Histogram {
  // So many took at most bounds[i], and longer than the bound before it; the last: longer than all. Empty
  // until there is one.
  std::vector<std::uint64_t> counts;
  std::uint64_t count = 0;
  Duration sum = Duration::zero();

  void add(const std::vector<Duration>& bounds, Duration took);
};

}  // namespace dvdi
