// What dvdi can be asked to do: the calls of the command line and of the daemon's socket. Implemented by
// Engine (daemon/engine.h) inside the calling process and by Client (daemon/client.h), which asks dvdid.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"
#include "dvdi/v1/container.pb.h"
#include "dvdi/v1/launch.pb.h"
#include "event/compare.h"
#include "event/sink_status.h"
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
  std::string kept;      // why it is kept although its owner does not know it; "" if that is not so
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
  std::string lost;    // why, where the mount was lost (`state` is unknown); else ""
  std::string fenced;  // since when and why nothing that may block is done for it; "" where it is not fenced
};

struct EventView {
  std::uint64_t sequence = 0;
  std::string json;  // one CloudEvent, one line, with its hash
};

// The container with that id (or OWNER/ID), or the only one whose id begins with it. not_found;
// invalid_argument where several do.
Result<ContainerView> pick_container(const std::vector<ContainerView>& all, const std::string& id);

Error no_container(const isolator::ContainerKey& key);  // not_found

// Thread-safe.
class Api {
 public:
  virtual ~Api() = default;

  struct PrepareOptions {
    std::string owner = "run";
    // The process that works on the container until its task's init is known: the client's. Absent: this one.
    std::optional<ProcessIdentity> worker = {};
    // Somebody else launches, by path: the sources of the launch info are private mounts of ours, one a
    // container volume, verified and with its flags.
    bool staged = false;
  };
  // Prepares a container; the id is chosen where the request has none.
  struct Prepared {
    isolator::ContainerKey key;
    v1::ContainerLaunchInfo launch;
    std::vector<std::string> foreign_mount_points;  // of the owner `run`, not staged: for launcher::Task
  };
  virtual Result<Prepared> prepare(const Context& context, const PrepareOptions& options,
                                   const v1::ContainerRequest& request) = 0;
  // `watch`: a daemon cleans the container up when the process has ended.
  virtual Status isolate(const Context& context, const isolator::ContainerKey& key, pid_t pid,
                         bool watch) = 0;
  virtual Result<std::vector<isolator::Owed>> cleanup(const Context& context,
                                                      const isolator::ContainerKey& key) = 0;

  virtual Result<std::vector<ContainerView>> containers(const Context& context, bool ended) = 0;
  // Exactly that one, ended or not; not_found. Its cost does not grow with their number.
  virtual Result<ContainerView> find_container(const Context& context, const isolator::ContainerKey& key) = 0;
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
  // The names of the volumes that one driver lists; its error is the answer's.
  virtual Result<std::vector<std::string>> driver_volumes(const Context& context,
                                                          const std::string& driver) = 0;
  virtual Status create_volume(const Context& context, const std::string& driver, const std::string& name,
                               const std::vector<std::pair<std::string, std::string>>& options) = 0;
  // Refused while a container refers to it, it is mounted, or an unmount is owed.
  virtual Status remove_volume(const Context& context, const std::string& driver,
                               const std::string& name) = 0;

  // Pays the owed or parked unmount of a volume by hand, or takes away a mount that nobody refers to; with
  // `dry_run` only says what it would do. failed_precondition while a container refers to the volume.
  virtual Result<volume::Release> release_volume(const Context& context, const std::string& driver,
                                                 const std::string& name, bool dry_run) = 0;
  virtual Result<std::vector<volume::DriverStatus>> drivers(const Context& context) = 0;

  // Events after number `after`, oldest first, at most `limit`. If there is none, waits up to `wait` for one.
  virtual Result<std::vector<EventView>> events(const Context& context, std::uint64_t after,
                                                std::size_t limit, Duration wait) = 0;
  struct Verified {
    std::uint64_t count = 0, first = 0, last = 0;
    std::string head;  // hash of the last event
  };
  virtual Result<Verified> verify_events(const Context& context,
                                         const std::function<void(std::uint64_t)>& progress) = 0;
  virtual Result<UsageReport> usage(const Context& context, const UsageQuery& query,
                                    const UsageProgress& progress) = 0;

  // The chain here against what a sink says that it has: compare_with_sink(). failed_precondition without a
  // daemon; unsupported for a sink that keeps nothing that can be asked.
  virtual Result<Compared> compare_events(const Context& context, const std::string& sink) = 0;
  // The configured sinks. Each call that names one is not_found where it is not configured.
  virtual Result<std::vector<SinkStatus>> sinks(const Context& context) = 0;
  // Is it there, and would it take events? The error says why not.
  virtual Status test_sink(const Context& context, const std::string& name) = 0;
  virtual Status pause_sink(const Context& context, const std::string& name) = 0;
  virtual Status resume_sink(const Context& context, const std::string& name) = 0;
  // Sends once more from event `from` on.
  virtual Status replay_sink(const Context& context, const std::string& name, std::uint64_t from) = 0;

  // Is it this process that has the state directory open? Then nobody else may have it, and it is let go of
  // while something takes long.
  virtual bool holds_state() const = 0;

  // What was settled when this engine started, for a person: one sentence each.
  virtual std::vector<std::string> notices() = 0;
};

}  // namespace dvdi
