// Context: how long a piece of work may take, whether it was cancelled, and whose work it is.
// First argument of everything that can wait.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "base/clock.h"
#include "base/result.h"

namespace dvdi {

// Who asked, as the kernel says of the other end of a socket (SO_PEERCRED), or this process itself.
struct Caller {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::int32_t pid = 0;
  bool operator==(const Caller&) const = default;
};

// Cheap to copy; thread-safe.
class Context {
 public:
  // Without a deadline and not cancellable.
  explicit Context(const Clock& clock = system_clock(), std::string trace_id = {});

  Context with_deadline(BootTime deadline) const;  // the earlier of both deadlines holds
  Context with_timeout(Duration timeout) const;
  // Cancelled by `stop` alone: a context holds one token. Join several causes in one stop_source.
  Context with_stop(std::stop_token stop) const;
  Context with_caller(const Caller& caller) const;
  // For a roll-back: the same clock, trace and caller, but neither the deadline nor the cancellation of this
  // one.
  Context detached(Duration timeout) const;

  const Clock& clock() const { return *clock_; }
  BootTime deadline() const { return deadline_; }
  bool has_deadline() const { return deadline_ != BootTime::max(); }
  Duration remaining() const;  // never negative; Duration::max() without a deadline
  // How long a wait may go on before it looks at the deadline again, because its own clock stands still while
  // the machine sleeps: half of what remains, a second at least, an hour at most. So a long wait wakes
  // seldom, and many do not keep a processor busy.
  Duration longest_wait() const;
  const std::stop_token& stop() const { return stop_; }
  bool cancelled() const { return stop_.stop_requested(); }
  // Goes into events, logs and driver calls: one id from the request to its last effect.
  const std::string& trace_id() const { return *trace_id_; }
  // Named in every event that the work writes; nullopt where the engine works for nobody in particular.
  const std::optional<Caller>& caller() const { return caller_; }

  // deadline_exceeded or cancelled, where either is so. `what` is what would have been done.
  Status check(std::string_view what) const;

 private:
  const Clock* clock_;
  BootTime deadline_ = BootTime::max();
  std::stop_token stop_;
  std::optional<Caller> caller_;
  std::shared_ptr<const std::string> trace_id_;  // shared: contexts are copied a lot, the text never changes
};

}  // namespace dvdi
