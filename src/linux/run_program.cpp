#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/text.h"
#include "linux/process.h"
#include "linux/wait.h"

namespace dvdi {

namespace {

constexpr std::size_t output_limit = std::size_t{64} * 1024;

Result<std::string> look_up(const std::string& program) {
  if (program.starts_with('/')) return program;
  if (!program.empty() && program.find('/') == std::string::npos) {
    for (const char* folder : {"/usr/sbin", "/usr/bin", "/sbin", "/bin"}) {
      std::string path = fmt::format("{}/{}", folder, program);
      if (::access(path.c_str(), X_OK) == 0) return path;
    }
  }
  return Error{.code = Code::not_found,
               .message = fmt::format("the program '{}' is not there", printable(program)),
               .hint = "looked in /usr/sbin, /usr/bin, /sbin and /bin; install the package that has it"};
}

class SpawnSettings {
 public:
  SpawnSettings() {
    posix_spawn_file_actions_init(&actions_);
    posix_spawnattr_init(&attributes_);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  // 0 or an error number.
  int set(int output) {
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    // A session of its own: an interrupt from the terminal does not stop a program half-way, and one kill
    // reaches it and its children.
    constexpr short flags = POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    for (const int error :
         {posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0),
          posix_spawn_file_actions_adddup2(&actions_, output, 1),
          posix_spawn_file_actions_adddup2(&actions_, output, 2),
          posix_spawn_file_actions_addclosefrom_np(&actions_, 3),
          posix_spawnattr_setflags(&attributes_, flags), posix_spawnattr_setsigmask(&attributes_, &none),
          posix_spawnattr_setsigdefault(&attributes_, &all)}) {
      if (error != 0) return error;
    }
    return 0;
  }
  const posix_spawn_file_actions_t* actions() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

// A child of ours that has been started: killed, with all of its session's group, unless it is waited for.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid), pidfd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}
  ~Child() {
    if (reaped_) return;
    ::kill(-pid_, SIGKILL);
    // One that is stuck in the kernel is left behind as a zombie-to-be rather than waited for.
    const Context grace = Context().with_timeout(std::chrono::seconds(2));
    pollfd ended{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
    if (pidfd_ && wait_ready(grace, {&ended, 1}, "the end of a killed program")) ::waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int pidfd() const { return pidfd_.get(); }
  // Only once the pidfd says that it has ended.
  int reap() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    reaped_ = true;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  pid_t pid_;
  UniqueFd pidfd_;
  bool reaped_ = false;
};

// Takes what is in the pipe, keeps the first 64 KiB. False at the end of the output.
bool drain(int pipe, std::string& output) {
  std::array<char, std::size_t{16} * 1024> buffer{};
  for (;;) {
    const ssize_t got = ::read(pipe, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN;
    if (got == 0) return false;
    output.append(buffer.data(), std::min(static_cast<std::size_t>(got), output_limit - output.size()));
  }
}

}  // namespace

Result<ProgramResult> run_program(const Context& context, const std::vector<std::string>& argv) {
  if (argv.empty()) return Error{.code = Code::internal, .message = "no program to run"};
  const std::string what = fmt::format("run {}", argv[0]);
  DVDI_CHECK(context.check(what));
  DVDI_TRY(const std::string program, look_up(argv[0]));

  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) < 0) return os_error(what, errno);
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  ::fcntl(reading.get(), F_SETFL, O_NONBLOCK);

  SpawnSettings settings;
  if (const int error = settings.set(writing.get()); error != 0) return os_error(what, error);
  // posix_spawn takes char* and leaves the text alone: copies, so that nothing is cast away.
  std::vector<std::string> texts(argv);
  std::vector<char*> arguments;
  for (std::string& one : texts) arguments.push_back(one.data());
  arguments.push_back(nullptr);
  std::array<std::string, 2> variables{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"};
  std::array<char*, 3> environment{variables[0].data(), variables[1].data(), nullptr};
  pid_t pid = 0;
  if (const int error = ::posix_spawn(&pid, program.c_str(), settings.actions(), settings.attributes(),
                                      arguments.data(), environment.data());
      error != 0) {
    return os_error(what, error);
  }
  Child child(pid);
  writing.reset();
  if (child.pidfd() < 0) return os_error(what, EMFILE);

  ProgramResult result;
  std::array<pollfd, 2> events{pollfd{.fd = child.pidfd(), .events = POLLIN, .revents = 0},
                               pollfd{.fd = reading.get(), .events = POLLIN, .revents = 0}};
  for (;;) {
    if (auto ready = wait_ready(context, events, what); !ready) {
      ready.error().outcome = Outcome::unknown;
      return fail(std::move(ready).error());
    }
    const bool ended = events[0].revents != 0;
    if (!drain(reading.get(), result.output)) events[1].fd = -1;  // poll passes over negative descriptors
    // Its end counts, not the pipe's: a child that it left running may hold the pipe.
    if (ended) break;
  }
  result.exit_code = child.reap();
  return result;
}

}  // namespace dvdi
