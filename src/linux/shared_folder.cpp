#include "linux/shared_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "linux/mount_api.h"

namespace dvdi {

namespace {

// The kernel drops it with the process.
Result<UniqueFd> lock_folder(const std::string& path) {
  const std::string name = path + ".lock";
  UniqueFd file(::open(name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return os_error("open " + name, errno);
  while (::flock(file.get(), LOCK_EX) < 0) {
    if (errno != EINTR) return os_error("lock " + name, errno);
  }
  return file;
}

Result<UniqueFd> open_folder(const std::string& path) {
  UniqueFd folder(::open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) return os_error("open " + path, errno);
  return folder;
}

}  // namespace

bool is_mount_root(int fd) {
  struct statx info{};
  return ::statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &info) == 0 &&
         (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

Result<UniqueFd> open_shared_folder(const std::string& directory, const std::string& name) {
  const std::string path = directory + '/' + name;
  DVDI_TRY(UniqueFd folder, open_folder(path));
  if (is_mount_root(folder.get())) return folder;
  DVDI_TRY(const UniqueFd lock, lock_folder(path));
  DVDI_TRY(folder, open_folder(path));
  if (is_mount_root(folder.get())) return folder;  // another process was faster
  DVDI_TRY(const UniqueFd copy, clone_mount(folder.get(), Depth::top));
  // A copy of a shared mount is its peer: private first, or every mount in it would appear there twice. And
  // shared before anybody can see it: who is killed in between must not leave one that is not.
  DVDI_CHECK(set_mount_attributes(copy.get(), 0, MS_PRIVATE, Depth::top));
  DVDI_CHECK(set_mount_attributes(copy.get(), 0, MS_SHARED, Depth::top));
  DVDI_CHECK(attach_mount(copy.get(), folder.get()));
  return open_folder(path);
}

void tidy_shared_folder(const std::string& directory, const std::string& name) {
  const std::string path = directory + '/' + name;
  const auto lock = lock_folder(path);
  if (!lock) return;
  struct stat parent{};
  struct stat folder{};
  {
    const auto opened = open_folder(path);
    if (!opened || !is_mount_root(opened->get()) || ::fstat(opened->get(), &folder) < 0 ||
        ::stat(directory.c_str(), &parent) < 0) {
      return;
    }
  }
  // An operator may have mounted a file system of his own there.
  if (parent.st_dev == folder.st_dev) ::umount2(path.c_str(), UMOUNT_NOFOLLOW);
}

}  // namespace dvdi
