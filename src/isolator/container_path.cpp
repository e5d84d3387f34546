#include "isolator/container_path.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <vector>

#include "base/text.h"
#include "spec/request.h"

namespace dvdi::isolator {

namespace {

constexpr std::string_view links_hint =
    "name a path without symbolic links, or remove the link: what can write there could turn it elsewhere";

Error wrong_path(std::string_view path, std::string_view why, std::string_view hint = {}) {
  return Error{.code = Code::invalid_argument,
               .message = fmt::format("container path '{}' {}", printable(path), why),
               .hint = std::string(hint)};
}

// Without `.`, `//` and `/` at the ends.
Result<std::string> normal(std::string_view path) {
  std::string result;
  for (const std::string_view component : split(path, '/')) {
    if (component.empty() || component == ".") continue;
    if (component == "..") return wrong_path(path, "contains '..'");
    if (!result.empty()) result += '/';
    result += component;
  }
  return result;
}

Result<PathInfo> info_of(int fd, std::string_view path) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return os_error(fmt::format("looking at '{}'", printable(path)), errno);
  // O_PATH descriptors know where they are; the kernel's answer has no symbolic link in it.
  std::array<char, 4097> real{};
  const ssize_t length = ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), real.data(), real.size());
  if (length < 0) return os_error(fmt::format("finding the real path of '{}'", printable(path)), errno);
  if (static_cast<std::size_t>(length) > spec::max_path_bytes)
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("the real path of '{}' is longer than {} bytes", printable(path),
                                        spec::max_path_bytes)};
  return PathInfo{.path = std::string(real.data(), static_cast<std::size_t>(length)),
                  .directory = S_ISDIR(status.st_mode),
                  .mode = status.st_mode & 07777U,
                  .uid = status.st_uid,
                  .gid = status.st_gid};
}

// A descriptor of `relative`, or none if nothing is there.
Result<UniqueFd> open_if_there(int root, const std::string& relative) {
  auto fd = open_beneath(root, relative, O_PATH, Links::none);
  if (fd) return std::move(*fd);
  struct stat status{};
  // Decides nothing but what to call the failure: a path that cannot be opened although something is there is
  // an error.
  if (::fstatat(root, relative.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT)
    return UniqueFd();
  Error error = std::move(fd).error();
  if (error.hint.empty()) error.hint = links_hint;
  return error;
}

Status give(int root, const std::string& relative, Links links, Owner owner) {
  DVDI_TRY(const UniqueFd fd, open_beneath(root, relative, O_PATH, links));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0)
    return os_error(fmt::format("looking at '{}'", printable(relative)), errno);
  // What we just made is a folder, or a file with one name. Anything else was put there by somebody: a hard
  // link to a file of root's must not be given away.
  if (!S_ISDIR(status.st_mode) && status.st_nlink != 1)
    return Error{.code = Code::failed_precondition,
                 .message = fmt::format("'{}' was replaced while it was made", printable(relative))};
  if (::fchownat(fd.get(), "", owner.uid, owner.gid, AT_EMPTY_PATH) != 0)
    return os_error(fmt::format("giving '{}' to {}:{}", printable(relative), owner.uid, owner.gid), errno);
  return {};
}

// Fields of a helper's request and answer: paths contain no NUL.
std::string packed(const PathInfo& info) {
  return fmt::format("{}{}{}{}{}{}{}{}{}", info.directory ? 'd' : 'f', '\0', static_cast<unsigned>(info.mode),
                     '\0', info.uid, '\0', info.gid, '\0', info.path);
}

Result<PathInfo> unpacked(std::string_view answer) {
  const auto fields = split(answer, '\0');
  PathInfo info;
  if (fields.size() != 5 || !read_number(fields[1], info.mode) || !read_number(fields[2], info.uid) ||
      !read_number(fields[3], info.gid))
    return Error{.code = Code::internal, .message = "a helper's answer about a path cannot be read"};
  info.directory = fields[0] == "d";
  info.path = fields[4];
  return info;
}

Result<std::string> inspect_in_helper(std::string_view request) {
  const std::string path(request);
  const UniqueFd fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!fd) {
    Error error = os_error(fmt::format("opening '{}'", printable(path)), errno);
    if (errno == ENOENT || errno == ENOTDIR) error.code = Code::not_found;
    return error;
  }
  DVDI_TRY(const PathInfo info, info_of(fd.get(), path));
  return packed(info);
}

Result<std::string> make_in_helper(std::string_view request) {
  const auto fields = split(request, '\0');
  if (fields.size() != 4)
    return Error{.code = Code::internal, .message = "a helper's request cannot be read"};
  const Leaf leaf = fields[0] == "d" ? Leaf::directory : Leaf::file;
  const bool may_make = fields[1] == "make";
  const std::string volume(fields[2]);
  const std::string relative(fields[3]);
  if (may_make) {
    DVDI_TRY(const MadePath made,
             make_path(volume, relative, {.links = Links::none, .leaf = leaf, .owner = {}}));
    return packed(made.info);
  }
  DVDI_TRY(const auto there, look_beneath(volume, relative));
  if (there) return packed(*there);
  return Error{.code = Code::not_found,
               .message = fmt::format("'{}' is not there in '{}'", printable(relative), printable(volume))};
}

}  // namespace

