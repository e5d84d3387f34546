// A bounded number of threads that work off a bounded queue, so that no thread of the agent ever waits.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace dvdi_mesos {

class WorkerPool {
 public:
  using Job = std::function<void()>;

  // Threads are made when they are first needed. A job must not throw.
  WorkerPool(std::size_t threads, std::size_t queue) : max_threads_(threads), max_queue_(queue) {}
  // Waits for the jobs that run; those that wait are dropped.
  ~WorkerPool() { stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False: so many wait already, no thread can be made, or the pool was stopped. The job is then not run.
  bool run(Job job);
  // Not before that time. Not counted as waiting: it is a call that was accepted before. False: stopped.
  bool run_later(Job job, std::chrono::milliseconds delay);
  // Takes no more and drops what waits; what runs goes on.
  void close();
  void stop();

 private:
  using Clock = std::chrono::steady_clock;

  bool add(Job job, Clock::time_point due, bool counts);
  void work();

  const std::size_t max_threads_;
  const std::size_t max_queue_;
  std::mutex mutex_;
  std::condition_variable changed_;
  struct Waiting {
    Job job;
    bool counts;
  };
  std::multimap<Clock::time_point, Waiting> waiting_;
  std::size_t counted_ = 0;  // of waiting_
  std::size_t idle_ = 0;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace dvdi_mesos
