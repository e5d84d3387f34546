// The kernel's table of mounts: what is really mounted. Reading it blocks on no file system.
#pragma once

#include <sys/types.h>

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dvdi {

// One line of /proc/PID/mountinfo (proc(5)), octal escapes decoded, without the options of the super block.
// The texts lie in the table and live as long as it.
struct MountEntry {
  std::uint64_t id = 0;
  std::uint64_t parent = 0;
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  std::string_view root;
  std::string_view mount_point;
  std::string_view options;
  bool shared = false;       // a member of a peer group: mounts below it propagate
  std::uint64_t master = 0;  // peer group that it receives mounts from; 0: none
  std::string_view fs_type;
  std::string_view source;
};

// A few large pieces of memory, whatever the number of mounts: a node with many reads its table often.
class MountTable {
 public:
  MountTable() = default;
  MountTable(MountTable&&) = default;
  MountTable& operator=(MountTable&&) = default;
  MountTable(const MountTable&) = delete;  // the entries point into the text
  MountTable& operator=(const MountTable&) = delete;

  // The table as this process sees it, or as process `pid` does.
  static Result<MountTable> read();
  static Result<MountTable> read(pid_t pid);
  static Result<MountTable> parse(std::string_view text);  // the text of a mountinfo file, which is copied
  static Result<MountTable> parse(std::vector<char> text);

  const std::vector<MountEntry>& entries() const { return entries_; }
  const MountEntry* by_id(std::uint64_t id) const;
  // Both look at the folders of the path, not at the mounts, as the kernel walks: the text of mount points
  // alone misleads. A mount on /a hides one on /a/b, and of several on one place the last in the table need
  // not be the topmost. The mount that `path` itself shows: the topmost one mounted exactly there. `path` is
  // absolute without
  // `.`, `..`, or links.
  const MountEntry* at(std::string_view path) const;
  // The mount that `path` lies in: the topmost of the longest mount point that is a prefix of it.
  const MountEntry* containing(std::string_view path) const;
  // All mounts exactly at or anywhere below `path`, in the order of the table.
  std::vector<const MountEntry*> beneath(std::string_view path) const;

 private:
  // A mount by the one that it is on and its place; parent 0: on one that is out of sight.
  struct Place {
    std::uint64_t parent = 0;
    std::string_view mount_point;
    bool operator==(const Place&) const = default;
  };
  struct PlaceHash {
    std::size_t operator()(const Place& place) const {
      return std::hash<std::string_view>{}(place.mount_point) ^ (place.parent * 0x9e3779b97f4a7c15U);
    }
  };
  void make_index();
  const MountEntry* child(std::uint64_t parent, std::string_view path) const;

  std::vector<char> text_;
  std::vector<MountEntry> entries_;
  boost::unordered_flat_map<std::uint64_t, std::uint32_t> ids_;  // to the entry's number
  boost::unordered_flat_map<Place, std::uint32_t, PlaceHash> places_;
};

// The table as this process sees it, read again only when the kernel says that it has changed. Thread-safe.
// Not for a process that goes into another mount namespace. The kernel does not say that a folder above a
// mount point was renamed: the mount is shown at its old path until the next change.
class WatchedMountTable {
 public:
  WatchedMountTable();
  ~WatchedMountTable();
  WatchedMountTable(const WatchedMountTable&) = delete;
  WatchedMountTable& operator=(const WatchedMountTable&) = delete;

  // As it was at some moment after the call began.
  Result<std::shared_ptr<const MountTable>> now();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Is `path` the folder `folder`, or anywhere below it? Both absolute and normal.
bool at_or_below(std::string_view path, std::string_view folder);

// What the kernel can do. DVDI_KERNEL=6.1 in the environment makes the answer that of Linux 6.1 (Debian 12),
// so that the fallbacks can be tested on a younger kernel.
struct KernelFeatures {
  bool statmount = false;       // 6.8: statmount(2), unique mount ids
  bool idmapped_tmpfs = false;  // 6.3
};
const KernelFeatures& kernel_features();

}  // namespace dvdi
