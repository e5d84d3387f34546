// The seam through which a simulator owns every schedule: what sync.h and failpoint.h do goes to the
// scheduler that is installed. In production there is none, and the seam is one load and one branch.
#pragma once

#include <atomic>
#include <functional>
#include <string_view>
#include <vector>

#include "base/context.h"

namespace dvdi {

class Condition;
class Mutex;

// Called by the threads that it schedules. What is noexcept is called in destructors; everything else may
// leave by an exception, with which a simulator ends a thread as a crash would.
class Scheduler {
 public:
  virtual ~Scheduler() = default;

  virtual void lock(Mutex& mutex) noexcept = 0;
  virtual void unlocked(Mutex& mutex) noexcept = 0;  // after it was
  // One wait, without the condition's predicate: returns after a notification, at the context's deadline, at
  // its cancellation, or for no reason at all. `unlock` and `lock` let go of the caller's lock and take it
  // again.
  virtual void wait(Condition& condition, const Context& context, const std::function<void()>& unlock,
                    const std::function<void()>& lock) = 0;
  enum class Waiters { one, all };
  virtual void notify(Condition& condition, Waiters whom) noexcept = 0;
  virtual void run_parallel(std::vector<std::function<void()>> work) = 0;
  virtual void failpoint(const char* name, std::string_view detail) = 0;
};

namespace internal {
inline std::atomic<Scheduler*> installed_scheduler = nullptr;
}  // namespace internal

// Null in production.
inline Scheduler* scheduler() { return internal::installed_scheduler.load(std::memory_order_relaxed); }
// While no thread is in a lock or a wait. Null removes it.
inline void install_scheduler(Scheduler* one) { internal::installed_scheduler = one; }

}  // namespace dvdi
