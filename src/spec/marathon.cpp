#include "spec/marathon.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "spec/document.h"
#include "spec/environment.h"

namespace dvdi::spec {

namespace {

constexpr std::string_view option_prefix = "dvdi/";

// `options` of an external volume. The driver is among them.
void read_options(const json::object& external, const std::string& place, VolumeDraft& draft,
                  Problems& problems) {
  draft.options_place = member(place, "options");
  draft.driver = {.place = member(draft.options_place, "dvdi/driver"), .reported = true};
  const json::object* options = object_member(external, "options", place, problems);
  if (options == nullptr || options->if_contains("dvdi/driver") == nullptr) {
    problems.add(draft.options_place, "\"dvdi/driver\" is required: it names the volume driver");
  }
  if (options == nullptr || too_many_options(options->size(), draft.options_place, problems)) return;
  for (const auto& entry : *options) {
    const std::string_view key(entry.key().data(), entry.key().size());
    const std::string one = member(draft.options_place, key);
    const auto value = text_of(entry.value(), one, problems);
    if (!value) continue;
    if (key == "dvdi/driver") {
      draft.driver = {.value = *value, .place = one};
    } else if (key.starts_with(option_prefix)) {
      draft.options.push_back(
          {.key = std::string(key.substr(option_prefix.size())), .value = *value, .place = one});
    } else if (key.starts_with(reserved_prefix)) {
      draft.options.push_back({.key = std::string(key), .value = *value, .place = one});
    } else {
      // Marathon drops such an option without a word; the volume would not be the one that was meant.
      problems.add(one, "is not for dvdi: an option for the driver starts with dvdi/");
    }
  }
}

void read_size(const json::object& external, std::string_view place, VolumeDraft& draft, Problems& problems) {
  const json::value* size = present(external, "size");
  if (size == nullptr) return;
  const std::string size_place = member(place, "size");
  // Boost.JSON keeps a whole number that fits as int64.
  if (!size->is_int64() || size->get_int64() <= 0) {
    problems.add(size_place, "must be a whole number above 0 (GiB)");
    return;
  }
  draft.options.push_back({.key = "size", .value = fmt::to_string(size->get_int64()), .place = size_place});
}

ReadVolume read_external_volume(const json::object& external, VolumeDraft draft, Problems& problems) {
  const std::string place = member(draft.place, "external");
  const Text provider = text_at(external, "provider", place, problems);
  if (!provider.reported && provider.value != "dvdi") {
    problems.add(provider.place, provider.value.empty()
                                     ? "is required: dvdi"
                                     : fmt::format("must be dvdi, it is {}", quoted(provider.value)));
  }
  draft.name = text_at(external, "name", place, problems);
  read_options(external, place, draft, problems);
  read_size(external, place, draft, problems);
  return read_external(draft, problems);
}

ReadVolume read_marathon_volume(const json::object& volume, const std::string& place, Problems& problems) {
  if (volume.contains("container_path") || volume.contains("source")) {
    problems.add(place, "is a volume as Mesos writes it; here one of a Marathon app is expected",
                 "containerPath, mode, external");
    return {.place = place};
  }
  const Text container_path = text_at(volume, "containerPath", place, problems);
  const Text mode = text_at(volume, "mode", place, problems);
  if (!mode.reported && mode.value != "RW" && mode.value != "RO") {
    problems.add(mode.place, mode.value.empty() ? "is required: RW or RO"
                                                : fmt::format("{} is neither RW nor RO", quoted(mode.value)));
  }
  VolumeDraft draft{.place = place,
                    .driver = {.reported = true},
                    .name = {.reported = true},
                    .container_path = container_path,
                    .read_only = mode.value == "RO"};
  std::vector<std::string_view> sources;
  for (const std::string_view key : {"external", "hostPath", "persistent", "secret"}) {
    if (present(volume, key) != nullptr) sources.push_back(key);
  }
  if (sources.size() != 1) {
    problems.add(
        place, sources.empty()
                   ? "has neither external nor hostPath: it is not clear where the data lies"
                   : fmt::format("has {}: it is not clear where the data lies", fmt::join(sources, " and ")));
  }
  for (const std::string_view key : {"persistent", "secret"}) {
    if (present(volume, key) != nullptr) {
      problems.add(member(place, key), fmt::format("a {} volume is not supported by dvdi run", key));
    }
  }
  if (const json::object* external = object_member(volume, "external", place, problems)) {
    return read_external_volume(*external, std::move(draft), problems);
  }
  if (present(volume, "hostPath") != nullptr) {
    return read_host(text_at(volume, "hostPath", place, problems), container_path, draft.read_only, place,
                     problems);
  }
  return read_external(draft, problems);
}

void read_container(const json::object& app, FileContents& contents, Problems& problems) {
  const json::object* container = object_member(app, "container", "", problems);
  if (container == nullptr) return;
  const Text type = text_at(*container, "type", "container", problems);
  if (!type.reported && !type.value.empty() && type.value != "MESOS") {
    problems.add(type.place, type.value == "DOCKER"
                                 ? "DOCKER is not supported: dvdi run is no Docker engine"
                                 : fmt::format("must be MESOS, it is {}", quoted(type.value)));
  }
  if (present(*container, "docker") != nullptr) {
    problems.add("container.docker", "an image is not supported by dvdi run",
                 "unpack it and use --rootfs DIR");
  }
  const json::array* volumes = array_member(*container, "volumes", "container", problems);
  if (volumes == nullptr || too_many_volumes(volumes->size(), "container.volumes", problems)) return;
  for (std::size_t i = 0; i < volumes->size(); ++i) {
    const std::string one = element("container.volumes", i);
    if (const json::object* volume = (*volumes)[i].if_object()) {
      contents.volumes.push_back(read_marathon_volume(*volume, one, problems));
    } else {
      problems.add(one, fmt::format("is {}, not a volume (an object)", kind((*volumes)[i])));
    }
  }
}

void read_command(const json::object& app, v1::CommandInfo& command, Problems& problems) {
  const json::value* cmd = present(app, "cmd");
  const json::value* args = present(app, "args");
  if (cmd != nullptr && args != nullptr)
    problems.add("the app", "has both cmd and args: it is not clear what to run");
  if (cmd == nullptr && args == nullptr)
    problems.add("the app", "has neither cmd nor args: there is nothing to run");
  if (cmd != nullptr && cmd->is_array()) {
    problems.add("cmd", "is an array, not a text", "an argv is written as args");
  } else if (const auto text = text_member(app, "cmd", "", problems)) {
    if (text->empty()) problems.add("cmd", "is empty");
    check_argument(*text, "cmd", problems);
    command.set_shell(true);
    command.set_value(*text);
  }
  const json::array* argv = array_member(app, "args", "", problems);
  if (argv == nullptr) return;
  for (std::size_t i = 0; i < argv->size(); ++i) {
    const std::string place = element("args", i);
    const auto text = text_of((*argv)[i], place, problems);
    if (text && check_argument(*text, place, problems)) command.add_arguments(*text);
  }
  if (argv->empty() || ((*argv)[0].is_string() && (*argv)[0].get_string().empty())) {
    problems.add("args", "names no program");
  }
  command.set_shell(false);
  if (command.arguments_size() > 0) command.set_value(command.arguments(0));
}

void read_environment_of(const json::object& app, FileContents& contents, Problems& problems) {
  const json::object* env = object_member(app, "env", "", problems);
  if (env == nullptr) return;
  contents.environment_place = "env";
  for (const auto& entry : *env) {
    const std::string name(entry.key().data(), entry.key().size());
    const std::string place = member("env", name);
    if (entry.value().is_object()) {
      problems.add(place, "is an object (a secret); only texts are supported by dvdi run");
      continue;
    }
    const auto value = text_of(entry.value(), place, problems);
    if (!value || !check_variable({.value = name, .place = place}, *value, problems)) continue;
    v1::Environment::Variable& variable = *contents.command->mutable_environment()->add_variables();
    variable.set_name(name);
    variable.set_value(*value);
    if (is_volume_variable(name)) contents.environment.emplace_back(name, *value);
  }
}

void read_labels(const json::object& app, v1::Attribution& attribution, Problems& problems) {
  const json::object* labels = object_member(app, "labels", "", problems);
  if (labels == nullptr) return;
  if (labels->size() > max_labels) {
    problems.add("labels", fmt::format("has {} labels, an app may have {}", labels->size(), max_labels));
    return;
  }
  for (const auto& entry : *labels) {
    const std::string key(entry.key().data(), entry.key().size());
    const std::string place = member("labels", key);
    const auto value = text_of(entry.value(), place, problems);
    if (!value || !check_label(key, *value, place, problems)) continue;
    v1::Label& label = *attribution.mutable_labels()->add_labels();
    label.set_key(key);
    label.set_value(*value);
  }
}

// As Marathon names the task: /group/app is app.group.
std::string task_name(std::string_view id) {
  auto parts = split(id, '/');
  std::erase_if(parts, [](std::string_view part) { return part.empty(); });
  std::reverse(parts.begin(), parts.end());
  return fmt::format("{}", fmt::join(parts, "."));
}

void read_identity(const json::object& app, FileContents& contents, Problems& problems) {
  if (present(app, "id") != nullptr) {
    const Text id = text_at(app, "id", "", problems);
    if (!id.reported && check_label_text(id, problems)) {
      contents.attribution.set_task_id(id.value);
      if (std::string name = task_name(id.value); !name.empty()) contents.attribution.set_task_name(name);
    }
  }
  if (present(app, "role") != nullptr) {
    const Text role = text_at(app, "role", "", problems);
    if (!role.reported && check_label_text(role, problems)) contents.attribution.set_role(role.value);
  }
  if (present(app, "user") != nullptr) {
    const Text user = text_at(app, "user", "", problems);
    if (check_user(user, problems)) contents.command->set_user(user.value);
  }
}

void warn(const json::object& app, FileContents& contents) {
  const json::value* instances = present(app, "instances");
  if (instances != nullptr && !(instances->is_int64() && instances->get_int64() == 1)) {
    contents.warnings.emplace_back("instances is not 1: dvdi run runs the app once");
  }
  // What the task would see or do on a cluster and does not here. Scheduling (cpus, constraints, …) is no
  // such thing and ignored.
  for (const std::string_view key :
       {"fetch", "uris", "networks", "ipAddress", "secrets", "residency", "dependencies"}) {
    const json::value* value = present(app, key);
    if (value == nullptr || (value->is_array() && value->get_array().empty())) continue;
    contents.warnings.push_back(fmt::format("{} has no effect here", key));
  }
}

}  // namespace

FileContents read_marathon_app(const json::object& app, Problems& problems) {
  FileContents contents;
  contents.command.emplace();
  read_identity(app, contents, problems);
  read_command(app, *contents.command, problems);
  read_environment_of(app, contents, problems);
  read_labels(app, contents.attribution, problems);
  read_container(app, contents, problems);
  warn(app, contents);
  return contents;
}

}  // namespace dvdi::spec
