#include "isolator/ownership.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <vector>

#include "base/text.h"
#include "linux/mount_api.h"
#include "linux/user_id.h"

namespace dvdi::isolator {

namespace {

constexpr std::size_t lookup_buffer_bytes = 256 << 10;  // a group's members are in it, too
constexpr off_t max_passwd_bytes = 16 << 20;

Error no_such(std::string_view what, std::string_view name, const std::string& rootfs) {
  return Error{
      .code = Code::invalid_argument,
      .message = fmt::format("{} '{}' is not known {}", what, printable(name),
                             rootfs.empty() ? std::string("on this host")
                                            : fmt::format("in the root file system '{}'", printable(rootfs))),
      .hint = "give the number instead of the name"};
}

// A source of user and group entries: the host's name service, or the files of a rootfs.
class Names {
 public:
  explicit Names(std::string rootfs) : rootfs_(std::move(rootfs)), buffer_(lookup_buffer_bytes) {}

  // By name, or by number for the user's own group. nullptr-like nullopt: not there.
  Result<std::optional<Owner>> user(const std::string& name, std::optional<uid_t> number) {
    passwd entry{};
    passwd* found = nullptr;
    if (rootfs_.empty()) {
      const int error = number ? ::getpwuid_r(*number, &entry, buffer_.data(), buffer_.size(), &found)
                               : ::getpwnam_r(name.c_str(), &entry, buffer_.data(), buffer_.size(), &found);
      DVDI_CHECK(looked_up("user", name, error, found != nullptr));
    } else {
      DVDI_TRY(const auto file, open("etc/passwd"));
      while (file && ::fgetpwent_r(file.get(), &entry, buffer_.data(), buffer_.size(), &found) == 0) {
        if (number ? entry.pw_uid == *number : name == entry.pw_name) break;
        found = nullptr;
      }
    }
    if (found == nullptr) return std::optional<Owner>();
    return std::optional<Owner>(Owner{.uid = entry.pw_uid, .gid = entry.pw_gid});
  }

  Result<std::optional<gid_t>> group(const std::string& name) {
    ::group entry{};
    ::group* found = nullptr;
    if (rootfs_.empty()) {
      const int error = ::getgrnam_r(name.c_str(), &entry, buffer_.data(), buffer_.size(), &found);
      DVDI_CHECK(looked_up("group", name, error, found != nullptr));
    } else {
      DVDI_TRY(const auto file, open("etc/group"));
      while (file && ::fgetgrent_r(file.get(), &entry, buffer_.data(), buffer_.size(), &found) == 0) {
        if (name == entry.gr_name) break;
        found = nullptr;
      }
    }
    if (found == nullptr) return std::optional<gid_t>();
    return std::optional<gid_t>(entry.gr_gid);
  }

 private:
  struct Close {
    // NOLINTNEXTLINE(cppcoreguidelines-owning-memory): this is the owner.
    void operator()(FILE* file) const { static_cast<void>(std::fclose(file)); }
  };
  using File = std::unique_ptr<FILE, Close>;

  static Status looked_up(std::string_view what, const std::string& name, int error, bool found) {
    // What getpwnam(3) lists for "not found", beside 0.
    if (found || error == 0 || error == ENOENT || error == ESRCH || error == EBADF || error == EPERM)
      return {};
    return os_error(fmt::format("looking up {} '{}'", what, printable(name)), error);
  }

