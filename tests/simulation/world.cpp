#include "world.h"

#include <algorithm>

#include "base/random.h"

namespace dvdi::simulation {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

namespace {

Random* ids = nullptr;
std::uint64_t next_id() { return ids->next(); }

SimulatedDriver::Manner manner_of(Random& random) {
  return {.refuses_second_mount = random.chance(50),
          .counts_calls = random.chance(15),
          .unmounting_nothing_succeeds = random.chance(50),
          .one_at_a_time = random.chance(70),
          .refuses_to_create_what_exists = random.chance(30),
          .serves = random.chance(40),
          .plain_directories = random.chance(10)};
}

}  // namespace

World::World(std::uint64_t seed, HelperPool& helpers, std::string lock_file, Trace& trace)
    : trace_(trace),
      helpers_(helpers),
      lock_file_(std::move(lock_file)),
      random_(seed),
      isolator_random_(random_.fork()),
      scheduler_(random_.fork(), clock_, trace),
      disk_(random_.fork()),
      invariants_({scheduler_, clock_, kernel_, drivers_, trace}) {
  trace_.prefix = [this] {
    return fmt::format("{} {:.6f} {}: ", scheduler_.steps(),
                       std::chrono::duration<double>(clock_.peek().time_since_epoch()).count(),
                       scheduler_.running_name());
  };
  static Random id_random(0);
  id_random = random_.fork();
  ids = &id_random;
  install_random(next_id);
  Disk::install(&disk_);
  install_machine(&kernel_);
  install_scheduler(&scheduler_);
  scheduler_.switching = static_cast<unsigned>(random_.one_of(std::vector{2, 10, 40, 90}));
  scheduler_.on_failpoint = [this](const char* name, std::string_view) {
    if (std::string_view(name) == "store.commit.after") check();
  };
  scheduler_.on_crash = [this] {
    disk_.crash(next_crash_ == Crash::killed ? Disk::Loss::nothing : Disk::Loss::unsynced);
  };
  disk_.at_sync = [this](const char* when, const std::string& file) {
    static_cast<void>(scheduler_.quiet_place("sync", fmt::format("{} {}", when, file)));
  };
  disk_.at_sleep = [this] { static_cast<void>(scheduler_.quiet_place("busy", "")); };
  kernel_.on_detach = [this](std::uint64_t id) { invariants_.taken_away(id); };
  kernel_.on_look = [this] { scheduler_.place("look", ""); };

  fault_level_ = static_cast<unsigned>(random_.one_of(std::vector{0, 5, 15, 40}));
  isolator_level_ = static_cast<unsigned>(random_.one_of(std::vector{0, 2, 10}));
  const std::size_t count = 1 + random_.below(3);
  for (std::size_t i = 0; i < count; ++i) {
    auto driver = std::make_shared<SimulatedDriver>(
        fmt::format("driver{}", i + 1),
        SimulatedDriver::Parts{scheduler_, clock_, kernel_, trace_, invariants_}, random_.fork(),
        manner_of(random_));
    trace_.line(
        "{}: second mount {}, counts {}, nothing {}, one at a time {}, create {}, serves {}, plain {}",
        driver->name(), driver->manner().refuses_second_mount, driver->manner().counts_calls,
        driver->manner().unmounting_nothing_succeeds, driver->manner().one_at_a_time,
        driver->manner().refuses_to_create_what_exists, driver->manner().serves,
        driver->manner().plain_directories);
    drivers_.add(std::move(driver));
  }
  policy_.mount_deadline = seconds(20);
  policy_.unmount_deadline = seconds(40);
  policy_.call_deadline = seconds(10);
  policy_.calls_per_driver = 2 + static_cast<unsigned>(random_.below(4));
  policy_.unmount_attempts = 6;
  policy_.debt_backoff_cap = seconds(30);
  length_ = 4'000 + random_.below(16'000);
}

World::~World() {
  {
    const SimulatedScheduler::Alone alone(scheduler_);
    invariants_.detach();
    engine_.reset();
  }
  install_scheduler(nullptr);
  install_machine(nullptr);
  install_random(nullptr);
  Disk::install(nullptr);
  trace_.prefix = nullptr;
}

