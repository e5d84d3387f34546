#include "worker_pool.h"

#include <csignal>
#include <system_error>
#include <utility>

namespace dvdi_mesos {

namespace {

// The agent's signals are its own threads' matter; what is blocked here is inherited by the thread that is
// made.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

bool WorkerPool::run(Job job) { return add(std::move(job), Clock::now(), true); }

bool WorkerPool::run_later(Job job, std::chrono::milliseconds delay) {
  return add(std::move(job), Clock::now() + delay, false);
}

bool WorkerPool::add(Job job, Clock::time_point due, bool counts) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (stopped_ || (counts && counted_ >= max_queue_)) return false;
  if (idle_ <= waiting_.size() && threads_.size() < max_threads_) {
    try {
      const BlockedSignals blocked;
      threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      if (threads_.empty() && counts) return false;  // else the others, or the next one, get to it
    }
  }
  waiting_.emplace(due, Waiting{std::move(job), counts});
  if (counts) ++counted_;
  changed_.notify_one();
  return true;
}

void WorkerPool::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopped_) {
    if (waiting_.empty() || waiting_.begin()->first > Clock::now()) {
      ++idle_;
      if (waiting_.empty()) {
        changed_.wait(lock);
      } else {
        const Clock::time_point due = waiting_.begin()->first;
        changed_.wait_until(lock, due);
      }
      --idle_;
      continue;
    }
    Job job = std::move(waiting_.begin()->second.job);
    if (waiting_.begin()->second.counts) --counted_;
    waiting_.erase(waiting_.begin());
    // Whoever was to wake at the next one's time may be this very thread.
    if (!waiting_.empty()) changed_.notify_one();
    lock.unlock();
    job();
    job = nullptr;  // what it holds goes without the lock
    lock.lock();
  }
}

void WorkerPool::close() {
  std::multimap<Clock::time_point, Waiting> dropped;  // what they hold goes without the lock
  const std::lock_guard<std::mutex> lock(mutex_);
  stopped_ = true;
  dropped.swap(waiting_);
  counted_ = 0;
  changed_.notify_all();
}

void WorkerPool::stop() {
  close();
  std::vector<std::thread> threads;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    threads.swap(threads_);
  }
  for (std::thread& one : threads) one.join();
}

}  // namespace dvdi_mesos
