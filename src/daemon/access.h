// Who may ask the daemon for what. The decisions are pure; what they need to know of the machine is looked up
// by the functions at the end. docs/access.md describes the rules.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/context.h"
#include "base/sync.h"
#include "daemon/api.h"
#include "linux/fd.h"

namespace dvdi {

enum class Action {
  recover,
  prepare,
  isolate,
  cleanup,
  read_containers,
  read_volumes,
  read_events,
  verify_events,
  read_usage,
  read_drivers,
  read_metrics,
  create_volume,
  remove_volume,
  release_volume,
  read_sinks,
  change_sink,
};
std::string_view action_name(Action action);  // "read containers"

// What a caller is to the daemon.
enum class Standing { root, member, stranger };

// The rule for callers, of the configuration. Root may always.
struct AccessRules {
  std::optional<gid_t> group;  // whose members may ask for containers of their own
};

// `groups`: the caller's supplementary groups, as the kernel says (SO_PEERGROUPS).
Standing standing_of(const AccessRules& rules, const Caller& caller, const std::vector<gid_t>& groups);

// The one owner whose containers a caller that is not root has: uid:N.
std::string own_owner(const Caller& caller);

// A refusal: permission_denied, with the rule for the record.
struct Refusal {
  std::string rule;  // stable words for programs: "root only", "own containers only", …
  Error error;
};

// May the caller do that at all? `owner`: of the container that it is about, where it is about one.
std::optional<Refusal> refuse(Standing standing, const Caller& caller, Action action,
                              const std::string& owner = {});

// Of a member's prepare: may it be asked for like that? And if so, the request as it is to be carried out:
// for the member's own user and group. `user`: what command.user of the request is on this host (nullopt
// where the request names none). Root's requests stay as they are.
struct MemberUser {
  std::uint32_t uid = 0, gid = 0;
};
std::optional<Refusal> adopt_request(Standing standing, const Caller& caller,
                                     const std::vector<gid_t>& groups, const std::optional<MemberUser>& user,
                                     v1::ContainerRequest& request);

// What a caller gets to see. Root sees everything.
bool may_see(Standing standing, const Caller& caller, const ContainerView& container);
// nullopt: nothing. Else without the containers of others.
std::optional<VolumeView> seen_of(Standing standing, const Caller& caller, VolumeView volume);
// One event, as JSON: those that name a container of his own.
bool may_see_event(Standing standing, const Caller& caller, const std::string& json);

// A process of that user's, for isolate. permission_denied if it is somebody else's (real, effective or saved
// uid), or has more rights than he (a setuid program); not_found if there is none. Keep the descriptor, a
// pidfd, for as long as the number is used: while it has not ended, the number is that process's.
Result<UniqueFd> open_process_of(std::uint32_t uid, pid_t pid);
// Whether that process is still there, so that what was done with its number was done with it.
bool has_not_ended(const UniqueFd& pidfd);

// The supplementary groups of whoever connected the Unix socket.
Result<std::vector<gid_t>> peer_groups(int socket);
// "" gives none; a name or a number. invalid_argument if there is no such group.
Result<std::optional<gid_t>> find_group(const std::string& name);

// What was refused, for the record.
struct Denial {
  Caller caller;
  std::string action;  // as action_name()
  std::string what;    // OWNER/ID or DRIVER/NAME, "" where it is about none
  std::string rule;
  std::string error;
  std::uint64_t count = 1;  // such refusals since the last one that was recorded
};

// So that a caller in a loop does not fill the disk: of each caller and rule one refusal a minute is
// recorded, with the number of those since the last one. Thread-safe.
class DenialGate {
 public:
  static constexpr std::size_t max_kept = 1024;  // callers and rules; beyond it they share one place

  // With its count, if it is to be recorded.
  std::optional<Denial> pass(Denial denial, BootTime now);

 private:
  using Key = std::pair<std::uint32_t, std::string>;
  struct Seen {
    BootTime recorded;
    std::uint64_t suppressed = 0;
  };
  Mutex mutex_;
  std::map<Key, Seen> seen_;
};

// The event `dvdi.access.denied`.
Event denial_event(const Denial& denial);

}  // namespace dvdi
