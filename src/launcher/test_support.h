// A sandbox, sources and a root file system for tests that really start tasks, in a mount namespace of the
// test program's own.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>

#include "launcher/launch.h"
#include "linux/fd.h"

namespace dvdi::launcher {

class Launching : public testing::Test {
 protected:
  static void SetUpTestSuite();
  void SetUp() override;
  void TearDown() override;

  Task shell(const std::string& command) const;  // in the sandbox
  Result<int> run_task(const Task& task) const;  // without a deadline; records no pid
  // Adds `source` (a path below top_ or absolute) at `target`, read-only etc. by `flags`.
  v1::ContainerMountInfo& add_mount(
      Task& task, const std::filesystem::path& source, const std::filesystem::path& target,
      std::uint32_t flags = 0,
      v1::ContainerMountInfo::Beneath beneath = v1::ContainerMountInfo::SANDBOX) const;
  void mount_tmpfs(const std::filesystem::path& path, const char* name) const;
  std::string output() const;  // of sandbox/out
  static std::string read_file(const std::filesystem::path& path);
  static std::string mountinfo();
  // A root file system of busybox, at top_/rootfs; the task sees the sandbox at /mnt/sandbox.
  void use_rootfs(Task& task) const;

  // The launcher in a process of its own, which calls run() and exits with the task's exit code.
  struct Runner {
    pid_t pid = 0;
    UniqueFd input;            // of the task
    UniqueFd output;           // stdout of the task
    pid_t init = 0;            // from on_created
    std::string line() const;  // the next line of the output, "" at its end
    int wait() const;          // exit code, 128 + n for a signal
  };
  Runner start_runner(const Task& task, const std::function<void()>& in_child = {},
                      bool killed_before_go = false) const;
  // Waits until no child of this process, adopted ones included, is left.
  static void reap_everything();

  std::filesystem::path top_;
  std::filesystem::path sandbox_;
};

}  // namespace dvdi::launcher