void World::add_to(Counts& counts) const {
  counts.steps += scheduler_.steps();
  ++counts.worlds;
  counts.checks += invariants_.checks();
  counts.events += invariants_.events();
  for (const auto& [name, driver] : drivers_.all()) counts.calls += driver->calls();
  counts.crashes += counts_.crashes;
  counts.reboots += counts_.reboots;
  counts.prepared += counts_.prepared;
  counts.ended += counts_.ended;
  counts.dropped_writes += disk_.dropped();
  counts.torn_writes += disk_.torn();
}

Context World::context(Duration timeout) const {
  return Context(clock_, fmt::format("trace-{}", calls_)).with_timeout(timeout);
}

void World::check() {
  if (scheduler_.crashing()) return;
  // What looks is not part of the machine: its disk does not fail.
  const bool full = std::exchange(disk_.full, false);
  const unsigned errors = std::exchange(disk_.errors, 0);
  invariants_.check();
  disk_.full = full;
  disk_.errors = errors;
}

void World::run(std::uint64_t at_most) {
  const std::uint64_t last = std::min(length_, at_most);
  while (scheduler_.steps() < last) {
    if (scheduler_.crashing()) finish_crash();
    check();
    act();
    const Duration longest = random_.chance(85) ? Duration(milliseconds(60)) : Duration(seconds(20));
    scheduler_.sleep(random_.between(milliseconds(0), longest));
  }
  end();
}

void World::act() {
  if (!engine_) {
    if (random_.chance(20)) {
      disk_.full = false;
      disk_.errors = 0;
    }
    if (!opening_ && random_.chance(70)) open_engine();
    if (random_.chance(30)) foreign();
    return;
  }
  const auto what = random_.below(1000);
  if (what < 220) {
    new_container();
  } else if (what < 300) {
    if (auto* one = any([](const Container& c) { return !c.over; })) prepare(*one);
  } else if (what < 305) {
    // A prepare that arrives after its cleanup is refused, for an hour.
    if (auto* one = any([&](const Container& c) {
          return c.over && c.calls == 0 && c.prepared && clock_.peek() - c.prepared_at < minutes(40);
        })) {
      prepare(*one);
    }
  } else if (what < 420) {
    if (auto* one = any([](const Container& c) { return c.live() && !c.running; })) isolate(*one);
  } else if (what < 640) {
    if (auto* one = any([](const Container& c) { return !c.over || c.calls > 0; })) clean_up(*one);
  } else if (what < 720) {
    settle();
  } else if (what < 735) {
    look();
  } else if (what < 755) {
    recover();
  } else if (what < 790) {
    operate();
  } else if (what < 850) {
    foreign();
  } else if (what < 865) {
    vanish();
  } else if (what < 895) {
    if (!running_calls_.empty()) {
      auto one = std::next(running_calls_.begin(),
                           static_cast<std::ptrdiff_t>(random_.below(running_calls_.size())));
      trace_.line("cancel call {}", one->first);
      one->second.request_stop();
    }
  } else if (what < 960) {
    break_something();
  } else if (what < 985) {
    const auto kind = random_.below(100);
    next_crash_ = kind < 45 ? Crash::killed : kind < 85 ? Crash::lossy : Crash::power;
    scheduler_.crash_in(1 + random_.below(400));
  } else if (what < 990) {
    shut_down();
  } else {
    forget_over();
  }
}

void World::spawn(const std::string& name, std::function<void(SimulatedEngine&)> work) {
  scheduler_.spawn(name, [this, work = std::move(work)] { work(*engine_); });
}

void World::open_engine() {
  opening_ = true;
  kernel_.be(kernel_.start_process());
  trace_.line("open the engine, process {}", kernel_.self());
  // What their processes do not defend any more, this engine may end.
  for (auto& [key, container] : invariants_.containers) {
    if (key.owner != "run" || container.over) continue;
    const bool worker = container.worker && kernel_.alive(container.worker->pid);
    if (!worker && !kernel_.alive(container.init)) container.ending = true;
  }
  scheduler_.spawn("open", [this] {
    auto opened = SimulatedEngine::open(context(minutes(1)), {.drivers = drivers_,
                                                              .helpers = helpers_,
                                                              .lock_file = lock_file_,
                                                              .policy = policy_,
                                                              .random = isolator_random_,
                                                              .isolator_faults = isolator_faults_});
    trace_.line("opened: {}", opened ? "yes" : opened.error().text());
    if (!opened) {
      opening_ = false;
      return;
    }
    after_open();
    engine_ = *std::move(opened);
    engine_->settle(context(seconds(5)));
    opening_ = false;
  });
}

