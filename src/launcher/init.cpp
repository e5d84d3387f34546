#include "launcher/init.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/text.h"
#include "launcher/channel.h"
#include "launcher/filesystem.h"

namespace dvdi::launcher {

namespace {

// Locks among them: an open-file-description lock lives as long as any process has the descriptor, and the
// task's init lives as long as the task.
void close_all_but(std::vector<int> kept) {
  kept.insert(kept.end(), {0, 1, 2});
  std::ranges::sort(kept);
  unsigned next = 0;
  for (const int fd : kept) {
    const auto number = static_cast<unsigned>(fd);
    if (number > next) ::close_range(next, number - 1, 0);
    next = std::max(next, number + 1);
  }
  ::close_range(next, std::numeric_limits<unsigned>::max(), 0);
}

Status become(const Identity& identity) {
  if (!identity.change) return {};
  if (::setgroups(identity.groups.size(), identity.groups.data()) != 0)
    return os_error("setting the groups of user '" + printable(identity.name) + "'", errno);
  // Leaving uid 0 for good drops every capability.
  if (::setresgid(identity.gid, identity.gid, identity.gid) != 0 ||
      ::setresuid(identity.uid, identity.uid, identity.uid) != 0)
    return os_error("becoming user '" + printable(identity.name) + "'", errno);
  return {};
}

void write_all(int fd, const void* data, std::size_t size) {
  // Smaller than PIPE_BUF: written whole, or not at all.
  static_cast<void>(!::write(fd, data, size));
}

// What the child says on the pipe that its exec closes: the step that failed, and errno.
struct Trouble {
  enum class Step : int { directory, identity, parent_gone, execute } step = Step::execute;
  int error_number = 0;
};

[[noreturn]] void run_program(const Plan& plan, const TaskView& view, int pipe, pid_t supervisor,
                              const sigset_t& ignored) {
  const auto give_up = [&](Trouble::Step step) {
    const Trouble trouble{step, errno};
    write_all(pipe, &trouble, sizeof trouble);
    ::_exit(127);
  };
  // As root: whether the task may enter its sandbox is for its own calls to find out.
  if (::fchdir(view.directory.get()) != 0) give_up(Trouble::Step::directory);
  if (!become(plan.identity)) give_up(Trouble::Step::identity);
  if (plan.host_pid) {
    // Without a pid namespace nothing else ends the task when its supervisor is killed, and a task that the
    // ledger takes for ended must not use its volumes. After the change of identity, which clears it.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != supervisor) give_up(Trouble::Step::parent_gone);
  }
  ::close_range(3, std::numeric_limits<unsigned>::max(), CLOSE_RANGE_CLOEXEC);
  restore_signals(ignored);
  errno = execute(plan.program);
  give_up(Trouble::Step::execute);
  ::_exit(127);
}

Error error_of(const Plan& plan, const Trouble& trouble) {
  switch (trouble.step) {
    case Trouble::Step::directory:
      return setup_error(os_error("entering the sandbox", trouble.error_number));
    case Trouble::Step::identity:
      return setup_error(
          os_error("becoming user '" + printable(plan.identity.name) + "'", trouble.error_number));
    case Trouble::Step::parent_gone:
      return {.code = Code::cancelled, .message = "the task's supervisor was killed"};
    case Trouble::Step::execute:
      break;
  }
  return execution_error(plan.program, trouble.error_number);
}

// The program's process; an error where it was not executed.
Result<pid_t> start_program(const Plan& plan, const TaskView& view, const sigset_t& ignored) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return setup_error(os_error("making a pipe", errno));
  UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const pid_t supervisor = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return setup_error(os_error("starting the task's process", errno));
  if (pid == 0) run_program(plan, view, writing.get(), supervisor, ignored);
  writing.reset();
  Trouble trouble;
  ssize_t got = 0;
  while ((got = ::read(reading.get(), &trouble, sizeof trouble)) < 0 && errno == EINTR) {
  }
  if (got == 0) return pid;
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  return error_of(plan, trouble);
}

int exit_code_from(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

// Until the program's process has ended: its exit code. Reaps whatever was left to us meanwhile.
int supervise(pid_t program) {
  sigset_t all;
  ::sigfillset(&all);
  for (;;) {
    int status = 0;
    pid_t ended = 0;
    std::optional<int> code;
    while ((ended = ::waitpid(-1, &status, WNOHANG)) > 0) {
      if (ended == program) code = exit_code_from(status);
    }
    if (code) return *code;
    siginfo_t info{};
    if (::sigwaitinfo(&all, &info) < 0) continue;
    if (const auto signal_number = ordered_signal(info)) ::kill(program, *signal_number);
  }
}

// Without a pid namespace: ends what the program left behind. Whoever loses its parent becomes our child
// (subreaper), so that killing and reaping children ends with none left.
void end_descendants(int children) {
  for (;;) {
    std::array<char, 4096> text{};
    const ssize_t got = ::pread(children, text.data(), text.size() - 1, 0);
    const std::string_view list(text.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
    // The last number may be cut off where the list is longer than the buffer: it comes again.
    const bool cut = list.size() == text.size() - 1;
    for (const std::string_view one : split(cut ? list.substr(0, list.rfind(' ')) : list, ' ')) {
      pid_t pid = 0;
      const auto [end, error] = std::from_chars(one.data(), one.data() + one.size(), pid);
      if (error == std::errc{} && pid > 1) ::kill(pid, SIGKILL);
    }
    if (::waitpid(-1, nullptr, 0) < 0 && errno == ECHILD) return;
  }
}

Result<UniqueFd> become_subreaper() {
  const std::string path = fmt::format("/proc/self/task/{}/children", ::getpid());
  UniqueFd children(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!children) {
    Error error = os_error("opening " + path, errno);
    error.hint = "--pid host needs a kernel with CONFIG_PROC_CHILDREN";
    return error;
  }
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return os_error("becoming a subreaper", errno);
  return children;
}

[[noreturn]] void refuse(int channel, Error error) {
  send_report(channel, {.failure = std::move(error)});
  ::_exit(1);
}

}  // namespace

void run_init(Plan& plan, int channel, const sigset_t& ignored) {
  std::vector<int> kept = plan.descriptors();
  kept.push_back(channel);
  close_all_but(kept);
  ::prctl(PR_SET_NAME, "dvdi-init");
  block_all_signals();
  if (!wait_for_go_ahead(channel)) ::_exit(0);

  UniqueFd children;
  if (plan.host_pid) {
    auto opened = become_subreaper();
    if (!opened) refuse(channel, setup_error(std::move(opened).error()));
    children = *std::move(opened);
  }
  auto view = enter_filesystem(plan);
  if (!view) refuse(channel, setup_error(std::move(view).error()));
  auto program = start_program(plan, *view, ignored);
  if (!program) refuse(channel, std::move(program).error());
  send_report(channel, {});

  std::vector<int> last;
  if (children) last.push_back(children.get());
  close_all_but(last);
  const int code = supervise(*program);
  if (children) end_descendants(children.get());
  ::_exit(code);  // in a pid namespace of its own the kernel ends the rest with us
}

}  // namespace dvdi::launcher
