#include "linux/bind_source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/text.h"
#include "linux/user_namespace.h"

namespace dvdi {

namespace {

constexpr std::uint32_t known_flags = MS_BIND | MS_REC | MS_RDONLY | MS_NOSUID | MS_NODEV;

Error with_volume(Error error, const v1::ContainerMountInfo& instruction) {
  error.volume = instruction.volume();
  error.message = fmt::format("binding '{}' on '{}': {}", printable(instruction.source()),
                              printable(instruction.target()), error.message);
  return error;
}

Result<BindSource> open_source(const v1::ContainerMountInfo& instruction) {
  const std::uint32_t flags = instruction.flags();
  if ((flags & MS_BIND) == 0 || (flags & ~known_flags) != 0 || !instruction.options().empty())
    return Error{.code = Code::unsupported,
                 .message = fmt::format("mount flags 0x{:x} with options '{}': only bind mounts with "
                                        "read-only, nosuid and nodev are known",
                                        flags, printable(instruction.options()))};
  if (!instruction.source().starts_with('/'))
    return Error{.code = Code::invalid_argument, .message = "the source is not absolute"};

  DVDI_TRY(const UniqueFd root, open_directory("/"));
  DVDI_TRY(const UniqueFd source, open_beneath(root.get(), instruction.source(), O_PATH, Links::inside));
  if (instruction.has_identity()) DVDI_CHECK(check_mount_identity(source.get(), instruction.identity()));

  struct stat status{};
  if (::fstat(source.get(), &status) != 0) return os_error("looking at the source", errno);
  BindSource result;
  result.kind = S_ISDIR(status.st_mode) ? Leaf::directory : Leaf::file;

  DVDI_TRY(result.real_path, real_path(source.get()));

  const Depth depth = (flags & MS_REC) != 0 ? Depth::tree : Depth::top;
  DVDI_TRY(result.mount, clone_mount(source.get(), depth));
  std::uint64_t attributes = 0;
  if ((flags & MS_RDONLY) != 0) attributes |= MOUNT_ATTR_RDONLY;
  if ((flags & MS_NOSUID) != 0) attributes |= MOUNT_ATTR_NOSUID;
  if ((flags & MS_NODEV) != 0) attributes |= MOUNT_ATTR_NODEV;
  DVDI_CHECK(set_mount_attributes(result.mount.get(), attributes, MS_PRIVATE, depth));
  // The volume's own mount is nosuid and nodev for the host's sake (the local driver's always is); whoever
  // leaves one of the flags out was allowed to, for this one container path.
  std::uint64_t cleared = 0;
  if ((flags & MS_NOSUID) == 0) cleared |= MOUNT_ATTR_NOSUID;
  if ((flags & MS_NODEV) == 0) cleared |= MOUNT_ATTR_NODEV;
  if (cleared != 0) DVDI_CHECK(clear_mount_attributes(result.mount.get(), cleared));
  if (instruction.has_idmap()) {
    DVDI_TRY(const UniqueFd user_namespace, make_user_namespace(instruction.idmap()));
    DVDI_CHECK(set_mount_idmap(result.mount.get(), user_namespace.get(), depth));
  }
  return result;
}

}  // namespace

Result<BindSource> open_bind_source(const v1::ContainerMountInfo& instruction) {
  auto result = open_source(instruction);
  if (!result) return with_volume(std::move(result).error(), instruction);
  return result;
}

}  // namespace dvdi
