#include "isolator/shared_filesystem.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "isolator/container_path.h"
#include "isolator/ownership.h"

namespace dvdi::isolator {

namespace {

// Where a missing container path of the host may be created, for the forms of a request that say so.
std::optional<std::string_view> created_beneath(const v1::Volume& volume, std::string_view path) {
  if (volume.create_under_tmp() && lies_in(path, "/tmp")) return "/tmp";
  if (volume.create_under_mnt() && lies_in(path, "/mnt")) return "/mnt";
  return std::nullopt;
}

// By an isolator: a request gives a host path or a source, never both.
bool is_filled(const v1::Volume& volume) { return volume.has_source() && volume.has_host_path(); }

// One volume on its way to a mount instruction.
struct Item {
  const v1::Volume* volume = nullptr;
  std::string label;
  std::string source;            // a path of the host; relative: of the sandbox, and not there yet
  bool source_is_users = false;  // a sandbox path: what is made belongs to the task's user
  bool directory = true;
  const HostPath* known = nullptr;  // what its provider said
  Place place;
  const Item* parent = nullptr;  // the volume that it is nested in
  PathInfo target;

  bool read_only() const { return volume->mode() == v1::Volume::RO; }
};

Error at(const Item& item, Error error) {
  error.message = fmt::format("volume '{}' at container path '{}': {}", printable(item.label),
                              printable(item.volume->container_path()), error.message);
  return error;
}

Error wrong(const Item& item, std::string message, std::string hint = {}) {
  return at(item,
            Error{.code = Code::invalid_argument, .message = std::move(message), .hint = std::move(hint)});
}

// Both exist and are local folders, so there is nothing that can hang.
Result<std::string> real_folder(std::string_view what, const std::string& path) {
  if (!path.starts_with('/'))
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("{} '{}' is not an absolute path", what, printable(path))};
  auto info = look_at_folder(path);
  if (!info) {
    Error error = std::move(info).error();
    error.message = fmt::format("{}: {}", what, error.message);
    return error;
  }
  if (info->path == "/")
    return Error{.code = Code::invalid_argument, .message = fmt::format("{} is the root of the host", what)};
  return std::move(info->path);
}

// The work of one prepare.
class Plan {
 public:
  Plan(Context context, HelperPool& helpers, const Preparation& preparation,
       const SharedFilesystem::Options& options)
      : context_(std::move(context)), helpers_(helpers), preparation_(preparation), options_(options) {}

  Status look_at_folders();
  Status make();
  Status write(v1::ContainerLaunchInfo& launch);

 private:
  Status add(const v1::Volume& volume);
  Status find_source(Item& item) const;
  Status nest();
  Status keep_apart() const;
  std::string target_of(const Item& item) const;
  Status find_target(Item& item);
  Result<PathInfo> make_target(const Item& item);
  Result<PathInfo> host_target(const Item& item);
  Status make_source(Item& item);
  std::vector<const Item*> by_real_target() const;
  Status check_real_targets();
  Result<Owner> user();

