#include "isolator/staged_work.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <ranges>

#include "base/text.h"
#include "linux/bind_source.h"
#include "linux/mount_table.h"
#include "linux/remove_tree.h"
#include "linux/shared_folder.h"

namespace dvdi::isolator {

namespace {

constexpr int path_folder = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
constexpr int max_rounds = 64;  // mounts stacked on one another at one place

Error broken_work() { return Error{.code = Code::internal, .message = "broken work for a helper"}; }

struct MakeWork {
  StagedPlace place;
  v1::ContainerMountInfo instruction;
};

Result<MakeWork> decode(std::string_view bytes) {
  MakeWork work;
  std::string_view rest = bytes;
  const auto next = [&]() -> std::string_view {
    const auto end = rest.find('\0');
    const std::string_view piece = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    return piece;
  };
  work.place.state_dir = next();
  work.place.folder = next();
  if (!read_number(next(), work.place.position) || work.place.folder.empty() ||
      !work.instruction.ParseFromArray(rest.data(), static_cast<int>(rest.size()))) {
    return broken_work();
  }
  return work;
}

// Everything that is mounted at or below `path`, deepest first. Never lazily: where it is busy, somebody
// would go on using the volume after its unmount.
Status unmount_all(const std::string& path) {
  std::optional<Error> first;
  for (int round = 0; round < max_rounds; ++round) {
    DVDI_TRY(const MountTable table, MountTable::read());
    const auto entries = table.beneath(path);
    if (entries.empty()) return {};
    bool progress = false;
    first.reset();
    for (const MountEntry* entry : std::views::reverse(entries)) {
      if (::umount2(std::string(entry->mount_point).c_str(), UMOUNT_NOFOLLOW) == 0) {
        progress = true;
        continue;
      }
      const int error = errno;
      if (first) continue;
      first = os_error(fmt::format("unmount {}", printable(entry->mount_point, 4096)), error);
      if (error == EBUSY) first->code = Code::failed_precondition;
    }
    if (!progress) break;
  }
  if (first) return fail(*std::move(first));
  return Error{.code = Code::failed_precondition,
               .message = fmt::format("mounts appear in {} as fast as they are taken away", path)};
}

// The mount point itself: an empty folder or file, never more.
void remove_place(int folder, const std::string& name) {
  struct stat status{};
  if (::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return;
  if (S_ISDIR(status.st_mode)) {
    ::unlinkat(folder, name.c_str(), AT_REMOVEDIR);
  } else if (S_ISREG(status.st_mode) && status.st_size == 0) {
    ::unlinkat(folder, name.c_str(), 0);
  }
}

Result<UniqueFd> make_folder(int parent, const std::string& name) {
  if (::mkdirat(parent, name.c_str(), 0700) < 0 && errno != EEXIST)
    return os_error("make folder " + name, errno);
  UniqueFd folder(::openat(parent, name.c_str(), path_folder));
  if (!folder) return os_error("open folder " + name, errno);
  return folder;
}

Result<UniqueFd> make_place(int folder, const std::string& name, Leaf leaf) {
  remove_place(folder, name);  // of the other kind, perhaps
  if (leaf == Leaf::directory) return make_folder(folder, name);
  const UniqueFd made(
      ::openat(folder, name.c_str(), O_CREAT | O_EXCL | O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!made) return os_error("make file " + name, errno);
  UniqueFd file(::openat(folder, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file) return os_error("open file " + name, errno);
  return file;
}

Result<std::string> stage(const MakeWork& work) {
  const UniqueFd state(::open(work.place.state_dir.c_str(), path_folder));
  if (!state) return os_error("open " + work.place.state_dir, errno);
  {
    DVDI_TRY(const UniqueFd made, make_folder(state.get(), std::string(staged_folder)));
  }
  DVDI_TRY(const UniqueFd staged, open_shared_folder(work.place.state_dir, std::string(staged_folder)));
  DVDI_TRY(const UniqueFd folder, make_folder(staged.get(), work.place.folder));
  DVDI_CHECK(unmount_all(work.place.path()));
  DVDI_TRY(const BindSource source, open_bind_source(work.instruction));
  const std::string name = std::to_string(work.place.position);
  const auto attach = [&]() -> Result<std::string> {
    DVDI_TRY(const UniqueFd place, make_place(folder.get(), name, source.kind));
    DVDI_CHECK(attach_mount(source.mount.get(), place.get()));
    // In a shared folder it became shared itself: what is mounted below it later must not come here.
    DVDI_CHECK(set_mount_attributes(source.mount.get(), 0, MS_PRIVATE, Depth::tree));
    DVDI_TRY(const v1::MountIdentity identity, mount_identity(source.mount.get()));
    return identity.SerializeAsString();
  };
  auto attached = attach();
  if (!attached) {
    static_cast<void>(unmount_all(work.place.path()));
    remove_place(folder.get(), name);
  }
  return attached;
}

}  // namespace

std::string StagedPlace::folder_path() const {
  return fmt::format("{}/{}/{}", state_dir, staged_folder, folder);
}
std::string StagedPlace::path() const { return fmt::format("{}/{}", folder_path(), position); }

std::string encode(const StagedPlace& place, const v1::ContainerMountInfo& instruction) {
  return fmt::format("{}{}{}{}{}{}", place.state_dir, '\0', place.folder, '\0', place.position, '\0') +
         instruction.SerializeAsString();
}

Result<std::string> make_staged(std::string_view bytes) {
  DVDI_TRY(const MakeWork work, decode(bytes));
  return stage(work);
}

std::string encode(const std::string& state_dir, const std::string& folder) {
  return state_dir + '\0' + folder;
}

Result<std::string> take_staged(std::string_view bytes) {
  const auto pieces = split(bytes, '\0');
  if (pieces.size() != 2 || pieces[1].empty()) return broken_work();
  const StagedPlace place{.state_dir = std::string(pieces[0]), .folder = std::string(pieces[1])};
  auto unmounted = unmount_all(place.folder_path());
  if (unmounted) {
    const std::string staged = fmt::format("{}/{}", place.state_dir, staged_folder);
    const UniqueFd parent(::open(staged.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!parent) {
      if (errno == ENOENT) return std::string();
      return os_error("open " + staged, errno);
    }
    // Crosses no mount: one that appeared meanwhile is an error, and is left alone.
    unmounted = remove_tree(parent.get(), place.folder);
  }
  tidy_shared_folder(place.state_dir, std::string(staged_folder));
  if (!unmounted) return fail(std::move(unmounted).error());
  return std::string();
}

}  // namespace dvdi::isolator
