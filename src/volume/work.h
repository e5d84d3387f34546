// The work on one volume, done by whoever holds its lock: bring it up for a container, take it down after the
// last one, settle what is not known. Reads the row first and acts on what it says.
#pragma once

#include "linux/served_mount.h"
#include "volume/calls.h"
#include "volume/claim.h"
#include "volume/state.h"

namespace dvdi::volume {

// Reasons of transitions that several places give.
inline constexpr std::string_view vanished = "the kernel's mount table does not show it any more";
inline constexpr std::string_view found_again = "the lost mount is there and answers again";

// The reason of such a transition, from what the server said.
std::string why_lost(const ServerLook& look);

class Work {
 public:
  Work(const Manager::Parts& parts, const Policy& policy, Calls& calls, WatchedMountTable& mounts,
       Context context, VolumeKey volume)
      : parts_(parts),
        policy_(policy),
        calls_(calls),
        mounts_(mounts),
        context_(std::move(context)),
        volume_(std::move(volume)) {}

  // Mounted, whatever was the state before. `ours` is the row that the caller's own transaction wrote as
  // `mounting`, if it wrote one. Runs `with` in the transaction that makes the volume usable; where it is
  // usable already, there is none.
  Result<Mounted> bring_up(const Request& request, const std::optional<MountRow>& ours,
                           const std::function<Status(Transaction&)>& with);

  // The unmount of mount `mount_id`, intended in a transaction of the caller's. Runs `with` in the
  // transaction that ends it, well or owed. The reason, if it is owed.
  Result<std::optional<std::string>> take_down(const std::string& mount_id,
                                               const std::function<Status(Transaction&)>& with);

  // `mounted` as seen becomes lost for that reason; lost as seen becomes mounted again, if the table shows it
  // and somebody refers to it. False if the row is another by now.
  Result<bool> note(const MountRow& seen, const std::string& why);
  Result<bool> find_again(const MountRow& seen);

  // A transitional row or a debt that nobody refers to. A sentence on what became of it; "" if there was
  // nothing to do.
  Result<std::string> settle_unreferenced();

  // One attempt now at the unmount of a row that nobody refers to, whatever is pending, parked or not yet
  // due. failed_precondition if a container refers to it meanwhile. The reason, if it is owed still.
  Result<std::optional<std::string>> take_down_by_hand(MountRow row, const std::optional<DebtRow>& debt);

 private:
  Result<Mounted> mount_first(MountRow row, const Request& request,
                              const std::function<Status(Transaction&)>& with);
  Result<Mounted> mount_again(MountRow row, const Request& request,
                              const std::function<Status(Transaction&)>& with);
  Result<Mounted> settle_for_use(MountRow row, const Request& request,
                                 const std::function<Status(Transaction&)>& with);
  Result<Mounted> replace(MountRow row, const Request& request,
                          const std::function<Status(Transaction&)>& with, std::string_view why);
  std::optional<Claim> whole(const MountRow& row);
  Result<Mounted> fresh(const Request& request, const std::function<Status(Transaction&)>& with);
  Result<Mounted> record_mounted(MountRow row, const Claim& claim, const Request& request, const Cause& cause,
                                 const std::string& foreign, const std::function<Status(Transaction&)>& with);
  // The mount of a row whose outcome is not known: where the driver or the row says it could be and the table
  // shows one.
  std::optional<Claim> find_mount(const MountRow& row);
  // A claim of the driver's, held against the kernel's table, and against the server behind it, if there is
  // one.
  Result<Claim> verify(const std::string& path, bool plain_directory, const MountTable* before = nullptr);
  // What the server behind the mount of a row says; a mount without one answers.
  Result<ServerLook> look(const MountRow& row);
  // `mounted` to `unknown`: the mount went without us.
  Status lose(MountRow& row, const std::string& why);
  // After an Unmount: detaches a mount of ours that is still in the table and whose server is gone. Says what
  // else is wrong with a mount that stays.
  ServerLook take_away_if_gone(const MountRow& row);
  // Unmounts a row in state `unmounting` and records what came of it. The reason, if it is owed. `before` is
  // what was pending when the row was `unknown`.
  Result<std::optional<std::string>> unmount(MountRow row, const std::function<Status(Transaction&)>& with,
                                             MountRow::Pending before);
  // The driver's Unmount, while nobody probes the mount.
  Status unmount_unprobed(const MountRow& row);
  Result<std::string> settle_parked(MountRow row);
  Result<std::string> settle_found(MountRow row);
  // The reason, if the mount was left alone.
  Result<std::optional<std::string>> keep_if_held(MountRow row,
                                                  const std::function<Status(Transaction&)>& with);
  // To `unmounting`, unless a container refers to it since it was looked at: then failed_precondition. That
  // one may have found it mounted and use it already.
  Status begin_take_down(MountRow& row, const std::string& reason,
                         const std::function<Status(Transaction&)>& with = {});
  Status ensure_created(const Request& request);
  Status move(MountRow& row, MountState to, const Cause& cause,
              const std::function<Status(Transaction&)>& with = {});
  Result<std::optional<MountRow>> row();
  Cause cause(std::string reason = {}) const {
    return {.reason = std::move(reason), .trace_id = context_.trace_id()};
  }
  Mounted mounted(const MountRow& row) const { return {volume_, row.mount_point, row.identity}; }

  const Manager::Parts& parts_;
  const Policy& policy_;
  Calls& calls_;
  WatchedMountTable& mounts_;
  Context context_;
  VolumeKey volume_;
};

}  // namespace dvdi::volume
