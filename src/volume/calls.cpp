#include "volume/calls.h"

#include <fmt/format.h>

#include <set>

#include "base/failpoint.h"

namespace dvdi::volume {

namespace {

// Every error of a driver call names volume, driver and operation, whoever made it; and says what is known of
// the effect: where nothing was said, nothing is known.
Error named(Error error, const VolumeKey& volume, driver::Operation operation, Outcome unless_said) {
  if (error.driver.empty()) error.driver = volume.driver;
  if (error.volume.empty()) error.volume = volume.name;
  if (error.operation.empty()) error.operation = driver::operation_name(operation);
  if (error.outcome == Outcome::none) error.outcome = unless_said;
  return error;
}

}  // namespace

// Holds the gate of one driver, and one of its places from enter() on.
class Calls::Place {
 public:
  Place(Calls& calls, const std::string& driver) : calls_(calls) {
    const Lock lock(calls_.mutex_);
    at_ = calls_.gates_.try_emplace(driver).first;
    ++gate().holders;
  }
  ~Place() {
    if (entered_) {
      const Lock lock(gate().mutex);
      --gate().running;
      gate().changed.notify_one();
    }
    const Lock lock(calls_.mutex_);
    if (--gate().holders == 0 && !gate().found) calls_.gates_.erase(at_);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  Status enter(const Context& limited) {
    auto done = calls_.enter(limited, at_->first, gate());
    entered_ = done.has_value();
    return done;
  }
  void found() {
    const Lock lock(calls_.mutex_);
    gate().found = true;
  }
  void ended(const Context& context, driver::Operation operation, BootTime start, const Error* error,
             bool turned_away) {
    const Clock& clock = context.clock();
    const Duration took = clock.boot() - start;
    const WallTime now = error == nullptr ? WallTime() : context.clock().wall();
    const CallEnd end{.operation = operation,
                      .took = took,
                      .deadline = calls_.policy_.deadline(at_->first, operation),
                      .error = error,
                      .given_up = context.cancelled() || context.remaining() == Duration::zero()};
    {
      const Lock lock(gate().mutex);
      gate().statistics.ended(operation, took, error, turned_away, now);
      gate().health.ended(end);
    }
    calls_.note_state(context, at_->first, gate());
  }

 private:
  Gate& gate() { return at_->second; }

  Calls& calls_;
  std::map<std::string, Gate>::iterator at_;
  bool entered_ = false;
};

Status Calls::enter(const Context& limited, const std::string& driver, Gate& gate) const {
  const unsigned at_once = policy_.at_once(driver);
  const unsigned most_waiting = policy_.waiting(driver);
  Lock lock(gate.mutex);
  if (gate.running >= at_once) {
    // A caller that waits holds a thread and more: they are bounded, too.
    if (gate.waiting >= most_waiting) {
      return Error{.code = Code::resource_exhausted,
                   .message = fmt::format("driver {} has {} calls running and {} waiting, which is the limit",
                                          driver, gate.running, gate.waiting),
                   .hint = "the driver is slow or hangs: see `dvdi doctor` and its log; try again later"};
    }
    const auto what = fmt::format("wait for a free call to driver {} ({} are running)", driver, gate.running);
    ++gate.waiting;
    auto free = gate.changed.wait(limited, lock, [&] { return gate.running < at_once; }, what);
    --gate.waiting;
    if (!free) return free;
  }
  ++gate.running;
  return {};
}

// What cannot be recorded now is recorded after the next call.
void Calls::note_state(const Context& context, const std::string& driver, Gate& gate) {
  const auto is_recorded = [&] {
    const Lock lock(gate.mutex);
    return gate.recorded == gate.health.state();
  };
  if (!note_state_ || is_recorded()) return;
  bool found = false;
  {
    const Lock lock(mutex_);
    found = gate.found;
  }
  const Lock noting(noting_);
  DriverState state = DriverState::up;
  std::string reason;
  {
    const Lock lock(gate.mutex);
    state = gate.health.state();
    reason = gate.health.reason();
    if (gate.recorded == state) return;
  }
  if (!note_state_(context, driver, state, reason, found)) return;
  const Lock lock(gate.mutex);
  gate.recorded = state;
}

template <class Work>
auto Calls::bounded(const Context& context, const VolumeKey& volume, driver::Operation operation,
                    const driver::Options& options, Work work)
    -> decltype(work(std::declval<const Context&>(), std::declval<driver::Driver&>())) {
  const Context limited = context.with_timeout(policy_.deadline(volume.driver, operation));
  secrets_.learn(volume, options, false);
  Place place(*this, volume.driver);
  BootTime start = context.clock().boot();
  const auto failed = [&](Error error, Outcome unless_said, bool turned_away = false) {
    error = named(std::move(error), volume, operation, unless_said);
    const bool had_some = !secrets_.knows_all(volume) && had_secrets_ && had_secrets_(context, volume);
    error = secrets_.without(std::move(error), volume, had_some);
    place.ended(context, operation, start, &error, turned_away);
    return fail(std::move(error));
  };
  if (auto entered = place.enter(limited); !entered) {
    const bool turned_away = entered.error().code == Code::resource_exhausted;
    return failed(std::move(entered).error(), Outcome::not_sent, turned_away);
  }
  // From here on it is the driver that takes the time.
  start = context.clock().boot();
  auto driver = drivers_.find(limited, volume.driver);
  if (!driver) return failed(std::move(driver).error(), Outcome::not_sent);
  place.found();
  const auto what = fmt::format("{} {}", driver::operation_name(operation), volume.text());
  failpoint("driver.call.before", what);
  auto result = work(limited, **driver);
  failpoint("driver.call.after", what);
  if (!result) return failed(std::move(result).error(), Outcome::unknown);
  place.ended(context, operation, start, nullptr, false);
  return result;
}

Status Calls::create(const Context& context, const VolumeKey& volume, const driver::Options& options) {
  return bounded(context, volume, driver::Operation::create, options,
                 [&](const Context& limited, driver::Driver& driver) {
                   return driver.create(limited, volume.name, options);
                 });
}

Status Calls::remove(const Context& context, const VolumeKey& volume) {
  auto removed = bounded(
      context, volume, driver::Operation::remove, {},
      [&](const Context& limited, driver::Driver& driver) { return driver.remove(limited, volume.name); });
  if (removed) secrets_.forget(volume);
  return removed;
}

Result<driver::VolumeInfo> Calls::get(const Context& context, const VolumeKey& volume,
                                      const driver::Options& options) {
  return bounded(
      context, volume, driver::Operation::get, options,
      [&](const Context& limited, driver::Driver& driver) { return driver.get(limited, volume.name); });
}

Result<std::vector<driver::VolumeInfo>> Calls::list(const Context& context, const std::string& driver) {
  return bounded(context, VolumeKey{driver, ""}, driver::Operation::list, {},
                 [&](const Context& limited, driver::Driver& found) { return found.list(limited); });
}

Result<std::string> Calls::path(const Context& context, const VolumeKey& volume) {
  return bounded(
      context, volume, driver::Operation::path, {},
      [&](const Context& limited, driver::Driver& driver) { return driver.path(limited, volume.name); });
}

Result<std::string> Calls::mount(const Context& context, const VolumeKey& volume, const std::string& mount_id,
                                 const driver::Options& options) {
  return bounded(context, volume, driver::Operation::mount, options,
                 [&](const Context& limited, driver::Driver& driver) {
                   return driver.mount(limited, volume.name, mount_id);
                 });
}

Status Calls::unmount(const Context& context, const VolumeKey& volume, const std::string& mount_id) {
  return bounded(context, volume, driver::Operation::unmount, {},
                 [&](const Context& limited, driver::Driver& driver) {
                   return driver.unmount(limited, volume.name, mount_id);
                 });
}

bool Calls::may_be_plain_directory(const Context& context, const VolumeKey& volume) {
  const Context limited = context.with_timeout(policy_.deadline(volume.driver, driver::Operation::get));
  const auto driver = drivers_.find(limited, volume.driver);
  return driver && (*driver)->may_be_plain_directory(volume.name);
}

std::vector<DriverStatus> Calls::drivers(const std::vector<std::string>& names) {
  std::set<std::string> all(names.begin(), names.end());
  std::vector<DriverStatus> out;
  const Lock lock(mutex_);
  for (const auto& [name, gate] : gates_) {
    if (gate.found) all.insert(name);
  }
  for (const std::string& name : all) {
    DriverStatus status{
        .name = name, .calls_at_once = policy_.at_once(name), .calls_waiting = policy_.waiting(name)};
    if (const auto at = gates_.find(name); at != gates_.end()) {
      const Lock inner(at->second.mutex);
      status.running = at->second.running;
      status.waiting = at->second.waiting;
      at->second.statistics.fill(status);
    }
    out.push_back(std::move(status));
  }
  return out;
}

void Calls::mount_lost(const std::string& driver) {
  const Lock lock(mutex_);
  Gate& gate = gates_.try_emplace(driver).first->second;
  gate.found = true;  // it has mounted something
  const Lock inner(gate.mutex);
  gate.statistics.mount_lost();
}

std::vector<CallTimes> Calls::times() {
  std::vector<CallTimes> out;
  const Lock lock(mutex_);
  for (auto& [name, gate] : gates_) {
    if (!gate.found) continue;  // a name that a request has made up
    const Lock inner(gate.mutex);
    gate.statistics.append_times(name, out);
  }
  return out;
}

}  // namespace dvdi::volume
