#include "linux/mount_api.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/text.h"
#include "linux/mount_table.h"

namespace dvdi {

namespace {

constexpr unsigned recursive = 0x8000;  // AT_RECURSIVE, which <fcntl.h> of glibc 2.36 does not have

unsigned depth_flag(Depth depth) { return depth == Depth::tree ? recursive : 0; }

std::string describe(const v1::MountIdentity& mount) {
  return fmt::format("{} '{}' ({}:{}, root '{}') on '{}'", mount.fs_type(), printable(mount.source()),
                     mount.major(), mount.minor(), printable(mount.root()), printable(mount.mount_point()));
}

// The name of the file system that `fd` lies in, for a message.
std::string fs_type_of(int fd) {
  // A mount that is attached nowhere is in no table: the magic number is what there is then.
  if (const auto identity = mount_identity(fd)) return identity->fs_type();
  struct statfs status{};
  if (::fstatfs(fd, &status) != 0) return "unknown";
  switch (status.f_type) {
    case 0x01021994:
      return "tmpfs";
    case 0x65735546:
      return "fuse";
    case 0xEF53:
      return "ext4";
    case 0x58465342:
      return "xfs";
    case 0x6969:
      return "nfs";
    case 0x794c7630:
      return "overlay";
    case 0x9123683E:
      return "btrfs";
    case 0xFF534D42:
    case 0xFE534D42:
      return "cifs";
    default:
      return fmt::format("0x{:x}", static_cast<unsigned long>(status.f_type));
  }
}

}  // namespace

Result<std::uint64_t> mount_id(int fd) {
  const std::string name = fmt::format("/proc/self/fdinfo/{}", fd);
  const UniqueFd file(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return os_error(fmt::format("opening {}", name), errno);
  std::array<char, 1024> buffer{};
  const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
  if (got < 0) return os_error(fmt::format("reading {}", name), errno);
  for (const std::string_view line : split({buffer.data(), static_cast<std::size_t>(got)}, '\n')) {
    if (!line.starts_with("mnt_id:")) continue;
    if (const auto id = parse_number<std::uint64_t>(trim(line.substr(7)))) return *id;
  }
  return Error{.code = Code::internal, .message = fmt::format("{} has no line mnt_id", name)};
}

Result<UniqueFd> clone_mount(int fd, Depth depth) {
  const int result =
      ::open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | depth_flag(depth));
  if (result < 0) return os_error("copying a mount (open_tree)", errno);
  return UniqueFd(result);
}

Status set_mount_attributes(int mount, std::uint64_t attributes, std::uint64_t propagation, Depth depth) {
  mount_attr attr{};
  attr.attr_set = attributes;
  attr.propagation = propagation;
  if (::mount_setattr(mount, "", AT_EMPTY_PATH | depth_flag(depth), &attr, sizeof attr) != 0)
    return os_error("setting the attributes of a mount (mount_setattr)", errno);
  return {};
}

Status clear_mount_attributes(int mount, std::uint64_t attributes) {
  mount_attr attr{};
  attr.attr_clr = attributes;
  if (::mount_setattr(mount, "", AT_EMPTY_PATH, &attr, sizeof attr) != 0)
    return os_error("clearing attributes of a mount (mount_setattr)", errno);
  return {};
}

Status set_mount_idmap(int mount, int user_namespace, Depth depth) {
  const std::string fs_type = fs_type_of(mount);
  const auto unsupported = [&](std::string_view why) {
    return Error{.code = Code::unsupported,
                 .message = fmt::format("the owners of files on {} cannot be mapped: {}", fs_type, why),
                 .hint =
                     "use another ownership policy than idmap, or a volume on a file system that can, "
                     "such as ext4 or xfs"};
  };
  if (fs_type == "tmpfs" && !kernel_features().idmapped_tmpfs)
    return unsupported("this kernel does it for tmpfs from Linux 6.3 on");
  mount_attr attr{};
  attr.attr_set = MOUNT_ATTR_IDMAP;
  attr.userns_fd = static_cast<unsigned>(user_namespace);
  if (::mount_setattr(mount, "", AT_EMPTY_PATH | depth_flag(depth), &attr, sizeof attr) == 0) return {};
  switch (errno) {
    case EINVAL:
      return unsupported("the kernel refuses idmapped mounts of it, or of a file system mounted below it");
    case EPERM:
      return unsupported("the kernel does not permit it; the mount may be mapped already");
    default:
      return os_error(fmt::format("mapping the owners of files on {} (mount_setattr)", fs_type), errno);
  }
}

Status attach_mount(int mount, int target) {
  if (::move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) == 0) return {};
  const int error_number = errno;
  struct stat from{};
  struct stat to{};
  // The kernel says EINVAL to this and to much else.
  if (::fstat(mount, &from) == 0 && ::fstat(target, &to) == 0 && S_ISDIR(from.st_mode) != S_ISDIR(to.st_mode))
    return Error{.code = Code::failed_precondition,
                 .message = "a folder can be mounted on a folder only, and a file on a file only"};
  return os_error("attaching a mount (move_mount)", error_number);
}

