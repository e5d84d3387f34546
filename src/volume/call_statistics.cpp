#include "volume/call_statistics.h"

namespace dvdi::volume {

namespace {

// One of a fixed few: they are labels of a metric.
std::string_view outcome_of(const Error* error) {
  if (error == nullptr) return "ok";
  if (error->outcome == Outcome::not_sent) return "not_sent";
  if (error->code == Code::deadline_exceeded) return "timed_out";
  if (error->code == Code::cancelled) return "cancelled";
  if (error->outcome == Outcome::refused) return "refused";
  return "failed";
}

// What a driver answers may be long; only the last one is kept, and for a person.
constexpr std::size_t max_last_error = 1000;

}  // namespace

const std::vector<Duration>& call_time_bounds() {
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  static const std::vector<Duration> bounds = {
      milliseconds(1),   milliseconds(5), milliseconds(10), milliseconds(50), milliseconds(100),
      milliseconds(500), seconds(1),      seconds(5),       seconds(10),      seconds(30),
      seconds(60),       seconds(120),    seconds(300),     seconds(600)};
  return bounds;
}

void CallStatistics::ended(driver::Operation operation, Duration took, const Error* error, bool turned_away,
                           WallTime now) {
  ++calls_;
  if (error != nullptr) {
    ++errors_;
    if (error->code == Code::deadline_exceeded) ++timeouts_;
    if (turned_away) ++turned_away_;
    last_error_ = error->text();
    if (last_error_.size() > max_last_error) last_error_.resize(max_last_error);
    last_error_time_ = now;
  }
  if (turned_away) return;
  times_[{operation, outcome_of(error)}].add(call_time_bounds(), took);
}

void CallStatistics::fill(DriverStatus& status) const {
  status.calls = calls_;
  status.errors = errors_;
  status.timeouts = timeouts_;
  status.turned_away = turned_away_;
  status.mounts_lost = lost_;
  status.last_error = last_error_;
  status.last_error_time = last_error_time_;
}

void CallStatistics::append_times(const std::string& driver, std::vector<CallTimes>& times) const {
  for (const auto& [key, one] : times_) {
    times.push_back({.driver = driver,
                     .operation = std::string(driver::operation_name(key.first)),
                     .outcome = std::string(key.second),
                     .times = one});
  }
}

}  // namespace dvdi::volume