bool lies_in(std::string_view path, std::string_view folder) {
  return path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/';
}

bool parents_first(std::string_view left, std::string_view right) {
  // As if `/` came before every other character: `a/b` then stands between `a` and `a-b`.
  return std::ranges::lexicographical_compare(
      left, right, {}, [](char c) { return c == '/' ? '\0' : c; },
      [](char c) { return c == '/' ? '\0' : c; });
}

Result<Place> place_of(const View& view, std::string_view container_path) {
  if (container_path.empty()) return wrong_path(container_path, "is empty");
  if (container_path.size() > spec::max_path_bytes || container_path.contains('\0'))
    return wrong_path(container_path,
                      fmt::format("is longer than {} bytes or contains a NUL", spec::max_path_bytes));
  DVDI_TRY(const std::string path, normal(container_path));

  const auto in_sandbox = [&](std::string relative) {
    return Place{
        .beneath = v1::ContainerMountInfo::SANDBOX, .root = view.sandbox, .relative = std::move(relative)};
  };
  if (container_path.front() != '/') {
    if (path.empty()) return wrong_path(container_path, "is the sandbox itself", "name a path below it");
    return in_sandbox(path);
  }
  if (path.empty()) return wrong_path(container_path, "is the root of the container", "name a path below it");
  const std::string absolute = '/' + path;
  if (absolute == view.sandbox_in_container || lies_in(view.sandbox_in_container, absolute))
    return wrong_path(container_path,
                      fmt::format("would hide the sandbox, which the task sees at '{}'",
                                  printable(view.sandbox_in_container)),
                      "choose another container path, or another directory for the sandbox");
  if (lies_in(absolute, view.sandbox_in_container))
    return in_sandbox(absolute.substr(view.sandbox_in_container.size() + 1));
  if (view.rootfs.empty())
    return Place{.beneath = v1::ContainerMountInfo::HOST, .root = {}, .relative = path};
  return Place{.beneath = v1::ContainerMountInfo::ROOTFS, .root = view.rootfs, .relative = path};
}

Result<PathInfo> look_at_folder(const std::string& path) {
  DVDI_TRY(const UniqueFd folder, open_directory(path));
  return info_of(folder.get(), path);
}

Result<std::optional<PathInfo>> look_beneath(const std::string& root, const std::string& relative) {
  DVDI_TRY(const UniqueFd folder, open_directory(root));
  DVDI_TRY(const UniqueFd fd, open_if_there(folder.get(), relative));
  if (!fd) return std::optional<PathInfo>();
  DVDI_TRY(PathInfo info, info_of(fd.get(), relative));
  return std::optional<PathInfo>(std::move(info));
}

Result<MadePath> make_path(const std::string& root, const std::string& relative, const MakeOptions& options) {
  DVDI_TRY(const UniqueFd folder, open_directory(root));
  auto created =
      create_beneath(folder.get(), relative, {.links = options.links, .leaf = options.leaf, .mode = 0755});
  if (!created) {
    Error error = std::move(created).error();
    error.message = fmt::format("in '{}': {}", printable(root), error.message);
    return error;
  }
  if (options.owner) {
    for (const std::string& made : created->made)
      DVDI_CHECK(give(folder.get(), made, options.links, *options.owner));
  }
  if (options.last_mode && !created->made.empty()) {
    DVDI_TRY(const UniqueFd last, open_beneath(folder.get(), relative, O_RDONLY | O_NONBLOCK, options.links));
    if (::fchmod(last.get(), *options.last_mode) != 0)
      return os_error(fmt::format("setting the mode of '{}'", printable(relative)), errno);
  }
  MadePath result;
  DVDI_TRY(result.info, info_of(created->fd.get(), relative));
  result.made = !created->made.empty();
  if (!lies_in(result.info.path, root))
    return Error{.code = Code::failed_precondition,
                 .message = fmt::format("'{}' in '{}' was moved while it was made", printable(relative),
                                        printable(root))};
  return result;
}

Result<PathInfo> inspect_path(const Context& context, HelperPool& helpers, const std::string& path) {
  DVDI_TRY(const std::string answer,
           helpers.run(context, fmt::format("looking at '{}'", printable(path)), inspect_in_helper, path));
  return unpacked(answer);
}

Result<PathInfo> make_in_volume(const Context& context, HelperPool& helpers, const std::string& volume,
                                const std::string& relative, Leaf leaf, bool may_make,
                                const std::string& key) {
  const std::string request = fmt::format("{}{}{}{}{}{}{}", leaf == Leaf::directory ? 'd' : 'f', '\0',
                                          may_make ? "make" : "look", '\0', volume, '\0', relative);
  DVDI_TRY(const std::string answer,
           helpers.run(context, fmt::format("making '{}' in '{}'", printable(relative), printable(volume)),
                       make_in_helper, request, key));
  return unpacked(answer);
}

}  // namespace dvdi::isolator
