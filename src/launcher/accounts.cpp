// The two places that accounts come from: a root file system's own files, and the host's C library.
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <optional>

#include "base/text.h"
#include "launcher/user.h"
#include "linux/beneath.h"
#include "linux/user_id.h"

namespace dvdi::launcher {

namespace {

constexpr std::size_t max_file = 4U << 20;
constexpr std::size_t max_entry = 1U << 20;  // of the C library: a group can have many members
constexpr std::size_t max_groups = 65536;    // NGROUPS_MAX

Error no_account(std::string_view kind, std::string_view name) {
  return {.code = Code::not_found, .message = fmt::format("there is no {} '{}'", kind, printable(name))};
}

Result<std::string> read_file(int rootfs, const std::string& path) {
  // A device or a pipe in a prepared root file system must not stop us: O_NONBLOCK, and only a regular file.
  auto file = open_beneath(rootfs, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, Links::inside);
  if (!file) {
    if (file.error().code == Code::not_found) return std::string{};
    return file.error();
  }
  struct stat status{};
  if (::fstat(file->get(), &status) != 0) return os_error("looking at " + path + " of the rootfs", errno);
  if (!S_ISREG(status.st_mode) || static_cast<std::size_t>(status.st_size) > max_file)
    return Error{
        .code = Code::failed_precondition,
        .message = fmt::format("{} of the rootfs is no file, or larger than {} bytes", path, max_file)};
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t got = ::read(file->get(), text.data() + filled, text.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error("reading " + path + " of the rootfs", errno);
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  text.resize(filled);
  return text;
}

// A line NAME:PASSWORD:UID:GID:GECOS:HOME:SHELL.
std::optional<Account> parse_account(std::string_view line) {
  const auto fields = split(line, ':');
  if (fields.size() < 7 || fields[0].empty()) return std::nullopt;
  const auto uid = parse_id(fields[2]);
  const auto gid = parse_id(fields[3]);
  if (!uid || !gid) return std::nullopt;
  return Account{.name = std::string(fields[0]),
                 .uid = *uid,
                 .gid = *gid,
                 .home = std::string(fields[5]),
                 .shell = std::string(fields[6])};
}

Result<Account> find_account(std::string_view passwd, std::string_view wanted,
                             const std::function<bool(const Account&)>& matches) {
  for (const std::string_view line : split(passwd, '\n')) {
    auto account = parse_account(line);
    if (account && matches(*account)) return *std::move(account);
  }
  return no_account("user", wanted);
}

// Calls a get…_r function of the C library with a buffer that is large enough. `call` returns its error
// number.
Status with_buffer(std::string_view what, const std::function<int(char*, std::size_t)>& call) {
  std::vector<char> buffer(4096);
  for (;;) {
    const int error_number = call(buffer.data(), buffer.size());
    if (error_number == EINTR) continue;
    if (error_number == ERANGE && buffer.size() < max_entry) {
      buffer.resize(buffer.size() * 4);
      continue;
    }
    // Name services say "not there" with these, too (getpwnam(3)).
    if (error_number == 0 || error_number == ENOENT || error_number == ESRCH || error_number == EBADF ||
        error_number == EPERM)
      return {};
    Error error = os_error(what, error_number);
    error.code = Code::io;
    return error;
  }
}

Account from_host(const passwd& entry) {
  return {.name = entry.pw_name,
          .uid = entry.pw_uid,
          .gid = entry.pw_gid,
          .home = entry.pw_dir,
          .shell = entry.pw_shell};
}

}  // namespace

FileAccounts::FileAccounts(std::string passwd, std::string group)
    : passwd_(std::move(passwd)), group_(std::move(group)) {}

Result<FileAccounts> FileAccounts::read(int rootfs) {
  DVDI_TRY(std::string passwd, read_file(rootfs, "etc/passwd"));
  DVDI_TRY(std::string group, read_file(rootfs, "etc/group"));
  return FileAccounts(std::move(passwd), std::move(group));
}

Result<Account> FileAccounts::user(std::string_view name) const {
  return find_account(passwd_, name, [&](const Account& account) { return account.name == name; });
}

Result<Account> FileAccounts::user(uid_t uid) const {
  return find_account(passwd_, std::to_string(uid),
                      [&](const Account& account) { return account.uid == uid; });
}

Result<gid_t> FileAccounts::group(std::string_view name) const {
  for (const std::string_view line : split(group_, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() < 3 || fields[0] != name) continue;
    if (const auto gid = parse_id(fields[2])) return *gid;
  }
  return no_account("group", name);
}

Result<std::vector<gid_t>> FileAccounts::groups_of(const Account& account, gid_t primary) const {
  std::vector<gid_t> groups{primary};
  for (const std::string_view line : split(group_, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() < 4) continue;
    const auto gid = parse_id(fields[2]);
    const auto members = split(fields[3], ',');
    if (!gid || std::ranges::find(members, std::string_view(account.name)) == members.end()) continue;
    if (std::ranges::find(groups, *gid) == groups.end()) groups.push_back(*gid);
    if (groups.size() == max_groups) break;
  }
  return groups;
}

Result<Account> HostAccounts::user(std::string_view name) const {
  const std::string text(name);
  std::optional<Account> account;
  DVDI_CHECK(with_buffer("looking up user '" + printable(name) + "'", [&](char* buffer, std::size_t size) {
    passwd entry{};
    passwd* found = nullptr;
    const int error_number = ::getpwnam_r(text.c_str(), &entry, buffer, size, &found);
    if (found != nullptr) account = from_host(entry);
    return error_number;
  }));
  if (!account) return no_account("user", name);
  return *account;
}

Result<Account> HostAccounts::user(uid_t uid) const {
  std::optional<Account> account;
  DVDI_CHECK(with_buffer(fmt::format("looking up user {}", uid), [&](char* buffer, std::size_t size) {
    passwd entry{};
    passwd* found = nullptr;
    const int error_number = ::getpwuid_r(uid, &entry, buffer, size, &found);
    if (found != nullptr) account = from_host(entry);
    return error_number;
  }));
  if (!account) return no_account("user", std::to_string(uid));
  return *account;
}

Result<gid_t> HostAccounts::group(std::string_view name) const {
  const std::string text(name);
  std::optional<gid_t> gid;
  DVDI_CHECK(with_buffer("looking up group '" + printable(name) + "'", [&](char* buffer, std::size_t size) {
    ::group entry{};
    ::group* found = nullptr;
    const int error_number = ::getgrnam_r(text.c_str(), &entry, buffer, size, &found);
    if (found != nullptr) gid = entry.gr_gid;
    return error_number;
  }));
  if (!gid) return no_account("group", name);
  return *gid;
}

Result<std::vector<gid_t>> HostAccounts::groups_of(const Account& account, gid_t primary) const {
  std::vector<gid_t> groups(64);
  for (;;) {
    int count = static_cast<int>(groups.size());
    if (::getgrouplist(account.name.c_str(), primary, groups.data(), &count) >= 0) {
      groups.resize(static_cast<std::size_t>(count));
      return groups;
    }
    if (groups.size() >= max_groups)
      return Error{.code = Code::resource_exhausted,
                   .message = fmt::format("user '{}' is a member of more than {} groups",
                                          printable(account.name), max_groups)};
    groups.resize(groups.size() * 2);
  }
}

}  // namespace dvdi::launcher