void World::after_open() {
  const SimulatedScheduler::Alone alone(scheduler_);
  const bool full = std::exchange(disk_.full, false);
  const unsigned errors = std::exchange(disk_.errors, 0);
  auto ledger = Ledger::open(context(minutes(1)), database);
  disk_.full = full;
  disk_.errors = errors;
  if (!ledger)
    trace_.violation("the ledger was opened, and cannot be opened again: " + ledger.error().text());
  invariants_.attach(*std::move(ledger));
}

void World::finish_crash() {
  scheduler_.reap_crashed();
  ++counts_.crashes;
  {
    const SimulatedScheduler::Alone alone(scheduler_);
    invariants_.detach();
    engine_.reset();
  }
  opening_ = false;
  running_calls_.clear();
  kernel_.end_process(kernel_.self());
  for (auto& [key, container] : invariants_.containers) {
    container.calls = 0;
    if (container.running || container.init == 0) continue;
    // A task is held until its isolate is acknowledged: whoever started it ends it.
    kernel_.end_process(container.init);
    container.init = 0;
  }
  if (next_crash_ != Crash::power) return;
  trace_.line("the machine starts anew");
  ++counts_.reboots;
  scheduler_.forget_events();
  kernel_.reboot();
  clock_.reboot();
  for (const auto& [name, driver] : drivers_.all()) driver->reboot();
  invariants_.reboot();
}

void World::shut_down() {
  trace_.line("the engine is shut down");
  for (auto& [number, stop] : running_calls_) stop.request_stop();
  if (!scheduler_.wait_for_engine(minutes(30))) {
    trace_.violation("calls go on half an hour after they were cancelled");
  }
  if (scheduler_.crashing()) return;
  check();
  scheduler_.crash_in(0);
  const SimulatedScheduler::Alone alone(scheduler_);
  invariants_.detach();
  engine_.reset();
  kernel_.end_process(kernel_.self());
}

Container* World::any(const std::function<bool(const Container&)>& wanted) {
  std::vector<Container*> found;
  for (auto& [key, container] : invariants_.containers) {
    if (wanted(container)) found.push_back(&container);
  }
  return found.empty() ? nullptr : random_.one_of(found);
}

SimulatedDriver& World::any_driver() {
  auto one = drivers_.all().begin();
  std::advance(one, static_cast<std::ptrdiff_t>(random_.below(drivers_.all().size())));
  return *one->second;
}

VolumeKey World::any_volume() { return {any_driver().name(), fmt::format("v{}", 1 + random_.below(3))}; }

void World::new_container() {
  const auto alive =
      std::ranges::count_if(invariants_.containers, [](const auto& one) { return !one.second.over; });
  if (alive >= 10) return;
  Container container;
  const std::vector<std::string> owners = {"run", "run", "agent", "uid:1000"};
  container.key = {.owner = random_.one_of(owners), .id = fmt::format("c{}", ++next_container_)};
  if (auto* parent = any([&](const Container& c) { return c.live() && c.key.owner == container.key.owner; });
      parent != nullptr && random_.chance(10)) {
    container.key.id = parent->key.id + "." + container.key.id;
  }
  if (container.key.owner == "run" && random_.chance(60)) {
    container.worker = kernel_.identity(kernel_.start_process());
  }
  container.engine = kernel_.self();
  const bool exclusive = random_.chance(10);
  std::set<VolumeKey> volumes;
  for (std::size_t i = 0, count = 1 + random_.below(3); i < count; ++i) volumes.insert(any_volume());
  container.request.mutable_container_id()->set_value(container.key.id);
  int place = 0;
  for (const VolumeKey& key : volumes) {
    container.volumes.push_back(key);
    v1::Volume& volume = *container.request.mutable_container_info()->add_volumes();
    volume.set_container_path(fmt::format("data{}", ++place));
    volume.set_mode(v1::Volume::RW);
    volume.mutable_source()->set_type(v1::Volume::Source::DOCKER_VOLUME);
    auto& source = *volume.mutable_source()->mutable_docker_volume();
    source.set_driver(key.driver);
    source.set_name(key.name);
    auto& option = *source.mutable_driver_options()->add_parameter();
    option.set_key("dvdi.exclusive");
    option.set_value(exclusive ? "true" : "false");
  }
  Container& kept = invariants_.containers[container.key] = std::move(container);
  prepare(kept);
}

