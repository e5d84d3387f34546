#include "daemon/sandbox.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <vector>

#include "isolator/ownership.h"
#include "linux/fd.h"
#include "linux/remove_tree.h"

namespace dvdi {

namespace {

std::string folder_of(const std::string& state_dir) { return state_dir + "/sandboxes"; }

// In a helper. The request is FOLDER NUL NAME.
Result<std::string> remove_in_helper(std::string_view request) {
  const auto separator = request.find('\0');
  const std::string folder(request.substr(0, separator));
  const UniqueFd parent(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!parent) return os_error(fmt::format("open {}", folder), errno);
  DVDI_CHECK(remove_tree(parent.get(), std::string(request.substr(separator + 1))));
  return std::string();
}

}  // namespace

Result<std::string> make_sandbox(const Context& context, HelperPool& helpers, const std::string& state_dir,
                                 const std::string& id, const std::string& user, const std::string& rootfs) {
  DVDI_TRY(const auto owner, isolator::find_owner(context, helpers, user, rootfs));
  const std::string folder = folder_of(state_dir);
  // Others may pass through to their own sandbox, and list nothing.
  if (::mkdir(folder.c_str(), 0711) != 0 && errno != EEXIST)
    return os_error(fmt::format("make {}", folder), errno);
  std::string path = folder + "/" + id;
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return os_error(fmt::format("make {}", path), errno);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return os_error(fmt::format("open {}", path), errno);
  if (::fchown(fd.get(), owner.uid, owner.gid) != 0)
    return os_error(fmt::format("give {} away", path), errno);
  return path;
}

bool has_sandbox(const std::string& state_dir, const std::string& id) {
  struct stat status{};
  return ::lstat(fmt::format("{}/{}", folder_of(state_dir), id).c_str(), &status) == 0 || errno != ENOENT;
}

Status remove_sandbox(const Context& context, HelperPool& helpers, const std::string& state_dir,
                      const std::string& id) {
  std::string request = folder_of(state_dir);
  request += '\0';
  request += id;
  DVDI_CHECK(
      helpers.run(context, fmt::format("delete the sandbox of container {}", id), remove_in_helper, request));
  return {};
}

void remove_stray_sandboxes(const Context& context, HelperPool& helpers, const std::string& state_dir,
                            const std::function<Result<std::set<std::string>>()>& live) {
  std::vector<std::string> old;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder_of(state_dir), error), end; !error && entry != end;
       entry.increment(error)) {
    struct stat status{};
    if (::lstat(entry->path().c_str(), &status) != 0) continue;
    const auto age = context.clock().wall() - WallTime(std::chrono::seconds(status.st_ctim.tv_sec));
    if (age >= std::chrono::hours(1)) old.push_back(entry->path().filename().string());
  }
  if (old.empty()) return;
  const auto ids = live();
  if (!ids) return;
  for (const std::string& id : old) {
    // One that cannot be deleted now is tried again by the next command.
    if (!ids->contains(id)) static_cast<void>(remove_sandbox(context, helpers, state_dir, id));
  }
}

}  // namespace dvdi
