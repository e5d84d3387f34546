#include "daemon/access.h"

#include <fmt/format.h>
#include <grp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/json.h"
#include "base/text.h"
#include "linux/process.h"

namespace dvdi {

namespace {

constexpr Duration between_records = std::chrono::minutes(1);
constexpr std::string_view advice = "docs/access.md says who may ask for what; root may";

Refusal refusal_of(std::string rule, std::string message) {
  return {
      .rule = std::move(rule),
      .error = {.code = Code::permission_denied, .message = std::move(message), .hint = std::string(advice)}};
}

}  // namespace

std::string_view action_name(Action action) {
  switch (action) {
    case Action::recover:
      return "recover";
    case Action::prepare:
      return "prepare";
    case Action::isolate:
      return "isolate";
    case Action::cleanup:
      return "cleanup";
    case Action::read_containers:
      return "read containers";
    case Action::read_volumes:
      return "read volumes";
    case Action::read_events:
      return "read events";
    case Action::verify_events:
      return "verify events";
    case Action::read_usage:
      return "read usage";
    case Action::read_drivers:
      return "read drivers";
    case Action::read_metrics:
      return "read metrics";
    case Action::create_volume:
      return "create volume";
    case Action::remove_volume:
      return "remove volume";
    case Action::release_volume:
      return "release volume";
    case Action::read_sinks:
      return "read sinks";
    case Action::change_sink:
      return "change sink";
  }
  return "unknown";
}

Standing standing_of(const AccessRules& rules, const Caller& caller, const std::vector<gid_t>& groups) {
  if (caller.uid == 0) return Standing::root;
  if (!rules.group) return Standing::stranger;
  const bool member = caller.gid == *rules.group || std::ranges::find(groups, *rules.group) != groups.end();
  return member ? Standing::member : Standing::stranger;
}

std::string own_owner(const Caller& caller) { return fmt::format("uid:{}", caller.uid); }

std::optional<Refusal> refuse(Standing standing, const Caller& caller, Action action,
                              const std::string& owner) {
  if (standing == Standing::root) return std::nullopt;
  const std::string who = fmt::format("uid {} may not {}", caller.uid, action_name(action));
  if (standing == Standing::stranger)
    return refusal_of("members only", who + ": it is neither root nor in the group that may ask");
  switch (action) {
    case Action::prepare:
    case Action::isolate:
    case Action::cleanup:
      if (owner == own_owner(caller)) return std::nullopt;
      return refusal_of("own containers only",
                        fmt::format("{} for the owner '{}': its own containers have the owner {}", who,
                                    printable(owner), own_owner(caller)));
    case Action::read_containers:
    case Action::read_volumes:
    case Action::read_events:
      return std::nullopt;  // what of it, the filters say
    default:
      return refusal_of("root only", who + ": root only");
  }
}

std::optional<Refusal> adopt_request(Standing standing, const Caller& caller,
                                     const std::vector<gid_t>& groups, const std::optional<MemberUser>& user,
                                     v1::ContainerRequest& request) {
  if (standing == Standing::root) return std::nullopt;
  const auto no = [&](std::string rule, std::string_view what) {
    return refusal_of(std::move(rule), fmt::format("uid {} may not {}", caller.uid, what));
  };
  if (standing == Standing::stranger) return refuse(standing, caller, Action::prepare);
  // Also where it is set to "": whether somebody uses a member is simpler to say than what it means.
  if (request.has_directory()) return no("no directory", "choose the sandbox (directory)");
  if (request.has_rootfs()) return no("no rootfs", "choose the root file system (rootfs)");
  const v1::Attribution& claims = request.attribution();
  if (!claims.role().empty()) return no("no role", "claim a role");
  if (!claims.principal().empty()) return no("no principal", "claim a principal");
  if (!claims.framework_id().empty()) return no("no framework", "claim a framework");
  const bool named = !request.command().user().empty() || !claims.user().empty();
  if (!request.command().user().empty() && !user)
    return no("own user only", "name a user that is not known on this host");
  const std::string name(
      std::string_view(request.command().user()).substr(0, request.command().user().find(':')));
  if (!claims.user().empty() && claims.user() != request.command().user() && claims.user() != name)
    return no("own user only", "claim to be for another user than the task's");
  if (named && user) {
    if (user->uid != caller.uid) return no("own user only", "run a task as another user");
    if (user->gid != caller.gid && std::ranges::find(groups, user->gid) == groups.end())
      return no("own groups only", "run a task with a group that it is not in");
  }
  const MemberUser as = user.value_or(MemberUser{.uid = caller.uid, .gid = caller.gid});
  // Numbers: nothing that a name means elsewhere, or later, can change it.
  request.mutable_command()->set_user(fmt::format("{}:{}", as.uid, as.gid));
  request.mutable_attribution()->set_user(std::to_string(as.uid));
  return std::nullopt;
}

bool may_see(Standing standing, const Caller& caller, const ContainerView& container) {
  return standing == Standing::root || (standing == Standing::member && container.owner == own_owner(caller));
}

std::optional<VolumeView> seen_of(Standing standing, const Caller& caller, VolumeView volume) {
  if (standing == Standing::root) return volume;
  if (standing == Standing::stranger) return std::nullopt;
  const std::string prefix = own_owner(caller) + "/";
  std::erase_if(volume.containers, [&](const std::string& one) { return !one.starts_with(prefix); });
  if (volume.containers.empty()) return std::nullopt;
  // They may name processes and paths of others.
  if (volume.owed) volume.owed->last_error.clear();
  volume.foreign_evidence.clear();
  return volume;
}

bool may_see_event(Standing standing, const Caller& caller, const std::string& json) {
  if (standing == Standing::root) return true;
  if (standing == Standing::stranger) return false;
  const auto event = json::parse(json, "an event");
  if (!event) return false;
  const json::value* data = json::find(*event, "data");
  return data != nullptr && json::text_or_empty(*data, "owner") == own_owner(caller);
}

Result<UniqueFd> open_process_of(std::uint32_t uid, pid_t pid) {
  const Error nobody{.code = Code::not_found, .message = fmt::format("there is no process {}", pid)};
  if (pid <= 0) return nobody;
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    if (errno == ESRCH || errno == EINVAL) return nobody;
    return os_error(fmt::format("open process {}", pid), errno);
  }
  DVDI_TRY(const auto uids, user_ids_of(pid));
  // What was read may be of another process that got the number meanwhile, but only if this one has ended.
  if (!has_not_ended(pidfd)) return nobody;
  if (!std::ranges::all_of(uids, [&](std::uint32_t one) { return one == uid; })) {
    return Error{.code = Code::permission_denied,
                 .message = fmt::format("process {} is not one of uid {}", pid, uid),
                 .hint = std::string(advice)};
  }
  return pidfd;
}

