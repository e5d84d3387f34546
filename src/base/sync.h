// Threads, locks and waits of the engine (store, volume, isolator). They come from here and nowhere else, so
// that a simulator can own every schedule.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <vector>

#include "base/context.h"

namespace dvdi {

using Mutex = std::mutex;
using Lock = std::unique_lock<std::mutex>;

class Condition {
 public:
  // Waits until `ready` (called with the lock held) or until the context ends; then the context's error.
  Status wait(const Context& context, Lock& lock, const std::function<bool()>& ready, std::string_view what);
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable_any condition_;
};

// Sleeps for `duration`, less if the context ends: then its error.
Status pause(const Context& context, Duration duration, std::string_view what);

// Runs the pieces of work at the same time, the first on the caller's thread; returns when all have ended.
void run_parallel(std::vector<std::function<void()>> work);

}  // namespace dvdi
