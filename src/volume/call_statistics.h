// How the calls to one driver went: counts and times by operation and outcome.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "volume/manager.h"

namespace dvdi::volume {

// Not thread-safe: its owner has a lock anyway.
class CallStatistics {
 public:
  // A call that ended; `error` is absent for one that went well. A call that was `turned_away` took no time
  // worth counting.
  void ended(driver::Operation operation, Duration took, const Error* error, bool turned_away, WallTime now);

  void mount_lost() { ++lost_; }

  void fill(DriverStatus& status) const;
  void append_times(const std::string& driver, std::vector<CallTimes>& times) const;

 private:
  std::map<std::pair<driver::Operation, std::string_view>, Histogram> times_;
  std::uint64_t calls_ = 0, errors_ = 0, timeouts_ = 0, turned_away_ = 0, lost_ = 0;
  std::string last_error_;
  std::optional<WallTime> last_error_time_;
};

}  // namespace dvdi::volume
