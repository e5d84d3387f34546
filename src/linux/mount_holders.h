// Which other mount namespaces hold a mount: the proof that nobody uses one any more.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/context.h"

namespace dvdi {

// What a mount shows: a file system, and the folder of it. In every namespace the same.
struct MountedTree {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  std::string root;
  std::string mount_point;  // where it is in this process's own table
};

struct MountHolder {
  std::uint64_t mount_namespace = 0;
  pid_t pid = 0;  // one of the processes in it
  std::string program;
  std::string mount_point;  // as that process sees it
  std::string text() const;
};

// The number of a process's mount namespace. not_found where there is no such process.
Result<std::uint64_t> mount_namespace_of(pid_t pid);

// For each tree one holder in another mount namespace than this process's own, with an empty `program` and
// pid 0 where there is none. A mount of a folder of the tree counts, too. A copy that came by propagation and
// lies on the same place does not: it goes when ours goes, and a process that is busy in it keeps ours.
// Namespaces for which `ignore` says so do not count for that tree. Touches only /proc, so it does not block.
// An error where anything could not be looked at: then nothing is proved.
Result<std::vector<MountHolder>> find_mount_holders(
    const Context& context, const std::vector<MountedTree>& trees,
    const std::function<bool(std::size_t tree, std::uint64_t mount_namespace)>& ignore = {});

}  // namespace dvdi
