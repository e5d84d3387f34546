#include "launcher/signals.h"

#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace dvdi::launcher {

namespace {

constexpr std::array passed_on = {SIGTERM, SIGHUP,  SIGINT,  SIGQUIT, SIGUSR1,
                                  SIGUSR2, SIGALRM, SIGCONT, SIGTSTP, SIGWINCH};
// Dispositions that a parent sets on purpose for its children: nohup(1) and shells' background jobs. Whatever
// else is ignored (SIGPIPE in many runtimes) is the caller's own business.
constexpr std::array inherited_ignores = {SIGHUP, SIGINT, SIGQUIT};

// In the value of a queued signal, with the number of the one to deliver. The init also gets signals that
// were sent to the whole process group, which the task got by itself; by the value it knows those that were
// for the task. A realtime signal carries it: of two equal ordinary ones that wait the kernel keeps one.
constexpr int order_mark = 0x64766400;

bool is_ignored(int signal_number) {
  struct sigaction action{};
  return ::sigaction(signal_number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

// Of the signals of a terminal all but one go to the foreground process group, and so to the task. When the
// terminal goes away the kernel tells the leader of the session alone: us, where nothing is between (ssh -t).
bool only_ours(int signal_number) { return signal_number == SIGHUP && ::getsid(0) == ::getpid(); }

// As if SIGTSTP had not been blocked; returns when somebody continues us.
void stop_here() {
  sigset_t one;
  ::sigemptyset(&one);
  ::sigaddset(&one, SIGTSTP);
  static_cast<void>(::kill(::getpid(), SIGTSTP));
  ::sigprocmask(SIG_UNBLOCK, &one, nullptr);
  ::sigprocmask(SIG_BLOCK, &one, nullptr);
}

}  // namespace

Result<SignalScope> SignalScope::begin() {
  SignalScope scope;
  ::sigemptyset(&scope.passed_);
  ::sigemptyset(&scope.ignored_);
  for (const int one : passed_on) {
    // What this process ignores does not reach it unblocked; blocked it would.
    if (!is_ignored(one)) ::sigaddset(&scope.passed_, one);
  }
  for (const int one : inherited_ignores) {
    if (is_ignored(one)) ::sigaddset(&scope.ignored_, one);
  }
  if (::sigprocmask(SIG_BLOCK, &scope.passed_, &scope.before_) != 0)
    return os_error("blocking signals", errno);
  scope.fd_.reset(::signalfd(-1, &scope.passed_, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!scope.fd_) {
    const int error_number = errno;
    ::sigprocmask(SIG_SETMASK, &scope.before_, nullptr);
    return os_error("making a signalfd", error_number);
  }
  return scope;
}

SignalScope::SignalScope(SignalScope&& other) noexcept
    : before_(other.before_), passed_(other.passed_), ignored_(other.ignored_), fd_(std::move(other.fd_)) {}

SignalScope::~SignalScope() {
  if (!fd_) return;
  signalfd_siginfo info{};
  while (::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
  }
  ::sigprocmask(SIG_SETMASK, &before_, nullptr);
}

void SignalScope::pass_on(int init_pidfd) const {
  signalfd_siginfo info{};
  while (::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const int one = static_cast<int>(info.ssi_signo);
    if (info.ssi_code != SI_KERNEL || only_ours(one)) tell_init(init_pidfd, one);
    if (one == SIGTSTP) stop_here();
  }
}

void tell_init(int init_pidfd, int signal_number) {
  siginfo_t info{};
  info.si_signo = SIGRTMAX;
  info.si_code = SI_QUEUE;
  info.si_pid = ::getpid();
  info.si_uid = ::getuid();
  info.si_value.sival_int = order_mark + signal_number;
  // It can only fail because the init has ended.
  static_cast<void>(::syscall(SYS_pidfd_send_signal, init_pidfd, SIGRTMAX, &info, 0));
}

std::optional<int> ordered_signal(const siginfo_t& info) {
  // `kill PID` with the pid that `dvdi ps` shows, by somebody outside the task's pid namespace, who has no
  // number in it. Only this one: a signal to the whole process group reaches the task by itself.
  if (info.si_signo == SIGTERM && info.si_code == SI_USER && info.si_pid == 0) return SIGTERM;
  if (info.si_signo != SIGRTMAX || info.si_code != SI_QUEUE) return std::nullopt;
  const int signal_number = info.si_value.sival_int - order_mark;
  if (signal_number < 1 || signal_number > SIGRTMAX) return std::nullopt;
  return signal_number;
}

void block_all_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  for (int one = 1; one < NSIG; ++one) {
    struct sigaction action{};
    action.sa_handler = SIG_DFL;
    static_cast<void>(
        ::sigaction(one, &action, nullptr));  // refused for SIGKILL, SIGSTOP and the C library's
  }
}

void restore_signals(const sigset_t& ignored) {
  for (const int one : inherited_ignores) {
    if (::sigismember(&ignored, one) != 1) continue;
    struct sigaction action{};
    action.sa_handler = SIG_IGN;
    static_cast<void>(::sigaction(one, &action, nullptr));
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace dvdi::launcher
