#include "linux/beneath.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/text.h"

namespace dvdi {

namespace {

constexpr std::size_t max_path = 4095;
// openat2 gives EAGAIN when something was renamed while it looked; more often than this in a row is an
// attack.
constexpr int max_tries = 64;

std::uint64_t resolve_flags(Links links) {
  const std::uint64_t confined =
      links == Links::none ? RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS : RESOLVE_IN_ROOT;
  return confined | RESOLVE_NO_MAGICLINKS;
}

// A descriptor, or -1 and errno.
int openat2_retry(int root, const std::string& path, int flags, mode_t mode, std::uint64_t resolve) {
  open_how how{};
  how.flags = static_cast<__u64>(static_cast<unsigned>(flags | O_CLOEXEC));
  how.mode = mode;
  how.resolve = resolve;
  for (int tries = 0; tries < max_tries; ++tries) {
    const long fd = ::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how);
    if (fd >= 0) return static_cast<int>(fd);
    if (errno != EAGAIN && errno != EINTR) return -1;
  }
  return -1;
}

Error path_error(std::string_view doing, std::string_view path, int error_number) {
  const std::string what = fmt::format("{} '{}'", doing, printable(path));
  switch (error_number) {
    case ELOOP:
      return {.code = Code::failed_precondition,
              .message = what + ": a symbolic link is on the way that must not be followed",
              .hint = "remove the link, or name the folder that it points to"};
    case EXDEV:
      return {.code = Code::failed_precondition,
              .message = what + ": the path leads out of the folder that it must stay in"};
    case EAGAIN:
      return {.code = Code::failed_precondition,
              .message = what + ": something on the way is renamed all the time"};
    default:
      return os_error(what, error_number);
  }
}

// The components of `path`; empty ones and `.` mean nothing.
Result<std::vector<std::string>> components_of(std::string_view path) {
  if (path.size() > max_path || path.find('\0') != std::string_view::npos)
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("path '{}' is longer than {} bytes or contains a NUL",
                                        printable(path), max_path)};
  std::vector<std::string> components;
  for (const std::string_view one : split(path, '/')) {
    if (one.empty() || one == ".") continue;
    if (one == "..")
      return Error{.code = Code::invalid_argument,
                   .message = fmt::format("path '{}' contains '..'", printable(path))};
    components.emplace_back(one);
  }
  return components;
}

// Makes `name` in the folder `parent` and sets its mode: the umask would take bits from it, and changing the
// umask would change it for the whole process. False: it was there.
Result<bool> make(int parent, const std::string& name, Leaf leaf, mode_t mode, std::string_view path) {
  if (leaf == Leaf::file) {
    const mode_t bits = mode & static_cast<mode_t>(~0111);
    const UniqueFd file(::openat(parent, name.c_str(), O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, bits));
    if (!file) {
      if (errno == EEXIST) return false;
      return path_error("making the file", path, errno);
    }
    if (::fchmod(file.get(), bits) != 0) return path_error("setting the mode of the file", path, errno);
    return true;
  }
  if (::mkdirat(parent, name.c_str(), mode) != 0) {
    if (errno == EEXIST) return false;
    return path_error("making the folder", path, errno);
  }
  const UniqueFd made(openat2_retry(parent, name, O_RDONLY | O_DIRECTORY, 0, resolve_flags(Links::none)));
  if (!made || ::fchmod(made.get(), mode) != 0)
    return path_error("setting the mode of the folder", path, errno);
  return true;
}

}  // namespace

Result<UniqueFd> open_beneath(int root, std::string_view path, int flags, Links links) {
  if (path.size() > max_path || path.find('\0') != std::string_view::npos)
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("path '{}' is longer than {} bytes or contains a NUL",
                                        printable(path), max_path)};
  const std::size_t start = path.find_first_not_of('/');
  const std::string relative(start == std::string_view::npos ? "." : path.substr(start));
  UniqueFd fd(openat2_retry(root, relative.empty() ? "." : relative, flags, 0, resolve_flags(links)));
  if (!fd) return path_error("opening", path, errno);
  return fd;
}

Result<UniqueFd> open_directory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return path_error("opening the folder", path, errno);
  return fd;
}

Result<std::string> real_path(int fd) {
  std::array<char, max_path + 1> buffer{};
  const std::string link = fmt::format("/proc/self/fd/{}", fd);
  const ssize_t size = ::readlink(link.c_str(), buffer.data(), buffer.size());
  if (size < 0) return os_error("reading " + link, errno);
  return std::string(buffer.data(), static_cast<std::size_t>(size));
}

Result<CreatedPath> create_beneath(int root, std::string_view path, const CreateOptions& options) {
  DVDI_TRY(const std::vector<std::string> components, components_of(path));
  CreatedPath result;
  DVDI_TRY(result.fd, open_beneath(root, ".", O_PATH | O_DIRECTORY, Links::none));
  if (components.empty() && options.leaf == Leaf::file)
    return Error{.code = Code::invalid_argument, .message = "an empty path cannot be a file"};

  std::string reached;
  for (std::size_t i = 0; i < components.size(); ++i) {
    const std::string& name = components[i];
    const Leaf kind = i + 1 == components.size() ? options.leaf : Leaf::directory;
    if (!reached.empty()) reached += '/';
    reached += name;
    // Always from the root: a link that is absolute, or has `..`, means something else from further down.
    const int flags = O_PATH | (kind == Leaf::directory ? O_DIRECTORY : 0);
    UniqueFd next;
    for (int tries = 0; !next; ++tries) {
      next.reset(openat2_retry(root, reached, flags, 0, resolve_flags(options.links)));
      if (next) break;
      if (errno != ENOENT) return path_error("opening", reached, errno);
      // Somebody who removes what we make, or a link that points to nothing.
      if (tries == 3)
        return Error{.code = Code::failed_precondition,
                     .message = fmt::format("making '{}': it is a symbolic link to nothing, or is removed "
                                            "all the time",
                                            printable(reached))};
      DVDI_TRY(const bool made, make(result.fd.get(), name, kind, options.mode, reached));
      if (made) result.made.push_back(reached);
    }
    result.fd = std::move(next);
  }

  struct stat status{};
  if (::fstat(result.fd.get(), &status) != 0) return path_error("looking at", path, errno);
  if (options.leaf == Leaf::file && S_ISDIR(status.st_mode))
    return Error{.code = Code::failed_precondition,
                 .message = fmt::format("'{}' is a folder, where a file is to appear", printable(path))};
  return result;
}

}  // namespace dvdi
