// The kernel's table of mounts: what is really mounted. Reading it blocks on no file system.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dvdi {

// One line of /proc/PID/mountinfo (proc(5)), octal escapes decoded.
struct MountEntry {
  std::uint64_t id = 0;
  std::uint64_t parent = 0;
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  std::string root;
  std::string mount_point;
  std::string options;
  bool shared = false;       // a member of a peer group: mounts below it propagate
  std::uint64_t master = 0;  // peer group that it receives mounts from; 0: none
  std::string fs_type;
  std::string source;
  std::string super_options;
};

class MountTable {
 public:
  // The table as this process sees it, or as process `pid` does.
  static Result<MountTable> read();
  static Result<MountTable> read(pid_t pid);
  static Result<MountTable> parse(std::string_view text);  // the text of a mountinfo file

  const std::vector<MountEntry>& entries() const { return entries_; }
  // The mount that `path` itself shows: the topmost one mounted exactly there. `path` is absolute without
  // `.`, `..`, or links.
  const MountEntry* at(std::string_view path) const;
  // The mount that `path` lies in: the topmost of the longest mount point that is a prefix of it.
  const MountEntry* containing(std::string_view path) const;
  // All mounts exactly at or anywhere below `path`, in the order of the table.
  std::vector<const MountEntry*> beneath(std::string_view path) const;

 private:
  std::vector<MountEntry> entries_;
};

// What the kernel can do. DVDI_KERNEL=6.1 in the environment makes the answer that of Linux 6.1 (Debian 12),
// so that the fallbacks can be tested on a younger kernel.
struct KernelFeatures {
  bool statmount = false;       // 6.8: statmount(2), unique mount ids
  bool idmapped_tmpfs = false;  // 6.3
};
const KernelFeatures& kernel_features();

}  // namespace dvdi
