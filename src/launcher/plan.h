// Everything about a task that is worked out before there is a process for it: what can be wrong in a request
// is found here, in the mount namespace that the ledger knows.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launcher/launch.h"
#include "launcher/program.h"
#include "launcher/user.h"
#include "linux/bind_source.h"

namespace dvdi::launcher {

// A tree of mounts, copied and attached nowhere yet.
struct Tree {
  UniqueFd mount;
  Leaf kind = Leaf::directory;
  std::string
      source;  // the real path that it was copied from: dvdi's other mounts below it are dropped again
};

struct Bind {
  v1::ContainerMountInfo instruction;
  Tree tree;
};

struct Plan {
  bool host_pid = false;
  Identity identity;
  Program program;
  std::string rootfs;                // "": the host's
  std::string sandbox;               // on the host; "": none
  std::string sandbox_in_container;  // as the task sees it
  Tree rootfs_tree;
  Tree sandbox_tree;  // with a rootfs only
  std::vector<Bind> binds;
  std::vector<std::string> foreign_mount_points;

  bool has_rootfs() const { return !rootfs.empty(); }
  std::string working_directory() const { return sandbox_in_container.empty() ? "/" : sandbox_in_container; }
  std::vector<int> descriptors() const;  // that the init needs
};

Result<Plan> make_plan(const Task& task);

// `path` relative to `folder`, "" where it is the folder itself; nullopt where it is not beneath it. By text
// alone: slashes that mean nothing are ignored.
std::optional<std::string> relative_to(std::string_view folder, std::string_view path);

}  // namespace dvdi::launcher
