#include "launcher/test_support.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <sstream>

namespace dvdi::launcher {

namespace fs = std::filesystem;

void Launching::SetUpTestSuite() {
  if (::geteuid() != 0) return;
  ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
}

void Launching::SetUp() {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to mount";
  std::string pattern = fs::temp_directory_path() / "dvdi-launch-XXXXXX";
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  top_ = fs::canonical(pattern);
  ASSERT_EQ(::chmod(top_.c_str(), 0755), 0);
  // A mount of its own, so that everything below it goes at once.
  mount_tmpfs(top_, "top");
  sandbox_ = top_ / "sandbox";
  fs::create_directories(sandbox_);
}

void Launching::TearDown() {
  if (top_.empty()) return;
  ::umount2(top_.c_str(), MNT_DETACH);
  fs::remove(top_);
}

Task Launching::shell(const std::string& command) const {
  Task task;
  task.command.set_value(command);
  task.launch.set_sandbox(sandbox_);
  task.launch.set_sandbox_in_container(sandbox_);
  return task;
}

Result<int> Launching::run_task(const Task& task) const { return run(Context(), task, {}); }

v1::ContainerMountInfo& Launching::add_mount(Task& task, const fs::path& source, const fs::path& target,
                                             std::uint32_t flags,
                                             v1::ContainerMountInfo::Beneath beneath) const {
  v1::ContainerMountInfo& mount = *task.launch.add_mounts();
  mount.set_source(top_ / source);
  mount.set_target((beneath == v1::ContainerMountInfo::SANDBOX ? sandbox_ : top_) / target);
  mount.set_flags(flags | MS_BIND | MS_REC);
  mount.set_beneath(beneath);
  mount.set_volume("local/" + source.filename().string());
  return mount;
}

void Launching::mount_tmpfs(const fs::path& path, const char* name) const {
  fs::create_directories(path);
  ASSERT_EQ(::mount(name, path.c_str(), "tmpfs", 0, "size=32m,mode=0755"), 0) << path;
}

std::string Launching::read_file(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::string Launching::output() const { return read_file(sandbox_ / "out"); }

std::string Launching::mountinfo() { return read_file("/proc/self/mountinfo"); }

void Launching::use_rootfs(Task& task) const {
  const fs::path root = top_ / "rootfs";
  fs::create_directories(root / "bin");
  fs::create_directories(root / "etc");
  fs::copy_file("/bin/busybox", root / "bin/busybox");
  for (const char* name :
       {"sh", "cat", "ls", "id", "touch", "env", "grep", "mkdir", "pwd", "echo", "readlink"})
    fs::create_symlink("busybox", root / "bin" / name);
  std::ofstream(root / "etc/passwd") << "root:x:0:0::/root:/bin/sh\ncarol:x:4321:4322::/home/carol:/bin/sh\n";
  std::ofstream(root / "etc/group") << "root:x:0:\ncarol:x:4322:\nextra:x:4400:carol\n";
  task.launch.set_rootfs(root);
  task.launch.set_sandbox_in_container("/mnt/sandbox");
}

Launching::Runner Launching::start_runner(const Task& task, const std::function<void()>& in_child,
                                          bool killed_before_go) const {
  std::array<int, 2> in{};
  std::array<int, 2> out{};
  std::array<int, 2> pids{};
  EXPECT_EQ(::pipe2(in.data(), O_CLOEXEC), 0);
  EXPECT_EQ(::pipe2(out.data(), O_CLOEXEC), 0);
  EXPECT_EQ(::pipe2(pids.data(), O_CLOEXEC), 0);
  Runner runner;
  runner.pid = ::fork();
  if (runner.pid == 0) {
    ::close(in[1]);
    ::close(out[0]);
    ::close(pids[0]);
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    if (in_child) in_child();
    const auto code = run(Context(), task, [&](pid_t pid) -> Status {
      static_cast<void>(!::write(pids[1], &pid, sizeof pid));
      if (killed_before_go) ::raise(SIGKILL);
      ::close(1);  // the task's own output ends when the task does
      ::close(out[1]);
      return {};
    });
    if (!code) fmt::print(stderr, "{}\n", code.error().text());
    ::_exit(code ? *code : exit_code_of(code.error()));
  }
  ::close(in[0]);
  ::close(out[1]);
  ::close(pids[1]);
  runner.input.reset(in[1]);
  runner.output.reset(out[0]);
  EXPECT_EQ(::read(pids[0], &runner.init, sizeof runner.init), static_cast<ssize_t>(sizeof runner.init));
  ::close(pids[0]);
  return runner;
}

std::string Launching::Runner::line() const {
  std::string text;
  char one = 0;
  for (;;) {
    const ssize_t got = ::read(output.get(), &one, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got != 1 || one == '\n') return text;
    text += one;
  }
}

int Launching::Runner::wait() const {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void Launching::reap_everything() {
  while (::waitpid(-1, nullptr, 0) > 0 || errno == EINTR) {
  }
}

}  // namespace dvdi::launcher
