// What a driver claims to have mounted, held against the kernel's mount table.
#pragma once

#include "linux/mount_table.h"
#include "volume/manager.h"

namespace dvdi::volume {

StoredIdentity identity_of(const MountEntry& entry);

// A mount point as it was verified.
struct Claim {
  std::string mount_point;  // without symbolic links
  std::string folder;       // MountRow::folder
  std::optional<StoredIdentity> identity;
};

// driver_violation unless `path` is absolute, not `/`, exists, and is a mount of its own, or a folder of the
// volume's own mount (or a directory, where `plain_directory` says that this driver hands out such). REX-Ray
// hands out such folders: VOLUMES/NAME/data of the mount VOLUMES/NAME. That mount is told from the host's own
// by its name: the last folder but one in `path` is called like the volume, and is where it is mounted. Where
// the folder is called so, too, which of the two it is shows only in the table `before` the Mount: the mount
// must not be in it. Links in the volume's own mount may not lead out of it.
Result<Claim> verify_claim(const Context& context, HelperPool& helpers, const MountTable& table,
                           const VolumeKey& volume, const std::string& path, bool plain_directory,
                           const MountTable* before = nullptr);

// Does the table show the mount of this row, and nothing over its mount point? Without a recorded identity:
// any mount there.
bool shows(const MountTable& table, const MountRow& row);

}  // namespace dvdi::volume