  const Context context_;
  HelperPool& helpers_;
  const Preparation& preparation_;
  const SharedFilesystem::Options& options_;
  View view_;
  std::optional<Owner> user_;
  std::vector<Item> items_;
  std::vector<const v1::Volume*> elsewhere_;  // what other isolators of another launcher mount
};

Status Plan::look_at_folders() {
  DVDI_TRY(view_.sandbox, real_folder("the sandbox", preparation_.directory));
  view_.sandbox_in_container = view_.sandbox;
  if (!preparation_.request.rootfs().empty()) {
    DVDI_TRY(view_.rootfs, real_folder("the root file system", preparation_.request.rootfs()));
    view_.sandbox_in_container = options_.sandbox_in_container;
  }
  return {};
}

Result<Owner> Plan::user() {
  if (!user_) {
    // Another launcher (Mesos) looks the name up before it enters the root file system.
    const std::string rootfs = preparation_.staged ? std::string() : view_.rootfs;
    DVDI_TRY(user_, find_owner(context_, helpers_, preparation_.request.command().user(), rootfs));
  }
  return *user_;
}

// The host path, or what the source says. The first is how isolators feed this one; the second is a request's
// own.
Status Plan::find_source(Item& item) const {
  const v1::Volume& volume = *item.volume;
  if (!volume.host_path().empty()) {
    item.source = volume.host_path();
  } else if (volume.source().type() == v1::Volume::Source::HOST_PATH) {
    item.source = volume.source().host_path().path();
  } else if (volume.source().type() == v1::Volume::Source::SANDBOX_PATH) {
    item.label = "sandbox path " + volume.source().sandbox_path().path();
    if (volume.source().sandbox_path().type() == v1::Volume::Source::SandboxPath::PARENT)
      return at(item, Error{.code = Code::unsupported,
                            .message = "paths of the parent container's sandbox are not supported"});
    item.source = volume.source().sandbox_path().path();
    item.source_is_users = true;
    if (item.source.starts_with('/')) return wrong(item, "a sandbox path must be relative");
  }
  const auto known = preparation_.host_paths.find(item.source);
  if (known != preparation_.host_paths.end()) {
    item.known = &known->second;
    item.label = known->second.label;
  } else if (item.label.empty()) {
    item.label = item.source.empty() ? "without a source" : item.source;
  }
  if (item.source.empty())
    return wrong(item, "it has no host path, and no isolator gave it one",
                 "give it host_path, or a source of type DOCKER_VOLUME, HOST_PATH or SANDBOX_PATH");
  return {};
}

Status Plan::add(const v1::Volume& volume) {
  Item item{.volume = &volume};
  DVDI_CHECK(find_source(item));
  auto place = place_of(view_, volume.container_path());
  if (!place) return at(item, std::move(place).error());
  item.place = *std::move(place);
  items_.push_back(std::move(item));
  return {};
}

// Sorts the volumes parents first and finds the parent of each; by the paths as they were asked for.
Status Plan::nest() {
  std::ranges::sort(items_, [](const Item& left, const Item& right) {
    return left.place.root != right.place.root ? left.place.root < right.place.root
                                               : parents_first(left.place.relative, right.place.relative);
  });
  std::vector<const Item*> open;  // the chain of parents
  for (Item& item : items_) {
    while (!open.empty() && (open.back()->place.root != item.place.root ||
                             !(open.back()->place.relative == item.place.relative ||
                               lies_in(item.place.relative, open.back()->place.relative))))
      open.pop_back();
    if (!open.empty()) {
      if (open.back()->place.relative == item.place.relative)
        return wrong(
            item,
            fmt::format("volume '{}' is to appear there, too, as container path '{}'",
                        printable(open.back()->label), printable(open.back()->volume->container_path())),
            "give each volume a container path of its own");
      item.parent = open.back();
    }
    open.push_back(&item);
  }
  return {};
}

// Another launcher mounts its own volumes before ours: one inside the other, and one of them hides what the
// other shows.
Status Plan::keep_apart() const {
  for (const v1::Volume* volume : elsewhere_) {
    const auto place = place_of(view_, volume->container_path());
    if (!place) continue;  // that isolator's matter
    for (const Item& item : items_) {
      const std::string& ours = item.place.relative;
      const std::string& theirs = place->relative;
      if (item.place.root != place->root ||
          !(ours == theirs || lies_in(ours, theirs) || lies_in(theirs, ours)))
        continue;
      const std::string_view relation = ours == theirs          ? "is the same as"
                                        : lies_in(ours, theirs) ? "lies in"
                                                                : "has in it";
      return wrong(
          item,
          fmt::format("it {} container path '{}', which another isolator mounts ({})", relation,
                      printable(volume->container_path()),
                      volume->has_host_path() ? "host path " + printable(volume->host_path())
                                              : v1::Volume::Source::Type_Name(volume->source().type())),
          "give the two container paths that do not lie in one another");
    }
  }
  return {};
}

std::string Plan::target_of(const Item& item) const {
  if (!preparation_.staged || view_.rootfs.empty() || item.place.beneath != v1::ContainerMountInfo::SANDBOX)
    return item.target.path;
  return view_.rootfs + view_.sandbox_in_container + item.target.path.substr(view_.sandbox.size());
}

Result<PathInfo> Plan::host_target(const Item& item) {
  const std::string path = item.place.path();
  const Leaf leaf = item.directory ? Leaf::directory : Leaf::file;
  if (const auto beneath = created_beneath(*item.volume, path)) {
    // root:root, and without following links: everybody can write to /tmp.
    DVDI_TRY(MadePath made, make_path(std::string(*beneath), path.substr(beneath->size() + 1),
                                      {.links = Links::none, .leaf = leaf, .owner = {}}));
    return std::move(made.info);
  }
  auto info = inspect_path(context_, helpers_, path);
  if (!info) {
    Error error = std::move(info).error();
    if (error.code != Code::not_found) return error;
    return Error{
        .code = Code::failed_precondition,
        .message = fmt::format("'{}' does not exist on the host, and a container without a root file system "
                               "of its own sees the host's",
                               printable(path)),
        .hint =
            "create it, name a relative container path (it is created in the sandbox), or give the "
            "container a rootfs"};
  }
  if (info->path == "/" || info->path == view_.sandbox || lies_in(view_.sandbox, info->path))
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("its real path '{}' would hide the sandbox", printable(info->path)),
                 .hint = "choose another container path"};
  return info;
}

