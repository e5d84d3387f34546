#include "scheduler.h"

#include <algorithm>

namespace dvdi::simulation {

SimulatedScheduler::SimulatedScheduler(Random random, SimulatedClock& clock, Trace& trace)
    : random_(random), clock_(clock), trace_(trace) {
  tasks_.push_back(std::make_unique<Task>());
  tasks_.front()->name = "world";
  running_ = tasks_.front().get();
}

SimulatedScheduler::~SimulatedScheduler() { join_ended(); }

void SimulatedScheduler::join_ended() {
  for (std::thread& one : ended_) one.join();
  ended_.clear();
}

void SimulatedScheduler::make(std::string name, Group* group, std::function<void()> work) {
  auto made = std::make_unique<Task>();
  Task& task = *made;
  task.name = std::move(name);
  task.member_of = group;
  tasks_.push_back(std::move(made));
  task.thread = std::thread([this, &task, work = std::move(work)] { run(task, work); });
}

void SimulatedScheduler::spawn(std::string name, std::function<void()> work) {
  make(std::move(name), nullptr, std::move(work));
}

void SimulatedScheduler::run(Task& task, const std::function<void()>& work) {
  task.go.acquire();
  std::exception_ptr failure;
  try {
    throw_if_crashed();
    work();
  } catch (const Crashed&) {
    failure = std::current_exception();
  }
  if (task.member_of != nullptr) {
    if (failure) task.member_of->failure = failure;
    --task.member_of->left;
  }
  const auto at = std::ranges::find_if(tasks_, [&](const auto& one) { return one.get() == &task; });
  const std::unique_ptr<Task> self = std::move(*at);
  tasks_.erase(at);
  ended_.push_back(std::move(self->thread));
  Task& next = choose(false);
  running_ = &next;
  next.go.release();
}

bool SimulatedScheduler::can_run(const Task& task) const {
  const bool world = &task == tasks_.front().get();
  if (crashing_ && world) return tasks_.size() == 1;
  switch (task.state) {
    case Task::State::ready:
      return true;
    case Task::State::for_mutex:
      return false;
    case Task::State::for_condition:
      return crashing_ || task.on == nullptr || task.deadline <= clock_.peek() ||
             (task.context != nullptr && task.context->cancelled());
    case Task::State::for_group:
      return task.waits_for->left == 0;
    case Task::State::sleeping:
      return task.deadline <= clock_.peek();
    case Task::State::for_engine:
      return tasks_.size() == 1 || task.deadline <= clock_.peek();
  }
  return false;
}

SimulatedScheduler::Task& SimulatedScheduler::choose(bool stay_if_possible) {
  if (stay_if_possible && can_run(*running_) && !random_.chance(switching)) return *running_;
  std::vector<Task*> able;
  for (;;) {
    while (!crashing_ && !events_.empty() && events_.begin()->first <= clock_.peek()) {
      const auto event = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      const Alone alone(*this);
      event();
    }
    for (const auto& one : tasks_) {
      if (can_run(*one)) able.push_back(one.get());
    }
    if (!able.empty()) return *random_.one_of(able);
    BootTime earliest = events_.empty() || crashing_ ? BootTime::max() : events_.begin()->first;
    for (const auto& one : tasks_) {
      if (!crashing_ && one->state != Task::State::for_mutex) earliest = std::min(earliest, one->deadline);
    }
    if (earliest == BootTime::max()) {
      std::string who;
      for (const auto& one : tasks_) {
        who += fmt::format("\n  {}: {}", one->name,
                           one->state == Task::State::for_mutex ? "waits for a lock" : "waits");
      }
      trace_.violation("nobody can go on, and time would change nothing:" + who);
    }
    clock_.advance_to(earliest);
  }
}

void SimulatedScheduler::give_way(bool stay_if_possible) noexcept {
  Task& me = *running_;
  Task& next = choose(stay_if_possible);
  if (&next == &me) return;
  trace_.line("-> {}", next.name);
  running_ = &next;
  next.go.release();
  me.go.acquire();
}

void SimulatedScheduler::step() noexcept {
  ++steps_;
  if (!crashing_ && crash_in_ > 0 && --crash_in_ == 0) crash();
}

void SimulatedScheduler::crash() {
  if (crashing_) return;
  crash_in_ = 0;
  trace_.line("the engine crashes");
  crashing_ = true;
  const Alone alone(*this);
  if (on_crash) on_crash();
}

void SimulatedScheduler::reap_crashed() {
  if (tasks_.size() > 1) {
    Task& me = *running_;
    me.state = Task::State::for_engine;
    me.deadline = BootTime::max();
    give_way(false);
    me.state = Task::State::ready;
  }
  join_ended();
  crashing_ = false;
}

void SimulatedScheduler::throw_if_crashed() const {
  // A thread that is being unwound already is on its way.
  if (crashing_ && std::uncaught_exceptions() == 0) throw Crashed{};
}

void SimulatedScheduler::sleep(Duration duration) {
  join_ended();
  if (crashing_) return;
  Task& me = *running_;
  me.state = Task::State::sleeping;
  me.deadline = clock_.peek() + duration;
  give_way(false);
  me.state = Task::State::ready;
  me.deadline = BootTime::max();
}

bool SimulatedScheduler::wait_for_engine(Duration at_most) {
  Task& me = *running_;
  me.state = Task::State::for_engine;
  me.deadline = clock_.peek() + at_most;
  if (tasks_.size() > 1) give_way(false);
  me.state = Task::State::ready;
  me.deadline = BootTime::max();
  join_ended();
  return tasks_.size() == 1;
}

void SimulatedScheduler::at(BootTime when, std::function<void()> event) {
  events_.emplace(when, std::move(event));
}

void SimulatedScheduler::place(std::string_view name, std::string_view detail) {
  if (alone_ > 0) return;
  trace_.line("{} {}", name, detail);
  step();
  if (!crashing_) give_way(true);
  throw_if_crashed();
}

bool SimulatedScheduler::quiet_place(std::string_view name, std::string_view detail) noexcept {
  if (alone_ == 0 && !crashing_) {
    trace_.line("{} {}", name, detail);
    step();
    if (!crashing_) give_way(true);
  }
  return crashing_;
}

void SimulatedScheduler::lock(Mutex& mutex) noexcept {
  if (alone_ == 0) {
    step();
    give_way(true);
  }
  while (!mutex.try_lock()) {
    if (alone_ > 0) trace_.violation("a lock is held by a thread that cannot run");
    running_->state = Task::State::for_mutex;
    running_->on = &mutex;
    give_way(false);
  }
}

void SimulatedScheduler::unlocked(Mutex& mutex) noexcept {
  for (const auto& one : tasks_) {
    if (one->state == Task::State::for_mutex && one->on == &mutex) one->state = Task::State::ready;
  }
  if (alone_ > 0 || holding_on_) return;
  step();
  give_way(true);
}

void SimulatedScheduler::wait(Condition& condition, const Context& context,
                              const std::function<void()>& unlock, const std::function<void()>& lock) {
  if (alone_ > 0) trace_.violation("a wait where no other thread can run");
  step();
  throw_if_crashed();
  Task& me = *running_;
  me.state = Task::State::for_condition;
  me.on = &condition;
  me.context = &context;
  me.deadline = context.deadline();
  holding_on_ = true;
  unlock();
  holding_on_ = false;
  give_way(false);
  me.state = Task::State::ready;
  me.context = nullptr;
  me.deadline = BootTime::max();
  throw_if_crashed();
  lock();
}

void SimulatedScheduler::notify(Condition& condition, Waiters whom) noexcept {
  std::vector<Task*> waiting;
  for (const auto& one : tasks_) {
    if (one->state == Task::State::for_condition && one->on == &condition) waiting.push_back(one.get());
  }
  if (whom == Waiters::one && !waiting.empty()) waiting = {random_.one_of(waiting)};
  for (Task* one : waiting) one->on = nullptr;
  if (alone_ > 0) return;
  step();
  give_way(true);
}

void SimulatedScheduler::run_parallel(std::vector<std::function<void()>> work) {
  if (alone_ > 0) {
    for (const auto& one : work) one();
    return;
  }
  Task& me = *running_;
  Group group;
  group.left = work.size() - 1;
  for (std::size_t i = 1; i < work.size(); ++i) {
    make(fmt::format("{}/{}", me.name, ++me.spawned), &group, std::move(work[i]));
  }
  std::exception_ptr failure;
  try {
    work.front()();
  } catch (const Crashed&) {
    failure = std::current_exception();
  }
  if (group.left > 0) {
    me.state = Task::State::for_group;
    me.waits_for = &group;
    give_way(false);
    me.state = Task::State::ready;
  }
  if (!failure) failure = group.failure;
  if (failure) std::rethrow_exception(failure);
  throw_if_crashed();
}

void SimulatedScheduler::failpoint(const char* name, std::string_view detail) {
  if (alone_ > 0) return;
  if (on_failpoint && !crashing_) {
    const Alone alone(*this);
    on_failpoint(name, detail);
  }
  place(name, detail);
}

}  // namespace dvdi::simulation
