#include "volume/calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

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

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

void replace_all(std::string& text, const std::string& what) {
  constexpr std::string_view with = "<secret>";
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) {
    text.replace(at, what.size(), with);
  }
}

void redact(Error& error, const std::string& secret) {
  replace_all(error.message, secret);
  replace_all(error.hint, secret);
  for (Error& one : error.attached) redact(one, secret);
}

// Values of one or two characters are no secrets, and would be found everywhere.
Error without_secrets(Error error, const driver::Options& options,
                      const std::vector<std::string>& secret_names) {
  for (const auto& [key, value] : options) {
    const std::string name = lower(key);
    const bool secret = std::ranges::any_of(secret_names, [&](const std::string& part) {
      return !part.empty() && name.find(lower(part)) != std::string::npos;
    });
    if (secret && value.size() > 2) redact(error, value);
  }
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
  const auto what = fmt::format("{} {}", driver::operation_name(operation), volume.text());
  failpoint("driver.call.before", what);
  auto result = work(limited, **driver);
  failpoint("driver.call.after", what);
  if (!result) return fail(named(std::move(result).error(), volume, operation, Outcome::unknown));
  return result;
}

Status Calls::create(const Context& context, const VolumeKey& volume, const driver::Options& options) {
  auto done = bounded(context, volume, driver::Operation::create,
                      [&](const Context& limited, driver::Driver& driver) {
                        return driver.create(limited, volume.name, options);
                      });
  if (!done) return fail(without_secrets(std::move(done).error(), options, policy_.secret_options));
  return done;
}

Status Calls::remove(const Context& context, const VolumeKey& volume) {
  return bounded(
      context, volume, driver::Operation::remove,
      [&](const Context& limited, driver::Driver& driver) { return driver.remove(limited, volume.name); });
}

Result<driver::VolumeInfo> Calls::get(const Context& context, const VolumeKey& volume,
                                      const driver::Options& options) {
  auto done = bounded(
      context, volume, driver::Operation::get,
      [&](const Context& limited, driver::Driver& driver) { return driver.get(limited, volume.name); });
  if (!done) return fail(without_secrets(std::move(done).error(), options, policy_.secret_options));
  return done;
}

Result<std::string> Calls::path(const Context& context, const VolumeKey& volume) {
  return bounded(
      context, volume, driver::Operation::path,
      [&](const Context& limited, driver::Driver& driver) { return driver.path(limited, volume.name); });
}

Result<std::string> Calls::mount(const Context& context, const VolumeKey& volume, const std::string& mount_id,
                                 const driver::Options& options) {
  auto done =
      bounded(context, volume, driver::Operation::mount, [&](const Context& limited, driver::Driver& driver) {
        return driver.mount(limited, volume.name, mount_id);
      });
  if (!done) return fail(without_secrets(std::move(done).error(), options, policy_.secret_options));
  return done;
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
