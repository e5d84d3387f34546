#include "daemon/workers.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <system_error>

#include "base/random.h"

namespace dvdi {

Workers::~Workers() {
  cancel();
  for (auto& [name, job] : running_) job.thread.join();
}

bool Workers::has_room(const Task& task) const {
  if (running_.size() >= limits_.at_once) return false;
  return std::ranges::none_of(task.drivers, [&](const std::string& driver) {
    const auto found = running_for_.find(driver);
    return found != running_for_.end() && found->second >= limits_.per_driver;
  });
}

std::optional<BootTime> Workers::start(std::vector<Task> tasks) {
  std::optional<BootTime> next;
  std::set<std::string> wanted;
  const BootTime now = clock_.boot();
  for (Task& task : tasks) {
    wanted.insert(task.name);
    if (running_.contains(task.name)) continue;  // its end wakes the caller
    if (const auto rest = resting_.find(task.name); rest != resting_.end() && rest->second.until > now) {
      next = next ? std::min(*next, rest->second.until) : rest->second.until;
      continue;
    }
    if (!has_room(task)) continue;  // the end of another wakes the caller
    const std::string name = task.name;
    if (!launch(std::move(task))) {
      const BootTime until = resting_[name].until;
      next = next ? std::min(*next, until) : until;
    }
  }
  // What is not to be done any more has nothing to rest from.
  std::erase_if(resting_, [&](const auto& one) {
    return !wanted.contains(one.first) && !running_.contains(one.first);
  });
  return next;
}

bool Workers::launch(Task task) {
  const Context context = Context(clock_, random_uuid()).with_timeout(task.most).with_stop(stop_.get_token());
  const std::string name = task.name;
  Job job{.thread = {}, .drivers = task.drivers};
  try {
    job.thread = std::jthread([this, context, task = std::move(task)] { run(task, context); });
  } catch (const std::system_error& error) {
    say_(fmt::format("no thread could be started: {}", error.what()));
    rest(name, true);
    return false;
  }
  for (const std::string& driver : job.drivers) ++running_for_[driver];
  running_.emplace(name, std::move(job));
  return true;
}

void Workers::run(const Task& task, const Context& context) {
  Outcome outcome;
  try {
    outcome = task.work(context);
  } catch (const std::exception& error) {
    outcome = {.again = true, .sentence = fmt::format("{}: {}", task.name, error.what())};
  }
  {
    const Lock lock(mutex_);
    ended_[task.name] = std::move(outcome);
  }
  on_end_();
}

void Workers::rest(const std::string& name, bool again) {
  Rest& rest = resting_[name];
  rest.failures = again ? rest.failures + 1 : 0;
  Duration wait = limits_.pause;
  if (again) {
    wait = limits_.backoff;
    for (unsigned i = 1; i < rest.failures && wait < limits_.backoff_cap; ++i) wait *= 2;
    wait = std::min(wait, limits_.backoff_cap);
  }
  rest.until = clock_.boot() + wait;
}

bool Workers::reap() {
  std::map<std::string, Outcome> ended;
  {
    const Lock lock(mutex_);
    ended.swap(ended_);
  }
  for (auto& [name, outcome] : ended) {
    const auto job = running_.find(name);
    job->second.thread.join();
    for (const std::string& driver : job->second.drivers) {
      if (--running_for_[driver] == 0) running_for_.erase(driver);
    }
    running_.erase(job);
    rest(name, outcome.again);
    if (!outcome.sentence.empty()) say_(std::move(outcome.sentence));
  }
  return !ended.empty();
}

}  // namespace dvdi
