#include "trace.h"

#include <cstdlib>

namespace dvdi::simulation {

void Trace::write(const std::string& text) {
  std::string whole = (prefix ? prefix() : std::string()) + text + "\n";
  for (const char c : whole) digest_ = (digest_ ^ static_cast<unsigned char>(c)) * 1099511628211U;
  if (file_ != nullptr) static_cast<void>(std::fwrite(whole.data(), 1, whole.size(), file_));
  tail_.push_back(std::move(whole));
  if (tail_.size() > kept) tail_.pop_front();
}

void Trace::violation(const std::string& what) {
  line("VIOLATION: {}", what);
  if (file_ != nullptr) std::fflush(file_);
  std::string report = fmt::format("the last {} lines of the trace:\n", tail_.size());
  for (const std::string& one : tail_) report += one;
  report +=
      fmt::format("\nviolation at {}{}\n\nreplay: {}\n", prefix ? prefix() : std::string(), what, replay);
  static_cast<void>(std::fwrite(report.data(), 1, report.size(), stderr));
  // Threads stand in the middle of their work: nothing of it can be taken down in order.
  std::_Exit(1);
}

}  // namespace dvdi::simulation
