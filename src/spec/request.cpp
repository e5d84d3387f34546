#include "spec/request.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "base/text.h"
#include "spec/document.h"
#include "spec/environment.h"
#include "spec/marathon.h"
#include "spec/mesos.h"
#include "spec/problems.h"
#include "spec/rules.h"
#include "spec/volume.h"
#include "spec/volume_flag.h"

namespace dvdi::spec {

namespace {

using Form = v1::ContainerRequest::Form;

std::vector<std::string_view> members_among(const json::object& document,
                                            std::initializer_list<std::string_view> names) {
  std::vector<std::string_view> found;
  for (const std::string_view name : names) {
    if (document.contains(name)) found.push_back(name);
  }
  return found;
}

// What a document is that is no request of ours but looks like something that people have.
std::string_view known_stranger(const json::object& document) {
  if (document.contains("task_id") || document.contains("task_infos") || document.contains("executor_id")) {
    return "a Mesos TaskInfo; take its container (a ContainerInfo) and give the command after --";
  }
  if (document.contains("container_path")) return "one Mesos Volume; put it in an array: [ … ]";
  if (document.contains("containerPath")) {
    return "one volume of a Marathon app; put it in container.volumes of an app";
  }
  if (document.contains("containers")) return "a Marathon pod; only apps are supported";
  if (document.contains("apps") || document.contains("groups")) {
    return "a Marathon group; give one of its apps";
  }
  return {};
}

// Recognised by content: what one form has and no other may have.
std::optional<Form> recognise(const json::value& document, Problems& problems) {
  if (document.is_array()) return v1::ContainerRequest::MESOS_VOLUMES;
  const json::object* object = document.if_object();
  if (object == nullptr) {
    problems.add("", fmt::format("the document is {}; a request is an array or an object", kind(document)));
    return std::nullopt;
  }
  if (const std::string_view stranger = known_stranger(*object); !stranger.empty()) {
    problems.add("", fmt::format("this is {}", stranger));
    return std::nullopt;
  }
  const auto marathon =
      members_among(*object, {"id", "cmd", "args", "container", "instances", "env", "cpus", "mem"});
  const auto mesos = members_among(*object, {"type", "volumes", "mesos", "docker", "network_infos",
                                             "linux_info", "rlimit_info", "tty_info"});
  if (!marathon.empty() && !mesos.empty()) {
    problems.add("", fmt::format("ambiguous: {} would make it a Marathon app, {} a Mesos ContainerInfo",
                                 fmt::join(marathon, ", "), fmt::join(mesos, ", ")));
    return std::nullopt;
  }
  if (!marathon.empty()) return v1::ContainerRequest::MARATHON_APP;
  if (!mesos.empty()) return v1::ContainerRequest::MESOS_CONTAINER_INFO;
  problems.add("",
               "this is neither a Marathon app (id, cmd or args, container) nor a Mesos ContainerInfo "
               "(type, volumes) nor an array of Mesos Volumes");
  return std::nullopt;
}

// nullopt: not even its form could be told.
std::optional<std::pair<Form, FileContents>> read_file(const std::string& text, const std::string& file_name,
                                                       Problems& problems) {
  const auto document = json::parse(text, file_name.empty() ? "the request" : quoted(file_name));
  if (!document) {
    problems.add("", document.error().message);
    return std::nullopt;
  }
  check_duplicate_keys(text, problems);
  const auto form = recognise(*document, problems);
  if (!form) return std::nullopt;
  FileContents contents;
  if (form == v1::ContainerRequest::MARATHON_APP) {
    contents = read_marathon_app(document->get_object(), problems);
  } else if (form == v1::ContainerRequest::MESOS_CONTAINER_INFO) {
    contents = read_container_info(document->get_object(), problems);
  } else {
    contents.volumes = read_mesos_volumes(document->get_array(), "", problems);
  }
  return std::pair{*form, std::move(contents)};
}

std::size_t size_of(const Input& input) {
  std::size_t size = input.file_text ? input.file_text->size() : 0;
  for (const std::string& flag : input.volume_flags) size += flag.size();
  for (const std::string& argument : input.command) size += argument.size();
  for (const auto& [name, value] : input.environment) {
    if (is_volume_variable(name)) size += name.size() + value.size();
  }
  for (const auto& [key, value] : input.labels) size += key.size() + value.size();
  return size;
}

void read_command_line(const Input& input, bool command_in_file, v1::CommandInfo& command,
                       Problems& problems) {
  if (command_in_file) {
    if (command.has_value() && !input.command.empty()) {
      problems.add("the command after --", "a Marathon app says itself what to run: give one of the two");
    }
    return;
  }
  if (input.command.empty() && !input.needs_command) return;
  if (input.command.empty()) {
    problems.add("the command", "is missing", "give it at the end: -- COMMAND [ARG...]");
    return;
  }
  if (input.command.front().empty()) problems.add("the command", "names no program");
  for (std::size_t i = 0; i < input.command.size(); ++i) {
    const std::string place = i == 0 ? "the command" : fmt::format("argument {} of the command", i);
    check_argument(input.command[i], place, problems);
    if (!is_utf8(input.command[i])) problems.add(place, "is not UTF-8");
    command.add_arguments(input.command[i]);
  }
  command.set_shell(false);
  command.set_value(input.command.front());
}

void read_user(const Input& input, v1::ContainerRequest& request, Problems& problems) {
  v1::CommandInfo& command = *request.mutable_command();
  if (input.user) {
    if (!is_utf8(*input.user)) {
      problems.add("--user", "is not UTF-8");
    } else if (check_user({.value = *input.user, .place = "--user"}, problems)) {
      if (command.has_user() && command.user() != *input.user) {
        problems.add("--user",
                     fmt::format("is {}, the app's user is {}", quoted(*input.user), quoted(command.user())));
      }
      command.set_user(*input.user);
    }
  }
  if (command.has_user()) request.mutable_attribution()->set_user(command.user());
}

void read_labels(const Input& input, v1::ContainerRequest& request, Problems& problems) {
  if (input.labels.empty()) return;
  v1::Labels& labels = *request.mutable_attribution()->mutable_labels();
  std::map<std::string, std::string> known;
  for (const v1::Label& one : labels.labels()) known.emplace(one.key(), one.value());
  for (const auto& [key, value] : input.labels) {
    const std::string place = fmt::format("--label {}", printable(key));
    if (!is_utf8(key) || !is_utf8(value)) {
      problems.add(place, "is not UTF-8");
      continue;
    }
    if (!check_label(key, value, place, problems)) continue;
    const auto [other, is_new] = known.emplace(key, value);
    if (is_new) {
      v1::Label& label = *labels.add_labels();
      label.set_key(key);
      label.set_value(value);
    } else if (other->second != value) {
      problems.add(place, fmt::format("is {} and {}: one of them", quoted(other->second), quoted(value)));
    }
  }
  if (known.size() > max_labels) {
    problems.add("--label",
                 fmt::format("makes {} labels, a container may have {}", known.size(), max_labels));
  }
}

void read_places(const Input& input, v1::ContainerRequest& request, Problems& problems) {
  const auto directory = [&](const std::optional<std::string>& path, const std::string& place) {
    if (!path) return false;
    if (is_utf8(*path)) return check_absolute_path({.value = *path, .place = place}, "the folder", problems);
    problems.add(place, "is not UTF-8");
    return false;
  };
  if (directory(input.directory, "--directory")) request.set_directory(*input.directory);
  if (directory(input.rootfs, "--rootfs")) {
    if (input.rootfs->find_first_not_of("/.") == std::string::npos) {
      problems.add("--rootfs", "is the host's root: leave it out");
    }
    request.set_rootfs(*input.rootfs);
  }
  if (input.container_id &&
      check_container_id({.value = *input.container_id, .place = "the container id"}, problems)) {
    request.mutable_container_id()->set_value(*input.container_id);
  }
}

std::string title(const Input& input) {
  return input.file_text && !input.file_name.empty() ? "the request " + quoted(input.file_name)
                                                     : "the request";
}

void append(std::vector<ReadVolume>&& from, std::vector<ReadVolume>& to) {
  std::move(from.begin(), from.end(), std::back_inserter(to));
}

}  // namespace

Result<v1::ContainerRequest> parse_request(const Input& input) {
  Problems problems;
  if (const std::size_t size = size_of(input); size > max_request_bytes) {
    problems.add("", fmt::format("it is {} bytes long, at most {} are allowed", size, max_request_bytes));
    return problems.error(title(input));
  }

  v1::ContainerRequest request;
  FileContents file;
  bool command_in_file = false;
  if (input.file_text) {
    auto read = read_file(*input.file_text, input.file_name, problems);
    // Of a file whose form is not known it cannot be said whether it should hold the command.
    command_in_file = !read || read->first == v1::ContainerRequest::MARATHON_APP;
    if (read) {
      request.add_forms(read->first);
      file = std::move(read->second);
    }
  }
  if (file.command) *request.mutable_command() = *std::move(file.command);
  if (file.attribution.ByteSizeLong() > 0) *request.mutable_attribution() = std::move(file.attribution);

  // The variables of an app are form 4 in form 3: the old isolator found them there.
  std::vector<std::string> warnings = std::move(file.warnings);
  std::vector<ReadVolume> variables =
      read_environment(file.environment, file.environment_place, problems, warnings);
  const std::size_t of_the_app = variables.size();
  append(read_environment(input.environment, "", problems, warnings), variables);
  const bool environment = !variables.empty();
  for (std::size_t i = 0; i < of_the_app; ++i) variables[i].of_the_file = true;
  variables = without_repetitions(std::move(variables), problems);

  std::vector<ReadVolume> volumes = std::move(file.volumes);
  for (ReadVolume& volume : variables) {
    if (volume.of_the_file) volumes.push_back(std::move(volume));
  }
  if (!too_many_volumes(input.volume_flags.size(), "--volume", problems)) {
    for (std::size_t i = 0; i < input.volume_flags.size(); ++i) {
      volumes.push_back(read_volume_flag(input.volume_flags[i], i, problems));
    }
  }
  for (ReadVolume& volume : variables) {
    if (!volume.of_the_file) volumes.push_back(std::move(volume));
  }
  if (!input.volume_flags.empty()) request.add_forms(v1::ContainerRequest::COMMAND_LINE);
  if (environment) request.add_forms(v1::ContainerRequest::ENVIRONMENT);

  if (!too_many_volumes(volumes.size(), "the request", problems)) check_together(volumes, problems);
  read_command_line(input, command_in_file, *request.mutable_command(), problems);
  read_user(input, request, problems);
  read_labels(input, request, problems);
  read_places(input, request, problems);
  if (!problems.empty()) return problems.error(title(input));

  v1::ContainerInfo& info = *request.mutable_container_info();
  info.set_type(v1::ContainerInfo::MESOS);
  for (ReadVolume& volume : volumes) *info.add_volumes() = std::move(volume.message);
  for (std::string& warning : warnings) request.add_warnings(std::move(warning));
  return request;
}

}  // namespace dvdi::spec
