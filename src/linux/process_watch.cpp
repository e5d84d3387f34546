#include "linux/process_watch.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "linux/wait.h"

namespace dvdi {

Result<ProcessWatch> ProcessWatch::open() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return os_error("make an epoll descriptor", errno);
  return ProcessWatch(std::move(epoll));
}

Result<bool> ProcessWatch::runs(const ProcessIdentity& identity) {
  const std::pair key(identity.pid, identity.start_ticks);
  if (const auto known = watched_.find(key); known != watched_.end()) {
    known->second.wanted = true;
    if (!process_ended(known->second.pidfd.get())) return true;
    watched_.erase(known);
    return false;
  }
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, identity.pid, 0)));
  if (!pidfd) {
    const int error = errno;
    if (error == ESRCH) return false;
    return os_error(fmt::format("watch process {}", identity.pid), error);
  }
  // Looked at after it was opened: the descriptor is that of whoever has the number since before.
  DVDI_TRY(const bool same, process_runs(identity));
  if (!same) return false;
  epoll_event event{.events = EPOLLIN, .data = {}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, pidfd.get(), &event) != 0) {
    return os_error(fmt::format("watch process {}", identity.pid), errno);
  }
  watched_.emplace(key, Watched{.pidfd = std::move(pidfd)});
  return true;
}

void ProcessWatch::drop_others() {
  std::erase_if(watched_, [](const auto& one) { return !one.second.wanted; });
  for (auto& [key, one] : watched_) one.wanted = false;
}

}  // namespace dvdi
