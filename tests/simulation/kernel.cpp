#include "kernel.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ranges>

#include "base/sync.h"
#include "dvdi/v1/launch.pb.h"
#include "linux/served_mount.h"

namespace dvdi::simulation {

std::uint64_t Kernel::mount(const std::string& mount_point, const std::string& source, bool has_server) {
  mounts_.push_back({.id = next_id_++,
                     .mount_point = mount_point,
                     .source = source,
                     .minor = next_minor_++,
                     .server = has_server ? Mount::Server::answers : Mount::Server::none});
  folders_.insert(mount_point);
  table_.reset();
  return mounts_.back().id;
}

std::optional<std::uint64_t> Kernel::unmount(const std::string& mount_point) {
  for (auto one = mounts_.end(); one != mounts_.begin();) {
    --one;
    if (one->mount_point != mount_point) continue;
    const std::uint64_t id = one->id;
    mounts_.erase(one);
    table_.reset();
    return id;
  }
  return std::nullopt;
}

const Kernel::Mount* Kernel::at(const std::string& mount_point) const {
  for (const Mount& one : mounts_ | std::views::reverse) {
    if (one.mount_point == mount_point) return &one;
  }
  return nullptr;
}

void Kernel::set_server(std::uint64_t id, Mount::Server server) {
  for (Mount& one : mounts_) {
    if (one.id == id) one.server = server;
  }
}

bool Kernel::has(std::uint64_t id) const {
  return std::ranges::any_of(mounts_, [&](const Mount& one) { return one.id == id; });
}

pid_t Kernel::start_process() {
  const pid_t pid = next_pid_++;
  processes_[pid] = next_start_++;
  return pid;
}

ProcessIdentity Kernel::identity(pid_t pid) const {
  const auto found = processes_.find(pid);
  return {.pid = pid,
          .start_ticks = found == processes_.end() ? 0 : found->second,
          .boot_id = fmt::format("boot-{:04}", boot_)};
}

void Kernel::reboot() {
  ++boot_;
  mounts_.clear();
  table_.reset();
  processes_.clear();
  next_pid_ = 1000;
}

Result<std::string> Kernel::mount_table() {
  if (on_look) on_look();
  if (!table_) {
    std::string text = "1 0 8:1 / / rw - ext4 /dev/root rw\n";
    std::map<std::string, std::uint64_t> top;  // a second mount at one place lies on the first
    for (const Mount& one : mounts_) {
      const auto below = top.contains(one.mount_point) ? top[one.mount_point] : 1;
      text += fmt::format("{} {} 0:{} / {} rw - {} {} rw\n", one.id, below, one.minor, one.mount_point,
                          one.server == Mount::Server::none ? "simfs" : "fuse.sim", one.source);
      top[one.mount_point] = one.id;
    }
    table_ = std::move(text);
  }
  return *table_;
}

Result<std::string> Kernel::boot_id() { return fmt::format("boot-{:04}", boot_); }

Result<ProcessIdentity> Kernel::identify(pid_t pid) {
  if (pid == ::getpid()) pid = self_;  // the engine asks for itself
  if (!alive(pid)) {
    return Error{.code = Code::not_found, .message = fmt::format("process {} has ended", pid)};
  }
  return identity(pid);
}

Result<bool> Kernel::runs(const ProcessIdentity& identity) {
  if (on_look) on_look();
  return alive(identity.pid) && this->identity(identity.pid) == identity;
}

Result<std::string> Kernel::help(const Context& context, std::string_view what, HelperFunction /*function*/,
                                 std::string_view request) {
  if (on_look) on_look();
  DVDI_CHECK(context.check(what));
  if (what.starts_with("look at /") || what.starts_with("take the dead mount")) {
    return ask_server(context, what, request);
  }
  if (what != "look at the mount point") {
    return Error{.code = Code::unsupported, .message = fmt::format("{}: not simulated", what)};
  }
  const std::string path(request);
  if (path == "/" || folders_.contains(path)) return path;
  return Error{.code = Code::not_found, .message = fmt::format("look at {}: it is not there", path)};
}

// As linux/served_mount.cpp does it in a helper.
Result<std::string> Kernel::ask_server(const Context& context, std::string_view what,
                                       std::string_view request) {
  v1::MountIdentity identity;
  if (!identity.ParseFromArray(request.data(), static_cast<int>(request.size()))) {
    return Error{.code = Code::internal, .message = "no identity of a mount"};
  }
  const auto answer = [](ServerState state, std::string_view text) {
    return fmt::format("{}{}", static_cast<int>(state), text);
  };
  const Mount* there = at(identity.mount_point());
  if (there == nullptr || there->id != identity.mount_id()) {
    return answer(ServerState::replaced, "another mount");
  }
  if (there->server == Mount::Server::silent) {
    static_cast<void>(pause(context, context.remaining(), what));
    return Error{.code = context.cancelled() ? Code::cancelled : Code::deadline_exceeded,
                 .message = fmt::format("{}: no answer", what),
                 .outcome = Outcome::unknown};
  }
  if (there->server != Mount::Server::gone) return answer(ServerState::answers, "");
  if (what.starts_with("take")) {
    static_cast<void>(unmount(identity.mount_point()));
    if (on_detach) on_detach(identity.mount_id());
  }
  return answer(ServerState::gone, "transport endpoint is not connected");
}

}  // namespace dvdi::simulation
