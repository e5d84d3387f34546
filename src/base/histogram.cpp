#include "base/histogram.h"

#include <algorithm>

namespace dvdi {

void Histogram::add(const std::vector<Duration>& bounds, Duration took) {
  if (counts.empty()) counts.resize(bounds.size() + 1);
  const auto bucket = std::ranges::lower_bound(bounds, took) - bounds.begin();
  ++counts.at(static_cast<std::size_t>(bucket));
  ++count;
  sum += took;
}

}  // namespace dvdi
