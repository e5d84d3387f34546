#include "spec/mesos.h"

#include <fmt/format.h>

#include "spec/document.h"

namespace dvdi::spec {

namespace {

// protobuf's JSON mapping takes driverOptions for driver_options, Mesos does not. Both are refused rather
// than ignored: a volume without its options is another volume.
void check_spelling(const json::object& from, std::string_view place,
                    std::initializer_list<std::string_view> names, Problems& problems) {
  for (const std::string_view name : names) {
    std::string camel;
    bool upper = false;
    for (const char c : name) {
      if (c != '_') camel += upper ? static_cast<char>(c - 'a' + 'A') : c;
      upper = c == '_';
    }
    if (camel != name && from.contains(camel)) {
      problems.add(member(place, camel), fmt::format("Mesos writes this field {}", name));
    }
  }
}

// The name of an enum's value. Checked here because protobuf ignores a name that it does not know.
std::string enum_member(const json::object& from, std::string_view key, std::string_view place,
                        std::initializer_list<std::string_view> names, Problems& problems) {
  const auto text = text_member(from, key, place, problems);
  if (!text) {
    if (present(from, key) == nullptr) {
      problems.add(place, fmt::format("{} is required: {}", key, fmt::join(names, ", ")));
    }
    return {};
  }
  for (const std::string_view name : names) {
    if (*text == name) return *text;
  }
  problems.add(member(place, key), fmt::format("{} is none of {}", quoted(*text), fmt::join(names, ", ")));
  return {};
}

// The `driver_options` of a docker_volume.
void read_parameters(const json::object& docker, std::string_view docker_place, VolumeDraft& draft,
                     Problems& problems) {
  const json::object* options = object_member(docker, "driver_options", docker_place, problems);
  if (options == nullptr) return;
  const std::string place = member(docker_place, "driver_options");
  draft.options_place = member(place, "parameter");
  const json::array* parameters = array_member(*options, "parameter", place, problems);
  if (parameters == nullptr) {
    // {"size": "5"} would be ignored as an unknown field, and the volume made without its size.
    if (present(*options, "parameter") == nullptr && !options->empty()) {
      problems.add(place, "has no member parameter", "an array of {\"key\": …, \"value\": …}");
    }
    return;
  }
  if (too_many_options(parameters->size(), draft.options_place, problems)) return;
  for (std::size_t i = 0; i < parameters->size(); ++i) {
    const std::string one = element(draft.options_place, i);
    const json::object* parameter = (*parameters)[i].if_object();
    if (parameter == nullptr) {
      problems.add(one, fmt::format("is {}, not an object with key and value", kind((*parameters)[i])));
      continue;
    }
    const Text key = text_at(*parameter, "key", one, problems);
    const Text value = text_at(*parameter, "value", one, problems);
    if (present(*parameter, "value") == nullptr) problems.add(one, "value is required");
    if (!key.reported && !value.reported) {
      draft.options.push_back({.key = key.value, .value = value.value, .place = one});
    }
  }
}

void read_docker_source(const json::object& source, std::string_view source_place, VolumeDraft& draft,
                        Problems& problems) {
  const std::string place = member(source_place, "docker_volume");
  const json::object* docker = object_member(source, "docker_volume", source_place, problems);
  if (docker == nullptr) {
    if (present(source, "docker_volume") == nullptr) {
      problems.add(source_place, "has the type DOCKER_VOLUME and no docker_volume");
    }
    draft.driver.reported = draft.name.reported = true;
    return;
  }
  check_spelling(*docker, place, {"driver_options"}, problems);
  draft.driver = text_at(*docker, "driver", place, problems);
  draft.name = text_at(*docker, "name", place, problems);
  read_parameters(*docker, place, draft, problems);
}

Text host_path_of_source(const json::object& source, std::string_view source_place, Problems& problems) {
  const std::string place = member(source_place, "host_path");
  const json::object* host = object_member(source, "host_path", source_place, problems);
  if (host == nullptr) {
    if (present(source, "host_path") == nullptr) {
      problems.add(source_place, "has the type HOST_PATH and no host_path");
    }
    return {.value = "", .place = place, .reported = true};
  }
  check_spelling(*host, place, {"mount_propagation"}, problems);
  if (const json::object* propagation = object_member(*host, "mount_propagation", place, problems)) {
    const Text mode = text_at(*propagation, "mode", member(place, "mount_propagation"), problems);
    if (mode.value == "BIDIRECTIONAL") {
      problems.add(mode.place, "BIDIRECTIONAL is not supported: no mount of a task reaches the host");
    }
  }
  return text_at(*host, "path", place, problems);
}

ReadVolume read_mesos_volume(const json::object& from, const std::string& place, Problems& problems) {
  if (from.contains("external") || from.contains("containerPath")) {
    problems.add(place, "is a volume as Marathon writes it; here a Mesos Volume is expected",
                 "container_path, mode, source");
    return {.place = place};
  }
  check_spelling(from, place, {"container_path", "host_path"}, problems);
  const Text container_path = text_at(from, "container_path", place, problems);
  const bool read_only = enum_member(from, "mode", place, {"RW", "RO"}, problems) == "RO";
  if (present(from, "image") != nullptr) {
    problems.add(member(place, "image"), "a volume made from an image is not supported by dvdi run");
  }
  const bool has_host_path = present(from, "host_path") != nullptr;
  const bool has_source = present(from, "source") != nullptr;
  if (has_host_path && has_source) {
    problems.add(place, "has both host_path and source: it is not clear where the data lies");
  }
  if (!has_host_path && !has_source && present(from, "image") == nullptr) {
    problems.add(place, "has neither source nor host_path: it is not clear where the data lies");
  }
  if (has_host_path) {
    return read_host(text_at(from, "host_path", place, problems), container_path, read_only, place, problems);
  }

  VolumeDraft draft{.place = place,
                    .driver = {.reported = true},
                    .name = {.reported = true},
                    .container_path = container_path,
                    .read_only = read_only};
  const json::object* source = object_member(from, "source", place, problems);
  if (source != nullptr) {
    const std::string source_place = member(place, "source");
    check_spelling(*source, source_place, {"docker_volume", "host_path", "sandbox_path", "csi_volume"},
                   problems);
    const std::string type =
        enum_member(*source, "type", source_place,
                    {"DOCKER_VOLUME", "HOST_PATH", "SANDBOX_PATH", "SECRET", "CSI_VOLUME"}, problems);
    if (type == "HOST_PATH") {
      return read_host(host_path_of_source(*source, source_place, problems), container_path, read_only, place,
                       problems);
    }
    if (type == "DOCKER_VOLUME") {
      read_docker_source(*source, source_place, draft, problems);
    } else if (!type.empty()) {
      problems.add(member(source_place, "type"), fmt::format("{} is not supported by dvdi run", type));
    }
  }
  return read_external(draft, problems);
}

}  // namespace

VolumeDraft read_docker_volume(const json::object& volume, const std::string& place, Problems& problems) {
  check_spelling(volume, place, {"container_path"}, problems);
  VolumeDraft draft{.place = place,
                    .driver = {.reported = true},
                    .name = {.reported = true},
                    .container_path = text_at(volume, "container_path", place, problems),
                    .read_only = enum_member(volume, "mode", place, {"RW", "RO"}, problems) == "RO"};
  if (const json::object* source = object_member(volume, "source", place, problems)) {
    read_docker_source(*source, member(place, "source"), draft, problems);
  }
  return draft;
}

bool too_many_volumes(std::size_t count, std::string_view place, Problems& problems) {
  if (count <= max_volumes) return false;
  problems.add(place, fmt::format("has {} volumes, a container may have {}", count, max_volumes));
  return true;
}

std::vector<ReadVolume> read_mesos_volumes(const json::array& volumes, std::string_view place,
                                           Problems& problems) {
  std::vector<ReadVolume> read;
  if (too_many_volumes(volumes.size(), place, problems)) return read;
  for (std::size_t i = 0; i < volumes.size(); ++i) {
    const std::string one = element(place, i);
    if (const json::object* volume = volumes[i].if_object()) {
      read.push_back(read_mesos_volume(*volume, one, problems));
    } else {
      problems.add(one, fmt::format("is {}, not a Mesos Volume (an object)", kind(volumes[i])));
    }
  }
  return read;
}

FileContents read_container_info(const json::object& info, Problems& problems) {
  FileContents contents;
  if (enum_member(info, "type", "", {"MESOS", "DOCKER"}, problems) == "DOCKER") {
    problems.add("type", "DOCKER is not supported: dvdi run is no Docker engine", "use MESOS");
  }
  if (present(info, "docker") != nullptr) {
    problems.add("docker", "a Docker container is not supported by dvdi run");
  }
  if (const json::object* mesos = object_member(info, "mesos", "", problems)) {
    if (present(*mesos, "image") != nullptr) {
      problems.add("mesos.image", "an image is not supported by dvdi run", "unpack it and use --rootfs DIR");
    }
  }
  check_spelling(info, "", {"network_infos", "linux_info", "rlimit_info", "tty_info"}, problems);
  for (const std::string_view key : {"network_infos", "linux_info", "rlimit_info", "tty_info", "hostname"}) {
    if (present(info, key) != nullptr) contents.warnings.push_back(fmt::format("{} has no effect here", key));
  }
  if (const json::array* volumes = array_member(info, "volumes", "", problems)) {
    contents.volumes = read_mesos_volumes(*volumes, "volumes", problems);
  }
  return contents;
}

}  // namespace dvdi::spec
