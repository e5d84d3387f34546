// Runs a task in namespaces of its own with the mounts that the isolator chain asked for.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/context.h"
#include "dvdi/v1/container.pb.h"
#include "dvdi/v1/launch.pb.h"

namespace dvdi::launcher {

struct Task {
  v1::ContainerLaunchInfo launch;
  v1::CommandInfo
      command;            // value + shell, or arguments; environment on top of a minimal one (PATH, HOME, …)
  std::string user;       // name or number, `USER[:GROUP]`; "": root's identity is kept
  bool host_pid = false;  // --pid host: no pid namespace of its own
  // Mounts at or below these folders are dropped from the task's mount namespace, its own volumes apart: a
  // long-lived task must not keep another container's device busy. Drivers' mount points that the ledger
  // knows.
  std::vector<std::string> foreign_mount_points;
  bool inherit_environment = false;  // the caller's environment instead of the minimal one
};

// Called when the task's init exists and before anything of the task runs: `pid` is that process, as seen by
// the caller. An error stops the launch; nothing of the task has run then.
using OnCreated = std::function<Status(pid_t pid)>;

// Starts the task, passes signals on to it, and returns when everything in it has ended: the exit code of its
// main process (128 + n for signal n). An error means that the task's program was never started; two of them
// are the task's own and map to exit codes: not_found -> 127, permission_denied -> 126 (exit_code_of). Must
// be called while the process has no other thread.
//
// At the end of the context the task gets SIGTERM, and 5 s later SIGKILL; its exit code is the answer then,
// too.
Result<int> run(const Context& context, const Task& task, const OnCreated& on_created);

// What a shell would exit with: 127 for a program that is not there, 126 for one that cannot be executed, 125
// for every other failure before the program was started.
int exit_code_of(const Error& error);

}  // namespace dvdi::launcher
