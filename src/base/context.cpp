#include "base/context.h"

#include <fmt/format.h>

#include <algorithm>

namespace dvdi {

Context::Context(const Clock& clock, std::string trace_id)
    : clock_(&clock), trace_id_(std::make_shared<const std::string>(std::move(trace_id))) {}

Context Context::with_deadline(BootTime deadline) const {
  Context copy = *this;
  copy.deadline_ = std::min(deadline_, deadline);
  return copy;
}

Context Context::with_timeout(Duration timeout) const { return with_deadline(clock_->boot() + timeout); }

Context Context::with_stop(std::stop_token stop) const {
  Context copy = *this;
  copy.stop_ = std::move(stop);
  return copy;
}

Context Context::with_caller(const Caller& caller) const {
  Context copy = *this;
  copy.caller_ = caller;
  return copy;
}

Context Context::detached(Duration timeout) const {
  Context copy = *this;
  copy.stop_ = {};
  copy.deadline_ = clock_->boot() + timeout;
  return copy;
}

Duration Context::remaining() const {
  if (!has_deadline()) return Duration::max();
  return std::max(Duration::zero(), deadline_ - clock_->boot());
}

Duration Context::longest_wait() const {
  constexpr Duration shortest = std::chrono::seconds(1), longest = std::chrono::hours(1);
  const Duration left = remaining();
  return std::min(left, std::clamp(left / 2, shortest, longest));
}

Status Context::check(std::string_view what) const {
  if (cancelled()) return Error{.code = Code::cancelled, .message = fmt::format("{}: cancelled", what)};
  if (remaining() == Duration::zero()) {
    return Error{.code = Code::deadline_exceeded,
                 .message = fmt::format("{}: the deadline has passed", what)};
  }
  return {};
}

}  // namespace dvdi
