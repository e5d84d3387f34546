// The kernel's mount interface that works on file descriptors (open_tree, move_mount, mount_setattr, fsopen),
// as functions that return Result. A mount is prepared where nobody sees it and attached when it is ready.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dvdi/v1/launch.pb.h"
#include "linux/beneath.h"

namespace dvdi {

enum class Depth { top, tree };  // one mount, or also everything that is mounted below it

// A copy of the mount that `fd` (O_PATH) lies in, with the file or folder `fd` as its root, attached nowhere;
// it goes with the descriptor unless attach() puts it somewhere.
Result<UniqueFd> clone_mount(int fd, Depth depth);

// Adds `attributes` (MOUNT_ATTR_*) to a mount and sets its propagation (MS_PRIVATE, MS_SLAVE, …; 0 leaves
// it).
Status set_mount_attributes(int mount, std::uint64_t attributes, std::uint64_t propagation, Depth depth);
// Takes them from that one mount; what is mounted below it keeps its own.
Status clear_mount_attributes(int mount, std::uint64_t attributes);

// Makes files of the mount appear with the owners that the user namespace maps theirs to. `unsupported`, and
// the name of the file system, where the kernel cannot do it there.
Status set_mount_idmap(int mount, int user_namespace, Depth depth);

// Puts a mount that clone_mount or new_filesystem made on `target` (O_PATH), in this process's mount
// namespace.
Status attach_mount(int mount, int target);

// A new file system of `type` (proc, tmpfs, …), attached nowhere. `attributes`: MOUNT_ATTR_*.
struct FilesystemOption {
  std::string name;
  std::string value;  // "": a flag
};
Result<UniqueFd> new_filesystem(const std::string& type, const std::vector<FilesystemOption>& options,
                                std::uint64_t attributes);

// What the kernel's table says of the mount that `fd` lies in. Asks no file system, so none can block it.
Result<v1::MountIdentity> mount_identity(int fd);
// The kernel's id of the mount that a descriptor lies in: "mnt_id:" of /proc/self/fdinfo. statx() knows the
// number too, but asks the file system for the rest of it, and a dead one does not answer.
Result<std::uint64_t> mount_id(int fd);

// Does `fd` lie in that very mount, now? failed_precondition, saying what is there instead, if not. Fields of
// `expected` that are not set are not compared; the mount point is not, either: it is for messages.
Status check_mount_identity(int fd, const v1::MountIdentity& expected);

}  // namespace dvdi
