#include "base/sync.h"

#include <algorithm>
#include <thread>

namespace dvdi {

Status Condition::wait(const Context& context, Lock& lock, const std::function<bool()>& ready,
                       std::string_view what) {
  // Bounded slices: the context's clock, not the condition variable's, says when the deadline has come (the
  // machine may have slept). A notification or a cancellation ends a slice at once.
  constexpr Duration slice = std::chrono::seconds(1);
  while (!ready()) {
    if (auto ended = context.check(what); !ended) return ended;
    if (Scheduler* simulated = scheduler(); simulated != nullptr) {
      simulated->wait(*this, context, [&] { lock.unlock(); }, [&] { lock.lock(); });
    } else if (context.has_deadline()) {
      condition_.wait_for(lock, context.stop(), std::min(slice, context.remaining()), ready);
    } else {
      condition_.wait(lock, context.stop(), ready);  // nothing wakes it in between: an idle daemon sleeps
    }
  }
  return {};
}

Status pause(const Context& context, Duration duration, std::string_view what) {
  Mutex mutex;
  Condition never;
  Lock lock(mutex);
  const Context bounded = context.with_timeout(duration);
  auto ended = never.wait(bounded, lock, [] { return false; }, what);
  if (context.cancelled() || (context.has_deadline() && context.remaining() == Duration::zero()))
    return ended;
  return {};
}

void run_parallel(std::vector<std::function<void()>> work) {
  if (work.empty()) return;
  if (Scheduler* simulated = scheduler(); simulated != nullptr) {
    simulated->run_parallel(std::move(work));
    return;
  }
  std::vector<std::jthread> threads;
  threads.reserve(work.size() - 1);
  for (std::size_t i = 1; i < work.size(); ++i) threads.emplace_back(std::move(work[i]));
  work.front()();
}

}  // namespace dvdi
