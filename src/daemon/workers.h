// Pieces of work in threads of their own, bounded in all and for each driver, each at most once at a time,
// and repeated only after a wait that grows: a driver that hangs delays only its own.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/context.h"
#include "base/sync.h"

namespace dvdi {

// One thread starts and reaps; it is woken by `on_end`, which any thread calls.
class Workers {
 public:
  struct Limits {
    unsigned at_once = 64;
    unsigned per_driver = 4;
    Duration backoff = std::chrono::seconds(1);  // before work that failed is tried again; doubles
    Duration backoff_cap = std::chrono::minutes(5);
    // Between the end of work that went well and the next time that the same is to be done.
    Duration pause = std::chrono::milliseconds(100);
  };
  struct Outcome {
    bool again = false;    // it did not go well
    std::string sentence;  // for a person; "" if there is nothing to say
  };
  struct Task {
    std::string name;                  // what it is about: never two of one name at once
    std::vector<std::string> drivers;  // that it may have to wait for
    Duration most = {};                // it is cancelled after that
    std::function<Outcome(const Context&)> work;
  };

  Workers(Limits limits, const Clock& clock, std::function<void()> on_end,
          std::function<void(std::string)> say)
      : limits_(limits), clock_(clock), on_end_(std::move(on_end)), say_(std::move(say)) {}
  ~Workers();  // cancels and waits
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Starts what may start now; `tasks` are all that there are to do, the most urgent first. When the next of
  // them may start by the passing of time alone.
  std::optional<BootTime> start(std::vector<Task> tasks);
  // Takes in what has ended. True if anything had.
  bool reap();
  void cancel() { stop_.request_stop(); }
  std::size_t running() const { return running_.size(); }

 private:
  struct Job {
    std::jthread thread;
    std::vector<std::string> drivers;
  };
  struct Rest {  // after work that has ended
    unsigned failures = 0;
    BootTime until;
  };
  bool has_room(const Task& task) const;
  bool launch(Task task);
  void run(const Task& task, const Context& context);
  void rest(const std::string& name, bool again);

  const Limits limits_;
  const Clock& clock_;
  const std::function<void()> on_end_;
  const std::function<void(std::string)> say_;
  std::stop_source stop_;
  std::map<std::string, Job> running_;
  std::map<std::string, unsigned> running_for_;  // by driver
  std::map<std::string, Rest> resting_;
  Mutex mutex_;
  std::map<std::string, Outcome> ended_;  // under the mutex
};

}  // namespace dvdi
