// Many questions to one mount table: MountTable looks at every mount for each, this at the folders of a path.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "linux/mount_table.h"

namespace dvdi {

// Of a table that outlives it and does not change.
class MountIndex {
 public:
  explicit MountIndex(const MountTable& table);
  // As MountTable::at.
  const MountEntry* at(const std::string& path) const;
  const MountEntry* by_id(std::uint64_t id) const;

 private:
  // The mounts on one mount, by mount point; 0: those whose parent is out of sight.
  using Children = std::unordered_map<std::string_view, const MountEntry*>;
  std::unordered_map<std::uint64_t, Children> children_;
  std::unordered_map<std::uint64_t, const MountEntry*> by_id_;
};

}  // namespace dvdi
