#include "driver/local/mount_work.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/text.h"
#include "driver/local/image.h"
#include "linux/fd.h"
#include "linux/mount_api.h"
#include "linux/remove_tree.h"
#include "linux/shared_folder.h"

namespace dvdi::driver::local {

namespace {

constexpr int path_folder = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
constexpr unsigned long safe_flags = MS_NOSUID | MS_NODEV;

Result<MountWork> decode(std::string_view bytes) {
  const auto pieces = split(bytes, '\0');  // neither paths nor the record's JSON can hold that byte
  if (pieces.size() != 3) return Error{.code = Code::internal, .message = "broken work for a helper"};
  DVDI_TRY(VolumeRecord record, from_json(pieces[2], "the work of a helper"));
  return MountWork{
      .directory = std::string(pieces[0]), .folder = std::string(pieces[1]), .record = std::move(record)};
}

std::string by_descriptor(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

Status bind_data(const MountWork& work, int target) {
  const std::string data = fmt::format("{}/volumes/{}/data", work.directory, work.folder);
  // Not opened through a link, and complete with its flags before anybody can see it.
  const UniqueFd source(::open(data.c_str(), path_folder));
  if (!source) return os_error("open " + data, errno);
  DVDI_TRY(const UniqueFd copy, clone_mount(source.get(), Depth::top));
  // Private: not a peer of the host's disk.
  DVDI_CHECK(set_mount_attributes(copy.get(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, MS_PRIVATE, Depth::top));
  return attach_mount(copy.get(), target);
}

Status mount_tmpfs(const MountWork& work, int target) {
  const VolumeOptions& options = work.record.options;
  const std::string data = fmt::format("size={},mode={:o},uid={},gid={}", options.size_bytes.value_or(0),
                                       options.mode, options.uid, options.gid);
  const std::string source = "dvdi-" + work.folder;
  if (::mount(source.c_str(), by_descriptor(target).c_str(), "tmpfs", safe_flags, data.c_str()) < 0) {
    return os_error("mount a tmpfs", errno);
  }
  return {};
}

Status mount_image(const MountWork& work, int target) {
  const std::string path = fmt::format("{}/volumes/{}/image", work.directory, work.folder);
  const UniqueFd image(::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!image) return os_error("open " + path, errno);
  DVDI_TRY(const LoopDevice device, attach_loop(image.get(), path));
  const bool xfs = work.record.options.file_system == FileSystem::xfs;
  const char* data = xfs ? nullptr : "errors=remount-ro";
  const std::string type(file_system_name(work.record.options.file_system));
  if (::mount(device.path.c_str(), by_descriptor(target).c_str(), type.c_str(), safe_flags, data) < 0) {
    Error error = os_error(fmt::format("mount the {} of {} on {}", type, path, device.path), errno);
    error.hint = "see the kernel's log; fsck can repair a damaged image, dvdi never formats it again";
    return error;
  }
  return {};
}

// Only the first mount of an image: nobody has used the volume yet.
Status set_owner(int mounts, const MountWork& work) {
  const VolumeOptions& options = work.record.options;
  const UniqueFd root(::openat(mounts, work.folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!root || !is_mount_root(root.get()) || ::fchown(root.get(), options.uid, options.gid) < 0 ||
      ::fchmod(root.get(), options.mode) < 0 || ::fsync(root.get()) < 0) {
    return os_error("set owner and mode of the volume", errno);
  }
  return {};
}

Status mount_in(int mounts, const MountWork& work) {
  const std::string& folder = work.folder;
  const std::string path = fmt::format("{}/mnt/{}", work.directory, folder);
  if (::mkdirat(mounts, folder.c_str(), 0700) < 0 && errno != EEXIST) return os_error("make " + path, errno);
  const UniqueFd target(::openat(mounts, folder.c_str(), path_folder));
  if (!target) return os_error("open " + path, errno);
  switch (work.record.options.type) {
    case Type::dir:
      DVDI_CHECK(bind_data(work, target.get()));
      break;
    case Type::tmpfs:
      DVDI_CHECK(mount_tmpfs(work, target.get()));
      break;
    case Type::image:
      DVDI_CHECK(mount_image(work, target.get()));
      if (work.record.owner_set) break;
      if (auto set = set_owner(mounts, work); !set) {
        ::umount2(path.c_str(), UMOUNT_NOFOLLOW);
        return set;
      }
      break;
  }
  return {};
}

}  // namespace

std::string encode(const std::string& directory, const std::string& folder) {
  return directory + '\0' + folder;
}

std::string encode(const MountWork& work) {
  return encode(work.directory, work.folder) + '\0' + to_json(work.record);
}

Result<std::string> mount_volume(std::string_view bytes) {
  DVDI_TRY(const MountWork work, decode(bytes));
  Status mounted = [&]() -> Status {
    DVDI_TRY(const UniqueFd mounts, open_shared_folder(work.directory, "mnt"));
    auto done = mount_in(mounts.get(), work);
    // Never more than an empty folder goes; one with a mount on it does not.
    if (!done) ::unlinkat(mounts.get(), work.folder.c_str(), AT_REMOVEDIR);
    return done;
  }();
  if (mounted) return std::string();
  tidy_shared_folder(work.directory, "mnt");
  return fail(std::move(mounted).error());
}

Result<std::string> unmount_volume(std::string_view bytes) {
  const auto pieces = split(bytes, '\0');
  if (pieces.size() != 2) return Error{.code = Code::internal, .message = "broken work for a helper"};
  const std::string directory(pieces[0]);
  const std::string path = fmt::format("{}/mnt/{}", directory, pieces[1]);
  if (::umount2(path.c_str(), UMOUNT_NOFOLLOW) < 0) {
    const int error = errno;
    Error failed = os_error("unmount " + path, error);
    if (error == EBUSY) failed.code = Code::failed_precondition;
    return failed;
  }
  // Removing the folder also ends what private mount namespaces still show on it. One that stays harms
  // nobody.
  ::rmdir(path.c_str());
  tidy_shared_folder(directory, "mnt");
  return std::string();
}

Result<std::string> tidy(std::string_view directory) {
  tidy_shared_folder(std::string(directory), "mnt");
  return std::string();
}

Result<std::string> delete_remainder(std::string_view bytes) {
  const auto pieces = split(bytes, '\0');
  if (pieces.size() != 2) return Error{.code = Code::internal, .message = "broken work for a helper"};
  const std::string path = std::string(pieces[0]) + "/volumes";
  const UniqueFd volumes(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!volumes) return os_error("open " + path, errno);
  DVDI_CHECK(remove_tree(volumes.get(), std::string(pieces[1])));
  return std::string();
}

}  // namespace dvdi::driver::local
