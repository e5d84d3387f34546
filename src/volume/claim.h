// What a driver claims to have mounted, held against the kernel's mount table.
#pragma once

#include "linux/mount_table.h"
#include "volume/manager.h"

namespace dvdi::volume {

StoredIdentity identity_of(const MountEntry& entry);

// A mount point as it was verified.
struct Claim {
  std::string mount_point;  // without symbolic links
  std::optional<StoredIdentity> identity;
};

// driver_violation unless `path` is absolute, not `/`, exists, and is a mount of its own (or a directory,
// where `plain_directory` says that this driver hands out such).
Result<Claim> verify_claim(const Context& context, HelperPool& helpers, const VolumeKey& volume,
                           const std::string& path, bool plain_directory);

// Does the table show the mount of this row? Without a recorded identity: any mount at its mount point.
bool shows(const MountTable& table, const MountRow& row);

}  // namespace dvdi::volume