  // None if the rootfs has no such file.
  Result<File> open(const char* path) const {
    DVDI_TRY(const UniqueFd root, open_directory(rootfs_));
    auto fd = open_beneath(root.get(), path, O_RDONLY | O_NONBLOCK | O_NOCTTY, Links::inside);
    if (!fd) return File();
    struct stat status{};
    if (::fstat(fd->get(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > max_passwd_bytes)
      return Error{.code = Code::invalid_argument,
                   .message = fmt::format("'{}/{}' is not a regular file of 16 MiB at most",
                                          printable(rootfs_), path)};
    File file(::fdopen(fd->get(), "re"));
    if (!file) return os_error(fmt::format("reading '{}/{}'", printable(rootfs_), path), errno);
    static_cast<void>(fd->release());
    return file;
  }

  std::string rootfs_;
  std::vector<char> buffer_;
};

// Request: USER[:GROUP] NUL ROOTFS; answer: UID NUL GID.
Result<std::string> find_in_helper(std::string_view request) {
  const auto fields = split(request, '\0');
  if (fields.size() != 2)
    return Error{.code = Code::internal, .message = "a helper's request cannot be read"};
  const std::string rootfs(fields[1]);
  const std::size_t colon = fields[0].find(':');
  const std::string user(fields[0].substr(0, colon));
  Names names(rootfs);

  const auto number = parse_id(user);
  DVDI_TRY(const auto found, names.user(user, number));
  if (!found && !number) return no_such("user", user, rootfs);
  // As the launcher sees it: there is no safe guess of a group.
  if (!found && colon == std::string_view::npos) {
    Error error = no_such("user", user, rootfs);
    error.hint = "give the group, too: UID:GID";
    return error;
  }
  Owner owner = found ? *found : Owner{.uid = *number, .gid = 0};
  if (colon != std::string_view::npos) {
    const std::string group(fields[0].substr(colon + 1));
    if (const auto gid = parse_id(group)) {
      owner.gid = *gid;
    } else {
      DVDI_TRY(const auto known, names.group(group));
      if (!known) return no_such("group", group, rootfs);
      owner.gid = *known;
    }
  }
  return fmt::format("{}{}{}", owner.uid, '\0', owner.gid);
}

Error cannot_change(std::string_view what, std::string_view path, int error_number) {
  Error error =
      os_error(fmt::format("{} of the volume's top directory '{}'", what, printable(path)), error_number);
  if (error_number == EPERM || error_number == ENOSYS || error_number == EOPNOTSUPP || error_number == EROFS)
    error.code = Code::unsupported;
  error.hint =
      "this file system does not let owners be changed: set them in the driver's options, or ask for "
      "dvdi.ownership=none or idmap";
  return error;
}

// Request: UID NUL GID NUL MODE (or -) NUL MOUNT ID (or -) NUL PATH.
Result<std::string> change_in_helper(std::string_view request) {
  const auto fields = split(request, '\0');
  Owner owner;
  mode_t mode = 0;
  std::uint64_t expected = 0;
  if (fields.size() != 5 || !read_number(fields[0], owner.uid) || !read_number(fields[1], owner.gid) ||
      (fields[2] != "-" && !read_number(fields[2], mode)) ||
      (fields[3] != "-" && !read_number(fields[3], expected)))
    return Error{.code = Code::internal, .message = "a helper's request cannot be read"};
  const std::string path(fields[4]);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return os_error(fmt::format("opening the volume's top directory '{}'", printable(path)), errno);
  if (fields[3] != "-") {
    DVDI_TRY(const std::uint64_t actual, mount_id(fd.get()));
    if (actual != expected)
      return Error{.code = Code::failed_precondition,
                   .message = fmt::format("'{}' does not show the volume any more (mount {} instead of {})",
                                          printable(path), actual, expected),
                   .hint = "the volume was unmounted behind our back; prepare the container again"};
  }
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0)
    return os_error(fmt::format("looking at '{}'", printable(path)), errno);
  const bool other_owner = status.st_uid != owner.uid || status.st_gid != owner.gid;
  if (other_owner && ::fchown(fd.get(), owner.uid, owner.gid) != 0)
    return cannot_change(fmt::format("changing the owner to {}:{}", owner.uid, owner.gid), path, errno);
  // After the owner: a chown can take set-id bits away.
  const bool other_mode = fields[2] != "-" && (other_owner || (status.st_mode & 07777U) != mode);
  if (other_mode && ::fchmod(fd.get(), mode) != 0)
    return cannot_change(fmt::format("changing the mode to {:04o}", static_cast<unsigned>(mode)), path,
                         errno);
  return std::string();
}

Status change_top(const Context& context, HelperPool& helpers, const OwnershipRequest& request, Owner owner,
                  std::optional<mode_t> mode) {
  const std::string message = fmt::format(
      "{}{}{}{}{}{}{}{}{}", owner.uid, '\0', owner.gid, '\0',
      mode ? std::to_string(static_cast<unsigned>(*mode)) : "-", '\0',
      request.identity ? std::to_string(request.identity->mount_id()) : "-", '\0', request.host_path);
  DVDI_CHECK(helpers.run(context, fmt::format("giving '{}' its owner", printable(request.host_path)),
                         change_in_helper, message, request.key));
  return {};
}

}  // namespace

Result<Owner> find_owner(const Context& context, HelperPool& helpers, const std::string& user,
                         const std::string& rootfs) {
  if (user.empty()) return Owner{};
  if (user.contains('\0') || rootfs.contains('\0'))
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("user '{}' contains a NUL", printable(user))};
  DVDI_TRY(const std::string answer,
           helpers.run(context, fmt::format("looking up user '{}'", printable(user)), find_in_helper,
                       fmt::format("{}{}{}", user, '\0', rootfs)));
  const auto fields = split(answer, '\0');
  Owner owner;
  if (fields.size() != 2 || !read_number(fields[0], owner.uid) || !read_number(fields[1], owner.gid))
    return Error{.code = Code::internal, .message = "a helper's answer about a user cannot be read"};
  return owner;
}

Status apply_ownership(const Context& context, HelperPool& helpers, const OwnershipRequest& request,
                       v1::ContainerMountInfo& mount) {
  switch (request.policy) {
    case spec::Ownership::none:
      return {};
    case spec::Ownership::match_target:
      return change_top(context, helpers, request, {.uid = request.target.uid, .gid = request.target.gid},
                        request.target.mode);
    case spec::Ownership::user:
      return change_top(context, helpers, request, request.user, std::nullopt);
    case spec::Ownership::idmap: {
      if (request.user.uid == 0 && request.user.gid == 0) return {};  // root appears as root
      auto& map = *mount.mutable_idmap();
      map.set_from_uid(0);
      map.set_from_gid(0);
      map.set_to_uid(request.user.uid);
      map.set_to_gid(request.user.gid);
      return {};
    }
  }
  return Error{.code = Code::internal, .message = "an ownership policy that is not known"};
}

}  // namespace dvdi::isolator
