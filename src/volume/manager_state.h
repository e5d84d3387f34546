// What the sources of Manager share. Only for them.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/sync.h"
#include "linux/mount_table.h"
#include "volume/calls.h"
#include "volume/claim.h"
#include "volume/manager.h"

namespace dvdi::volume {

// The key of a volume's lock.
inline std::string lock_name(const VolumeKey& volume) { return "volume " + volume.text(); }
// The key of a lock that is held while a mount is probed, and while its driver unmounts it: a descriptor of
// ours on a mount makes umount(2) say that it is busy. Taken after the volume's lock, or without it.
inline std::string probe_lock_name(const VolumeKey& volume) { return "probe " + volume.text(); }

// What was done must be recorded, also when the request that asked for it has been cancelled meanwhile.
inline constexpr Duration time_to_record = std::chrono::seconds(60);

struct Manager::State {
  State(const Parts& given_parts, Policy given_policy)
      : parts(given_parts),
        policy(std::move(given_policy)),
        calls(
            parts.drivers, policy,
            [this](const Context& context, const VolumeKey& volume) { return had_secrets(context, volume); },
            [this](const Context& context, const std::string& driver, DriverState state,
                   const std::string& reason,
                   bool found) { return note_driver(context, driver, state, reason, found); }) {}

  Parts parts;
  Policy policy;
  WatchedMountTable mounts;
  // The last comparison of the books with the kernel's table, if nothing of it was left undone.
  struct Comparison {
    std::shared_ptr<const MountTable> table;
    Moment begun;
    bool served = false;
  };
  Mutex comparing;
  std::optional<Comparison> compared;  // under `comparing`
  const Result<ProcessIdentity> self = identify_process(::getpid());
  Calls calls;

  // By what is recorded; true where that cannot be read.
  bool had_secrets(const Context& context, const VolumeKey& volume);
  // Of a driver that is known only by the name in a request nothing is recorded.
  Status note_driver(const Context& context, const std::string& driver, DriverState driver_state,
                     const std::string& reason, bool found);
  Status write(const Context& context, std::string_view what,
               const std::function<Status(Transaction&)>& work) {
    return parts.ledger.write(context, what, work);
  }
  Status read(const Context& context, std::string_view what, const std::function<Status(Reader&)>& work) {
    return parts.ledger.read(context, what, work);
  }

  // What the intent of a container found and wrote.
  struct Intent {
    // Of each volume: the row that it wrote as `mounting`, or what can be used as it is, or neither.
    std::vector<std::optional<MountRow>> ours;
    std::vector<std::optional<Mounted>> mounted;
    bool known = false;   // the container was prepared before
    bool ready() const {  // nothing else is to do
      return std::ranges::all_of(mounted, [](const auto& one) { return one.has_value(); });
    }
  };
  Status intend(Transaction& transaction, const Context& context, const Holder& holder,
                const std::vector<Request>& requests, const MountTable& table, const ProcessIdentity& engine,
                Intent& intent);
  // True if they are. `mounted`: those of them that are, in the order of `requests`, which are the
  // container's.
  Result<bool> mark_prepared_if_all_mounted(Transaction& transaction, const ContainerKey& key,
                                            const std::vector<Request>& requests, const std::string& trace_id,
                                            std::vector<Mounted>& mounted);
  struct TakeDown {
    VolumeKey volume;
    std::string mount_id;
  };
  // After the last reference to the volume went, in the same transaction: the intent to unmount it, for the
  // caller to carry out, or what is owed instead.
  Status let_go(Transaction& transaction, const VolumeKey& volume, const std::string& keep_mounted,
                const std::string& trace_id, std::vector<TakeDown>& to_take_down,
                std::vector<Owed>& owed) const;
  Result<bool> note_found(const Context& context, const VolumeKey& volume, const Claim& claim,
                          const std::string& note, std::optional<std::string> driver_id);
  Result<std::vector<Owed>> release(const Context& context, const ContainerKey& key,
                                    const std::string& keep_mounted,
                                    const std::optional<std::string>& failed_with, const std::string& reason);
};

}  // namespace dvdi::volume