void World::prepare(Container& container) {
  const ContainerKey key = container.key;
  v1::ContainerRequest request = container.request;
  // The same id with another request must change nothing.
  const bool other = container.live() && random_.chance(15);
  if (other) request.mutable_attribution()->set_role("another");
  const unsigned number = ++calls_;
  const auto worker = container.worker;
  if (worker && !kernel_.alive(worker->pid)) return;
  ++container.calls;
  std::stop_source stop;
  running_calls_[number] = stop;
  spawn(fmt::format("{}.prepare{}", key.id, number), [=, this](SimulatedEngine& engine) {
    auto launch = engine.chain().prepare(context(minutes(5)).with_stop(stop.get_token()), key, request,
                                         "/sandbox", false, worker);
    running_calls_.erase(number);
    trace_.line("prepare of {}: {}", key.text(), launch ? "done" : launch.error().text());
    --invariants_.containers.at(key).calls;
    if (launch && other) trace_.violation(key.text() + " was prepared with another request");
    if (launch) prepared(key, *launch);
  });
}

void World::prepared(const ContainerKey& key, const v1::ContainerLaunchInfo& launch) {
  ++counts_.prepared;
  Container& container = invariants_.containers.at(key);
  if (container.over) trace_.violation(key.text() + " was prepared after its end was acknowledged");
  if (static_cast<std::size_t>(launch.mounts_size()) != container.volumes.size()) {
    trace_.violation(key.text() + " got another number of mounts than it asked for");
  }
  for (const auto& mount : launch.mounts()) {
    const std::string& name = mount.volume();
    const auto slash = name.find('/');
    const VolumeKey volume{name.substr(0, slash), name.substr(slash + 1)};
    const std::uint64_t id = mount.identity().mount_id();
    // An answer that is given again tells of what may have gone meanwhile.
    if (container.held.contains(volume) && id != 0 && !kernel_.has(id)) continue;
    container.held[volume] = id;
  }
  container.prepared = true;
  container.prepared_at = clock_.peek();
  check();
}

void World::isolate(Container& container) {
  const ContainerKey key = container.key;
  if (container.init != 0) return;
  const pid_t pid = kernel_.start_process();
  container.init = pid;
  ++container.calls;
  const bool watch = random_.chance(50);
  const unsigned number = ++calls_;
  spawn(fmt::format("{}.isolate{}", key.id, number), [=, this](SimulatedEngine& engine) {
    auto done = engine.chain().isolate(context(minutes(1)), key, pid, watch);
    trace_.line("isolate of {}: {}", key.text(), done ? "done" : done.error().text());
    Container& now = invariants_.containers.at(key);
    --now.calls;
    now.running = done.has_value();
    if (!done) {
      kernel_.end_process(pid);
      now.init = 0;
    }
    check();
  });
}

void World::clean_up(Container& container) {
  const ContainerKey key = container.key;
  // A parent is not asked for as long as its children are there: it would be refused.
  const bool parent = std::ranges::any_of(invariants_.containers, [&](const auto& one) {
    return one.first.owner == key.owner && one.first.id.starts_with(key.id + ".") && !one.second.over;
  });
  if (parent) return;
  container.ending = true;
  if (container.init != 0) kernel_.end_process(container.init);
  ++container.calls;
  const unsigned number = ++calls_;
  std::stop_source stop;
  running_calls_[number] = stop;
  spawn(fmt::format("{}.cleanup{}", key.id, number), [=, this](SimulatedEngine& engine) {
    auto owed = engine.chain().cleanup(context(minutes(5)).with_stop(stop.get_token()), key);
    running_calls_.erase(number);
    trace_.line("cleanup of {}: {}", key.text(),
                owed ? fmt::format("done, {} owed", owed->size()) : owed.error().text());
    Container& now = invariants_.containers.at(key);
    --now.calls;
    if (!owed) return;
    ++counts_.ended;
    // A prepare that comes after the cleanup of a container that never was is not refused.
    if (now.calls == 0) now.over = true;
    check();
  });
}

