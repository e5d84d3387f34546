#include "launcher/filesystem.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <ranges>
#include <utility>

#include "base/text.h"
#include "linux/mount_api.h"

namespace dvdi::launcher {

namespace {

// Where targets are looked up, and what was mounted so far.
class Targets {
 public:
  Targets(const Plan& plan, int root, int sandbox) : plan_(&plan), root_(root), sandbox_(sandbox) {}

  Result<UniqueFd> open(const Bind& bind) const {
    const v1::ContainerMountInfo& instruction = bind.instruction;
    const std::string& target = instruction.target();
    // Inside a volume that was mounted a moment ago: whoever fills the volume decides what its links mean, so
    // none is followed. The descriptor, not the path, says which mount that is.
    for (const Mounted& earlier : std::views::reverse(mounted_)) {
      const auto below = relative_to(earlier.target, target);
      if (below && !below->empty()) return create(earlier.mount, *below, Links::none, bind.tree.kind);
    }
    switch (instruction.beneath()) {
      case v1::ContainerMountInfo::SANDBOX:
        return create_in(plan_->sandbox, sandbox_, "sandbox", Links::none, bind);
      case v1::ContainerMountInfo::ROOTFS:
        return create_in(plan_->rootfs, root_, "rootfs", Links::inside, bind);
      default:
        if (plan_->has_rootfs())
          return Error{.code = Code::invalid_argument,
                       .message = "a target on the host cannot be seen in a root file system of its own"};
        // On the host nothing is made: a path that is not there is a mistake in the request. The isolator
        // resolved its links; one that is there now was put there since.
        return open_beneath(root_, target, O_PATH, Links::none);
    }
  }

  void add(const Bind& bind) { mounted_.push_back({bind.instruction.target(), bind.tree.mount.get()}); }

 private:
  struct Mounted {
    std::string target;
    int mount;
  };

  static Result<UniqueFd> create(int folder, const std::string& path, Links links, Leaf kind) {
    auto created = create_beneath(folder, path, {.links = links, .leaf = kind});
    if (!created) {
      Error error = std::move(created).error();
      if (error.hint.empty())
        error.hint = "where its folder is in a volume that is mounted read-only, make it in the volume first";
      return error;
    }
    return std::move(created->fd);
  }

  static Result<UniqueFd> create_in(const std::string& folder, int fd, std::string_view what, Links links,
                                    const Bind& bind) {
    const auto below = relative_to(folder, bind.instruction.target());
    if (folder.empty() || !below || below->empty())
      return Error{
          .code = Code::invalid_argument,
          .message = fmt::format("the target does not lie beneath the {} '{}'", what, printable(folder))};
    return create(fd, *below, links, bind.tree.kind);
  }

  const Plan* plan_;
  int root_;
  int sandbox_;
  std::vector<Mounted> mounted_;
};

Status apply(const Plan& plan, const Bind& bind, Targets& targets) {
  const auto step = [&]() -> Status {
    DVDI_TRY(const UniqueFd target, targets.open(bind));
    DVDI_CHECK(attach_mount(bind.tree.mount.get(), target.get()));
    return drop_mounts_in(bind.tree, plan.foreign_mount_points);
  };
  auto status = step();
  if (!status) {
    Error error = std::move(status).error();
    error.volume = bind.instruction.volume();
    error.message = fmt::format("mounting '{}' on '{}': {}", printable(bind.instruction.source()),
                                printable(bind.instruction.target()), error.message);
    return error;
  }
  targets.add(bind);
  return {};
}

Status apply_all(const Plan& plan, std::vector<Bind>::iterator begin, std::vector<Bind>::iterator end,
                 Targets& targets) {
  for (auto bind = begin; bind != end; ++bind) DVDI_CHECK(apply(plan, *bind, targets));
  return {};
}

Status cut_off() {
  // What is mounted in the task stays there; what the host unmounts goes from the task, too.
  if (::mount(nullptr, "/", nullptr, MS_SLAVE | MS_REC, nullptr) != 0) {
    Error error = os_error("making the task's mounts slaves of the host's", errno);
    if (errno == EINVAL) error.hint = "in a chroot `/` is no mount: bind it on itself and use pivot_root";
    return error;
  }
  return {};
}

Result<TaskView> enter_own_root(Plan& plan) {
  const int root = plan.rootfs_tree.mount.get();
  DVDI_TRY(const UniqueFd host_root, open_directory("/"));
  DVDI_TRY(const UniqueFd place,
           open_beneath(host_root.get(), plan.rootfs, O_PATH | O_DIRECTORY, Links::inside));
  DVDI_CHECK(attach_mount(root, place.get()));
  DVDI_CHECK(drop_mounts_in(plan.rootfs_tree, plan.foreign_mount_points));
  DVDI_CHECK(mount_system_folders(root));

  Targets targets(plan, root, plan.sandbox_tree.mount.get());
  // Volumes that the sandbox's place lies in come before the sandbox, which they would hide; what lies in the
  // sandbox comes after it. Both keep their order, parents first.
  const std::string place_of_sandbox = plan.rootfs + "/" + plan.sandbox_in_container;
  const auto rest = std::stable_partition(plan.binds.begin(), plan.binds.end(), [&](const Bind& bind) {
    return bind.instruction.beneath() == v1::ContainerMountInfo::ROOTFS && !plan.sandbox.empty() &&
           relative_to(bind.instruction.target(), place_of_sandbox).has_value();
  });
  DVDI_CHECK(apply_all(plan, plan.binds.begin(), rest, targets));
  TaskView view;
  if (!plan.sandbox.empty()) {
    DVDI_TRY(const CreatedPath created,
             create_beneath(root, plan.sandbox_in_container, {.links = Links::inside}));
    DVDI_CHECK(attach_mount(plan.sandbox_tree.mount.get(), created.fd.get()));
    DVDI_CHECK(drop_mounts_in(plan.sandbox_tree, plan.foreign_mount_points));
  }
  DVDI_CHECK(apply_all(plan, rest, plan.binds.end(), targets));
  DVDI_CHECK(enter_root(root));
  if (!plan.sandbox.empty()) {
    view.directory = std::move(plan.sandbox_tree.mount);
  } else {
    DVDI_TRY(view.directory, open_directory("/"));
  }
  return view;
}

Result<TaskView> enter_host_root(Plan& plan) {
  DVDI_CHECK(drop_mounts(plan.foreign_mount_points, plan.sandbox));
  DVDI_TRY(const UniqueFd root, open_directory("/"));
  if (!plan.host_pid) DVDI_CHECK(mount_proc(root.get()));
  TaskView view;
  auto directory = open_beneath(root.get(), plan.sandbox.empty() ? "/" : plan.sandbox, O_PATH | O_DIRECTORY,
                                Links::inside);
  if (!directory) {
    Error error = std::move(directory).error();
    error.message = "the sandbox: " + error.message;
    return error;
  }
  view.directory = *std::move(directory);
  Targets targets(plan, root.get(), view.directory.get());
  DVDI_CHECK(apply_all(plan, plan.binds.begin(), plan.binds.end(), targets));
  return view;
}

}  // namespace

Result<TaskView> enter_filesystem(Plan& plan) {
  DVDI_CHECK(cut_off());
  return plan.has_rootfs() ? enter_own_root(plan) : enter_host_root(plan);
}

}  // namespace dvdi::launcher
