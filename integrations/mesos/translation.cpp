#include "translation.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "container_paths.h"
#include "text.h"

namespace dvdi_mesos {

namespace {

using Json = nlohmann::json;

constexpr std::size_t max_depth = 16;  // of nested containers; dvdid's own limit

// protobuf's texts may have any bytes: what is no UTF-8 becomes U+FFFD, and `whole` false.
Json parse(const std::string& text, bool* whole = nullptr) {
  Json parsed = Json::parse(text, nullptr, false);
  if (!parsed.is_discarded()) return parsed;
  if (whole != nullptr) *whole = false;
  const std::string as_text = Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  return Json::parse(Json::parse(as_text).get_ref<const std::string&>(), nullptr, false);
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

const Json& find(const Json& from, const char* name) {
  static const Json none;
  if (!from.is_object()) return none;
  const auto found = from.find(name);
  return found == from.end() ? none : *found;
}

std::string text(const Json& from, const char* name) {
  const Json& found = find(from, name);
  return found.is_string() ? found.get<std::string>() : std::string();
}

const Json& elements(const Json& from, const char* name) {
  static const Json none = Json::array();
  const Json& found = find(from, name);
  return found.is_array() ? found : none;
}

void copy(const Json& from, Json& to, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const Json& found = find(from, name);
    if (!found.is_null()) to[name] = found;
  }
}

// --- Volumes ---

std::string source_type(const Json& volume) { return text(find(volume, "source"), "type"); }

bool has_option(const Json& parameters, const std::string& key, const char* value) {
  return std::any_of(parameters.begin(), parameters.end(), [&](const Json& one) {
    const std::string name = text(one, "key");
    return (name == key || name == "dvdi/" + key) && (value == nullptr || text(one, "value") == value);
  });
}

// A DOCKER_VOLUME whole, with what the module's parameters add.
Json external_volume(const Json& volume, const Rules& rules) {
  Json sent = Json::object();
  copy(volume, sent, {"container_path", "mode", "host_path"});
  const Json& docker = find(find(volume, "source"), "docker_volume");
  Json to = Json::object();
  copy(docker, to, {"driver", "name", "driver_options"});
  if (text(docker, "driver").empty() && !rules.default_driver.empty()) to["driver"] = rules.default_driver;
  const Json& options = elements(find(docker, "driver_options"), "parameter");
  // A volume that stays on the host has no owner to ask for.
  if (!rules.ownership.empty() && !has_option(options, "dvdi.ownership", nullptr) &&
      !has_option(options, "dvdi.host-only", "true")) {
    Json all = options;
    all.push_back({{"key", "dvdi.ownership"}, {"value", rules.ownership}});
    to["driver_options"] = {{"parameter", all}};
  }
  sent["source"] = {{"type", "DOCKER_VOLUME"}, {"docker_volume", to}};
  return sent;
}

// Of another isolator's volume what dvdid needs to tell that it is in the way: nothing of a secret, and
// nothing that dvdid would take for a request.
Json other_volume(const Json& volume) {
  Json sent = Json::object();
  copy(volume, sent, {"container_path", "mode", "host_path"});
  const std::string type = source_type(volume);
  if (type.empty()) return sent;
  sent["source"] = {{"type", type == "CSI_VOLUME" ? "UNKNOWN" : type}};
  if (type == "HOST_PATH") {
    sent["source"]["host_path"] = {{"path", text(find(find(volume, "source"), "host_path"), "path")}};
  }
  return sent;
}

std::string name_of(const Json& volume) {
  const std::string type = source_type(volume);
  const Json& docker = find(find(volume, "source"), "docker_volume");
  if (type == "DOCKER_VOLUME") {
    const std::string driver = text(docker, "driver");
    return "volume '" + text(docker, "name") + "'" + (driver.empty() ? "" : " of driver '" + driver + "'");
  }
  if (type.empty()) return "host path '" + text(volume, "host_path") + "'";
  return "the " + type;
}

struct Volumes {
  Json sent = Json::array();
  std::vector<ContainerPath> paths;
  bool external = false;
  std::string refused;  // "": nothing is
};

Volumes read_volumes(const Json& info, const Rules& rules) {
  Volumes read;
  for (const Json& volume : elements(info, "volumes")) {
    const std::string type = source_type(volume);
    const bool ours = type == "DOCKER_VOLUME";
    if (type == "CSI_VOLUME" && !rules.csi_volumes_elsewhere && read.refused.empty()) {
      read.refused =
          "the volume at container path '" + text(volume, "container_path") + "' is a CSI_VOLUME (plugin '" +
          text(find(find(volume, "source"), "csi_volume"), "plugin_name") +
          "'): dvdi has no driver for CSI plugins, and the task would run on the bare directory. Use a "
          "DOCKER_VOLUME, or, if another isolator of this agent mounts CSI volumes, set the module "
          "parameter csi_volumes_elsewhere to true";
    }
    read.external = read.external || ours;
    read.sent.push_back(ours ? external_volume(volume, rules) : other_volume(volume));
    read.paths.push_back({text(volume, "container_path"), name_of(volume), ours});
  }
  return read;
}

// --- The environment ---

const std::string& volume_variable() {
  static const std::string prefix = "DVDI_VOLUME_";
  return prefix;
}

struct Variables {
  Json sent = Json::array();
  std::vector<ContainerPath> paths;
  bool external = false;
};

// The volumes of the old form, and the role, which a nested container has nowhere else.
Variables read_variables(const Json& command, const Rules& rules) {
  Variables read;
  for (const Json& one : elements(find(command, "environment"), "variables")) {
    const std::string name = text(one, "name");
    const bool ours = starts_with(name, volume_variable());
    if (name != "MESOS_ALLOCATION_ROLE" && !(ours && rules.environment_volumes)) continue;
    Json variable = {{"name", name}};
    const bool secret = text(one, "type") == "SECRET" || !find(one, "secret").is_null();
    if (secret) {
      variable["type"] = "SECRET";  // dvdid refuses it by its name
    } else {
      variable["value"] = text(one, "value");
    }
    read.sent.push_back(variable);
    // One that is empty counts as not set, and DVDCLI alone asks for nothing: so it was with the old
    // isolator.
    const bool counts = secret || !text(one, "value").empty();
    if (!ours || !counts || starts_with(name, "DVDI_VOLUME_DVDCLI")) continue;
    read.external = true;
    if (starts_with(name, "DVDI_VOLUME_CONTAINERPATH")) {
      read.paths.push_back({text(one, "value"), "variable " + name, true});
    }
  }
  return read;
}

// --- Who it is for ---

Json reservation(const Json& from) {
  Json to = Json::object();
  copy(from, to, {"type", "role", "principal"});
  return to;
}

Json roles_and_reservations(const Json& resources) {
  Json sent = Json::array();
  for (const Json& resource : resources) {
    Json one = Json::object();
    copy(resource, one, {"role"});
    const std::string role = text(find(resource, "allocation_info"), "role");
    if (!role.empty()) one["allocation_info"] = {{"role", role}};
    if (find(resource, "reservation").is_object()) {
      one["reservation"] = reservation(find(resource, "reservation"));
    }
    for (const Json& inner : elements(resource, "reservations")) {
      one["reservations"].push_back(reservation(inner));
    }
    if (!one.empty() && std::find(sent.begin(), sent.end(), one) == sent.end()) sent.push_back(one);
  }
  return sent;
}

void add_resources(const Json& from, Json& to) {
  Json resources = roles_and_reservations(elements(from, "resources"));
  if (!resources.empty()) to["resources"] = std::move(resources);
}

Json executor(const Json& info) {
  Json sent = Json::object();
  copy(info, sent, {"executor_id", "framework_id", "type", "source", "labels"});
  // By its name dvdid tells an executor that the agent made for one task; what follows is a command line.
  const std::string marked = "Command Executor ";
  if (starts_with(text(info, "name"), marked)) sent["name"] = marked;
  add_resources(info, sent);
  return sent;
}

Json with_variables(const Json& variables) { return {{"environment", {{"variables", variables}}}}; }

bool write_id(const Json& id, std::size_t depth, std::string& key) {
  const std::string value = text(id, "value");
  if (value.empty() || depth == max_depth) return false;
  const Json& parent = find(id, "parent");
  if (!parent.is_null() && !write_id(parent, depth + 1, key)) return false;
  key += (key.empty() ? "" : ".") + value;
  return true;
}

Json only_id(const Json& id, std::size_t depth = 0) {
  Json sent = Json::object();
  copy(id, sent, {"value"});
  const Json& parent = find(id, "parent");
  if (!parent.is_null() && depth < max_depth) sent["parent"] = only_id(parent, depth + 1);
  return sent;
}

Json key_document(const std::string& owner, const std::string& container_id) {
  return {{"owner", owner}, {"container_id", only_id(parse(container_id))}};
}

View view_of(const Json& config, const std::string& sandbox_directory) {
  View view;
  view.rootfs = !text(config, "rootfs").empty();
  view.sandbox = view.rootfs ? sandbox_directory : text(config, "directory");
  return view;
}

PrepareDocument refused(std::string why) {
  PrepareDocument document;
  document.what = PrepareDocument::What::refused;
  document.text = std::move(why);
  return document;
}

// A volume as the first isolator's list has it: as the variables asked for it.
Json former_volume(const FormerMount& mount) {
  Json options = Json::array();
  const auto add = [&](const std::string& key, const std::string& value) {
    options.push_back({{"key", key}, {"value", value}});
  };
  std::size_t at = 0;
  while (at < mount.options.size()) {
    const std::size_t end = std::min(mount.options.find(',', at), mount.options.size());
    const std::string option = mount.options.substr(at, end - at);
    const std::size_t equal = option.find('=');
    if (equal != std::string::npos && equal != 0) add(option.substr(0, equal), option.substr(equal + 1));
    at = end + 1;
  }
  if (mount.container_path.empty()) add("dvdi.host-only", "true");
  Json docker = {{"driver", mount.driver}, {"name", mount.volume}};
  if (!options.empty()) docker["driver_options"] = {{"parameter", options}};
  Json volume = {{"mode", "RW"}, {"source", {{"type", "DOCKER_VOLUME"}, {"docker_volume", docker}}}};
  if (!mount.container_path.empty()) volume["container_path"] = mount.container_path;
  return volume;
}

void drop_volume_variables(Json& executor_info) {
  Json kept = Json::array();
  for (const Json& one : elements(find(find(executor_info, "command"), "environment"), "variables")) {
    if (!starts_with(text(one, "name"), volume_variable())) kept.push_back(one);
  }
  executor_info["command"]["environment"]["variables"] = std::move(kept);
}

std::string elsewhere(const std::string& target, const std::string& volume,
                      const std::string& sandbox_directory) {
  return "dvdid has no mount at '" + target + "' for " + volume + ". This agent shows sandboxes at '" +
         sandbox_directory +
         "' (--sandbox_directory): set sandbox_in_container in dvdid's configuration to the same, and "
         "restart "
         "dvdid";
}

bool read_mount(const Json& from, Mount& mount) {
  mount.target = text(from, "target");
  mount.source = text(from, "source");
  mount.type = text(from, "type");
  mount.options = text(from, "options");
  const Json& flags = find(from, "flags");
  if (!flags.is_number_unsigned() || flags.get<std::uint64_t>() > std::numeric_limits<std::uint32_t>::max()) {
    return false;
  }
  mount.flags = flags.get<std::uint32_t>();
  return starts_with(mount.target, "/") && starts_with(mount.source, "/");
}

}  // namespace

PrepareDocument prepare_document(const std::string& owner, const std::string& container_id,
                                 const std::string& container_config, const std::string& sandbox_directory,
                                 const Rules& rules) {
  bool whole = true;
  const Json config = parse(container_config, &whole);
  if (!config.is_object()) return refused("the agent's ContainerConfig cannot be read as JSON");
  // A DEBUG container enters the namespaces of its parent and finds the volumes there; it has none itself.
  if (text(config, "container_class") == "DEBUG") return {};
  const Json& command = find(config, "command_info");
  const Json& info = find(config, "container_info");
  Volumes volumes = read_volumes(info, rules);
  Variables variables = read_variables(command, rules);
  if (!volumes.refused.empty()) return refused(volumes.refused);
  if (!volumes.external && !variables.external) return {};
  if (!whole) {
    return refused(
        "the container's description has bytes that are no UTF-8: which volumes it means is not certain");
  }

  std::vector<ContainerPath> paths = std::move(volumes.paths);
  paths.insert(paths.end(), variables.paths.begin(), variables.paths.end());
  std::string in_the_way = check_apart(paths, view_of(config, sandbox_directory));
  if (!in_the_way.empty()) return refused(std::move(in_the_way));

  Json sent = Json::object();
  copy(config, sent, {"directory", "rootfs", "user", "container_class"});
  if (info.is_object()) sent["container_info"] = {{"type", "MESOS"}, {"volumes", volumes.sent}};
  if (!variables.sent.empty()) sent["command_info"] = with_variables(variables.sent);
  const Json& executor_info = find(config, "executor_info");
  if (executor_info.is_object()) sent["executor_info"] = executor(executor_info);
  const Json& task_info = find(config, "task_info");
  if (task_info.is_object()) {
    sent["task_info"] = Json::object();
    copy(task_info, sent["task_info"], {"task_id", "name", "labels"});
  }
  add_resources(config, sent);

  Json document = key_document(owner, container_id);
  document["container_config"] = std::move(sent);
  PrepareDocument call;
  call.what = PrepareDocument::What::call;
  call.text = dump(document);
  return call;
}

std::string isolate_document(const std::string& owner, const std::string& container_id, std::int64_t pid) {
  Json document = key_document(owner, container_id);
  document["pid"] = pid;
  return dump(document);
}

std::string cleanup_document(const std::string& owner, const std::string& container_id) {
  return dump(key_document(owner, container_id));
}

std::string sandbox_of(const std::string& container_config) {
  return text(parse(container_config), "directory");
}

std::string container_key(const std::string& container_id) {
  std::string key;
  return write_id(parse(container_id), 0, key) ? key : std::string();
}

LiveContainer live_container(const std::string& container_state, const Rules& rules) {
  const Json state = parse(container_state);
  const Json& executor_info = find(state, "executor_info");
  const bool own = find(state, "container_info").is_object();
  const Json& info = own ? find(state, "container_info") : find(executor_info, "container");
  Volumes volumes = read_volumes(info, rules);
  Variables variables = read_variables(find(executor_info, "command"), rules);

  Json sent = Json::object();
  copy(state, sent, {"pid", "directory"});
  sent["container_id"] = only_id(find(state, "container_id"));
  Json container = {{"type", "MESOS"}, {"volumes", volumes.sent}};
  if (executor_info.is_object()) {
    sent["executor_info"] = executor(executor_info);
    const std::string user = text(find(executor_info, "command"), "user");
    Json command = with_variables(variables.sent);
    if (!user.empty()) command["user"] = user;
    sent["executor_info"]["command"] = std::move(command);
    if (!own) sent["executor_info"]["container"] = container;
  }
  if (own) sent["container_info"] = std::move(container);

  LiveContainer live;
  write_id(find(state, "container_id"), 0, live.key);
  live.directory = text(state, "directory");
  live.document = dump(sent);
  live.external = volumes.external || variables.external;
  return live;
}

bool add_former_mounts(LiveContainer& live, const std::vector<FormerMount>& mounts) {
  Json added = Json::array();
  for (const FormerMount& mount : mounts) {
    if (mount.container == live.key) added.push_back(former_volume(mount));
  }
  if (added.empty()) return false;
  Json state = parse(live.document);
  Json* const executor_info = state.contains("executor_info") ? &state["executor_info"] : nullptr;
  if (executor_info != nullptr) drop_volume_variables(*executor_info);
  const bool own = state.contains("container_info") || executor_info == nullptr;
  Json& info = own ? state["container_info"] : (*executor_info)["container"];
  if (!info.is_object()) info = {{"type", "MESOS"}, {"volumes", Json::array()}};
  Json& volumes = info["volumes"];
  for (const Json& one : added) {
    const bool known = std::any_of(volumes.begin(), volumes.end(),
                                   [&](const Json& other) { return name_of(other) == name_of(one); });
    if (!known) volumes.push_back(one);
  }
  live.document = dump(state);
  live.external = true;
  return true;
}

std::string recover_document(const std::string& owner, const std::vector<LiveContainer>& containers,
                             const std::vector<std::string>& orphans) {
  Json document = {{"owner", owner},
                   {"work_dir", owner},
                   {"complete", true},
                   {"containers", Json::array()},
                   {"orphans", Json::array()}};
  for (const LiveContainer& one : containers) document["containers"].push_back(parse(one.document));
  for (const std::string& one : orphans) document["orphans"].push_back(only_id(parse(one)));
  return dump(document);
}

std::vector<std::string> read_recovered(const std::string& answer) {
  const Json document = parse(answer);
  std::vector<std::string> sentences;
  for (const Json& one : elements(document, "missing")) {
    sentences.push_back("volume '" + text(one, "volume") + "' of driver '" + text(one, "driver") +
                        "', which live container " + text(one, "id") +
                        " has, is not certainly mounted: " + text(one, "reason"));
  }
  for (const Json& one : elements(document, "warnings")) {
    if (one.is_string()) sentences.push_back(one.get<std::string>());
  }
  return sentences;
}

std::string adopt_document(const std::string& from, const std::vector<FormerMount>& mounts) {
  Json document = {{"from", from}, {"mounts", Json::array()}};
  for (const FormerMount& one : mounts) {
    document["mounts"].push_back(
        {{"driver", one.driver}, {"name", one.volume}, {"mount_point", one.mount_point}});
  }
  return dump(document);
}

bool read_adopted(const std::string& answer, std::vector<AdoptedMount>& adopted) {
  const Json document = parse(answer);
  if (!find(document, "mounts").is_array()) return false;
  for (const Json& one : find(document, "mounts")) {
    AdoptedMount mount;
    mount.there = text(one, "result") != "absent";
    mount.reason = text(one, "reason");
    adopted.push_back(std::move(mount));
  }
  return true;
}

bool known_containers(const std::string& answer, const std::string& owner, std::set<std::string>& ids) {
  const Json document = parse(answer);
  if (!find(document, "containers").is_array()) return false;
  for (const Json& one : find(document, "containers")) {
    if (text(one, "owner") == owner) ids.insert(text(one, "id"));
  }
  return true;
}

bool read_launch_info(const std::string& answer, LaunchInfo& launch_info, std::string& error) {
  const Json document = parse(answer);
  const Json& info = find(document, "launch_info");
  if (!info.is_object()) {
    error = "dvdid's answer has no launch_info";
    return false;
  }
  for (const Json& one : elements(info, "mounts")) {
    Mount mount;
    if (!read_mount(one, mount)) {
      error = "dvdid's answer has a mount that no launcher can make: " + dump(one);
      return false;
    }
    launch_info.mounts.push_back(std::move(mount));
  }
  for (const Json& one : elements(info, "clone_namespaces")) {
    if (one.is_number_integer()) launch_info.clone_namespaces.push_back(one.get<int>());
  }
  return true;
}

std::string check_sandbox_place(const std::string& container_config, const std::string& sandbox_directory,
                                const LaunchInfo& launch_info, const Rules& rules) {
  const Json config = parse(container_config);
  const std::string rootfs = text(config, "rootfs");
  if (rootfs.empty()) return {};
  std::vector<ContainerPath> paths;
  for (const Json& volume : elements(find(config, "container_info"), "volumes")) {
    const Json& options =
        elements(find(find(find(volume, "source"), "docker_volume"), "driver_options"), "parameter");
    if (source_type(volume) != "DOCKER_VOLUME" || has_option(options, "dvdi.host-only", "true")) continue;
    paths.push_back({text(volume, "container_path"), name_of(volume), true});
  }
  const Variables variables = read_variables(find(config, "command_info"), rules);
  paths.insert(paths.end(), variables.paths.begin(), variables.paths.end());
  for (const ContainerPath& one : paths) {
    const std::string& path = one.path;
    if (path.empty()) continue;
    const std::string place = place_in_container(path, view_of(config, sandbox_directory));
    // Elsewhere in the root file system its own links may lead to another target.
    if (!starts_with(place, sandbox_directory + "/")) continue;
    const std::string target = rootfs + place;
    if (std::any_of(launch_info.mounts.begin(), launch_info.mounts.end(),
                    [&](const Mount& mount) { return mount.target == target; })) {
      continue;
    }
    return elsewhere(target, one.what, sandbox_directory);
  }
  return {};
}

}  // namespace dvdi_mesos
