// Threads, locks and waits of the engine (store, volume, isolator). They come from here and nowhere else, so
// that a simulator can own every schedule (base/scheduler.h).
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <vector>

#include "base/context.h"
#include "base/scheduler.h"

namespace dvdi {

class Mutex {
 public:
  void lock() {
    if (Scheduler* simulated = scheduler(); simulated != nullptr) [[unlikely]] {
      simulated->lock(*this);
    } else {
      mutex_.lock();
    }
  }
  bool try_lock() { return mutex_.try_lock(); }
  void unlock() {
    mutex_.unlock();
    if (Scheduler* simulated = scheduler(); simulated != nullptr) [[unlikely]]
      simulated->unlocked(*this);
  }

 private:
  std::mutex mutex_;
};

using Lock = std::unique_lock<Mutex>;

class Condition {
 public:
  // Waits until `ready` (called with the lock held) or until the context ends; then the context's error.
  Status wait(const Context& context, Lock& lock, const std::function<bool()>& ready, std::string_view what);
  void notify_all() {
    if (Scheduler* simulated = scheduler(); simulated != nullptr) [[unlikely]] {
      simulated->notify(*this, Scheduler::Waiters::all);
    } else {
      condition_.notify_all();
    }
  }
  // Where one of those that wait can go on, whichever it is. One whose context has ended meanwhile goes on
  // all the same, as wait() asks `ready` first: no notification is lost.
  void notify_one() {
    if (Scheduler* simulated = scheduler(); simulated != nullptr) [[unlikely]] {
      simulated->notify(*this, Scheduler::Waiters::one);
    } else {
      condition_.notify_one();
    }
  }

 private:
  std::condition_variable_any condition_;
};

// Sleeps for `duration`, less if the context ends: then its error.
Status pause(const Context& context, Duration duration, std::string_view what);

// Runs the pieces of work at the same time, the first on the caller's thread; returns when all have ended.
// None but the first may throw. The threads of the others end with it, unless base/kept_threads.h says that
// they stay.
void run_parallel(std::vector<std::function<void()>> work);

}  // namespace dvdi
