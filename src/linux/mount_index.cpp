#include "linux/mount_index.h"

namespace dvdi {

MountIndex::MountIndex(const MountTable& table) {
  by_id_.reserve(table.entries().size());
  for (const MountEntry& one : table.entries()) by_id_[one.id] = &one;
  for (const MountEntry& one : table.entries()) {
    const bool top = one.parent == one.id || !by_id_.contains(one.parent);
    // Of several on one place of one mount the last counts, as in MountTable.
    children_[top ? 0 : one.parent][one.mount_point] = &one;
  }
}

const MountEntry* MountIndex::by_id(std::uint64_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

const MountEntry* MountIndex::at(const std::string& path) const {
  if (path.empty() || path.front() != '/') return nullptr;
  const std::string_view whole = path;
  // The child of the current mount that the path meets first, again and again, as the kernel walks it.
  const auto meets = [&](std::uint64_t parent) -> const MountEntry* {
    const auto children = children_.find(parent);
    if (children == children_.end()) return nullptr;
    const auto at = [&](std::string_view place) -> const MountEntry* {
      const auto found = children->second.find(place);
      return found == children->second.end() ? nullptr : found->second;
    };
    if (const MountEntry* root = at("/")) return root;
    for (std::size_t end = whole.find('/', 1);; end = whole.find('/', end + 1)) {
      if (const MountEntry* child = at(whole.substr(0, end))) return child;
      if (end == std::string_view::npos) return nullptr;
    }
  };
  const MountEntry* mount = meets(0);
  for (std::size_t steps = 0; mount != nullptr && steps <= by_id_.size();
       ++steps) {  // bounded: see MountTable
    const MountEntry* deeper = meets(mount->id);
    if (deeper == nullptr || deeper == mount) break;
    mount = deeper;
  }
  return mount != nullptr && mount->mount_point == path ? mount : nullptr;
}

}  // namespace dvdi
