#include "spec/volume.h"

#include <fmt/format.h>

#include <array>

namespace dvdi::spec {

namespace {

constexpr std::array<std::pair<std::string_view, Ownership>, 4> ownerships = {{
    {"none", Ownership::none},
    {"match-target", Ownership::match_target},
    {"user", Ownership::user},
    {"idmap", Ownership::idmap},
}};

std::string_view ownership_name(Ownership ownership) {
  for (const auto& [name, value] : ownerships) {
    if (value == ownership) return name;
  }
  return "none";
}

void read_truth(const VolumeDraft::Option& option, bool& into, Problems& problems) {
  if (option.value == "true" || option.value == "false") {
    into = option.value == "true";
    return;
  }
  problems.add(option.place,
               fmt::format("{} must be true or false, it is {}", option.key, quoted(option.value)));
}

void read_reserved(const VolumeDraft::Option& option, ExternalVolume& volume, Problems& problems) {
  if (option.key == option_explicit_create) return read_truth(option, volume.explicit_create, problems);
  if (option.key == option_exclusive) return read_truth(option, volume.exclusive, problems);
  if (option.key == option_host_only) return read_truth(option, volume.host_only, problems);
  if (option.key == option_suid) return read_truth(option, volume.suid, problems);
  if (option.key == option_dev) return read_truth(option, volume.dev, problems);
  if (option.key == option_ownership) {
    for (const auto& [name, value] : ownerships) {
      if (option.value == name) {
        volume.ownership = value;
        return;
      }
    }
    problems.add(option.place, fmt::format("{} must be none, match-target, user or idmap, it is {}",
                                           option.key, quoted(option.value)));
    return;
  }
  problems.add(
      option.place, fmt::format("dvdi has no option {}", quoted(option.key)),
      "there are dvdi.explicit-create, dvdi.exclusive, dvdi.host-only, dvdi.ownership, dvdi.suid and "
      "dvdi.dev");
}

void read_options(const VolumeDraft& draft, ExternalVolume& volume, Problems& problems) {
  if (too_many_options(draft.options.size(), draft.options_place, problems)) return;
  std::map<std::string, std::string> seen;  // and the place
  for (const VolumeDraft::Option& option : draft.options) {
    const bool usable = check_option_key(Text{.value = option.key, .place = option.place}, problems) &&
                        check_option_value(option.value, option.place, problems);
    const auto [first, fresh] = seen.emplace(option.key, option.place);
    if (!fresh) {
      problems.add(option.place, fmt::format("the option {} is given twice (first: {})", quoted(option.key),
                                             first->second));
    } else if (usable && option.key.starts_with(reserved_prefix)) {
      read_reserved(option, volume, problems);
    } else if (usable) {
      volume.options.emplace(option.key, option.value);
    }
  }
}

v1::Volume to_message(const ExternalVolume& volume) {
  v1::Volume message;
  if (!volume.container_path.empty()) message.set_container_path(volume.container_path);
  message.set_mode(volume.read_only ? v1::Volume::RO : v1::Volume::RW);
  if (volume.create_under_tmp) message.set_create_under_tmp(true);
  v1::Volume::Source& source = *message.mutable_source();
  source.set_type(v1::Volume::Source::DOCKER_VOLUME);
  source.mutable_docker_volume()->set_driver(volume.driver);
  source.mutable_docker_volume()->set_name(volume.name);
  const auto add = [&](std::string_view key, std::string_view value) {
    v1::Parameter& parameter = *source.mutable_docker_volume()->mutable_driver_options()->add_parameter();
    parameter.set_key(std::string(key));
    parameter.set_value(std::string(value));
  };
  for (const auto& [key, value] : volume.options) add(key, value);
  if (volume.explicit_create) add(option_explicit_create, "true");
  if (volume.exclusive) add(option_exclusive, "true");
  if (volume.host_only) add(option_host_only, "true");
  if (volume.suid) add(option_suid, "true");
  if (volume.dev) add(option_dev, "true");
  if (volume.ownership != Ownership::none) add(option_ownership, ownership_name(volume.ownership));
  return message;
}

}  // namespace

bool too_many_options(std::size_t count, std::string_view place, Problems& problems) {
  if (count <= max_options) return false;
  problems.add(place, fmt::format("has {} options, a volume may have {}", count, max_options));
  return true;
}

ReadVolume read_external(const VolumeDraft& draft, Problems& problems) {
  const std::size_t before = problems.count();
  ReadVolume read{.place = draft.place, .container_path_place = draft.container_path.place};
  ExternalVolume volume{.driver = draft.driver.value,
                        .name = draft.name.value,
                        .read_only = draft.read_only,
                        .create_under_tmp = draft.create_under_tmp};
  check_driver_name(draft.driver, problems);
  check_volume_name(draft.name, problems);
  read_options(draft, volume, problems);
  if (volume.host_only) {
    // Mesos and Marathon insist on a container path, so there may be one: it has no use here.
    if (volume.ownership != Ownership::none) {
      problems.add(draft.options_place, "dvdi.ownership has no meaning with dvdi.host-only");
    }
    if (volume.suid || volume.dev) {
      problems.add(draft.options_place, "dvdi.suid and dvdi.dev have no meaning with dvdi.host-only");
    }
    volume.create_under_tmp = false;
  } else if (auto path = check_container_path(draft.container_path, problems)) {
    read.container_path = *path;
    volume.container_path = *std::move(path);
    if (volume.create_under_tmp && volume.container_path.front() != '/') {
      problems.add(draft.container_path.place, fmt::format("the container path must be absolute, {} is not",
                                                           quoted(volume.container_path)));
    }
  }
  // Something of it may be wrong that was reported before, and is not in the draft.
  if (problems.count() != before || draft.driver.reported || draft.name.reported) return read;
  read.message = to_message(volume);
  read.external = std::move(volume);
  return read;
}

ReadVolume read_host(const Text& host_path, const Text& container_path, bool read_only, std::string place,
                     Problems& problems) {
  ReadVolume read{.place = std::move(place), .container_path_place = container_path.place};
  check_absolute_path(host_path, "a host path", problems);
  if (auto path = check_container_path(container_path, problems)) read.container_path = *std::move(path);
  read.message.set_container_path(read.container_path);
  read.message.set_host_path(host_path.value);
  read.message.set_mode(read_only ? v1::Volume::RO : v1::Volume::RW);
  return read;
}

VolumeDraft draft_of(const v1::Volume& volume, std::string_view place) {
  const v1::Volume::Source::DockerVolume& docker = volume.source().docker_volume();
  const std::string docker_place = member(member(place, "source"), "docker_volume");
  VolumeDraft draft{
      .place = std::string(place),
      .driver = {.value = docker.driver(), .place = member(docker_place, "driver")},
      .name = {.value = docker.name(), .place = member(docker_place, "name")},
      .container_path = {.value = volume.container_path(), .place = member(place, "container_path")},
      .options_place = member(member(docker_place, "driver_options"), "parameter"),
      .options = {},
      .read_only = volume.mode() == v1::Volume::RO,
      .create_under_tmp = volume.create_under_tmp()};
  for (const v1::Parameter& parameter : docker.driver_options().parameter()) {
    draft.options.push_back({.key = parameter.key(),
                             .value = parameter.value(),
                             .place = element(draft.options_place, draft.options.size())});
  }
  return draft;
}

Result<std::optional<ExternalVolume>> external_volume(const v1::Volume& volume) {
  // By the source alone: in the chain's working copy a mounted external volume has a host_path, too.
  if (volume.source().type() != v1::Volume::Source::DOCKER_VOLUME) return std::optional<ExternalVolume>();
  Problems problems;
  if (volume.mode() != v1::Volume::RW && volume.mode() != v1::Volume::RO) {
    problems.add("mode", "must be RW or RO");
  }
  ReadVolume read = read_external(draft_of(volume, ""), problems);
  if (!problems.empty()) {
    return problems.error(fmt::format("volume {} of driver {}",
                                      quoted(volume.source().docker_volume().name()),
                                      quoted(volume.source().docker_volume().driver())));
  }
  return std::move(read.external);
}

void check_together(const std::vector<ReadVolume>& volumes, Problems& problems) {
  std::map<std::string_view, const ReadVolume*> paths;
  using Key = std::pair<std::string_view, std::string_view>;
  std::map<Key, const ReadVolume*> names;
  for (const ReadVolume& volume : volumes) {
    if (!volume.container_path.empty()) {
      const auto [first, fresh] = paths.emplace(volume.container_path, &volume);
      if (!fresh) {
        problems.add(volume.container_path_place,
                     fmt::format("the container path {} is taken by {}", quoted(volume.container_path),
                                 first->second->container_path_place));
      }
    }
    if (!volume.external) continue;
    const auto [first, fresh] = names.emplace(Key(volume.external->driver, volume.external->name), &volume);
    if (fresh) continue;
    const ExternalVolume& other = *first->second->external;
    if (volume.external->options != other.options ||
        volume.external->explicit_create != other.explicit_create ||
        volume.external->exclusive != other.exclusive) {
      problems.add(
          volume.place,
          fmt::format("volume {} of driver {} is asked for by {}, too, with other options",
                      quoted(other.name), quoted(other.driver), first->second->place),
          "only container path, mode, dvdi.host-only, dvdi.ownership, dvdi.suid and dvdi.dev may differ");
    }
  }
}

}  // namespace dvdi::spec
