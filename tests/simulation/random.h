// The one source of chance of a simulation: everything that it decides comes from its seed.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace dvdi::simulation {

// SplitMix64: the same numbers from the same seed everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : next() % limit; }
  bool chance(unsigned percent) { return below(100) < percent; }
  Duration between(Duration low, Duration high) {
    return low +
           Duration(static_cast<std::int64_t>(next() % static_cast<std::uint64_t>((high - low).count() + 1)));
  }
  template <class T>
  T& one_of(std::vector<T>& values) {
    return values[below(values.size())];
  }
  template <class T>
  const T& one_of(const std::vector<T>& values) {
    return values[below(values.size())];
  }
  // A stream of its own, so that one more question to it changes nothing elsewhere.
  Random fork() { return Random(next()); }

 private:
  std::uint64_t state_;
};

}  // namespace dvdi::simulation
