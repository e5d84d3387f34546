// What the ledger says of containers, references, debts and foreign holders: each change with its event and
// its usage interval.
#pragma once

#include "volume/manager.h"

namespace dvdi::volume {

// How long an ended container is remembered: a prepare that arrives after its cleanup is refused that long.
inline constexpr Duration remember_ended = std::chrono::hours(1);
// So much later its row is taken away, with all that are due by then: not with a transaction for each.
inline constexpr Duration forget_together = std::chrono::minutes(1);
// Whether the row still counts: one that ended does so for that long.
bool is_remembered(const ContainerRow& row, const Moment& now);

Status change_container(Transaction& transaction, ContainerRow& row, ContainerState to,
                        const std::string& trace_id, const std::string& reason = {});
// Only the event of it, where the row is written otherwise.
Status record_container(Transaction& transaction, const ContainerRow& row, ContainerState to,
                        const std::string& trace_id, const std::string& reason = {});
// A container whose prepare failed: its row goes, so that it can be tried again.
Status forget_failed_container(Transaction& transaction, const ContainerRow& row, const std::string& trace_id,
                               const std::string& error);
// Ended containers that were remembered long enough.
Status forget_ended_containers(Transaction& transaction);

// conflict if somebody else has the volume exclusively, or has it at all and `request` is exclusive.
Status check_access(Transaction& transaction, const ContainerKey& container, const Request& request);
// It has no reference to that volume yet.
Status add_reference(Transaction& transaction, const ContainerRow& container, const Request& request,
                     const Policy& policy, const std::string& trace_id);
Status unrefer(Transaction& transaction, const ContainerRow& container, const ReferenceRow& reference,
               const std::string& trace_id, const std::string& reason = {});

// The unmount of `row` is owed (again): a new debt, or one attempt more. `counts` is false where no attempt
// was made.
Status owe(Transaction& transaction, const MountRow& row, const std::string& error, const Policy& policy,
           const std::string& trace_id, bool counts = true);
// The debt is no more: paid, or taken over by a container that uses the mount.
Status settle_debt(Transaction& transaction, const VolumeKey& volume, const std::string& trace_id,
                   bool taken_over);
// Somebody has it tried again by hand: it is not parked any more, and its attempts count anew.
Status resume_debt(Transaction& transaction, const VolumeKey& volume, const std::string& trace_id);

Status note_foreign(Transaction& transaction, const MountRow& row, const std::string& evidence,
                    const std::string& trace_id);
Status clear_foreign(Transaction& transaction, const ForeignRow& row, const std::string& trace_id);

// What the options say of a volume that is worth keeping.
struct VolumeFacts {
  std::optional<std::uint64_t> size_bytes = {};  // size_of()
  std::string type = {};                         // of an option `type`, `volumetype` or the like; "": none
  bool has_secrets = false;                      // some of them are secret
};
VolumeFacts facts_of(const driver::Options& options, const Policy& policy);

// Nothing, if it is in that state already.
Status change_driver(Transaction& transaction, const std::string& driver, DriverState to,
                     const std::string& reason, const std::string& trace_id);
// The volume exists: its row and its provisioned time, if they are not there yet.
Status note_volume(Transaction& transaction, const VolumeKey& volume, bool created_by_us,
                   const VolumeFacts& facts, const std::string& trace_id);
// Its provisioned time ends; whoever keeps the row lets another one begin.
Status end_provisioned(Transaction& transaction, const VolumeRow& row);
Status forget_volume(Transaction& transaction, const VolumeKey& volume, const std::string& trace_id);

// The size that the option `size` gives, as Marathon and most drivers mean it: a whole number is GiB; K, M,
// G, T (and KiB and so on) are powers of 1024. nullopt where there is none or it reads otherwise.
std::optional<std::uint64_t> size_of(const driver::Options& options);

}  // namespace dvdi::volume
