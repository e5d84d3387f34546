// The rows of the ledger, as values.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "linux/process.h"

namespace dvdi {

// A container: ids are unique within an owner only.
struct ContainerKey {
  std::string owner;  // `run` for dvdi run, `dvdcli`, the real path of an agent's work directory
  std::string id;     // nested: PARENT.CHILD
  auto operator<=>(const ContainerKey&) const = default;
  // No process is behind it: it is there until it is cleaned up, or the machine is restarted. It stands for
  // one volume, so it may be prepared again at any time, also with other driver options.
  bool lives_until_unmount() const { return owner == until_unmount; }
  static constexpr const char* until_unmount = "dvdcli";  // the owner of those
  std::string text() const { return owner + "/" + id; }
};

// A volume: names are unique within a driver only.
struct VolumeKey {
  std::string driver;
  std::string name;
  auto operator<=>(const VolumeKey&) const = default;
  std::string text() const { return driver + "/" + name; }
};

enum class MountState { absent, mounting, mounted, unmounting, unknown };
std::string_view mount_state_name(MountState state);

enum class ContainerState { preparing, prepared, running, cleaning, ended };
std::string_view container_state_name(ContainerState state);

// A moment on both clocks, and the boot that the boot time belongs to.
struct Moment {
  WallTime wall;
  BootTime boot;
  std::string boot_id;
};

// Who a container works for: the columns of audit and chargeback.
struct Attribution {
  std::string framework, role, principal, task_id, task_name, user;
  std::vector<std::pair<std::string, std::string>> labels;
};

struct ContainerRow {
  ContainerKey key;
  ContainerState state = ContainerState::preparing;
  std::string digest;  // of the request: the same arguments, or others?
  Attribution attribution;
  std::string directory;  // the sandbox; made by us if `directory_is_ours`
  bool directory_is_ours = false;
  ProcessIdentity
      engine;  // the process that works on it: the engine's, or that of the client who asked for it
  std::optional<ProcessIdentity> init;  // the task's first process, from isolate on
  bool watch = false;                   // a daemon cleans it up when that process has ended
  Moment since;
  std::optional<Moment> ended;
  std::string note;  // why it was kept although its owner does not know it, one sentence
};

// The identity of a mount in the kernel's table, as stored.
struct StoredIdentity {
  std::uint64_t mount_id = 0;
  std::uint32_t major = 0, minor = 0;
  std::string root, source, fs_type;
  bool operator==(const StoredIdentity&) const = default;
};

struct MountRow {
  VolumeKey volume;
  std::string mount_id;  // the protocol's ID
  MountState state = MountState::mounting;
  // In `unknown`: which call's outcome it is; `refused` is an Unmount that the driver answered with an error
  // (or that we did not make): the mount is still whole. `lost`: it was mounted, and then it vanished from
  // the kernel's table, or the server behind it is gone. `found`: a mount that was there when the books were
  // rebuilt; also in `mounted` and `unmounting`, after somebody took it over.
  enum class Pending { none, mount, unmount, refused, lost, found } pending = Pending::none;
  std::string mount_point;  // as the driver gave it, once it did
  // Below the volume's own mount, where the driver hands out a folder of it: mount_point ends with it.
  std::string folder;
  std::optional<StoredIdentity> identity;  // absent for a plain directory
  Moment since;                            // of the last transition
  std::optional<Moment> mounted_since;
  // In `unknown`: when we last gave up waiting for the Mount or Unmount that is pending, or found that nobody
  // waits for it any more. The driver may still be at it.
  std::optional<BootTime> unanswered;
  std::string note;  // why it is `unknown`, one sentence, where a person should know
  // The ID that the driver knows it by, where that is not mount_id: somebody else mounted it, perhaps without
  // any ("").
  std::optional<std::string> driver_id;
  bool has_secrets = false;  // it was asked for with secret options
  // Of the volume when it was last mounted: what the time is billed by. As in VolumeRow.
  std::optional<std::uint64_t> size_bytes;
  std::string volume_type;

  const std::string& id_for_driver() const { return driver_id ? *driver_id : mount_id; }
  // Where the kernel's table has it.
  std::string mounted_at() const {
    return folder.empty() ? mount_point : mount_point.substr(0, mount_point.size() - folder.size() - 1);
  }
};

struct ReferenceRow {
  ContainerKey container;
  VolumeKey volume;
  bool exclusive = false;
  struct Use {
    std::string container_path;
    bool read_only = false;
  };
  std::vector<Use> uses;  // one volume may appear at several paths
  Moment since;
  // Of the volume at that time: what the use is billed by. As in VolumeRow.
  std::optional<std::uint64_t> size_bytes;
  std::string volume_type;
};

struct DebtRow {
  VolumeKey volume;
  std::string mount_id;
  Moment since;
  unsigned attempts = 0;
  std::string last_error;
  Moment next_try;
  bool parked = false;
};

// A mount of our own that another launcher binds by path: one container volume, verified and with its flags,
// at `path` below the state directory. Goes with the container.
struct StagedRow {
  ContainerKey container;
  unsigned position = 0;  // of the mount in the container's launch info
  std::string path;
  std::optional<StoredIdentity> identity;  // absent: intended, not yet known to be made
  Moment since;
};

struct ForeignRow {
  VolumeKey volume;
  Moment since;
  std::string mount_point;
  std::string evidence;  // one sentence
};

struct VolumeRow {
  VolumeKey volume;
  Moment since;  // when we first saw or made it
  bool created_by_us = false;
  std::optional<std::uint64_t> size_bytes;  // where the driver or the request says so
  std::string type = {};                    // the same; "" where nobody says
  bool has_secrets = false;                 // it was asked for with secret options
};

// How far a sink is; docs/events.md.
struct SinkRow {
  std::string name;
  std::uint64_t cursor = 0;        // the highest event number that it has confirmed
  std::uint64_t replay_until = 0;  // up to there it is sent again what it had; 0: nothing
  std::uint64_t undelivered = 0;   // the first number that was dropped and that it was not told of; 0: none
  bool paused = false;
};

enum class DriverState { up, slow, down };
std::string_view driver_state_name(DriverState state);
DriverState driver_state_of(std::string_view name);  // up, where it is none of them

// What a driver's calls showed last.
struct DriverRow {
  std::string name;
  DriverState state = DriverState::up;
  std::string reason;
  Moment since;
};

}  // namespace dvdi
