// No pinning: a mount that another namespace still holds keeps its block device busy after it was unmounted
// on the host, for as long as the task runs.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>

#include <cerrno>
#include <set>
#include <string>

#include "base/text.h"
#include "launcher/filesystem.h"
#include "linux/mount_table.h"

namespace dvdi::launcher {

namespace {

constexpr int max_rounds = 64;  // mounts stacked on one another at the same place

bool lies_in(std::string_view path, std::string_view folder) { return relative_to(folder, path).has_value(); }

}  // namespace

Status drop_mounts(const std::vector<std::string>& folders, const std::string& keep) {
  std::set<std::string, std::less<>> hidden;  // below something that was mounted over it: no path leads there
  for (int round = 0; round < max_rounds && !folders.empty(); ++round) {
    DVDI_TRY(const MountTable table, MountTable::read());
    std::set<std::string> points;
    for (const std::string& folder : folders) {
      for (const MountEntry* entry : table.beneath(folder)) {
        const bool kept = entry->mount_point == "/" || (!keep.empty() && lies_in(keep, entry->mount_point));
        if (!kept && !hidden.contains(entry->mount_point)) points.emplace(entry->mount_point);
      }
    }
    if (points.empty()) return {};
    // In the set's order a parent comes before what lies below it, and takes that along: nothing has to walk
    // through a mount whose server is dead.
    std::string last;
    for (const std::string& point : points) {
      if (!last.empty() && lies_in(point, last)) continue;
      last = point;
      if (::umount2(point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) continue;
      if (errno != EINVAL && errno != ENOENT && errno != ENOTDIR)
        return os_error(fmt::format("dropping the mount on '{}' from the task's namespace", printable(point)),
                        errno);
      hidden.insert(point);
    }
  }
  return {};
}

Status drop_mounts_in(const Tree& tree, const std::vector<std::string>& folders) {
  for (const std::string& folder : folders) {
    const auto below = relative_to(tree.source, folder);
    if (!below || below->empty()) continue;  // elsewhere, or the volume itself
    for (int round = 0; round < max_rounds; ++round) {
      const auto fd = open_beneath(tree.mount.get(), *below, O_PATH, Links::none);
      if (!fd) break;  // not there in this copy: nothing to drop
      // There is no umount by descriptor; the magic link names exactly what the descriptor is open on.
      const std::string link = fmt::format("/proc/self/fd/{}", fd->get());
      if (::umount2(link.c_str(), MNT_DETACH) == 0) continue;
      if (errno == EINVAL) break;  // a plain folder
      return os_error(fmt::format("dropping the mount on '{}' from a volume of the task", printable(folder)),
                      errno);
    }
  }
  return {};
}

}  // namespace dvdi::launcher
