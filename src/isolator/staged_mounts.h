// The isolator that makes mounts of ours for another launcher, which binds by path: each mount instruction
// gets a source that is verified and has its flags.
#pragma once

#include "isolator/isolator.h"
#include "linux/file_lock.h"
#include "linux/helper_pool.h"
#include "linux/mount_table.h"
#include "store/ledger.h"

namespace dvdi::isolator {

// Does nothing for a container that our own launcher starts. Rows of the ledger's table `staged` say what is
// intended before it is attached; a mount at a place of a container that no row knows (a helper that was
// killed, books that were rebuilt) goes with that container all the same: nobody but us has the folder. Never
// unmounts lazily: what is busy is reported, so that the volume is not unmounted below it.
class StagedMounts final : public Isolator {
 public:
  struct Parts {  // all outlive the isolator
    Ledger& ledger;
    HelperPool& helpers;
    KeyedLocks& container_locks;
  };
  struct Options {
    std::string state_dir;
    Duration mount_timeout = std::chrono::seconds(30);    // for each mount: its source may hang
    Duration unmount_timeout = std::chrono::seconds(30);  // for all mounts of a container
  };

  StagedMounts(Parts parts, Options options);

  std::string_view name() const override { return "staged mounts"; }
  std::vector<Property> needs() const override { return {Property::mount_instructions}; }
  Status prepare(const Context& context, Preparation& preparation) override;
  Result<std::vector<Owed>> cleanup(const Context& context, const ContainerKey& key,
                                    const std::vector<Failure>& before) override;
  // Mounts of the owner's containers that are in no books and in neither list. What cannot be taken away is
  // owed and no failure: an agent whose recovery fails does not come up.
  Result<volume::Recovered> recover(const Context& context, const RecoverRequest& request,
                                    const std::vector<Failure>& before) override;

  // Takes away what is left of containers that have ended or that the books do not have, and what is of
  // another boot: when an engine starts, and before debts are paid. One sentence for each thing that was done
  // or could not be done.
  std::vector<std::string> settle(const Context& context);
  // As settle(), before the owed unmount of a volume is paid. failed_precondition: a private mount of a
  // container that has ended still shows it.
  Status let_go(const Context& context, const VolumeKey& volume);

 private:
  bool still_there(const MountTable& table, const StagedRow& row,
                   const v1::ContainerMountInfo& instruction) const;
  Status make(const Context& context, const ContainerKey& key, unsigned position,
              const v1::ContainerMountInfo& instruction, StagedRow& row);
  Status take(const Context& context, const ContainerKey& key, const std::vector<StagedRow>& rows);
  Result<std::vector<StagedRow>> rows_of(const Context& context, const ContainerKey& key);
  // False: somebody is at work on it, or it is none.
  Result<bool> take_leftover(const Context& context, const ContainerKey& key);
  Result<std::vector<ContainerKey>> leftovers(const Context& context);
  void remove_stray_folders(const Context& context);

  const Parts parts_;
  const Options options_;
  const std::string state_dir_;  // without links
};

}  // namespace dvdi::isolator