void World::recover() {
  const std::vector<std::string> owners = {"agent", "uid:1000", "stranger"};
  volume::RecoverRequest request;
  request.owner = random_.one_of(owners);
  request.complete = random_.chance(70);
  for (auto& [key, container] : invariants_.containers) {
    if (key.owner != request.owner || container.over) continue;
    if (random_.chance(85)) {
      if (container.live()) {
        volume::LiveContainer live;
        live.id = key.id;
        live.init = container.running ? container.init : 0;
        request.live.push_back(std::move(live));
      } else {
        request.orphans.push_back(key.id);
      }
      continue;
    }
    // Not named: may go where its processes are gone and the list is complete, and must stay otherwise.
    if (request.complete && !kernel_.alive(container.init)) container.ending = true;
  }
  const unsigned number = ++calls_;
  spawn(fmt::format("recover{}", number), [=, this](SimulatedEngine& engine) {
    auto recovered = engine.chain().recover(context(minutes(2)), request);
    trace_.line("recover of {}, {}: {}", request.owner, request.complete ? "complete" : "incomplete",
                recovered ? fmt::format("{} dropped", recovered->dropped.size()) : recovered.error().text());
    if (!recovered) return;
    for (const std::string& id : recovered->dropped) {
      const auto found = invariants_.containers.find({request.owner, id});
      if (!request.complete) trace_.violation("something was dropped that an incomplete list did not name");
      if (found != invariants_.containers.end() && found->second.live())
        trace_.violation(found->first.text() + " was dropped and is alive");
    }
    check();
  });
}

void World::settle() {
  const unsigned number = ++calls_;
  spawn(fmt::format("settle{}", number), [this](SimulatedEngine& engine) {
    for (const std::string& sentence : engine.volumes().settle(context(seconds(5))))
      trace_.line("{}", sentence);
  });
}

// What a daemon does when the kernel's table has changed.
void World::look() {
  const unsigned number = ++calls_;
  spawn(fmt::format("look{}", number), [this](SimulatedEngine& engine) {
    const auto compared = engine.volumes().note_vanished(context(minutes(1)));
    trace_.line("vanished: {}", compared ? std::to_string(compared->lost.size()) : compared.error().text());
    static_cast<void>(engine.volumes().probe(context(minutes(1))));
    check();
  });
}

void World::operate() {
  const VolumeKey volume = any_volume();
  const auto what = random_.below(3);
  const unsigned number = ++calls_;
  spawn(fmt::format("operator{}", number), [=, this](SimulatedEngine& engine) {
    Status done;
    const Context limits = context(minutes(2));
    if (what == 0) done = engine.volumes().create_volume(limits, volume, {});
    if (what == 1) done = engine.volumes().remove_volume(limits, volume);
    if (what == 2) {
      if (auto released = engine.volumes().release_volume(limits, volume, random_.chance(30)); !released)
        done = fail(std::move(released).error());
    }
    const std::vector<std::string> names = {"create", "remove", "release"};
    trace_.line("{} {}: {}", names[what], volume.text(), done ? "done" : done.error().text());
  });
}

void World::foreign() {
  SimulatedDriver& driver = any_driver();
  const std::string volume = any_volume().name;
  const std::string id = fmt::format("docker{}", random_.below(2));
  if (random_.chance(50)) {
    trace_.line("docker mounts {}/{} for {}", driver.name(), volume, id);
    driver.foreign_mount(volume, id);
  } else {
    trace_.line("docker unmounts {}/{} for {}", driver.name(), volume, id);
    driver.foreign_unmount(volume, id);
  }
}

void World::vanish() {
  using Server = Kernel::Mount::Server;
  // Those that only did not answer do so again.
  const auto mounts = kernel_.mounts();
  for (const Kernel::Mount& one : mounts) {
    if (one.server == Server::silent && random_.chance(50)) kernel_.set_server(one.id, Server::answers);
  }
  if (mounts.empty()) return;
  const Kernel::Mount& one = random_.one_of(mounts);
  if (one.server != Server::none && random_.chance(70)) {
    const bool gone = random_.chance(60);
    trace_.line("the server of {} {}", one.mount_point, gone ? "dies" : "is silent");
    kernel_.set_server(one.id, gone ? Server::gone : Server::silent);
    invariants_.taken_away(one.id);
    return;
  }
  if (kernel_.at(one.mount_point)->id != one.id) return;
  trace_.line("{} vanishes", one.mount_point);
  static_cast<void>(kernel_.unmount(one.mount_point));
  invariants_.taken_away(one.id);
}

