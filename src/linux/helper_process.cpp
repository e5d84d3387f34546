// The ancestor and the helpers: what runs in the processes that HelperPool forks. Both have one thread.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <vector>

#include "linux/helper_wire.h"

namespace dvdi::helper {

namespace {

// Both keep their one socket here; everything above is closed.
constexpr int socket_fd = 3;

// A stuck helper must not hold a pipe open that somebody reads to its end, nor a descriptor of the engine.
void keep_only(int socket) {
  if (socket != socket_fd) ::dup2(socket, socket_fd);
  ::syscall(SYS_close_range, socket_fd + 1, ~0U, 0);
  ::fcntl(socket_fd, F_SETFD, FD_CLOEXEC);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int last = STDOUT_FILENO;  // a sanitizer's report goes to stderr
#else
  constexpr int last = STDERR_FILENO;
#endif
  for (int fd = 0; null >= 0 && fd <= last; ++fd) ::dup2(null, fd);
  if (null > STDERR_FILENO) ::close(null);
}

void end_with(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(0);  // it ended before we asked
}

bool read_all(int fd, void* into, std::size_t size) {
  auto* at = static_cast<char*>(into);
  while (size > 0) {
    const ssize_t got = ::read(fd, at, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

bool write_all(int fd, const void* from, std::size_t size) {
  const auto* at = static_cast<const char*>(from);
  while (size > 0) {
    const ssize_t put = ::send(fd, at, size, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    at += put;
    size -= static_cast<std::size_t>(put);
  }
  return true;
}

Result<std::string> call(HelperFunction function, std::string_view request) {
  try {
    return function(request);
  } catch (const std::exception& error) {
    return Error{.code = Code::internal,
                 .message = std::string("the work ended with an exception: ") + error.what(),
                 .outcome = Outcome::unknown};
  }
}

// One request after the other until the program closes its end.
[[noreturn]] void run_helper(int socket, pid_t ancestor) {
  end_with(ancestor);
  keep_only(socket);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGCHLD, SIG_DFL);
  ::prctl(PR_SET_NAME, "dvdi-helper");
  std::string request;
  for (;;) {
    Header header;
    if (!read_all(socket_fd, &header, sizeof header) || header.size > message_limit) ::_exit(0);
    request.resize(header.size);
    if (!read_all(socket_fd, request.data(), request.size())) ::_exit(0);
    const std::string reply = encode(call(header.function, request));
    const Header answer{.function = nullptr, .size = reply.size()};
    if (!write_all(socket_fd, &answer, sizeof answer) || !write_all(socket_fd, reply.data(), reply.size())) {
      ::_exit(0);
    }
  }
}

// False when the program is gone.
bool answer(const Forked& forked, const std::array<int, 2>& descriptors) {
  Forked body = forked;
  iovec part{.iov_base = &body, .iov_len = sizeof body};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof descriptors)> control{};
  if (forked.error == 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof descriptors);
    std::memcpy(CMSG_DATA(header), descriptors.data(), sizeof descriptors);
  }
  for (;;) {
    if (::sendmsg(socket_fd, &message, MSG_NOSIGNAL) >= 0) return true;
    if (errno != EINTR) return false;
  }
}

bool fork_helper(std::vector<pid_t>& helpers_alive) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) < 0) {
    return answer(Forked{.pid = 0, .error = errno}, {});
  }
  const UniqueFd programs(ends[0]);
  UniqueFd helpers(ends[1]);
  const pid_t ancestor = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) run_helper(helpers.get(), ancestor);
  if (pid < 0) return answer(Forked{.pid = 0, .error = errno}, {});
  helpers.reset();
  helpers_alive.push_back(pid);
  // Only this process reaps its children, and only later: the number is still that helper's.
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    const int error = errno;
    ::kill(pid, SIGKILL);
    return answer(Forked{.pid = 0, .error = error}, {});
  }
  return answer(Forked{.pid = pid, .error = 0}, {programs.get(), pidfd.get()});
}

void reap(std::vector<pid_t>& helpers_alive) {
  for (pid_t ended = 0; (ended = ::waitpid(-1, nullptr, WNOHANG)) > 0;) std::erase(helpers_alive, ended);
}

// No zombie is left to a process 1 that may not care. One that is stuck in the kernel is not waited for.
[[noreturn]] void end_all(std::vector<pid_t>& helpers_alive, int ended) {
  const BootTime give_up = system_clock().boot() + std::chrono::milliseconds(500);
  for (const pid_t pid : helpers_alive) ::kill(pid, SIGKILL);
  for (;;) {
    reap(helpers_alive);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(give_up - system_clock().boot()).count();
    if (helpers_alive.empty() || left <= 0) ::_exit(0);
    pollfd child{.fd = ended, .events = POLLIN, .revents = 0};
    ::poll(&child, 1, static_cast<int>(left));
    signalfd_siginfo info{};
    while (::read(ended, &info, sizeof info) > 0) {
    }
  }
}

}  // namespace

void run_ancestor(int control, pid_t program) {
  end_with(program);
  // A session of its own: what the terminal sends to the program (an interrupt, a hang-up) does not end an
  // unmount half-way. The same for a SIGTERM to everything of a service.
  ::setsid();
  for (const int one : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM}) {
    ::signal(one, SIG_IGN);
  }
  ::signal(SIGCHLD, SIG_DFL);
  keep_only(control);
  ::prctl(PR_SET_NAME, "dvdi-ancestor");
  ::umask(022);  // what helpers make does not depend on who started the program
  // The program's working folder may lie on a volume: nothing of ours keeps it busy.
  if (::chdir("/") < 0) ::_exit(1);
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  ::sigprocmask(SIG_SETMASK, &children, nullptr);
  const UniqueFd ended(::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!ended) ::_exit(1);
  std::vector<pid_t> helpers_alive;
  for (;;) {
    std::array<pollfd, 2> events{pollfd{.fd = socket_fd, .events = POLLIN, .revents = 0},
                                 pollfd{.fd = ended.get(), .events = POLLIN, .revents = 0}};
    if (::poll(events.data(), events.size(), -1) < 0) continue;
    if (events[1].revents != 0) {
      signalfd_siginfo info{};
      while (::read(ended.get(), &info, sizeof info) > 0) {
      }
      reap(helpers_alive);
    }
    if (events[0].revents != 0) {
      char request = 0;
      const ssize_t got = ::recv(socket_fd, &request, 1, MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (got <= 0 || !fork_helper(helpers_alive)) end_all(helpers_alive, ended.get());
    }
  }
}

}  // namespace dvdi::helper
