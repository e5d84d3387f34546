// The simulator's scheduler: real threads of which exactly one runs at a time. Which one is next, the seed
// says at each lock, unlock, wait, notification, failpoint, driver call and disk sync. Time stands still
// while a thread can run, and then jumps to the earliest thing that somebody waits for.
#pragma once

#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "base/sync.h"
#include "random.h"
#include "trace.h"

namespace dvdi::simulation {

// Thrown in each thread of the engine when it crashes: nothing after the place where it was happens.
struct Crashed {};

// The simulation's time. Each look at the boot clock takes a microsecond, so that no two moments are the
// same.
class SimulatedClock final : public Clock {
 public:
  BootTime boot() const override {
    now_ += std::chrono::microseconds(1);
    return now_;
  }
  WallTime wall() const override {
    return WallTime(std::chrono::seconds(1'800'000'000)) + offset_ + now_.time_since_epoch();
  }
  BootTime peek() const { return now_; }
  void advance_to(BootTime when) { now_ = std::max(now_, when); }
  void set_wall(Duration by) { offset_ += by; }  // somebody sets the clock
  void reboot() {                                // the boot clock begins anew, the wall clock goes on
    offset_ += now_.time_since_epoch();
    now_ = BootTime(std::chrono::seconds(5));
  }

 private:
  mutable BootTime now_ = BootTime(std::chrono::seconds(100));
  Duration offset_{};
};

class SimulatedScheduler final : public Scheduler {
 public:
  SimulatedScheduler(Random random, SimulatedClock& clock, Trace& trace);
  ~SimulatedScheduler() override;

  // How likely it is, in percent, that another thread goes on at a place where one could.
  unsigned switching = 30;

  void spawn(std::string name, std::function<void()> work);  // a thread of the engine
  std::size_t engine_threads() const { return tasks_.size() - 1; }
  // The simulation's own thread waits; for less if the engine crashes meanwhile.
  void sleep(Duration duration);
  // Until no thread of the engine is left; false if some still are.
  bool wait_for_engine(Duration at_most);
  // Runs with no thread, at that time.
  void at(BootTime when, std::function<void()> event);
  void forget_events() { events_.clear(); }

  // The engine crashes at its nth place from now; 0: never.
  void crash_in(std::uint64_t places) { crash_in_ = places; }
  std::function<void()> on_crash;  // at that very moment
  void crash();
  bool crashing() const { return crashing_; }
  // All threads of a crashed engine have ended: what comes now is another life.
  void reap_crashed();

  // A place where the engine may be interrupted, and crash. Throws Crashed.
  void place(std::string_view name, std::string_view detail);
  // The same where nothing may be thrown; true if the engine has crashed.
  bool quiet_place(std::string_view name, std::string_view detail) noexcept;
  // In the destructors of engine objects and in what the simulation itself asks of the engine, no other
  // thread runs.
  class Alone {
   public:
    explicit Alone(SimulatedScheduler& scheduler) : scheduler_(scheduler) { ++scheduler_.alone_; }
    Alone(const Alone&) = delete;
    Alone& operator=(const Alone&) = delete;
    ~Alone() { --scheduler_.alone_; }

   private:
    SimulatedScheduler& scheduler_;
  };
  std::uint64_t steps() const { return steps_; }
  std::string_view running_name() const { return running_->name; }
  std::function<void(const char* name, std::string_view detail)>
      on_failpoint;  // the engine runs on afterwards

  void lock(Mutex& mutex) noexcept override;
  void unlocked(Mutex& mutex) noexcept override;
  void wait(Condition& condition, const Context& context, const std::function<void()>& unlock,
            const std::function<void()>& lock) override;
  void notify(Condition& condition, Waiters whom) noexcept override;
  void run_parallel(std::vector<std::function<void()>> work) override;
  void failpoint(const char* name, std::string_view detail) override;

 private:
  struct Group {  // of one run_parallel
    std::size_t left = 0;
    std::exception_ptr failure;
  };
  struct Task {
    std::string name;
    unsigned spawned = 0;  // threads that it made, for their names
    std::binary_semaphore go{0};
    enum class State {
      ready,
      for_mutex,
      for_condition,
      for_group,
      sleeping,
      for_engine
    } state = State::ready;
    const void* on = nullptr;
    const Context* context = nullptr;
    BootTime deadline = BootTime::max();
    Group* member_of = nullptr;
    const Group* waits_for = nullptr;
    std::thread thread;
  };
  using Tasks = std::vector<std::unique_ptr<Task>>;

  void make(std::string name, Group* group, std::function<void()> work);
  void run(Task& task, const std::function<void()>& work);
  bool can_run(const Task& task) const;
  Task& choose(bool stay_if_possible);
  void give_way(bool stay_if_possible) noexcept;
  void step() noexcept;
  void join_ended();
  void throw_if_crashed() const;

  Random random_;
  SimulatedClock& clock_;
  Trace& trace_;
  Tasks tasks_;  // the first is the simulation's own thread
  Task* running_;
  std::multimap<BootTime, std::function<void()>> events_;
  std::vector<std::thread> ended_;
  std::uint64_t steps_ = 0;
  std::uint64_t crash_in_ = 0;
  bool crashing_ = false;
  bool holding_on_ = false;  // in the middle of a wait's unlock: nobody else may run
  int alone_ = 0;
};

}  // namespace dvdi::simulation
