#include "volume/driver_health.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace dvdi::volume {

namespace {

double seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// A complete answer came, whatever it says.
bool answered(const Error* error) {
  if (error == nullptr || error->outcome == Outcome::refused) return true;
  return error->outcome != Outcome::not_sent &&
         (error->code == Code::driver_error || error->code == Code::driver_violation);
}

// Never sent for a reason of ours: a wrong argument, a queue that is full or too slow.
bool is_ours(const Error& error) {
  using enum Code;
  return error.outcome == Outcome::not_sent &&
         (error.code == invalid_argument || error.code == resource_exhausted ||
          error.code == failed_precondition || error.code == deadline_exceeded || error.code == cancelled);
}

}  // namespace

void DriverHealth::ended(const CallEnd& end) {
  const std::string name(driver::operation_name(end.operation));
  if (answered(end.error)) {
    unreachable_.clear();
    Judged& judged = operations_[end.operation];
    judged = {};
    if (end.took * 2 > end.deadline) {
      judged = {DriverState::slow, fmt::format("{} took {:.1f} s of the {:.0f} s that it may take", name,
                                               seconds(end.took), seconds(end.deadline))};
    }
    return;
  }
  if (is_ours(*end.error)) return;
  if (end.given_up) {
    if (end.took * 2 <= end.deadline || operations_[end.operation].state == DriverState::down) return;
    operations_[end.operation] = {DriverState::slow,
                                  fmt::format("{} had no answer for {:.1f} s", name, seconds(end.took))};
    return;
  }
  if (end.error->outcome == Outcome::not_sent || end.error->code == Code::unavailable) {
    unreachable_ = fmt::format("{} could not be sent: {}", name, end.error->message);
    return;
  }
  operations_[end.operation] = {
      DriverState::down, end.error->code == Code::deadline_exceeded
                             ? fmt::format("{} had no answer within {:.0f} s", name, seconds(end.deadline))
                             : fmt::format("{} had no complete answer: {}", name, end.error->message)};
}

DriverState DriverHealth::state() const {
  if (!unreachable_.empty()) return DriverState::down;
  DriverState worst = DriverState::up;
  for (const auto& [operation, judged] : operations_) worst = std::max(worst, judged.state);
  return worst;
}

std::string DriverHealth::reason() const {
  if (!unreachable_.empty()) return unreachable_;
  const DriverState worst = state();
  if (worst == DriverState::up) return {};
  for (const auto& [operation, judged] : operations_) {
    if (judged.state == worst) return judged.reason;
  }
  return {};
}

}  // namespace dvdi::volume
