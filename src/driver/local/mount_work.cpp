#include "driver/local/mount_work.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/text.h"
#include "driver/local/image.h"
#include "linux/fd.h"
#include "linux/mount_api.h"
#include "linux/remove_tree.h"

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

bool is_mount_root(int fd) {
  struct statx info{};
  return ::statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &info) == 0 &&
         (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

// Held while DIR/mnt's own mount is made or taken away; the kernel drops it with the helper.
Result<UniqueFd> lock_mounts(const std::string& directory) {
  const std::string path = directory + "/mnt.lock";
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return os_error("open " + path, errno);
  while (::flock(file.get(), LOCK_EX) < 0) {
    if (errno != EINTR) return os_error("lock " + path, errno);
  }
  return file;
}

Result<UniqueFd> open_mounts(const std::string& directory) {
  const std::string path = directory + "/mnt";
  UniqueFd mounts(::open(path.c_str(), path_folder));
  if (!mounts) return os_error("open " + path, errno);
  return mounts;
}

// Opens DIR/mnt as a shared mount. While the descriptor is open, the kernel refuses to take that mount away
// (busy), so no lock needs to be held while the volume is mounted, which may take long.
Result<UniqueFd> open_shared_mounts(const std::string& directory) {
  DVDI_TRY(UniqueFd mounts, open_mounts(directory));
  if (is_mount_root(mounts.get())) return mounts;
  DVDI_TRY(const UniqueFd lock, lock_mounts(directory));
  DVDI_TRY(mounts, open_mounts(directory));
  if (is_mount_root(mounts.get())) return mounts;  // another helper was faster
  DVDI_TRY(const UniqueFd copy, clone_mount(mounts.get(), Depth::top));
  // A copy of a shared mount is its peer: private first, or every mount in it would appear there twice. And
  // shared before anybody can see it: who is killed in between must not leave one that is not.
  DVDI_CHECK(set_mount_attributes(copy.get(), 0, MS_PRIVATE, Depth::top));
  DVDI_CHECK(set_mount_attributes(copy.get(), 0, MS_SHARED, Depth::top));
  DVDI_CHECK(attach_mount(copy.get(), mounts.get()));
  return open_mounts(directory);
}

// Takes DIR/mnt's own mount away, if it is ours and nothing is mounted or being mounted in it: else the
// kernel says busy, and the last one to unmount a volume does it. Not worth an error.
void tidy_mounts(const std::string& directory) {
  const auto lock = lock_mounts(directory);
  if (!lock) return;
  const std::string path = directory + "/mnt";
  struct stat parent{};
  struct stat mounts{};
  {
    const auto opened = open_mounts(directory);
    if (!opened || !is_mount_root(opened->get()) || ::fstat(opened->get(), &mounts) < 0 ||
        ::stat(directory.c_str(), &parent) < 0) {
      return;
    }
  }
  // An operator may have mounted a file system of his own there.
  if (parent.st_dev == mounts.st_dev) ::umount2(path.c_str(), UMOUNT_NOFOLLOW);
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
    DVDI_TRY(const UniqueFd mounts, open_shared_mounts(work.directory));
    auto done = mount_in(mounts.get(), work);
    // Never more than an empty folder goes; one with a mount on it does not.
    if (!done) ::unlinkat(mounts.get(), work.folder.c_str(), AT_REMOVEDIR);
    return done;
  }();
  if (mounted) return std::string();
  tidy_mounts(work.directory);
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
  tidy_mounts(directory);
  return std::string();
}

Result<std::string> tidy(std::string_view directory) {
  tidy_mounts(std::string(directory));
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
