#include "spec/agent.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <ranges>

#include "base/text.h"
#include "spec/document.h"
#include "spec/environment.h"
#include "spec/mesos.h"
#include "spec/problems.h"
#include "spec/rules.h"
#include "spec/volume.h"

namespace dvdi::spec {

namespace {

// Strict: what prepare needs. Lenient: recover, where one wrong volume must not keep an agent down.
enum class Reading { strict, lenient };

std::optional<std::string> id_text(const json::value& id, std::string_view place, Problems& problems) {
  std::vector<std::string> values;  // innermost first
  std::string at(place);
  const json::value* next = &id;
  while (next != nullptr) {
    const json::object* object = next->if_object();
    if (object == nullptr) {
      problems.add(at, fmt::format("is {}, not a ContainerID", kind(*next)), R"({"value": "ID"})");
      return std::nullopt;
    }
    if (values.size() == max_container_depth) {
      problems.add(place, fmt::format("is nested deeper than {}", max_container_depth));
      return std::nullopt;
    }
    const Text value = text_at(*object, "value", at, problems);
    if (value.reported) return std::nullopt;
    const bool refused = std::any_of(value.value.begin(), value.value.end(), [](char c) {
      const auto byte = static_cast<unsigned char>(c);
      return byte <= 0x20 || byte == 0x7f || c == '.' || c == '/' || c == '\\';
    });
    if (value.value.empty() || value.value.size() > max_container_id_bytes || refused) {
      problems.add(value.place,
                   fmt::format("{} is no container id: 1 to {} bytes without '.', '/', '\\', white space and "
                               "control characters",
                               quoted(value.value), max_container_id_bytes));
      return std::nullopt;
    }
    values.push_back(value.value);
    next = present(*object, "parent");
    at = member(at, "parent");
  }
  std::string text;
  for (const auto& value : values | std::views::reverse) {
    if (!text.empty()) text += '.';
    text += value;
  }
  if (text.size() <= max_nested_id_bytes) return text;
  problems.add(place, fmt::format("is {} bytes long with its parents, at most {} are allowed", text.size(),
                                  max_nested_id_bytes));
  return std::nullopt;
}

std::optional<std::string> any_id_text(const json::value& id, std::string_view place, Problems& problems) {
  const auto* text = id.if_string();
  if (text == nullptr) return id_text(id, place, problems);
  std::string own(text->data(), text->size());
  if (!check_container_id({.value = own, .place = std::string(place)}, problems)) return std::nullopt;
  return own;
}

// --- Attribution: nothing in it may fail a container. ---

std::string cut(std::string_view text) {
  const bool plain = text.size() <= max_name_bytes && std::all_of(text.begin(), text.end(), [](char c) {
                       const auto byte = static_cast<unsigned char>(c);
                       return byte >= 0x20 && byte != 0x7f;
                     });
  return plain ? std::string(text) : printable(text, max_name_bytes);
}

std::string id_value(const json::value& from, std::string_view name) {
  const json::value* id = json::find(from, name);
  return id == nullptr ? std::string() : cut(json::text_or_empty(*id, "value"));
}

const json::array& elements(const json::value* from) {
  static const json::array none;
  const json::array* array = from == nullptr ? nullptr : from->if_array();
  return array == nullptr ? none : *array;
}

// The role that resources are allocated to: Mesos gives one container those of one role only.
std::string allocated_role(const json::value& from) {
  for (const json::value& resource : elements(json::find(from, "resources"))) {
    const json::value* info = json::find(resource, "allocation_info");
    if (info == nullptr) continue;
    if (const auto role = json::text_or_empty(*info, "role"); !role.empty()) return cut(role);
  }
  return {};
}

const json::value& member_or_null(const json::value& from, std::string_view name) {
  static const json::value null;
  const json::value* found = json::find(from, name);
  return found == nullptr ? null : *found;
}

std::string variable(const json::value& command, std::string_view name) {
  for (const json::value& one : elements(json::find(member_or_null(command, "environment"), "variables"))) {
    if (json::text_or_empty(one, "name") == name) return cut(json::text_or_empty(one, "value"));
  }
  return {};
}

void read_labels(const json::value& from, v1::Attribution& attribution) {
  for (const json::value& one : elements(json::find(member_or_null(from, "labels"), "labels"))) {
    const std::string_view key = json::text_or_empty(one, "key");
    if (key.empty()) continue;
    if (attribution.labels().labels_size() == static_cast<int>(max_labels)) return;
    v1::Label& label = *attribution.mutable_labels()->add_labels();
    label.set_key(cut(key));
    const std::string_view value = json::text_or_empty(one, "value");
    if (!value.empty()) label.set_value(value.size() <= max_name_bytes ? std::string(value) : cut(value));
  }
}

// An executor that the agent made for a single task: its id is the task's. Default and custom executors have
// a type; in the name of this one there is the command line, which may hold anything.
bool is_command_executor(const json::value& executor) {
  const std::string_view id = json::text_or_empty(member_or_null(executor, "executor_id"), "value");
  return !id.empty() && json::find(executor, "type") == nullptr &&
         json::text_or_empty(executor, "source") == id &&
         json::text_or_empty(executor, "name").starts_with("Command Executor ");
}

v1::Attribution attribution_of(const json::value& config, const json::value& command) {
  v1::Attribution attribution;
  const json::value& executor = member_or_null(config, "executor_info");
  const json::value& task = member_or_null(config, "task_info");
  if (auto id = id_value(executor, "framework_id"); !id.empty()) attribution.set_framework_id(std::move(id));
  if (attribution.framework_id().empty()) {
    // Of a nested container in recover only the sandbox tells: …/frameworks/ID/executors/….
    constexpr std::string_view folder = "/frameworks/";
    const std::string_view directory = json::text_or_empty(config, "directory");
    if (const auto at = directory.find(folder); at != std::string_view::npos) {
      const std::string_view rest = directory.substr(at + folder.size());
      if (const auto id = rest.substr(0, rest.find('/')); !id.empty()) attribution.set_framework_id(cut(id));
    }
  }
  std::string task_id = id_value(task, "task_id");
  if (task_id.empty() && is_command_executor(executor)) task_id = id_value(executor, "executor_id");
  if (!task_id.empty()) attribution.set_task_id(std::move(task_id));
  if (auto name = cut(json::text_or_empty(task, "name")); !name.empty()) {
    attribution.set_task_name(std::move(name));
  }
  std::string role = allocated_role(config);
  if (role.empty()) role = allocated_role(executor);
  // Last: a variable is what the framework says, resources are what the master allocated.
  if (role.empty()) role = variable(command, "MESOS_ALLOCATION_ROLE");
  if (!role.empty()) attribution.set_role(std::move(role));
  read_labels(task, attribution);
  if (attribution.labels().labels_size() == 0) read_labels(executor, attribution);
  return attribution;
}

// --- Volumes ---

struct Volumes {
  std::vector<ReadVolume> external;
  std::vector<ReadVolume> elsewhere;  // those that other isolators mount
  Problems elsewhere_problems;        // matter only where there are external ones to compare with
};

std::string_view text_in(const json::object& from, std::string_view name) {
  const json::value* found = from.if_contains(name);
  const auto* text = found == nullptr ? nullptr : found->if_string();
  return text == nullptr ? std::string_view() : std::string_view(text->data(), text->size());
}

std::string_view source_type(const json::object& volume) {
  const json::value* source = present(volume, "source");
  return source == nullptr ? std::string_view() : json::text_or_empty(*source, "type");
}

ReadVolume read_elsewhere(const json::object& from, const std::string& place, Problems& problems) {
  const Text path = text_at(from, "container_path", place, problems);
  ReadVolume read{.place = place, .container_path_place = path.place};
  if (auto normal = check_container_path(path, problems)) {
    read.container_path = *normal;
    read.message.set_container_path(*normal);
  }
  const bool read_only = text_in(from, "mode") == "RO";
  read.message.set_mode(read_only ? v1::Volume::RO : v1::Volume::RW);
  const std::string_view type = source_type(from);
  v1::Volume::Source::Type known = v1::Volume::Source::UNKNOWN;
  if (!type.empty() && v1::Volume::Source::Type_Parse(std::string(type), &known)) {
    read.message.mutable_source()->set_type(known);
  }
  // Only what a person needs to recognise it: not the content of a secret.
  std::string host_path;
  if (known == v1::Volume::Source::HOST_PATH) {
    host_path = cut(json::text_or_empty(member_or_null(from.at("source"), "host_path"), "path"));
    if (!host_path.empty()) read.message.mutable_source()->mutable_host_path()->set_path(host_path);
  } else if (type.empty()) {
    host_path = cut(text_in(from, "host_path"));
    if (!host_path.empty()) read.message.set_host_path(host_path);
  }
  return read;
}

void read_agent_volume(const json::object& from, const std::string& place, const AgentRules& rules,
                       Volumes& volumes, Problems& problems) {
  const std::string_view type = source_type(from);
  if (type == "CSI_VOLUME" && !rules.csi_volumes_elsewhere) {
    problems.add(member(member(place, "source"), "type"),
                 "CSI_VOLUME: dvdi has no driver for CSI plugins, and the task would run without it",
                 "let another isolator mount it and tell dvdi so, or use a Docker volume driver");
    return;
  }
  if (type != "DOCKER_VOLUME") {
    volumes.elsewhere.push_back(read_elsewhere(from, place, volumes.elsewhere_problems));
    return;
  }
  if (present(from, "host_path") != nullptr) {
    problems.add(place, "has both host_path and source: it is not clear where the data lies");
  }
  VolumeDraft draft = read_docker_volume(from, place, problems);
  if (draft.driver.value.empty() && !draft.driver.reported) {
    if (rules.default_driver.empty()) {
      problems.add(draft.driver.place, "the volume names no driver, and there is no default driver",
                   "name one in docker_volume.driver, or configure a default");
      draft.driver.reported = true;
    } else {
      draft.driver.value = rules.default_driver;
    }
  }
  volumes.external.push_back(read_external(draft, problems));
}

// In lenient reading, each volume has problems of its own, which make it a warning.
void read_volumes(const json::object& info, const std::string& place, const AgentRules& rules,
                  Reading reading, Volumes& volumes, v1::ContainerRequest& request, Problems& problems) {
  const json::array* array = array_member(info, "volumes", place, problems);
  const std::string at = member(place, "volumes");
  if (array == nullptr || too_many_volumes(array->size(), at, problems)) return;
  for (std::size_t i = 0; i < array->size(); ++i) {
    const std::string one = element(at, i);
    Problems own;
    const std::size_t before = volumes.external.size();
    if (const json::object* volume = (*array)[i].if_object()) {
      read_agent_volume(*volume, one, rules, volumes, reading == Reading::strict ? problems : own);
    } else {
      (reading == Reading::strict ? problems : own)
          .add(one, fmt::format("is {}, not a Volume", kind((*array)[i])));
    }
    if (own.empty()) continue;
    volumes.external.resize(std::min(before, volumes.external.size()));
    request.add_warnings(own.error(fmt::format("{} is left out: it", one)).text());
  }
}

std::vector<std::pair<std::string, std::string>> volume_variables(const json::value& command,
                                                                  std::string_view place,
                                                                  Problems& problems) {
  std::vector<std::pair<std::string, std::string>> found;
  for (const json::value& one : elements(json::find(member_or_null(command, "environment"), "variables"))) {
    const std::string name(json::text_or_empty(one, "name"));
    if (!is_volume_variable(name)) continue;
    if (json::text_or_empty(one, "type") == "SECRET" || json::find(one, "secret") != nullptr) {
      problems.add(member(place, name), "is a secret: the names of volumes cannot be");
      continue;
    }
    found.emplace_back(name, json::text_or_empty(one, "value"));
  }
  return found;
}

void read_environment_volumes(const json::value& command, const std::string& place, Reading reading,
                              Volumes& volumes, v1::ContainerRequest& request, Problems& problems) {
  Problems own;
  std::vector<std::string> warnings;
  const std::string at = member(place, "environment");
  auto read = read_environment(volume_variables(command, at, own), at, own, warnings);
  read = without_repetitions(std::move(read), own);
  if (!own.empty() && reading == Reading::lenient) {
    request.add_warnings(own.error("the volumes of " + at + " are left out: they").text());
    return;
  }
  problems.add(std::move(own));
  for (std::string& warning : warnings) request.add_warnings(std::move(warning));
  if (!read.empty()) request.add_forms(v1::ContainerRequest::ENVIRONMENT);
  std::move(read.begin(), read.end(), std::back_inserter(volumes.external));
}

void read_all_volumes(const json::object* info, const std::string& info_place, const json::value& command,
                      const std::string& command_place, const AgentRules& rules, Reading reading,
                      v1::ContainerRequest& request, Problems& problems) {
  Volumes volumes;
  if (info != nullptr) read_volumes(*info, info_place, rules, reading, volumes, request, problems);
  if (rules.environment) {
    read_environment_volumes(command, command_place, reading, volumes, request, problems);
  }
  const bool compare = !volumes.external.empty() && reading == Reading::strict;
  std::vector<ReadVolume> all = std::move(volumes.external);
  std::move(volumes.elsewhere.begin(), volumes.elsewhere.end(), std::back_inserter(all));
  if (compare) {
    problems.add(std::move(volumes.elsewhere_problems));
    if (!too_many_volumes(all.size(), "the container", problems)) check_together(all, problems);
  }
  v1::ContainerInfo& to = *request.mutable_container_info();
  to.set_type(v1::ContainerInfo::MESOS);
  for (ReadVolume& volume : all) *to.add_volumes() = std::move(volume.message);
}

}  // namespace

Result<std::string> container_id_text(const json::value& id) {
  Problems problems;
  auto text = any_id_text(id, "container_id", problems);
  if (!text) return problems.error("the container id");
  return *std::move(text);
}

Result<v1::ContainerRequest> parse_container_config(const json::value& config, const std::string& id,
                                                    const AgentRules& rules) {
  Problems problems;
  v1::ContainerRequest request;
  const std::string title = fmt::format("the configuration of container {}", quoted(id));
  const json::object* object = config.if_object();
  if (object == nullptr) {
    problems.add("", fmt::format("it is {}, not a ContainerConfig", kind(config)));
    return problems.error(title);
  }
  request.mutable_container_id()->set_value(id);
  request.add_forms(v1::ContainerRequest::MESOS_CONTAINER_CONFIG);
  const Text directory = text_at(*object, "directory", "", problems);
  if (!directory.value.empty() && check_absolute_path(directory, "the sandbox", problems)) {
    request.set_directory(directory.value);
  }
  const Text rootfs = text_at(*object, "rootfs", "", problems);
  if (!rootfs.value.empty() && check_absolute_path(rootfs, "the root file system", problems)) {
    if (rootfs.value.find_first_not_of("/.") == std::string::npos) {
      problems.add(rootfs.place, "is the host's root");
    }
    request.set_rootfs(rootfs.value);
  }
  static const json::value none;
  const json::value* command = present(*object, "command_info");
  if (command == nullptr) command = &none;
  *request.mutable_attribution() = attribution_of(config, *command);
  const Text user = text_at(*object, "user", "", problems);
  if (!user.value.empty() && check_user(user, problems)) {
    request.mutable_command()->set_user(user.value);
    request.mutable_attribution()->set_user(user.value);
  }
  const Text container_class = text_at(*object, "container_class", "", problems);
  if (container_class.value != "DEBUG") {
    read_all_volumes(object_member(*object, "container_info", "", problems), "container_info", *command,
                     "command_info", rules, Reading::strict, request, problems);
  }
  if (!problems.empty()) return problems.error(title);
  return request;
}

Result<ContainerState> parse_container_state(const json::value& state, const AgentRules& rules) {
  Problems problems;
  ContainerState read;
  const json::object* object = state.if_object();
  if (object == nullptr) {
    problems.add("", fmt::format("it is {}, not a ContainerState", kind(state)));
    return problems.error("the state of a container");
  }
  const json::value* id = present(*object, "container_id");
  if (id == nullptr) {
    problems.add("container_id", "is missing");
    return problems.error("the state of a container");
  }
  auto text = any_id_text(*id, "container_id", problems);
  if (!text) return problems.error("the state of a container");
  read.id = *std::move(text);

  if (const json::value* pid = present(*object, "pid"); pid != nullptr && pid->is_int64()) {
    const std::int64_t number = pid->get_int64();
    if (number > 0 && number <= std::numeric_limits<std::int32_t>::max()) {
      read.pid = static_cast<std::int32_t>(number);
    }
  }
  // From here on what is wrong is a warning.
  const Text directory = text_at(*object, "directory", "", problems);
  if (!directory.value.empty() && check_absolute_path(directory, "the sandbox", problems)) {
    read.directory = directory.value;
    read.request.set_directory(directory.value);
  }
  read.request.mutable_container_id()->set_value(read.id);
  read.request.add_forms(v1::ContainerRequest::MESOS_CONTAINER_CONFIG);
  const json::value& executor = member_or_null(state, "executor_info");
  const json::value& command = member_or_null(executor, "command");
  *read.request.mutable_attribution() = attribution_of(state, command);
  if (const std::string user = cut(json::text_or_empty(command, "user")); !user.empty()) {
    read.request.mutable_command()->set_user(user);
    read.request.mutable_attribution()->set_user(user);
  }
  // A top-level container has its volumes in the executor's container, every other one its own.
  const json::object* info = object_member(*object, "container_info", "", problems);
  std::string place = "container_info";
  if (info == nullptr) {
    info = member_or_null(executor, "container").if_object();
    place = "executor_info.container";
  }
  read_all_volumes(info, place, command, "executor_info.command", rules, Reading::lenient, read.request,
                   problems);
  if (!problems.empty()) read.request.add_warnings(problems.error("something of the container").text());
  return read;
}

}  // namespace dvdi::spec
