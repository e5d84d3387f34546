#include "launcher/launch.h"

#include <fmt/format.h>
#include <linux/sched.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <stop_token>

#include "launcher/channel.h"
#include "launcher/init.h"
#include "launcher/plan.h"
#include "launcher/signals.h"

namespace dvdi::launcher {

namespace {

constexpr Duration grace = std::chrono::seconds(5);

struct Init {
  pid_t pid = 0;
  UniqueFd pidfd;
};

// clone3 rather than unshare and fork: the caller itself stays in the mount namespace whose mount ids the
// ledger knows, and in its pid namespace; and pidfd and process come into being together. The child is a
// copy, as after fork(): that the C library's locks are not looked after, as its own fork() does, is why
// there must be no other thread.
Result<Init> create_init(Plan& plan, Channel& channel, const SignalScope& signals) {
  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_NEWNS | CLONE_PIDFD;
  if (!plan.host_pid) args.flags |= CLONE_NEWPID;
  args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  // Until the child has blocked its own: it must not die of, or handle, what was meant for us.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &before);
  const long pid = ::syscall(SYS_clone3, &args, sizeof args);
  const int error_number = errno;
  if (pid == 0) run_init(plan, channel.init.get(), signals.ignored());
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    Error error = os_error("making the task's namespaces (clone3)", error_number);
    error.hint = "it needs root (CAP_SYS_ADMIN); `dvdi doctor` says what this machine can do";
    return error;
  }
  return Init{static_cast<pid_t>(pid), UniqueFd(pidfd)};
}

#ifndef __SANITIZE_THREAD__
std::ptrdiff_t count_threads() {
  std::error_code failed;
  std::ptrdiff_t threads = 0;
  for (std::filesystem::directory_iterator one("/proc/self/task", failed), end; !failed && one != end;
       one.increment(failed))
    ++threads;
  return threads;
}
#endif

// Threads would be in the middle of something in the copy, with nobody to go on.
Status check_single_threaded() {
#ifdef __SANITIZE_THREAD__
  return {};  // its runtime has a thread of its own
#else
  // One that was joined has done all its work, and the kernel may still be at its end.
  constexpr int patience_ms = 2000;
  std::ptrdiff_t threads = count_threads();
  for (int waited = 0; threads != 1 && waited < patience_ms; ++waited) {
    ::poll(nullptr, 0, 1);
    threads = count_threads();
  }
  if (threads == 1) return {};
  return Error{.code = Code::internal,
               .message = fmt::format("a task can be started by a process with one thread only; this has {}",
                                      threads)};
#endif
}

// Waits for the init and passes on what comes meanwhile.
class Supervision {
 public:
  Supervision(const Context& context, const Init& init, int channel, const SignalScope& signals)
      : context_(context), init_(init), channel_(channel), signals_(signals) {}

  Result<int> wait() {
    const UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake) {
      kill_init();
      static_cast<void>(reap());
      return os_error("making an eventfd", errno);
    }
    const std::stop_callback on_stop(context_.stop(), [&] {
      const std::uint64_t one = 1;
      static_cast<void>(!::write(wake.get(), &one, sizeof one));
    });
    for (;;) {
      end_if_due();
      std::array<pollfd, 4> events{{{init_.pidfd.get(), POLLIN, 0},
                                    {signals_.fd(), POLLIN, 0},
                                    {listening_ ? channel_ : -1, POLLIN, 0},
                                    {stage_ == Stage::running ? wake.get() : -1, POLLIN, 0}}};
      if (::poll(events.data(), events.size(), timeout()) < 0 && errno != EINTR)
        return os_error("waiting", errno);
      if (events[2].revents != 0) take_report();
      if (events[1].revents != 0) signals_.pass_on(init_.pidfd.get());
      if (events[0].revents != 0) return result(reap());
    }
  }

  // For a launch that is given up: nothing of the task has run.
  void abandon() {
    kill_init();
    static_cast<void>(reap());
  }

 private:
  enum class Stage { running, asked_to_end, killed };

  // The context's end: first a request to the task, then force.
  void end_if_due() {
    if (stage_ == Stage::running) {
      auto due = context_.check("running the task");
      if (due) return;
      ended_by_ = std::move(due).error();
      if (!started_) {
        kill_init();
        stage_ = Stage::killed;
        return;
      }
      tell_init(init_.pidfd.get(), SIGTERM);
      tell_init(init_.pidfd.get(), SIGCONT);  // one that is stopped cannot end itself
      stage_ = Stage::asked_to_end;
      force_at_ = context_.clock().boot() + grace;
    } else if (stage_ == Stage::asked_to_end && context_.clock().boot() >= force_at_) {
      // By way of the init: without a pid namespace it is the one who ends the rest.
      tell_init(init_.pidfd.get(), SIGKILL);
      stage_ = Stage::killed;
    }
  }

  int timeout() const {
    if (stage_ == Stage::killed) return -1;
    BootTime due = stage_ == Stage::running ? context_.deadline() : force_at_;
    if (due == BootTime::max()) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(due - context_.clock().boot());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
  }

  void take_report() {
    listening_ = false;
    const auto report = receive_report(channel_);
    if (!report) return;
    if (report->failure) {
      failure_ = report->failure;
    } else {
      started_ = true;
    }
  }

  void kill_init() const {
    static_cast<void>(::syscall(SYS_pidfd_send_signal, init_.pidfd.get(), SIGKILL, nullptr, 0));
  }

  siginfo_t reap() const {
    siginfo_t info{};
    while (::waitid(P_PIDFD, static_cast<id_t>(init_.pidfd.get()), &info, WEXITED) < 0 && errno == EINTR) {
    }
    return info;
  }

  Result<int> result(const siginfo_t& ended) {
    if (listening_) take_report();
    if (failure_) return *failure_;
    if (!started_) {
      if (ended_by_) return *ended_by_;
      return Error{
          .code = Code::internal,
          .message = fmt::format("the task's init ended before it started the task ({} {})",
                                 ended.si_code == CLD_EXITED ? "exit code" : "signal", ended.si_status)};
    }
    return ended.si_code == CLD_EXITED ? ended.si_status : 128 + ended.si_status;
  }

  const Context& context_;
  const Init& init_;
  int channel_;
  const SignalScope& signals_;
  bool listening_ = true;
  bool started_ = false;
  std::optional<Error> failure_;
  std::optional<Error> ended_by_;
  Stage stage_ = Stage::running;
  BootTime force_at_;
};

}  // namespace

Result<int> run(const Context& context, const Task& task, const OnCreated& on_created) {
  DVDI_CHECK(context.check("starting the task"));
  DVDI_CHECK(check_single_threaded());
  auto plan = make_plan(task);
  if (!plan) return setup_error(std::move(plan).error());
  DVDI_TRY(Channel channel, make_channel());
  DVDI_TRY(const SignalScope signals, SignalScope::begin());
  auto init = create_init(*plan, channel, signals);
  if (!init) return setup_error(std::move(init).error());
  channel.init.reset();
  // The copies are the init's now. Held here they would keep the volumes' devices busy after the task has
  // ended.
  plan = Plan{};

  Supervision supervision(context, *init, channel.launcher.get(), signals);
  auto go = on_created ? on_created(init->pid) : Status{};
  if (go) go = send_go_ahead(channel.launcher.get());
  if (!go) {
    supervision.abandon();
    return setup_error(std::move(go).error());
  }
  return supervision.wait();
}

int exit_code_of(const Error& error) {
  switch (error.code) {
    case Code::not_found:
      return 127;
    case Code::permission_denied:
      return 126;
    default:
      return 125;
  }
}

}  // namespace dvdi::launcher
