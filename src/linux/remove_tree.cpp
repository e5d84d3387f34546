#include "linux/remove_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>

#include "base/text.h"
#include "linux/fd.h"

namespace dvdi {

namespace {

// Neither through a link nor into another mount.
UniqueFd open_here(int parent, const char* name) {
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, parent, name, &how, sizeof how)));
}

UniqueDir list(int folder) {
  UniqueFd again(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  UniqueDir dir(again ? ::fdopendir(again.get()) : nullptr);
  if (dir) (void)again.release();
  return dir;
}

Error failed(std::string_view name, int error) {
  Error result = os_error(fmt::format("delete '{}'", printable(name)), error);
  if (error == EXDEV || error == EBUSY) {
    result.code = Code::failed_precondition;
    result.hint = "something is mounted there; unmount it first";
  }
  return result;
}

// Calls `act(name, is_folder)` for every entry, again and again until a pass finds none: entries come and go
// under it.
template <class Act>
Status for_each_until_empty(int folder, std::string_view what, const Act& act) {
  for (bool found = true; found;) {
    found = false;
    const UniqueDir dir = list(folder);
    if (!dir) return failed(what, errno);
    errno = 0;
    while (const dirent* entry = ::readdir(dir.get())) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      found = true;
      bool is_folder = entry->d_type == DT_DIR;
      if (entry->d_type == DT_UNKNOWN) {
        struct stat info{};
        if (::fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) return failed(name, errno);
        is_folder = S_ISDIR(info.st_mode);
      }
      DVDI_CHECK(act(name, is_folder));
      errno = 0;
    }
    if (errno != 0) return failed(what, errno);
  }
  return {};
}

Status remove_file(int folder, const std::string& name) {
  if (::unlinkat(folder, name.c_str(), 0) < 0 && errno != ENOENT) return failed(name, errno);
  return {};
}

}  // namespace

// A task may have left a tree of any depth, so there is no descending: the folders in a folder are moved up
// to the top and dealt with there.
Status remove_tree(int parent, const std::string& name) {
  const UniqueFd top = open_here(parent, name.c_str());
  if (!top && errno == ENOENT) return {};
  if (!top && (errno == ENOTDIR || errno == ELOOP)) return remove_file(parent, name);
  if (!top) return failed(name, errno);
  std::uint64_t counter = 0;
  const auto move_up = [&](int from, const std::string& folder) -> Status {
    for (;;) {
      const std::string place = fmt::format(".dvdi-{}", counter++);
      if (::renameat2(from, folder.c_str(), top.get(), place.c_str(), RENAME_NOREPLACE) == 0) return {};
      if (errno != EEXIST) return failed(folder, errno);
    }
  };
  const auto remove_entry = [&](const std::string& entry, bool is_folder) -> Status {
    if (!is_folder) return remove_file(top.get(), entry);
    const UniqueFd folder = open_here(top.get(), entry.c_str());
    if (!folder) return failed(entry, errno);
    const auto empty_it = [&](const std::string& inner, bool inner_is_folder) -> Status {
      return inner_is_folder ? move_up(folder.get(), inner) : remove_file(folder.get(), inner);
    };
    DVDI_CHECK(for_each_until_empty(folder.get(), entry, empty_it));
    if (::unlinkat(top.get(), entry.c_str(), AT_REMOVEDIR) < 0) return failed(entry, errno);
    return {};
  };
  DVDI_CHECK(for_each_until_empty(top.get(), name, remove_entry));
  if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) < 0) return failed(name, errno);
  return {};
}

}  // namespace dvdi
