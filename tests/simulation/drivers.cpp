#include "drivers.h"

namespace dvdi::simulation {

using driver::Operation;
using std::chrono::milliseconds;
using std::chrono::seconds;

SimulatedDriver::SimulatedDriver(std::string name, Parts parts, Random random, Manner manner)
    : name_(std::move(name)), parts_(parts), random_(random), manner_(manner) {}

Error SimulatedDriver::no(Operation operation, const std::string& volume, std::string message) const {
  return {.code = Code::driver_error,
          .message = std::move(message),
          .driver = name_,
          .volume = volume,
          .operation = std::string(driver::operation_name(operation)),
          .outcome = Outcome::refused};
}

void SimulatedDriver::forget() {
  for (auto& [name, volume] : volumes_) {
    volume.forgotten = volume.forgotten || !volume.users.empty();
    volume.users.clear();
  }
}

void SimulatedDriver::reboot() {
  for (auto& [name, volume] : volumes_) volume = Volume{};
}

template <class T>
Result<T> SimulatedDriver::call(const Context& context, Operation operation, const std::string& volume,
                                std::function<Result<T>()> effect) {
  const std::string what = fmt::format("{} {} of {}", driver::operation_name(operation), volume, name_);
  ++calls_;
  parts_.scheduler.place("call", what);
  const auto failed = [&](Code code, std::string message, Outcome outcome) {
    Error error = no(operation, volume, std::move(message));
    error.code = code;
    error.outcome = outcome;
    return error;
  };
  if (auto alive = context.check(what); !alive) {
    return failed(alive.error().code, alive.error().message, Outcome::not_sent);
  }
  enum class Fault { none, not_sent, refused, slow, lost, hangs, no_answer, refused_after };
  Fault fault = Fault::none;
  if (random_.chance(faults)) {
    const std::vector<Fault> all = {Fault::not_sent, Fault::refused, Fault::refused,   Fault::slow,
                                    Fault::lost,     Fault::hangs,   Fault::no_answer, Fault::refused_after};
    fault = random_.one_of(all);
    // A Mount that was done and is answered with an error is beyond what anybody could find out.
    if (fault == Fault::refused_after && operation != Operation::unmount) fault = Fault::refused;
    // Refused where and by which id a volume is mounted, it is not mounted as far as anybody can know.
    if (fault == Fault::refused && (operation == Operation::path || operation == Operation::get)) {
      fault = Fault::not_sent;
    }
    // Where calls are counted, nobody can know how often an unanswered one has counted.
    if (manner_.counts_calls && fault >= Fault::slow) fault = Fault::refused;
  }
  if (away || fault == Fault::not_sent) {
    return failed(Code::unavailable, "nobody listens", Outcome::not_sent);
  }
  struct Call {
    Mutex mutex;
    Condition changed;
    bool answered = false;
    Result<T> answer = Error{};
    std::optional<BootTime> given_up;  // when nobody waited any more
  };
  const auto call = std::make_shared<Call>();
  struct GiveUp {
    Call& call;
    const SimulatedClock& clock;
    ~GiveUp() {
      if (!call.answered) call.given_up = clock.peek();
    }
  } const give_up{*call, parts_.clock};
  const std::uint64_t number = calls_;
  const BootTime now = parts_.clock.peek();
  Duration takes = random_.between(milliseconds(1), milliseconds(80));
  const Duration left = context.has_deadline() ? context.remaining() : Duration(seconds(60));
  if (fault == Fault::slow) takes = random_.between(milliseconds(1), left);
  // Longer than the caller waits; within the time for which the engine promises to expect it, unless whoever
  // asks next waits behind it, as nobody does at a driver that goes away meanwhile.
  if (fault == Fault::hangs)
    takes = left + random_.between(seconds(0), seconds(manner_.one_at_a_time ? 60 : 8));
  Volume* at = nullptr;
  if (const auto found = volumes_.find(volume); found != volumes_.end()) at = &found->second;
  BootTime done = now + takes;
  if (at != nullptr && manner_.one_at_a_time) {
    done = std::max(now, at->busy_until) + takes;
    at->busy_until = done;
  }
  parts_.scheduler.at(done, [this, call, what, fault, effect = std::move(effect), operation, volume, number,
                             away_then = times_away_] {
    Result<T> answer = Error{};
    const bool waited_behind = manner_.one_at_a_time && times_away_ == away_then;
    if (!in_time(operation, volume, number, call->given_up, waited_behind)) {
      parts_.trace.line("{}: given up", what);
      return;
    }
    if (fault == Fault::refused) {
      answer = no(operation, volume, "told to refuse");
    } else if (fault != Fault::lost) {
      answer = effect();
    }
    if (fault == Fault::refused_after && answer)
      answer = no(operation, volume, "told to refuse, after it was done");
    parts_.trace.line("{}: {}{}", what,
                      fault == Fault::lost ? "lost"
                      : answer             ? "done"
                                           : answer.error().message,
                      fault == Fault::no_answer ? ", without an answer" : "");
    if (fault == Fault::lost || fault == Fault::no_answer) return;
    call->answer = std::move(answer);
    call->answered = true;
    call->changed.notify_all();
  });
  {
    Lock lock(call->mutex);
    auto waited = call->changed.wait(context, lock, [&] { return call->answered; }, what);
    if (!waited) return failed(waited.error().code, "no answer", Outcome::unknown);
  }
  return call->answer;
}

// Limits of what the engine can find out, where a driver works on several calls for a volume at once: what
// its caller gave up is done soon or not at all, and not after a later call of the kind has been answered.
bool SimulatedDriver::in_time(Operation operation, const std::string& volume, std::uint64_t number,
                              std::optional<BootTime> given_up, bool waited_behind) {
  if (operation != Operation::mount && operation != Operation::unmount) return true;
  std::uint64_t& newest = done_[volume];
  const bool superseded = given_up && newest > number;
  const bool long_ago = given_up && parts_.clock.peek() > *given_up + seconds(8);
  if (!waited_behind && (superseded || long_ago)) return false;
  newest = std::max(newest, number);
  return true;
}

Status SimulatedDriver::create(const Context& context, const std::string& volume, const driver::Options&) {
  return call<void>(context, Operation::create, volume, [this, volume]() -> Status {
    const bool made = volumes_.try_emplace(volume).second;
    if (!made && manner_.refuses_to_create_what_exists) return no(Operation::create, volume, "it exists");
    return {};
  });
}

Status SimulatedDriver::remove(const Context& context, const std::string& volume) {
  return call<void>(context, Operation::remove, volume, [this, volume]() -> Status {
    const auto found = volumes_.find(volume);
    if (found == volumes_.end()) return no(Operation::remove, volume, "no such volume");
    if (!found->second.users.empty() || is_mounted(found->second))
      return no(Operation::remove, volume, "in use");
    volumes_.erase(found);
    return {};
  });
}

Result<driver::VolumeInfo> SimulatedDriver::get(const Context& context, const std::string& volume) {
  return call<driver::VolumeInfo>(
      context, Operation::get, volume, [this, volume]() -> Result<driver::VolumeInfo> {
        const auto found = volumes_.find(volume);
        if (found == volumes_.end()) return no(Operation::get, volume, "no such volume");
        const bool mounted = is_mounted(found->second);
        return driver::VolumeInfo{.name = volume, .mount_point = mounted ? mount_point(volume) : ""};
      });
}

Result<std::vector<driver::VolumeInfo>> SimulatedDriver::list(const Context& context) {
  return call<std::vector<driver::VolumeInfo>>(context, Operation::list, "",
                                               [this]() -> Result<std::vector<driver::VolumeInfo>> {
                                                 std::vector<driver::VolumeInfo> all;
                                                 for (const auto& one : volumes_)
                                                   all.push_back({.name = one.first});
                                                 return all;
                                               });
}

Result<std::string> SimulatedDriver::path(const Context& context, const std::string& volume) {
  return call<std::string>(context, Operation::path, volume, [this, volume]() -> Result<std::string> {
    const auto found = volumes_.find(volume);
    return found == volumes_.end() || !is_mounted(found->second) ? "" : mount_point(volume);
  });
}

Result<std::string> SimulatedDriver::do_mount(const std::string& name, const std::string& id) {
  const auto found = volumes_.find(name);
  if (found == volumes_.end()) return no(Operation::mount, name, "no such volume");
  Volume& volume = found->second;
  if (volume.users.contains(id) && manner_.refuses_second_mount) {
    return no(Operation::mount, name, "already mounted by this id");
  }
  const std::string at = mount_point(name);
  // A driver that others use believes its own books; one that begins anew looks.
  if (volume.users.empty() && !manner_.plain_directories) {
    const Kernel::Mount* there = parts_.kernel.at(at);
    volume.kernel_id =
        there != nullptr ? there->id : parts_.kernel.mount(at, name_ + "-" + name, manner_.serves);
  }
  if (manner_.plain_directories) parts_.kernel.add_folder(at);
  if (manner_.counts_calls || !volume.users.contains(id)) volume.users.insert(id);
  return at;
}

Status SimulatedDriver::do_unmount(const std::string& name, const std::string& id) {
  const auto found = volumes_.find(name);
  if (found == volumes_.end() || found->second.users.empty() ||
      (!manner_.counts_calls && !found->second.users.contains(id))) {
    if (manner_.unmounting_nothing_succeeds) return {};
    return no(Operation::unmount, name, "not mounted by this id");
  }
  Volume& volume = found->second;
  if (volume.users.size() == 1) {
    if (volume.busy && parts_.kernel.has(volume.kernel_id)) return no(Operation::unmount, name, "busy");
    volume.users.clear();
    volume.forgotten = false;
    const std::uint64_t kernel_id = std::exchange(volume.kernel_id, 0);
    if (manner_.plain_directories) {
      parts_.witness.unmounted(name_, name, id, 0);
    } else if (parts_.kernel.has(kernel_id)) {
      static_cast<void>(parts_.kernel.unmount(mount_point(name)));
      parts_.witness.unmounted(name_, name, id, kernel_id);
    }
    return {};
  }
  const auto user = volume.users.find(id);
  volume.users.erase(user != volume.users.end() ? user : volume.users.begin());
  return {};
}

Result<std::string> SimulatedDriver::mount(const Context& context, const std::string& volume,
                                           const std::string& mount_id) {
  parts_.witness.mount_sent(name_, volume, mount_id);
  const auto lie = random_.below(100);
  const bool lies = faults > 0 && !manner_.counts_calls && lie < 4;
  return call<std::string>(
      context, Operation::mount, volume, [this, volume, mount_id, lies, lie]() -> Result<std::string> {
        auto at = do_mount(volume, mount_id);
        if (!at || !lies) return at;
        const std::vector<std::string> claims = {"", "/", "not/absolute", "/sim/elsewhere"};
        return claims[lie];
      });
}

Status SimulatedDriver::unmount(const Context& context, const std::string& volume,
                                const std::string& mount_id) {
  return call<void>(context, Operation::unmount, volume,
                    [this, volume, mount_id] { return do_unmount(volume, mount_id); });
}

Result<driver::Capabilities> SimulatedDriver::capabilities(const Context& context) {
  return call<driver::Capabilities>(context, Operation::capabilities, "",
                                    []() -> Result<driver::Capabilities> { return driver::Capabilities{}; });
}

void SimulatedDriver::foreign_mount(const std::string& volume, const std::string& id) {
  volumes_.try_emplace(volume);
  if (!volumes_[volume].users.contains(id)) static_cast<void>(do_mount(volume, id));
}

void SimulatedDriver::foreign_unmount(const std::string& volume, const std::string& id) {
  const auto found = volumes_.find(volume);
  if (found != volumes_.end() && found->second.users.contains(id)) static_cast<void>(do_unmount(volume, id));
}

Result<std::shared_ptr<driver::Driver>> SimulatedCatalog::find(const Context&, const std::string& name) {
  const auto found = drivers_.find(name);
  if (found != drivers_.end()) return std::shared_ptr<driver::Driver>(found->second);
  return Error{.code = Code::not_found, .message = "there is no driver " + name, .driver = name};
}

std::vector<std::string> SimulatedCatalog::names() {
  std::vector<std::string> out;
  for (const auto& one : drivers_) out.push_back(one.first);
  return out;
}

}  // namespace dvdi::simulation
