#include "volume/calls.h"

#include <fmt/format.h>

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

Calls::Gate& Calls::gate(const std::string& driver) {
  const Lock lock(mutex_);
  auto& gate = gates_[driver];
  if (!gate) gate = std::make_unique<Gate>();
  return *gate;
}

template <class Work>
auto Calls::bounded(const Context& context, const VolumeKey& volume, driver::Operation operation, Work work)
    -> decltype(work(std::declval<const Context&>(), std::declval<driver::Driver&>())) {
  using driver::Operation;
  const Duration deadline = operation == Operation::mount     ? policy_.mount_deadline
                            : operation == Operation::unmount ? policy_.unmount_deadline
                                                              : policy_.call_deadline;
  const Context limited = context.with_timeout(deadline);
  Gate& at = gate(volume.driver);
  {
    Lock lock(at.mutex);
    const auto what =
        fmt::format("wait for a free call to driver {} ({} are running)", volume.driver, at.running);
    auto free = at.changed.wait(limited, lock, [&] { return at.running < policy_.calls_per_driver; }, what);
    if (!free) return fail(named(std::move(free).error(), volume, operation, Outcome::not_sent));
    ++at.running;
  }
  struct Leave {
    Gate& gate;
    ~Leave() {
      const Lock lock(gate.mutex);
      --gate.running;
      gate.changed.notify_all();
    }
  } const leave{at};
  auto driver = drivers_.find(limited, volume.driver);
  if (!driver) return fail(named(std::move(driver).error(), volume, operation, Outcome::not_sent));
  auto result = work(limited, **driver);
  if (!result) return fail(named(std::move(result).error(), volume, operation, Outcome::unknown));
  return result;
}

Status Calls::create(const Context& context, const VolumeKey& volume, const driver::Options& options) {
  return bounded(context, volume, driver::Operation::create,
                 [&](const Context& limited, driver::Driver& driver) {
                   return driver.create(limited, volume.name, options);
                 });
}

Status Calls::remove(const Context& context, const VolumeKey& volume) {
  return bounded(
      context, volume, driver::Operation::remove,
      [&](const Context& limited, driver::Driver& driver) { return driver.remove(limited, volume.name); });
}

Result<driver::VolumeInfo> Calls::get(const Context& context, const VolumeKey& volume) {
  return bounded(
      context, volume, driver::Operation::get,
      [&](const Context& limited, driver::Driver& driver) { return driver.get(limited, volume.name); });
}

Result<std::string> Calls::path(const Context& context, const VolumeKey& volume) {
  return bounded(
      context, volume, driver::Operation::path,
      [&](const Context& limited, driver::Driver& driver) { return driver.path(limited, volume.name); });
}

Result<std::string> Calls::mount(const Context& context, const VolumeKey& volume,
                                 const std::string& mount_id) {
  return bounded(context, volume, driver::Operation::mount,
                 [&](const Context& limited, driver::Driver& driver) {
                   return driver.mount(limited, volume.name, mount_id);
                 });
}

Status Calls::unmount(const Context& context, const VolumeKey& volume, const std::string& mount_id) {
  return bounded(context, volume, driver::Operation::unmount,
                 [&](const Context& limited, driver::Driver& driver) {
                   return driver.unmount(limited, volume.name, mount_id);
                 });
}

bool Calls::may_be_plain_directory(const Context& context, const VolumeKey& volume) {
  const auto driver = drivers_.find(context.with_timeout(policy_.call_deadline), volume.driver);
  return driver && (*driver)->may_be_plain_directory(volume.name);
}

}  // namespace dvdi::volume
