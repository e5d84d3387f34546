// Context: how long a piece of work may take, whether it was cancelled, and whose work it is.
// First argument of everything that can wait.
#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "base/clock.h"
#include "base/result.h"

namespace dvdi {

// Cheap to copy; thread-safe.
class Context {
 public:
  // Without a deadline and not cancellable.
  explicit Context(const Clock& clock = system_clock(), std::string trace_id = {});

  Context with_deadline(BootTime deadline) const;  // the earlier of both deadlines holds
  Context with_timeout(Duration timeout) const;
  // Cancelled by `stop` alone: a context holds one token. Join several causes in one stop_source.
  Context with_stop(std::stop_token stop) const;
  // For a roll-back: the same clock and trace, but neither the deadline nor the cancellation of this one.
  Context detached(Duration timeout) const;

  const Clock& clock() const { return *clock_; }
  BootTime deadline() const { return deadline_; }
  bool has_deadline() const { return deadline_ != BootTime::max(); }
  Duration remaining() const;  // never negative; Duration::max() without a deadline
  const std::stop_token& stop() const { return stop_; }
  bool cancelled() const { return stop_.stop_requested(); }
  // Goes into events, logs and driver calls: one id from the request to its last effect.
  const std::string& trace_id() const { return *trace_id_; }

  // deadline_exceeded or cancelled, where either is so. `what` is what would have been done.
  Status check(std::string_view what) const;

 private:
  const Clock* clock_;
  BootTime deadline_ = BootTime::max();
  std::stop_token stop_;
  std::shared_ptr<const std::string> trace_id_;  // shared: contexts are copied a lot, the text never changes
};

}  // namespace dvdi
