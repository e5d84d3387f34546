#include "base/sync.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <exception>
#include <memory>
#include <thread>

#include "base/kept_threads.h"

namespace dvdi {

namespace {

// Threads that stay for a next piece of work: to make one and to end it takes longer than many a piece. They
// end with the process.
class Crew {
 public:
  // Of this process: a child of fork() has none of its parent's threads.
  static Crew& get() {
    static std::mutex mutex;
    static Crew* crew = nullptr;
    static pid_t owner = 0;
    const std::lock_guard lock(mutex);
    if (const pid_t self = ::getpid(); owner != self) {
      crew = std::make_unique<Crew>().release();  // never destroyed: its threads are there until the end
      owner = self;
    }
    return *crew;
  }

  // std::system_error: there is no thread for it.
  void run(std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      if (idle_ > works_.size()) {
        works_.push_back(std::move(work));
        changed_.notify_one();
        return;
      }
    }
    std::thread([this, first = std::move(work)]() mutable {
      std::exchange(first, {})();
      serve();
    }).detach();
  }

 private:
  static constexpr std::size_t most_idle = 32;

  void serve() {
    std::unique_lock lock(mutex_);
    while (idle_ < most_idle) {
      ++idle_;
      changed_.wait(lock, [this] { return !works_.empty(); });
      --idle_;
      auto work = std::move(works_.front());
      works_.pop_front();
      lock.unlock();
      work();
      work = {};
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> works_;  // each for a thread that waits
  std::size_t idle_ = 0;
};

std::atomic<bool> threads_are_kept = false;

void run_on_crew(const std::vector<std::function<void()>>& work) {
  struct Others {
    std::mutex mutex;
    std::condition_variable ended;
    std::size_t left;
  };
  const auto others = std::make_shared<Others>();
  others->left = work.size() - 1;
  const auto run = [others](const std::function<void()>& one) noexcept {
    one();
    const std::lock_guard lock(others->mutex);
    if (--others->left == 0) others->ended.notify_one();
  };
  for (std::size_t i = 1; i < work.size(); ++i) {
    try {
      Crew::get().run([run, &one = work[i]] { run(one); });  // `work` outlives them: see the wait
    } catch (const std::exception&) {
      run(work[i]);  // later, but done
    }
  }
  // Also where the caller's own piece throws: the others use `work`.
  struct Wait {
    Others& others;
    ~Wait() {
      std::unique_lock lock(others.mutex);
      others.ended.wait(lock, [this] { return others.left == 0; });
    }
  };
  const Wait wait{*others};
  work.front()();
}

}  // namespace

Status Condition::wait(const Context& context, Lock& lock, const std::function<bool()>& ready,
                       std::string_view what) {
  // In slices: the context's clock, not the condition variable's, says when the deadline has come. A
  // notification or a cancellation ends one at once.
  while (!ready()) {
    if (auto ended = context.check(what); !ended) return ended;
    if (Scheduler* simulated = scheduler(); simulated != nullptr) {
      simulated->wait(*this, context, [&] { lock.unlock(); }, [&] { lock.lock(); });
    } else if (context.has_deadline()) {
      condition_.wait_for(lock, context.stop(), context.longest_wait(), ready);
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
  if (threads_are_kept) return run_on_crew(work);
  std::vector<std::jthread> threads;
  threads.reserve(work.size() - 1);
  for (std::size_t i = 1; i < work.size(); ++i) threads.emplace_back(std::move(work[i]));
  work.front()();
}

void keep_threads_of_run_parallel() { threads_are_kept = true; }

}  // namespace dvdi
