#include "linux/user_namespace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <limits>
#include <string>

namespace dvdi {

namespace {

constexpr std::uint32_t no_id = std::numeric_limits<std::uint32_t>::max();  // (uid_t)-1 means "leave it"

// The text of a uid_map: lines of first number inside, first number outside, count.
std::string exchange(std::uint32_t from, std::uint32_t to) {
  if (from == to) return fmt::format("0 0 {}\n", no_id);
  const std::uint32_t low = std::min(from, to);
  const std::uint32_t high = std::max(from, to);
  std::string text;
  if (low > 0) text += fmt::format("0 0 {}\n", low);
  text += fmt::format("{} {} 1\n", low, high);
  if (high - low > 1) text += fmt::format("{} {} {}\n", low + 1, low + 1, high - low - 1);
  text += fmt::format("{} {} 1\n", high, low);
  if (high + 1 < no_id) text += fmt::format("{} {} {}\n", high + 1, high + 1, no_id - high - 1);
  return text;
}

Status write_map(const std::string& path, const std::string& text) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file) return os_error("opening " + path, errno);
  // One write: the kernel takes a map once, and whole.
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return os_error("writing " + path, errno);
  return {};
}

// The process that the namespace comes with. It ends when the other end of its socket does; system calls
// only, as the caller may have threads.
[[noreturn]] void hold_namespace(int theirs, int ours) {
  ::close(ours);  // else it would wait for itself
  char end = 0;
  while (::read(theirs, &end, 1) < 0 && errno == EINTR) {
  }
  ::_exit(0);
}

Result<UniqueFd> map_and_open(pid_t pid, const v1::ContainerMountInfo::IdMap& map) {
  DVDI_CHECK(write_map(fmt::format("/proc/{}/uid_map", pid), exchange(map.from_uid(), map.to_uid())));
  DVDI_CHECK(write_map(fmt::format("/proc/{}/gid_map", pid), exchange(map.from_gid(), map.to_gid())));
  const std::string path = fmt::format("/proc/{}/ns/user", pid);
  UniqueFd result(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!result) return os_error("opening " + path, errno);
  return result;
}

}  // namespace

Result<UniqueFd> make_user_namespace(const v1::ContainerMountInfo::IdMap& map) {
  for (const std::uint32_t id : {map.from_uid(), map.to_uid(), map.from_gid(), map.to_gid()}) {
    if (id == no_id)
      return Error{
          .code = Code::invalid_argument,
          .message = fmt::format("owner {} in an owner mapping is no number of a user or group", id)};
  }
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return os_error("making a socket pair", errno);
  UniqueFd ours(pair[0]);
  UniqueFd theirs(pair[1]);
  clone_args args{};
  args.flags =
      CLONE_NEWUSER;  // not unshare() after fork(): a sanitizer's thread in the child makes that EINVAL
  args.exit_signal = SIGCHLD;
  const long created = ::syscall(SYS_clone3, &args, sizeof args);
  if (created < 0) return os_error("making a user namespace for an owner mapping (clone3)", errno);
  if (created == 0) hold_namespace(theirs.get(), ours.get());
  const auto pid = static_cast<pid_t>(created);
  theirs.reset();
  auto result = map_and_open(pid, map);
  ours.reset();
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  return result;
}

}  // namespace dvdi
