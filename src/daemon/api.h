// What dvdi can be asked to do: the calls of the command line, later of the daemon's socket. Implemented by
// Engine (daemon/engine.h) inside the calling process, later by a client of dvdid.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"
#include "dvdi/v1/container.pb.h"
#include "dvdi/v1/launch.pb.h"
#include "event/usage.h"
#include "isolator/isolator.h"

namespace dvdi {

struct ContainerView {
  std::string owner;
  std::string id;
  std::string state;  // preparing, prepared, running, cleaning, ended
  std::string framework, role, principal, task_id, task_name, user;
  std::vector<std::pair<std::string, std::string>> labels;
  std::int64_t pid = 0;  // of the task's init; 0: not started
  std::string since;     // RFC 3339
  std::string ended;     // "" while it is there
  struct VolumeUse {
    std::string driver, name, container_path, mode;  // mode: rw, ro
  };
  std::vector<VolumeUse> volumes;
};

struct VolumeView {
  std::string driver;
  std::string name;
  std::string state;  // mounting, mounted, unmounting, unknown; "" for a volume that is not mounted here
  std::string mount_id, mount_point, fs_type, source, since;
  std::optional<std::uint64_t> size_bytes;
  std::vector<std::string> containers;  // OWNER/ID of those that refer to it
  bool exclusive = false;
  struct Debt {
    std::string since, last_error, next_try;
    unsigned attempts = 0;
    bool parked = false;
  };
  std::optional<Debt> owed;
  std::string foreign_since;  // RFC 3339 where somebody else holds a mount of it, else ""
  std::string foreign_evidence;
};

struct EventView {
  std::uint64_t sequence = 0;
  std::string json;  // one CloudEvent, one line, with its hash
};

// Thread-safe.
class Api {
 public:
  virtual ~Api() = default;

  // Prepares a container for `owner`; the id is chosen where the request has none.
  struct Prepared {
    isolator::ContainerKey key;
    v1::ContainerLaunchInfo launch;
    std::vector<std::string> foreign_mount_points;  // for launcher::Task
  };
  virtual Result<Prepared> prepare(const Context& context, const std::string& owner,
                                   const v1::ContainerRequest& request) = 0;
  virtual Status isolate(const Context& context, const isolator::ContainerKey& key, pid_t pid) = 0;
  virtual Result<std::vector<isolator::Owed>> cleanup(const Context& context,
                                                      const isolator::ContainerKey& key) = 0;

  virtual Result<std::vector<ContainerView>> containers(const Context& context, bool ended) = 0;
  // By id, or a prefix of an id that only one container has.
  virtual Result<ContainerView> container(const Context& context, const std::string& id) = 0;
  // Volumes that the ledger knows; with `ask_drivers` also those that drivers list (a driver that does not
  // answer in time is a warning, not an error).
  struct Volumes {
    std::vector<VolumeView> volumes;
    std::vector<std::string> warnings;
  };
  virtual Result<Volumes> volumes(const Context& context, bool ask_drivers) = 0;
  virtual Result<VolumeView> volume(const Context& context, const std::string& driver,
                                    const std::string& name) = 0;
  virtual Status create_volume(const Context& context, const std::string& driver, const std::string& name,
                               const std::vector<std::pair<std::string, std::string>>& options) = 0;
  // Refused while a container refers to it, it is mounted, or an unmount is owed.
  virtual Status remove_volume(const Context& context, const std::string& driver,
                               const std::string& name) = 0;

  // Events after `sequence`, oldest first, at most `limit`.
  virtual Result<std::vector<EventView>> events(const Context& context, std::uint64_t after,
                                                std::size_t limit) = 0;
  struct Verified {
    std::uint64_t count = 0, first = 0, last = 0;
    std::string head;  // hash of the last event
  };
  virtual Result<Verified> verify_events(const Context& context,
                                         const std::function<void(std::uint64_t)>& progress) = 0;
  virtual Result<std::vector<UsageRow>> usage(const Context& context, const UsageQuery& query) = 0;

  // What was settled when this engine started, for a person: one sentence each.
  virtual std::vector<std::string> notices() = 0;
};

}  // namespace dvdi
