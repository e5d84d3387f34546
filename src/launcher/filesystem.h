// What the task sees of the file system. All of this runs in the task's init, in its new mount namespace.
#pragma once

#include "base/result.h"
#include "launcher/plan.h"
#include "linux/fd.h"

namespace dvdi::launcher {

struct TaskView {
  UniqueFd directory;  // O_PATH: the sandbox, or `/`
};

// Cuts the namespace off from the host, drops dvdi's other mounts, applies the plan's in order, enters the
// root file system. Consumes the plan's mounts.
Result<TaskView> enter_filesystem(Plan& plan);

// proc, sysfs, /dev and /dev/shm in the folder `root` (rootfs.cpp).
Status mount_system_folders(int root);
// Makes the mount `root` this process's root and lets go of the old one (rootfs.cpp).
Status enter_root(int root);
// A proc of this process's pid namespace over `proc` beneath `root` (rootfs.cpp).
Status mount_proc(int root);

// Drops what is mounted at or below the folders, but for mounts that `keep` lies in (foreign_mounts.cpp).
Status drop_mounts(const std::vector<std::string>& folders, const std::string& keep);
// The same in a copy of `tree.source`: the folders that lie below it (foreign_mounts.cpp).
Status drop_mounts_in(const Tree& tree, const std::vector<std::string>& folders);

}  // namespace dvdi::launcher
