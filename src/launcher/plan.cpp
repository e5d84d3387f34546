#include "launcher/plan.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "linux/mount_api.h"

namespace dvdi::launcher {

namespace {

constexpr int max_mounts = 1024;  // of one task; a request has 256 volumes at most

Result<UniqueFd> open_host(const std::string& path) {
  if (!path.starts_with('/'))
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("'{}' is not absolute", printable(path))};
  DVDI_TRY(const UniqueFd root, open_directory("/"));
  return open_beneath(root.get(), path, O_PATH | O_DIRECTORY, Links::inside);
}

Result<Tree> copy_tree(const std::string& path, std::uint64_t attributes) {
  DVDI_TRY(const UniqueFd folder, open_host(path));
  Tree tree;
  DVDI_TRY(tree.source, real_path(folder.get()));
  DVDI_TRY(tree.mount, clone_mount(folder.get(), Depth::tree));
  DVDI_CHECK(set_mount_attributes(tree.mount.get(), attributes, MS_PRIVATE, Depth::tree));
  return tree;
}

Error in_setting(std::string_view setting, Error error) {
  error.message = fmt::format("{}: {}", setting, error.message);
  return error;
}

Result<Bind> make_bind(const v1::ContainerMountInfo& instruction) {
  Bind bind{.instruction = instruction, .tree = {}};
  DVDI_TRY(BindSource source, open_bind_source(instruction));
  bind.tree.mount = std::move(source.mount);
  bind.tree.kind = source.kind;
  bind.tree.source = std::move(source.real_path);
  return bind;
}

std::vector<std::string> caller_environment() {
  std::vector<std::string> result;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) result.emplace_back(*entry);
  return result;
}

}  // namespace

std::optional<std::string> relative_to(std::string_view folder, std::string_view path) {
  const auto components = [](std::string_view text) {
    std::vector<std::string_view> all = split(text, '/');
    std::erase_if(all, [](std::string_view one) { return one.empty() || one == "."; });
    return all;
  };
  const auto prefix = components(folder);
  const auto whole = components(path);
  if (whole.size() < prefix.size() || !std::equal(prefix.begin(), prefix.end(), whole.begin()))
    return std::nullopt;
  return fmt::format("{}",
                     fmt::join(whole.begin() + static_cast<std::ptrdiff_t>(prefix.size()), whole.end(), "/"));
}

std::vector<int> Plan::descriptors() const {
  std::vector<int> all;
  const auto add = [&](const Tree& tree) {
    if (tree.mount) all.push_back(tree.mount.get());
  };
  add(rootfs_tree);
  add(sandbox_tree);
  for (const Bind& bind : binds) add(bind.tree);
  return all;
}

Result<Plan> make_plan(const Task& task) {
  const v1::ContainerLaunchInfo& launch = task.launch;
  if (launch.mounts_size() > max_mounts)
    return Error{
        .code = Code::resource_exhausted,
        .message = fmt::format("{} mounts for one task; the limit is {}", launch.mounts_size(), max_mounts)};
  Plan plan;
  plan.host_pid = task.host_pid;
  plan.foreign_mount_points = task.foreign_mount_points;
  plan.sandbox = launch.sandbox();
  plan.sandbox_in_container =
      launch.sandbox_in_container().empty() ? launch.sandbox() : launch.sandbox_in_container();
  for (const std::string& path : {plan.sandbox, plan.sandbox_in_container}) {
    if (!path.empty() && !path.starts_with('/'))
      return Error{.code = Code::invalid_argument,
                   .message = fmt::format("the sandbox '{}' is not absolute", printable(path))};
  }
  if (!launch.rootfs().empty()) {
    plan.rootfs = launch.rootfs();
    auto rootfs = copy_tree(plan.rootfs, 0);
    if (!rootfs) return in_setting("rootfs", std::move(rootfs).error());
    plan.rootfs_tree = *std::move(rootfs);
    if (plan.rootfs_tree.source == "/")
      return Error{.code = Code::invalid_argument, .message = "rootfs: '/' is the host's own root"};
    if (!plan.sandbox.empty()) {
      auto sandbox = copy_tree(plan.sandbox, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
      if (!sandbox) return in_setting("sandbox", std::move(sandbox).error());
      plan.sandbox_tree = *std::move(sandbox);
    }
  } else if (plan.sandbox_in_container != plan.sandbox) {
    return Error{.code = Code::invalid_argument,
                 .message = "the sandbox can appear at another path in a root file system of its own only"};
  }

  const std::string user = task.user.empty() ? task.command.user() : task.user;
  if (plan.has_rootfs()) {
    auto accounts = FileAccounts::read(plan.rootfs_tree.mount.get());
    if (!accounts) return in_setting("user", std::move(accounts).error());
    DVDI_TRY(plan.identity, resolve_identity(*accounts, user));
  } else {
    DVDI_TRY(plan.identity, resolve_identity(HostAccounts{}, user));
  }
  DVDI_TRY(plan.program, make_program(task, plan.identity, plan.working_directory(), caller_environment()));
  for (const v1::ContainerMountInfo& instruction : launch.mounts()) {
    DVDI_TRY(Bind bind, make_bind(instruction));
    plan.binds.push_back(std::move(bind));
  }
  return plan;
}

}  // namespace dvdi::launcher
