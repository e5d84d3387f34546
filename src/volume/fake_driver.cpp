#include "volume/fake_driver.h"

#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace dvdi::volume {

using driver::Operation;

void FakeDriver::fail(Operation operation, const std::string& volume, Fault fault, unsigned times) {
  const Lock lock(mutex_);
  auto& faults = faults_[{operation, volume}];
  faults.insert(faults.end(), times, fault);
}

void FakeDriver::lie(const std::string& volume, const std::string& mount_point) {
  const Lock lock(mutex_);
  lies_[volume] = mount_point;
}

void FakeDriver::lie_about_path(const std::string& volume, const std::string& path) {
  const Lock lock(mutex_);
  path_lies_[volume] = path;
}

void FakeDriver::hold(Operation operation, const std::string& volume) {
  const Lock lock(mutex_);
  holding_ = true;
  to_hold_.insert({operation, volume});
}

void FakeDriver::wait_until_held(unsigned calls) {
  Lock lock(mutex_);
  const Context context = Context().with_timeout(std::chrono::minutes(1));
  if (!changed_.wait(context, lock, [&] { return held_ >= calls; }, "wait for the call")) {
    throw std::runtime_error("the call that the test waits for never came");
  }
}

void FakeDriver::let_go() {
  const Lock lock(mutex_);
  holding_ = false;
  to_hold_.clear();
  changed_.notify_all();
}

void FakeDriver::finish_late() {
  std::vector<std::function<void()>> late;
  {
    const Lock lock(mutex_);
    late.swap(late_);
    for (const auto& one : late) one();
  }
}

void FakeDriver::behave() {
  const Lock lock(mutex_);
  faults_.clear();
  lies_.clear();
  path_lies_.clear();
}

void FakeDriver::forget() {
  const Lock lock(mutex_);
  volumes_.clear();
  kernel_unmounts_ = kernel_mounts_.load();
}

unsigned FakeDriver::calls(Operation operation, const std::string& volume) const {
  const Lock lock(mutex_);
  return static_cast<unsigned>(std::ranges::count_if(log_, [&](const auto& one) {
    return one.first == operation && (volume.empty() || one.second == volume);
  }));
}

std::vector<std::string> FakeDriver::log() const {
  const Lock lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [operation, volume] : log_) {
    out.push_back(fmt::format("{} {}", driver::operation_name(operation), volume));
  }
  return out;
}

std::multiset<std::string> FakeDriver::users(const std::string& volume) const {
  const Lock lock(mutex_);
  const auto found = volumes_.find(volume);
  return found == volumes_.end() ? std::multiset<std::string>() : found->second;
}

unsigned FakeDriver::most_at_once() const {
  const Lock lock(mutex_);
  return most_inside_;
}

Error FakeDriver::error(Operation operation, const std::string& volume, Code code, std::string message,
                        Outcome outcome) const {
  return {.code = code,
          .message = std::move(message),
          .driver = name_,
          .volume = volume,
          .operation = std::string(driver::operation_name(operation)),
          .outcome = outcome};
}

Fault FakeDriver::begin(Operation operation, const std::string& volume) {
  const Lock lock(mutex_);
  log_.emplace_back(operation, volume);
  for (const Key& key : {Key{operation, volume}, Key{operation, ""}}) {
    const auto found = faults_.find(key);
    if (found == faults_.end() || found->second.empty()) continue;
    const Fault fault = found->second.front();
    found->second.erase(found->second.begin());
    return fault;
  }
  return Fault::none;
}

void FakeDriver::wait_if_held(Operation operation, const std::string& volume) {
  Lock lock(mutex_);
  most_inside_ = std::max(most_inside_, ++inside_);
  if (to_hold_.erase({operation, volume}) > 0) {
    ++held_;
    changed_.notify_all();
    const Context context = Context().with_timeout(std::chrono::minutes(1));
    static_cast<void>(changed_.wait(context, lock, [&] { return !holding_; }, "wait to be let go"));
    --held_;
  }
}

template <class T>
Result<T> FakeDriver::call(const Context& context, Operation operation, const std::string& volume,
                           const std::function<Result<T>()>& effect) {
  if (auto alive = context.check(driver::operation_name(operation)); !alive) {
    return error(operation, volume, alive.error().code, alive.error().message, Outcome::not_sent);
  }
  const Fault fault = begin(operation, volume);
  if (fault == Fault::not_sent) {
    return error(operation, volume, Code::unavailable, "nobody listens", Outcome::not_sent);
  }
  wait_if_held(operation, volume);
  struct Leave {
    FakeDriver& driver;
    ~Leave() {
      const Lock lock(driver.mutex_);
      --driver.inside_;
    }
  } const leave{*this};
  const auto timed_out = [&] {
    // The time passes at once, for the whole test.
    if (context.has_deadline()) clock_.advance(context.remaining());
    return error(operation, volume, Code::deadline_exceeded, "no answer", Outcome::unknown);
  };
  kill_.place();
  if (fault == Fault::kill_before) throw Killed{};
  if (fault == Fault::refuse) return no(operation, volume, manner.refusal);
  if (fault == Fault::time_out) return timed_out();
  if (fault == Fault::time_out_late) {
    const Lock lock(mutex_);
    late_.push_back([effect] { static_cast<void>(effect()); });
    return timed_out();
  }
  Result<T> result;
  {
    const Lock lock(mutex_);
    result = effect();
  }
  if (fault == Fault::kill_after) throw Killed{};
  kill_.place();
  if (fault == Fault::time_out_done) return timed_out();
  if (fault == Fault::refuse_after_effect) return no(operation, volume, "told to refuse after the effect");
  return result;
}

