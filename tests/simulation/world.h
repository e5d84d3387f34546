// One world: a machine with drivers, a foreign user of them, and people who ask the engine for everything
// that it can do, while things go wrong. Everything follows from the seed.
#pragma once

#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "disk.h"
#include "engine.h"
#include "invariants.h"

namespace dvdi::simulation {

struct Counts {
  std::uint64_t steps = 0, worlds = 0, checks = 0, events = 0, calls = 0;
  std::uint64_t crashes = 0, reboots = 0, prepared = 0, ended = 0, dropped_writes = 0, torn_writes = 0;
};

class World {
 public:
  World(std::uint64_t seed, HelperPool& helpers, std::string lock_file, Trace& trace);
  ~World();

  // Lives for so many steps at most, ends everything, and looks whether anything is left. Worlds have lengths
  // of their own.
  void run(std::uint64_t at_most);
  void add_to(Counts& counts) const;

 private:
  enum class Crash { killed, lossy, power };

  Context context(Duration timeout) const;
  void act();
  void open_engine();
  void after_open();
  void finish_crash();
  void shut_down();
  void end();
  void lend_a_hand();
  void spawn(const std::string& name, std::function<void(SimulatedEngine&)> work);

  void new_container();
  void prepare(Container& container);
  void prepared(const ContainerKey& key, const v1::ContainerLaunchInfo& launch);
  void isolate(Container& container);
  void clean_up(Container& container);
  void recover();
  void settle();
  void look();
  void operate();  // create, remove, release by hand
  void foreign();
  void vanish();
  void break_something();
  void check();
  Container* any(const std::function<bool(const Container&)>& wanted);
  VolumeKey any_volume();
  SimulatedDriver& any_driver();
  void forget_over();

  Trace& trace_;
  HelperPool& helpers_;
  const std::string lock_file_;
  Random random_;
  Random isolator_random_;
  SimulatedClock clock_;
  SimulatedScheduler scheduler_;
  Kernel kernel_;
  Disk disk_;
  SimulatedCatalog drivers_;
  Invariants invariants_;
  volume::Policy policy_;
  std::unique_ptr<SimulatedEngine> engine_;
  bool opening_ = false;
  bool quiet_ = false;  // the end: nothing goes wrong any more
  Crash next_crash_ = Crash::killed;
  unsigned isolator_faults_ = 0, fault_level_ = 0, isolator_level_ = 0;
  std::uint64_t length_ = 0;
  unsigned next_container_ = 0, calls_ = 0;
  std::map<unsigned, std::stop_source> running_calls_;
  Counts counts_;
};

}  // namespace dvdi::simulation
