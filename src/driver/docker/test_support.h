// For tests: real plugins (the faulty one of tests/plugins, rclone) as processes of the test's own.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <ranges>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/text.h"
#include "driver/docker/catalog.h"
#include "driver/test_namespace.h"
#include "http/client.h"
#include "linux/fd.h"

namespace dvdi::driver::docker::testing {

// Unmounts what is left below it, and goes.
class TempDir {
 public:
  TempDir() {
    std::string pattern = "/tmp/dvdi-docker-test-XXXXXX";
    if (::mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  ~TempDir() {
    if (path_.empty()) return;
    unmount_all();
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

  // Exactly these and no more: the mounts at or below the folder in this namespace.
  std::vector<std::string> mounts() const {
    std::vector<std::string> found;
    std::ifstream table("/proc/self/mountinfo");
    for (std::string line; std::getline(table, line);) {
      const auto fields = split(line, ' ');
      if (fields.size() > 4 && fields[4].starts_with(path_ + "/")) found.emplace_back(fields[4]);
    }
    return found;
  }

 private:
  void unmount_all() const {
    const std::vector<std::string> all = mounts();
    for (const std::string& one : std::views::reverse(all)) ::umount2(one.c_str(), MNT_DETACH);
  }

  std::string path_;
};

// A program of the test's own; killed with the test at the latest.
class ChildProcess {
 public:
  ChildProcess(const std::vector<std::string>& argv, const std::string& home) {
    std::array<int, 2> ends{-1, -1};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    output_.reset(ends[0]);
    UniqueFd write_end(ends[1]);
    std::vector<char*> arguments;
    arguments.reserve(argv.size() + 1);
    for (const std::string& one : argv) arguments.push_back(const_cast<char*>(one.c_str()));
    arguments.push_back(nullptr);
    const std::string path_variable = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    const std::string home_variable = "HOME=" + home;
    std::array<char*, 3> environment{const_cast<char*>(path_variable.c_str()),
                                     const_cast<char*>(home_variable.c_str()), nullptr};
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::dup2(write_end.get(), STDOUT_FILENO);
      ::execvpe(arguments.front(), arguments.data(), environment.data());
      ::_exit(127);
    }
    EXPECT_GT(pid_, 0);
  }
  ~ChildProcess() { kill(); }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  // Its exit code; 128 + n for a signal.
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) == -1 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  void stop_running() const { ::kill(pid_, SIGSTOP); }
  // The next line that it writes; "" at its end.
  std::string read_line() const {
    std::string line;
    char byte = 0;
    while (::read(output_.get(), &byte, 1) == 1 && byte != '\n') line += byte;
    return line;
  }

 private:
  pid_t pid_ = -1;
  UniqueFd output_;
};

inline Context minute() { return Context(system_clock(), "trace-1").with_timeout(std::chrono::minutes(1)); }

// Waits little: what is not there at the first attempt will not be there later.
inline Settings impatient() {
  return {.patience = {.total = std::chrono::milliseconds(50), .first_delay = std::chrono::milliseconds(5)}};
}

// The faulty plugin, listening at RUN_DIR/NAME.sock.
class FaultyPlugin {
 public:
  explicit FaultyPlugin(std::vector<std::string> arguments = {}, std::string name = "faulty")
      : arguments_(std::move(arguments)), name_(std::move(name)) {
    std::filesystem::create_directory(run_dir());
    start();
  }

  void start() {
    std::vector<std::string> argv{"python3", DVDI_FAULTY_PLUGIN, "--base", base()};
    argv.insert(argv.end(), arguments_.begin(), arguments_.end());
    if (std::ranges::find(argv, "--port") == argv.end()) {
      argv.insert(argv.end(), {"--socket", socket()});
    }
    process_ = std::make_unique<ChildProcess>(argv, dir_.path());
    const std::string line = process_->read_line();
    ASSERT_TRUE(line.starts_with("ready ")) << "the faulty plugin did not start: " << line;
    address_ = line.substr(6);
  }
  void kill() { process_->kill(); }

  const TempDir& dir() const { return dir_; }
  std::string base() const { return dir_.path() + "/base"; }
  std::string run_dir() const { return dir_.path() + "/run"; }
  std::string socket() const { return run_dir() + "/" + name_ + ".sock"; }
  const std::string& address() const { return address_; }
  ChildProcess& process() { return *process_; }
  Roots roots() const { return {.run_dir = run_dir(), .spec_dirs = {}}; }
  std::unique_ptr<DockerDriver> make_driver(Settings settings = {}) const {
    return std::make_unique<DockerDriver>(
        name_, [roots = roots(), name = name_] { return find_endpoint(roots, name); }, settings);
  }

  void fault(const std::string& rules) const { control(http::Method::post, "/control", rules); }
  void clear() const { control(http::Method::post, "/control/clear", ""); }
  void release() const { control(http::Method::post, "/control/release", ""); }
  // Every call (of `op`); waits until there are `at_least`.
  std::vector<json::value> calls(const std::string& op = "", int at_least = 0) const {
    const std::string query =
        op.empty() ? fmt::format("?wait={}", at_least) : fmt::format("?wait={}&op={}", at_least, op);
    const json::value answer = control(http::Method::get, "/control/calls" + query, "");
    const json::array& list = answer.as_array();
    return {list.begin(), list.end()};
  }
  int count(const std::string& op) const { return static_cast<int>(calls(op).size()); }

 private:
  json::value control(http::Method method, const std::string& path, const std::string& body) const {
    const auto answer =
        http::send(minute(), {.unix_socket = socket()}, {.method = method, .path = path, .body = body});
    EXPECT_TRUE(answer) << answer.error().text();
    if (!answer) return nullptr;
    EXPECT_EQ(answer->status, 200) << answer->body;
    const auto parsed = json::parse(answer->body, path);
    EXPECT_TRUE(parsed) << parsed.error().text();
    return parsed ? *parsed : json::value();
  }

  TempDir dir_;
  std::vector<std::string> arguments_;
  std::string name_;
  std::string address_;
  std::unique_ptr<ChildProcess> process_;
};

// rclone, listening at RUN_DIR/rc.sock, with one remote "loc:" that is a folder. It may not listen yet when
// the constructor returns: the driver's patience is for that.
class RclonePlugin {
 public:
  RclonePlugin() {
    for (const char* folder : {"run", "mounts", "cache", "data"}) {
      std::filesystem::create_directory(dir_.path() + "/" + folder);
    }
    std::ofstream(dir_.path() + "/rclone.conf")
        << "[loc]\ntype = alias\nremote = " << dir_.path() << "/data\n";
    process_ = std::make_unique<ChildProcess>(
        std::vector<std::string>{"rclone", "serve", "docker", "--config", dir_.path() + "/rclone.conf",
                                 "--socket-addr", dir_.path() + "/run/rc.sock", "--base-dir",
                                 dir_.path() + "/mounts", "--cache-dir", dir_.path() + "/cache"},
        dir_.path());
  }
  std::unique_ptr<DockerDriver> make_driver() const {
    return std::make_unique<DockerDriver>(
        "rc",
        [roots = Roots{.run_dir = dir_.path() + "/run", .spec_dirs = {}}] {
          return find_endpoint(roots, "rc");
        },
        Settings{});
  }
  const TempDir& dir() const { return dir_; }

 private:
  TempDir dir_;
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace dvdi::driver::docker::testing
