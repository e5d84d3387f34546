#include "isolator/external_volumes.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "base/text.h"

namespace dvdi::isolator {

namespace {

// All appearances of one volume in a container.
struct Group {
  volume::Request request;
  std::map<std::string, spec::Ownership> ownership;  // by container path
  std::set<std::string> suid, dev;                   // container paths
  std::string first_place;                           // for messages
};

struct Wanted {
  std::vector<VolumeKey> keys;  // in the order of their first appearance
  std::map<VolumeKey, Group> groups;
  // The external volumes of the working copy, by their index there.
  struct Appearance {
    VolumeKey volume;
    bool host_only = false;
  };
  std::map<int, Appearance> appearances;
};

std::string place_name(const spec::ExternalVolume& volume) {
  return volume.host_only ? std::string("on the host only")
                          : fmt::format("at container path '{}'", printable(volume.container_path));
}

Error contradiction(const VolumeKey& key, const Group& group, const spec::ExternalVolume& volume,
                    std::string_view what) {
  return Error{.code = Code::invalid_argument,
               .message = fmt::format("the volume appears {} and {} with {}", group.first_place,
                                      place_name(volume), what),
               .driver = key.driver,
               .volume = key.name,
               .hint = "give every appearance of a volume in one container the same options"};
}

bool changes_top(spec::Ownership ownership) {
  return ownership == spec::Ownership::match_target || ownership == spec::Ownership::user;
}

// `path` is the container path as the working copy has it: what later isolators look it up by.
Status add(const VolumeKey& key, const std::string& path, const spec::ExternalVolume& volume,
           Wanted& wanted) {
  const auto [found, first] = wanted.groups.try_emplace(key);
  Group& group = found->second;
  if (first) {
    wanted.keys.push_back(key);
    group.first_place = place_name(volume);
    group.request = {.volume = key,
                     .options = volume.options,
                     .explicit_create = volume.explicit_create,
                     .exclusive = volume.exclusive,
                     .uses = {}};
  } else {
    if (group.request.options != volume.options)
      return contradiction(key, group, volume, "different driver options");
    if (group.request.exclusive != volume.exclusive)
      return contradiction(key, group, volume, "and without dvdi.exclusive");
    if (group.request.explicit_create != volume.explicit_create)
      return contradiction(key, group, volume, "and without dvdi.explicit-create");
  }
  if (volume.host_only) return {};
  // The top directory of a volume has one owner: two appearances must not ask for two.
  if (changes_top(volume.ownership)) {
    for (const auto& [other_path, other] : group.ownership) {
      const bool same = other == spec::Ownership::user && volume.ownership == spec::Ownership::user;
      if (changes_top(other) && !same)
        return contradiction(key, group, volume, "two owners to be given to it");
    }
  }
  group.ownership.emplace(path, volume.ownership);
  if (volume.suid) group.suid.insert(path);
  if (volume.dev) group.dev.insert(path);
  group.request.uses.push_back({.container_path = volume.container_path, .read_only = volume.read_only});
  return {};
}

Result<Wanted> wanted_of(const v1::ContainerInfo& info) {
  Wanted wanted;
  for (int i = 0; i < info.volumes_size(); ++i) {
    auto volume = spec::external_volume(info.volumes(i));
    if (!volume) {
      Error error = std::move(volume).error();
      error.message = fmt::format("volume {} of the container: {}", i, error.message);
      return error;
    }
    if (!*volume) continue;
    const VolumeKey key{.driver = (*volume)->driver, .name = (*volume)->name};
    DVDI_CHECK(add(key, info.volumes(i).container_path(), **volume, wanted));
    wanted.appearances.emplace(i, Wanted::Appearance{.volume = key, .host_only = (*volume)->host_only});
  }
  return wanted;
}

v1::MountIdentity identity_of(const StoredIdentity& from, const std::string& mount_point) {
  v1::MountIdentity identity;
  identity.set_mount_id(from.mount_id);
  identity.set_major(from.major);
  identity.set_minor(from.minor);
  identity.set_root(from.root);
  identity.set_source(from.source);
  identity.set_fs_type(from.fs_type);
  identity.set_mount_point(mount_point);
  return identity;
}

// Checks what the volume manager answered, and indexes it.
Result<std::map<VolumeKey, volume::Mounted>> index(const Wanted& wanted,
                                                   std::vector<volume::Mounted> mounted) {
  std::map<VolumeKey, volume::Mounted> by_volume;
  std::map<std::string, VolumeKey> by_path;
  for (volume::Mounted& one : mounted) {
    const VolumeKey key = one.volume;
    const auto [other, first] = by_path.emplace(one.mount_point, key);
    if (!first)
      return Error{.code = Code::driver_violation,
                   .message = fmt::format("it is said to be mounted at '{}', where volume '{}' is",
                                          printable(one.mount_point), printable(other->second.text())),
                   .driver = key.driver,
                   .volume = key.name,
                   .operation = "mount",
                   .hint = "two volumes at one place would share their data: look at the driver's log"};
    by_volume.emplace(key, std::move(one));
  }
  for (const VolumeKey& key : wanted.keys) {
    const auto found = by_volume.find(key);
    if (found == by_volume.end() || !found->second.mount_point.starts_with('/'))
      return Error{.code = Code::internal,
                   .message = "the volume manager gave no mount point",
                   .driver = key.driver,
                   .volume = key.name};
  }
  return by_volume;
}

std::string reason_of(const std::vector<Failure>& before) {
  std::string reason;
  for (const Failure& failure : before)
    reason += fmt::format("{}isolator '{}' could not let go of the container: {}", reason.empty() ? "" : "; ",
                          failure.isolator, failure.error.message);
  return reason;
}

}  // namespace

Attribution attribution_of(const v1::Attribution& from) {
  Attribution attribution{.framework = from.framework_id(),
                          .role = from.role(),
                          .principal = from.principal(),
                          .task_id = from.task_id(),
                          .task_name = from.task_name(),
                          .user = from.user(),
                          .labels = {}};
  for (const auto& label : from.labels().labels())
    attribution.labels.emplace_back(label.key(), label.value());
  return attribution;
}

Result<std::vector<volume::Request>> volume_requests(const v1::ContainerInfo& info) {
  DVDI_TRY(Wanted wanted, wanted_of(info));
  std::vector<volume::Request> requests;
  requests.reserve(wanted.keys.size());
  for (const VolumeKey& key : wanted.keys) requests.push_back(std::move(wanted.groups.at(key).request));
  return requests;
}

Status ExternalVolumes::prepare(const Context& context, Preparation& preparation) {
  DVDI_TRY(const Wanted wanted, wanted_of(preparation.working));
  std::vector<volume::Request> requests;
  requests.reserve(wanted.keys.size());
  for (const VolumeKey& key : wanted.keys) requests.push_back(wanted.groups.at(key).request);

  const volume::Holder holder{.key = preparation.key,
                              .digest = preparation.digest,
                              .attribution = attribution_of(preparation.request.attribution()),
                              .directory = preparation.directory,
                              .directory_is_ours = preparation.directory_is_ours,
                              .worker = preparation.worker};
  DVDI_TRY(auto mounted, holdings_.acquire(context, holder, requests));
  DVDI_TRY(const auto by_volume, index(wanted, std::move(mounted)));

  for (const VolumeKey& key : wanted.keys) {
    const volume::Mounted& one = by_volume.at(key);
    HostPath& path = preparation.host_paths[one.mount_point];
    path.label = key.text();
    const Group& group = wanted.groups.at(key);
    path.ownership = group.ownership;
    path.suid = group.suid;
    path.dev = group.dev;
    if (one.identity) path.identity = identity_of(*one.identity, one.mount_point);
  }
  v1::ContainerInfo working = preparation.working;
  working.clear_volumes();
  for (int i = 0; i < preparation.working.volumes_size(); ++i) {
    const auto appearance = wanted.appearances.find(i);
    if (appearance != wanted.appearances.end() && appearance->second.host_only) continue;
    v1::Volume& volume = *working.add_volumes();
    volume = preparation.working.volumes(i);
    if (appearance != wanted.appearances.end())
      volume.set_host_path(by_volume.at(appearance->second.volume).mount_point);
  }
  preparation.working = std::move(working);
  return {};
}

Status ExternalVolumes::isolate(const Context& context, const ContainerKey& key, pid_t pid, bool watch) {
  DVDI_TRY(const ProcessIdentity init, identify_process(pid));
  return holdings_.started(context, key, init, watch);
}

Result<std::vector<Owed>> ExternalVolumes::cleanup(const Context& context, const ContainerKey& key,
                                                   const std::vector<Failure>& before) {
  return holdings_.release(context, key, reason_of(before));
}

Result<std::vector<Owed>> ExternalVolumes::roll_back(const Context& context, const ContainerKey& key,
                                                     const std::vector<Failure>& before, const Error& why) {
  return holdings_.abandon(context, key, reason_of(before), why.message);
}

Result<volume::Recovered> ExternalVolumes::recover(const Context& context, const RecoverRequest& request,
                                                   const std::vector<Failure>& before) {
  const bool may_unmount = before.empty() && request.complete;
  return holdings_.recover(context, request, may_unmount);
}

}  // namespace dvdi::isolator