Result<PathInfo> Plan::make_target(const Item& item) {
  const Leaf leaf = item.directory ? Leaf::directory : Leaf::file;
  if (item.parent != nullptr) {
    // Beneath another volume only what is in that volume will be seen.
    const std::string below = item.place.relative.substr(item.parent->place.relative.size() + 1);
    if (!item.parent->directory)
      return Error{
          .code = Code::invalid_argument,
          .message = fmt::format("volume '{}', which it lies in, is a file", printable(item.parent->label))};
    auto made =
        make_in_volume(context_, helpers_, item.parent->source, below, leaf, !item.parent->read_only(),
                       item.parent->known != nullptr ? item.parent->known->label : "");
    if (!made) {
      Error error = std::move(made).error();
      error.message =
          fmt::format("in volume '{}', which it lies in: {}", printable(item.parent->label), error.message);
      if (error.code == Code::not_found) {
        error.code = Code::failed_precondition;
        error.hint =
            "that volume is read-only for this container: create the folder in it first, or mount it "
            "read-write";
      }
      return error;
    }
    made->path = item.parent->target.path + '/' + below;  // as the task's mount namespace will have it
    return made;
  }
  switch (item.place.beneath) {
    case v1::ContainerMountInfo::SANDBOX: {
      DVDI_TRY(const Owner owner, user());
      DVDI_TRY(MadePath made, make_path(item.place.root, item.place.relative,
                                        {.links = Links::none, .leaf = leaf, .owner = owner}));
      return std::move(made.info);
    }
    case v1::ContainerMountInfo::ROOTFS: {
      DVDI_TRY(MadePath made, make_path(item.place.root, item.place.relative,
                                        {.links = Links::inside, .leaf = leaf, .owner = {}}));
      const std::string sandbox_place = view_.rootfs + view_.sandbox_in_container;
      if (made.info.path == sandbox_place || lies_in(made.info.path, sandbox_place) ||
          lies_in(sandbox_place, made.info.path))
        return Error{
            .code = Code::invalid_argument,
            .message = fmt::format("symbolic links of the root file system lead it to '{}', into the way of "
                                   "the sandbox",
                                   printable(made.info.path.substr(view_.rootfs.size()))),
            .hint = "choose another container path"};
      return std::move(made.info);
    }
    default:
      return host_target(item);
  }
}

Status Plan::find_target(Item& item) {
  auto target = make_target(item);
  if (!target) return at(item, std::move(target).error());
  item.target = *std::move(target);
  if (item.target.directory != item.directory)
    return wrong(item, item.directory ? "it is a folder, and the container path is a file"
                                      : "it is a file, and the container path is a folder");
  return {};
}

// Before the target is found: absolute host paths must be there, and what they are decides what the target
// must be. After it: a relative one is made in the sandbox, and takes mode and owner of the target.
Status Plan::make_source(Item& item) {
  if (item.source.starts_with('/')) return {};
  Owner owner{.uid = item.target.uid, .gid = item.target.gid};
  if (item.source_is_users) {
    DVDI_TRY(owner, user());
  }
  MakeOptions options{
      .links = Links::none, .leaf = item.directory ? Leaf::directory : Leaf::file, .owner = owner};
  if (!item.source_is_users) options.last_mode = item.target.mode;
  DVDI_TRY(MadePath made, make_path(view_.sandbox, item.source, options));
  item.source = made.info.path;
  return {};
}