Status FakeDriver::create(const Context& context, const std::string& volume, const driver::Options&) {
  return call<void>(context, Operation::create, volume, [this, volume]() -> Status {
    volumes_.try_emplace(volume);
    return {};
  });
}

Status FakeDriver::remove(const Context& context, const std::string& volume) {
  return call<void>(context, Operation::remove, volume, [this, volume]() -> Status {
    const auto found = volumes_.find(volume);
    if (found == volumes_.end()) return no(Operation::remove, volume, "no such volume");
    if (!found->second.empty()) return no(Operation::remove, volume, "in use");
    volumes_.erase(found);
    return {};
  });
}

Result<driver::VolumeInfo> FakeDriver::get(const Context& context, const std::string& volume) {
  return call<driver::VolumeInfo>(
      context, Operation::get, volume, [this, volume]() -> Result<driver::VolumeInfo> {
        const auto found = volumes_.find(volume);
        if (found == volumes_.end()) return no(Operation::get, volume, "no such volume");
        return driver::VolumeInfo{.name = volume,
                                  .mount_point = found->second.empty() ? "" : handed_out(volume)};
      });
}

Result<std::vector<driver::VolumeInfo>> FakeDriver::list(const Context& context) {
  return call<std::vector<driver::VolumeInfo>>(context, Operation::list, "",
                                               [this]() -> Result<std::vector<driver::VolumeInfo>> {
                                                 std::vector<driver::VolumeInfo> all;
                                                 for (const auto& one : volumes_)
                                                   all.push_back({.name = one.first});
                                                 return all;
                                               });
}

Result<std::string> FakeDriver::path(const Context& context, const std::string& volume) {
  return call<std::string>(context, Operation::path, volume, [this, volume]() -> Result<std::string> {
    if (const auto lie = path_lies_.find(volume); lie != path_lies_.end()) return lie->second;
    const auto found = volumes_.find(volume);
    return found == volumes_.end() || found->second.empty() ? "" : handed_out(volume);
  });
}

Result<std::string> FakeDriver::mount(const Context& context, const std::string& volume,
                                      const std::string& mount_id) {
  return call<std::string>(
      context, Operation::mount, volume, [this, volume, mount_id]() -> Result<std::string> {
        const auto found = volumes_.find(volume);
        if (found == volumes_.end()) return no(Operation::mount, volume, "no such volume");
        std::multiset<std::string>& users = found->second;
        if (users.contains(mount_id) && manner.refuses_second_mount) {
          return no(Operation::mount, volume, "already mounted by this id");
        }
        const std::string at = mount_point(volume);
        if (users.empty()) {
          if (::mkdir(at.c_str(), 0755) != 0 && errno != EEXIST) return os_error("mkdir", errno);
          if (!manner.plain_directories) {
            const bool done = manner.mounts
                                  ? manner.mounts(volume, at)
                                  : ::mount(volume.c_str(), at.c_str(), "tmpfs", 0, "size=64k") == 0;
            if (!done) {
              return no(Operation::mount, volume, os_error("mount", errno).message);
            }
            ++kernel_mounts_;
          }
          if (::mkdir(handed_out(volume).c_str(), 0755) != 0 && errno != EEXIST)
            return os_error("mkdir", errno);
        }
        if (manner.counts_calls || !users.contains(mount_id)) users.insert(mount_id);
        const auto lie = lies_.find(volume);
        return lie == lies_.end() ? handed_out(volume) : lie->second;
      });
}

Status FakeDriver::unmount(const Context& context, const std::string& volume, const std::string& mount_id) {
  return call<void>(context, Operation::unmount, volume, [this, volume, mount_id]() -> Status {
    const auto found = volumes_.find(volume);
    if (found == volumes_.end() || found->second.empty() ||
        (!manner.counts_calls && !found->second.contains(mount_id))) {
      if (manner.unmounting_nothing_succeeds) return {};
      return no(Operation::unmount, volume, "not mounted by this id");
    }
    std::multiset<std::string>& users = found->second;
    const auto user = users.contains(mount_id) ? users.find(mount_id) : users.begin();
    if (users.size() == 1 && !manner.plain_directories) {
      // EINVAL: somebody unmounted it behind the driver's back.
      if (::umount2(mount_point(volume).c_str(), UMOUNT_NOFOLLOW) == 0) {
        ++kernel_unmounts_;
      } else if (errno != EINVAL) {
        return no(Operation::unmount, volume, os_error("umount", errno).message);
      }
    }
    users.erase(user);
    return {};
  });
}

Result<driver::Capabilities> FakeDriver::capabilities(const Context& context) {
  return call<driver::Capabilities>(context, Operation::capabilities, "",
                                    []() -> Result<driver::Capabilities> { return driver::Capabilities{}; });
}

void FakeCatalog::add(std::shared_ptr<FakeDriver> driver) { drivers_[driver->name()] = std::move(driver); }

Result<std::shared_ptr<driver::Driver>> FakeCatalog::find(const Context&, const std::string& name) {
  const auto found = drivers_.find(name);
  if (found != drivers_.end()) return std::shared_ptr<driver::Driver>(found->second);
  return Error{
      .code = Code::not_found, .message = fmt::format("there is no driver {}", name), .driver = name};
}

std::vector<std::string> FakeCatalog::names() {
  std::vector<std::string> out;
  out.reserve(drivers_.size());
  for (const auto& one : drivers_) out.push_back(one.first);
  return out;
}

}  // namespace dvdi::volume