Result<UniqueFd> new_filesystem(const std::string& type, const std::vector<FilesystemOption>& options,
                                std::uint64_t attributes) {
  const UniqueFd context(::fsopen(type.c_str(), FSOPEN_CLOEXEC));
  if (!context) return os_error(fmt::format("making a {} file system (fsopen)", type), errno);
  for (const FilesystemOption& option : options) {
    const bool flag = option.value.empty();
    if (::fsconfig(context.get(), flag ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, option.name.c_str(),
                   flag ? nullptr : option.value.c_str(), 0) != 0)
      return os_error(fmt::format("setting option {} of a {} file system", option.name, type), errno);
  }
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return os_error(fmt::format("making a {} file system (fsconfig)", type), errno);
  const int mount = ::fsmount(context.get(), 0x1 /* FSMOUNT_CLOEXEC */, static_cast<unsigned>(attributes));
  if (mount < 0) return os_error(fmt::format("making a mount of {} (fsmount)", type), errno);
  return UniqueFd(mount);
}

Result<v1::MountIdentity> mount_identity(int fd) {
  DVDI_TRY(const std::uint64_t id, mount_id(fd));
  DVDI_TRY(const MountTable table, MountTable::read());
  for (const MountEntry& entry : table.entries()) {
    if (entry.id != id) continue;
    v1::MountIdentity identity;
    identity.set_mount_id(entry.id);
    identity.set_major(entry.major);
    identity.set_minor(entry.minor);
    identity.set_root(std::string(entry.root));
    identity.set_source(std::string(entry.source));
    identity.set_fs_type(std::string(entry.fs_type));
    identity.set_mount_point(std::string(entry.mount_point));
    return identity;
  }
  return Error{.code = Code::failed_precondition,
               .message = fmt::format("mount {} is not in this mount namespace any more", id)};
}

Status check_mount_identity(int fd, const v1::MountIdentity& expected) {
  DVDI_TRY(const v1::MountIdentity found, mount_identity(fd));
  // The number alone proves nothing: the kernel gives it to the next mount once this one is gone. Nor does
  // the rest: the same device can be mounted once more.
  const bool device_known = expected.major() != 0 || expected.minor() != 0;
  const bool same =
      (expected.mount_id() == 0 || expected.mount_id() == found.mount_id()) &&
      (!device_known || (expected.major() == found.major() && expected.minor() == found.minor())) &&
      (expected.root().empty() || expected.root() == found.root()) &&
      (expected.source().empty() || expected.source() == found.source()) &&
      (expected.fs_type().empty() || expected.fs_type() == found.fs_type());
  if (same) return {};
  return Error{.code = Code::failed_precondition,
               .message = fmt::format("expected mount {}: {}; found mount {}: {}", expected.mount_id(),
                                      describe(expected), found.mount_id(), describe(found)),
               .hint =
                   "the volume was unmounted or something was mounted in its place since it was prepared; "
                   "see `dvdi inspect` and the driver's log"};
}

}  // namespace dvdi