bool has_not_ended(const UniqueFd& pidfd) {
  pollfd poll{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
  return ::poll(&poll, 1, 0) == 0;
}

Result<std::vector<gid_t>> peer_groups(int socket) {
  std::vector<gid_t> groups(64);
  for (;;) {
    auto bytes = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes) == 0) {
      groups.resize(bytes / sizeof(gid_t));
      return groups;
    }
    // The kernel says how many there are; there are never more than NGROUPS_MAX, 65536.
    const std::size_t needed = bytes / sizeof(gid_t);
    if (errno != ERANGE || needed <= groups.size())
      return os_error("ask for the groups of the caller", errno);
    groups.resize(needed);
  }
}

Result<std::optional<gid_t>> find_group(const std::string& name) {
  if (name.empty()) return std::optional<gid_t>();
  if (const auto number = parse_number<gid_t>(name)) return number;
  std::vector<char> buffer(std::size_t{1} << 16U);
  group entry{};
  group* found = nullptr;
  int failed = 0;
  while ((failed = ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found)) == ERANGE &&
         buffer.size() < std::size_t{1} << 24U)
    buffer.resize(buffer.size() * 4);
  if (failed != 0) return os_error(fmt::format("look for the group '{}'", printable(name)), failed);
  if (found == nullptr) {
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("there is no group '{}'", printable(name)),
                 .hint = "access.group in the configuration names it; `groupadd --system` makes one"};
  }
  return std::optional<gid_t>(found->gr_gid);
}

std::optional<Denial> DenialGate::pass(Denial denial, BootTime now) {
  const Lock lock(mutex_);
  Key key{denial.caller.uid, denial.rule};
  if (!seen_.contains(key) && seen_.size() >= max_kept) {
    std::erase_if(seen_, [&](const auto& one) { return now - one.second.recorded >= between_records; });
    if (seen_.size() >= max_kept) key = Key{UINT32_MAX, ""};
  }
  const auto [found, first] = seen_.try_emplace(std::move(key), Seen{.recorded = now});
  Seen& seen = found->second;
  if (!first && now - seen.recorded < between_records) {
    ++seen.suppressed;
    return std::nullopt;
  }
  denial.count = seen.suppressed + 1;
  seen = Seen{.recorded = now};
  return denial;
}

Event denial_event(const Denial& denial) {
  json::object details{{"action", denial.action}, {"rule", denial.rule}, {"count", denial.count}};
  if (!denial.what.empty()) details["what"] = printable(denial.what, 1000);
  return {.type = "dvdi.access.denied",
          .error = denial.error.substr(0, 2000),
          .peer = denial.caller,
          .details = std::move(details)};
}

}  // namespace dvdi