Status Plan::make() {
  for (const v1::Volume& volume : preparation_.working.volumes()) {
    if (preparation_.staged && !is_filled(volume)) {
      elsewhere_.push_back(&volume);
    } else {
      DVDI_CHECK(add(volume));
    }
  }
  DVDI_CHECK(nest());
  DVDI_CHECK(keep_apart());
  for (Item& item : items_) {
    if (item.known == nullptr) {
      // What is there already says whether it is a folder or a file.
      std::optional<PathInfo> there;
      if (item.source.starts_with('/')) {
        auto info = inspect_path(context_, helpers_, item.source);
        if (!info) {
          Error error = std::move(info).error();
          if (error.code == Code::not_found) {
            error.code = Code::failed_precondition;
            error.hint = "an absolute host path must exist: create it on the host first";
          }
          return at(item, std::move(error));
        }
        item.source = info->path;
        there = *std::move(info);
        if (options_.may_bind) {
          auto allowed = options_.may_bind(context_, preparation_, *item.volume, item.source);
          if (!allowed) return at(item, std::move(allowed).error());
        }
      } else {
        auto info = look_beneath(view_.sandbox, item.source);
        if (!info) return at(item, std::move(info).error());
        there = *std::move(info);
      }
      item.directory = !there || there->directory;
    }
    DVDI_CHECK(find_target(item));
    if (auto made = make_source(item); !made) return at(item, std::move(made).error());
  }
  return check_real_targets();
}

std::vector<const Item*> Plan::by_real_target() const {
  std::vector<const Item*> sorted;
  sorted.reserve(items_.size());
  for (const Item& item : items_) sorted.push_back(&item);
  std::ranges::sort(sorted, parents_first,
                    [](const Item* item) -> std::string_view { return item->target.path; });
  return sorted;
}

// Symbolic links can bring two container paths to one place, or one into the other, without their texts
// showing it.
Status Plan::check_real_targets() {
  std::vector<const Item*> open;
  for (const Item* item : by_real_target()) {
    while (!open.empty() && open.back()->target.path != item->target.path &&
           !lies_in(item->target.path, open.back()->target.path))
      open.pop_back();
    const Item* parent = open.empty() ? nullptr : open.back();
    if (parent != item->parent)
      return wrong(
          *item,
          fmt::format("by its real path '{}' it appears {} volume '{}' (container path '{}')",
                      printable(item->target.path),
                      parent != nullptr && parent->target.path == item->target.path ? "where" : "inside",
                      printable(parent != nullptr ? parent->label : item->parent->label),
                      printable(parent != nullptr ? parent->volume->container_path()
                                                  : item->parent->volume->container_path())),
          "name both by their real paths");
    open.push_back(item);
  }
  return {};
}

Status Plan::write(v1::ContainerLaunchInfo& launch) {
  launch.set_sandbox(view_.sandbox);
  launch.set_sandbox_in_container(view_.sandbox_in_container);
  if (!view_.rootfs.empty()) launch.set_rootfs(view_.rootfs);
  if (std::ranges::find(launch.clone_namespaces(), CLONE_NEWNS) == launch.clone_namespaces().end())
    launch.add_clone_namespaces(CLONE_NEWNS);

  for (const Item* sorted : by_real_target()) {
    const Item& item = *sorted;
    v1::ContainerMountInfo mount;
    mount.set_target(target_of(item));
    mount.set_source(item.source);
    const std::string& path = item.volume->container_path();
    std::uint32_t flags = MS_BIND | MS_REC;
    if (item.known == nullptr || !item.known->suid.contains(path)) flags |= MS_NOSUID;
    if (item.known == nullptr || !item.known->dev.contains(path)) flags |= MS_NODEV;
    if (item.read_only()) flags |= MS_RDONLY;
    mount.set_flags(flags);
    mount.set_beneath(item.place.beneath);
    mount.set_volume(item.label);
    if (item.known != nullptr) {
      if (item.known->identity) *mount.mutable_identity() = *item.known->identity;
      const auto policy = item.known->ownership.find(path);
      if (policy != item.known->ownership.end() && policy->second != spec::Ownership::none) {
        Owner owner;
        if (policy->second != spec::Ownership::match_target) {
          auto found = user();
          if (!found) return at(item, std::move(found).error());
          owner = *found;
        }
        auto applied = apply_ownership(context_, helpers_,
                                       {.policy = policy->second,
                                        .host_path = item.source,
                                        .identity = item.known->identity,
                                        .target = item.target,
                                        .user = owner,
                                        .key = item.known->label},
                                       mount);
        if (!applied) return at(item, std::move(applied).error());
      }
    }
    *launch.add_mounts() = std::move(mount);
  }
  return {};
}

}  // namespace

Status SharedFilesystem::prepare(const Context& context, Preparation& preparation) {
  if (preparation.staged && std::ranges::none_of(preparation.working.volumes(), is_filled)) return {};
  Plan plan(context.with_timeout(options_.path_timeout), helpers_, preparation, options_);
  DVDI_CHECK(plan.look_at_folders());
  DVDI_CHECK(plan.make());
  return plan.write(preparation.launch);
}

}  // namespace dvdi::isolator
