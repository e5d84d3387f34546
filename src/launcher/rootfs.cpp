// What a root file system of its own gets from us: the kernel's folders, a few devices, and to be `/`.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "launcher/filesystem.h"
#include "linux/mount_api.h"

namespace dvdi::launcher {

namespace {

constexpr std::uint64_t quiet = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

Status mount_new(int root, const std::string& path, const std::string& type,
                 const std::vector<FilesystemOption>& options, std::uint64_t attributes) {
  DVDI_TRY(const UniqueFd mount, new_filesystem(type, options, attributes));
  DVDI_TRY(const CreatedPath target, create_beneath(root, path, {.links = Links::inside}));
  auto status = attach_mount(mount.get(), target.fd.get());
  if (!status) {
    status.error().message = fmt::format("/{} of the rootfs: {}", path, status.error().message);
    return status;
  }
  return {};
}

// The host's own device, as a file on a /dev that has no other: mknod would need a file system that allows
// it.
Status bind_device(int dev, const std::string& name) {
  const std::string path = "/dev/" + name;
  const UniqueFd device(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!device) {
    if (errno == ENOENT) return {};  // the host has none: neither has the task
    return os_error("opening " + path, errno);
  }
  DVDI_TRY(const UniqueFd mount, clone_mount(device.get(), Depth::top));
  DVDI_CHECK(
      set_mount_attributes(mount.get(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, MS_PRIVATE, Depth::top));
  DVDI_TRY(const CreatedPath target, create_beneath(dev, name, {.leaf = Leaf::file}));
  return attach_mount(mount.get(), target.fd.get());
}

Status fill_dev(int dev) {
  for (const char* name : {"null", "zero", "full", "random", "urandom", "tty"})
    DVDI_CHECK(bind_device(dev, name));
  for (const auto& [name, target] :
       std::array<std::pair<const char*, const char*>, 5>{{{"fd", "/proc/self/fd"},
                                                           {"stdin", "/proc/self/fd/0"},
                                                           {"stdout", "/proc/self/fd/1"},
                                                           {"stderr", "/proc/self/fd/2"},
                                                           {"ptmx", "pts/ptmx"}}}) {
    if (::symlinkat(target, dev, name) != 0)
      return os_error(fmt::format("making the link /dev/{}", name), errno);
  }
  // A devpts of its own: what the task opens there is not the host's.
  DVDI_CHECK(mount_new(dev, "pts", "devpts",
                       {{"newinstance", ""}, {"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}},
                       MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  return mount_new(dev, "shm", "tmpfs", {{"mode", "1777"}, {"size", "64m"}},
                   MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
}

}  // namespace

Status mount_proc(int root) { return mount_new(root, "proc", "proc", {}, quiet); }

Status mount_system_folders(int root) {
  DVDI_CHECK(mount_proc(root));
  DVDI_CHECK(mount_new(root, "sys", "sysfs", {}, quiet | MOUNT_ATTR_RDONLY));
  DVDI_TRY(const UniqueFd dev, new_filesystem("tmpfs", {{"mode", "0755"}, {"size", "64k"}},
                                              MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  DVDI_TRY(const CreatedPath target, create_beneath(root, "dev", {.links = Links::inside}));
  DVDI_CHECK(attach_mount(dev.get(), target.fd.get()));
  return fill_dev(dev.get());
}

Status enter_root(int root) {
  if (::fchdir(root) != 0) return os_error("entering the rootfs", errno);
  // The old root goes onto the new one at the same place, and from there away: it needs no folder of its own.
  if (::syscall(SYS_pivot_root, ".", ".") != 0) {
    Error error = os_error("making the rootfs the root (pivot_root)", errno);
    if (errno == EINVAL) error.hint = "the host's own root must not be an initramfs, nor in a chroot";
    return error;
  }
  if (::umount2(".", MNT_DETACH) != 0) return os_error("letting go of the host's root", errno);
  if (::chdir("/") != 0) return os_error("entering the rootfs", errno);
  return {};
}

}  // namespace dvdi::launcher
