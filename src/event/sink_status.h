// How far one sink is and how it goes, for a person and for metrics.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"

namespace dvdi {

struct SinkStatus {
  std::string name, type, where;
  std::string state;         // delivering, idle, waiting (after a failure), paused, off (no daemon runs)
  std::uint64_t cursor = 0;  // the highest number that it has confirmed
  std::uint64_t behind = 0;  // events that are there and that it has not confirmed
  std::optional<WallTime> oldest;  // when the first of them was
  std::uint64_t replay_until = 0;  // up to there it gets what it had; 0: no replay
  std::uint64_t undelivered = 0;   // the first that was dropped since it last got something; 0: none
  bool paused = false;
  std::string last_error;  // also when it is over
  std::optional<WallTime> last_error_time, next_try;
  // Since the daemon's start.
  std::uint64_t delivered_total = 0, failures_total = 0;
};

}  // namespace dvdi