void World::break_something() {
  SimulatedDriver& driver = any_driver();
  switch (random_.below(10)) {
    case 0:
      trace_.line("{} goes away", driver.name());
      driver.go_away();
      break;
    case 1:
    case 2:
      for (const auto& [name, one] : drivers_.all()) one->away = false;
      break;
    case 3:
      if (!random_.chance(30)) break;
      trace_.line("{} forgets", driver.name());
      driver.forget();
      break;
    case 4:
      disk_.full = random_.chance(60) && !disk_.full;
      trace_.line("the disk is {}", disk_.full ? "full" : "not full");
      break;
    case 5:
      disk_.errors = disk_.errors == 0 && random_.chance(50) ? 20 : 0;
      trace_.line("the disk has errors: {}", disk_.errors);
      break;
    case 6:
      clock_.set_wall(random_.between(-minutes(90), minutes(90)));
      trace_.line("the clock is set");
      break;
    case 7:
      for (auto& [name, volume] : driver.volumes()) volume.busy = random_.chance(30);
      break;
    case 8:
      if (auto* one = any([&](const Container& c) { return c.init != 0 && kernel_.alive(c.init); })) {
        trace_.line("the task of {} ends", one->key.text());
        kernel_.end_process(one->init);
      }
      if (auto* one = any([&](const Container& c) { return c.worker && kernel_.alive(c.worker->pid); })) {
        trace_.line("the client of {} ends", one->key.text());
        kernel_.end_process(one->worker->pid);
      }
      break;
    default:
      for (const auto& [name, one] : drivers_.all()) one->faults = random_.chance(60) ? fault_level_ : 0;
      isolator_faults_ = random_.chance(60) ? isolator_level_ : 0;
      break;
  }
}

void World::forget_over() {
  std::erase_if(invariants_.containers,
                [](const auto& one) { return one.second.over && one.second.calls == 0; });
}

// Where a driver has lost its books, or an unmount was given up, an operator has to help.
void World::lend_a_hand() {
  for (const auto& [name, driver] : drivers_.all()) {
    for (auto& [volume, state] : driver->volumes()) {
      if (!state.users.empty() || kernel_.at(driver->mount_point(volume)) == nullptr) continue;
      trace_.line("an operator unmounts {}/{}", name, volume);
      invariants_.taken_away(*kernel_.unmount(driver->mount_point(volume)));
      state.kernel_id = 0;
    }
  }
  for (const DebtRow& debt : invariants_.debts()) {
    if (!debt.parked) continue;
    const unsigned number = ++calls_;
    spawn(fmt::format("operator{}", number), [this, volume = debt.volume](SimulatedEngine& engine) {
      auto released = engine.volumes().release_volume(context(minutes(5)), volume, false);
      trace_.line("release of {}: {}", volume.text(), released ? "done" : released.error().text());
    });
  }
  if (!scheduler_.wait_for_engine(minutes(60))) trace_.violation("a release by hand does not end");
}

void World::end() {
  trace_.line("the end begins");
  quiet_ = true;
  scheduler_.crash_in(0);
  disk_.full = false;
  disk_.errors = 0;
  isolator_faults_ = 0;
  for (const auto& [name, driver] : drivers_.all()) {
    driver->faults = 0;
    driver->away = false;
    for (auto& [volume, state] : driver->volumes()) state.busy = false;
  }
  const auto mounts = kernel_.mounts();
  for (const Kernel::Mount& one : mounts) {
    if (one.server == Kernel::Mount::Server::silent)
      kernel_.set_server(one.id, Kernel::Mount::Server::answers);
  }
  if (scheduler_.crashing()) finish_crash();
  if (!scheduler_.wait_for_engine(minutes(60))) trace_.violation("calls do not end");
  for (const auto& [name, driver] : drivers_.all()) {
    for (auto& [volume, state] : driver->volumes()) {
      const auto users = state.users;
      for (const std::string& id : users) {
        if (id.starts_with("docker")) driver->foreign_unmount(volume, id);
      }
    }
  }
  if (!engine_) open_engine();
  if (!scheduler_.wait_for_engine(minutes(60)) || !engine_) trace_.violation("the engine does not open");
  for (int round = 0; round < 3; ++round) {
    for (auto& [key, container] : invariants_.containers) {
      if (!container.over) clean_up(container);
    }
    if (!scheduler_.wait_for_engine(minutes(60))) trace_.violation("cleanups do not end");
  }
  for (const auto& [key, container] : invariants_.containers) {
    if (!container.over) trace_.violation(key.text() + " cannot be cleaned up");
  }
  for (int round = 0; round < 8; ++round) {
    scheduler_.sleep(minutes(6));
    lend_a_hand();
    settle();
    if (!scheduler_.wait_for_engine(minutes(60))) trace_.violation("settling does not end");
  }
  invariants_.check_end();
  trace_.line("the end");
}

}  // namespace dvdi::simulation
