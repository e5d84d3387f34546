// dvdi's own form of a request: read strictly, by the message's own description, then checked like every
// other form.
#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/text.h"
#include "spec/agent.h"
#include "spec/document.h"
#include "spec/mesos.h"
#include "spec/problems.h"
#include "spec/request.h"
#include "spec/rules.h"
#include "spec/volume.h"

namespace dvdi::spec {

namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int max_depth = 32;
constexpr std::size_t max_elements = 16384;  // of one array: `arguments` is the one that may be long
constexpr std::size_t max_warnings = 256;
constexpr std::size_t max_warning_bytes = 4096;

void fill(const json::object& from, const std::string& place, int depth, Message& into, Problems& problems);

const FieldDescriptor* field_named(const Message& message, std::string_view name) {
  const google::protobuf::Descriptor& type = *message.GetDescriptor();
  const std::string text(name);
  if (const FieldDescriptor* field = type.FindFieldByName(text)) return field;
  for (int i = 0; i < type.field_count(); ++i) {
    if (type.field(i)->json_name() == text) return type.field(i);
  }
  return nullptr;
}

// One value of a field: set, or added where the field is repeated. The messages of a request have texts,
// truth values, enums and messages, and nothing else.
void put(const json::value& value, const FieldDescriptor& field, const std::string& place, int depth,
         Message& into, Problems& problems) {
  const auto& reflection = *into.GetReflection();
  const bool repeated = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      if (auto text = text_of(value, place, problems)) {
        if (repeated) return reflection.AddString(&into, &field, *std::move(text));
        reflection.SetString(&into, &field, *std::move(text));
      }
      return;
    case FieldDescriptor::CPPTYPE_BOOL:
      if (!value.is_bool()) return problems.add(place, fmt::format("is {}, not true or false", kind(value)));
      return reflection.SetBool(&into, &field, value.get_bool());
    case FieldDescriptor::CPPTYPE_ENUM: {
      const auto name = text_of(value, place, problems);
      if (!name) return;
      const auto* number = field.enum_type()->FindValueByName(*name);
      if (number == nullptr) return problems.add(place, fmt::format("dvdi knows no {}", quoted(*name)));
      if (repeated) return reflection.AddEnum(&into, &field, number);
      return reflection.SetEnum(&into, &field, number);
    }
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const json::object* object = value.if_object();
      if (object == nullptr) return problems.add(place, fmt::format("is {}, not an object", kind(value)));
      Message& inner =
          repeated ? *reflection.AddMessage(&into, &field) : *reflection.MutableMessage(&into, &field);
      return fill(*object, place, depth + 1, inner, problems);
    }
    default:
      problems.add(place, "cannot be given here");
  }
}

void fill(const json::object& from, const std::string& place, int depth, Message& into, Problems& problems) {
  if (depth > max_depth) return problems.add(place, fmt::format("is nested deeper than {}", max_depth));
  std::set<int> seen;
  for (const auto& entry : from) {
    const std::string_view name(entry.key().data(), entry.key().size());
    const std::string at = member(place, name);
    const FieldDescriptor* field = field_named(into, name);
    if (field == nullptr) {
      problems.add(at, "dvdi knows no such member here");
      continue;
    }
    if (!seen.insert(field->number()).second) {
      problems.add(at, "is given twice, in two spellings");
      continue;
    }
    if (entry.value().is_null()) continue;
    if (!field->is_repeated()) {
      put(entry.value(), *field, at, depth, into, problems);
      continue;
    }
    const json::array* array = entry.value().if_array();
    if (array == nullptr) {
      problems.add(at, fmt::format("is {}, not an array", kind(entry.value())));
    } else if (array->size() > max_elements) {
      problems.add(at, fmt::format("has {} elements, at most {} are allowed", array->size(), max_elements));
    } else {
      for (std::size_t i = 0; i < array->size(); ++i) {
        put((*array)[i], *field, element(at, i), depth, into, problems);
      }
    }
  }
}

// --- The checks. ---

Text text(const std::string& value, std::string_view place) {
  return {.value = value, .place = std::string(place)};
}

void check_id(v1::ContainerRequest& request, Problems& problems) {
  if (!request.has_container_id()) return;
  std::string id;
  const v1::ContainerID* next = &request.container_id();
  const bool nested = next->has_parent();
  for (std::string place = "container_id";; place = member(place, "parent")) {
    if (!check_container_id(text(next->value(), member(place, "value")), problems)) return;
    if (nested && next->value().find('.') != std::string::npos) {
      return problems.add(member(place, "value"), "the id of a nested container or of its parent has a dot");
    }
    id = id.empty() ? next->value() : fmt::format("{}.{}", next->value(), id);
    if (!next->has_parent()) break;
    next = &next->parent();
  }
  if (id.size() > max_nested_id_bytes) {
    return problems.add("container_id",
                        fmt::format("is {} bytes long with its parents, at most {} are allowed", id.size(),
                                    max_nested_id_bytes));
  }
  v1::ContainerID whole;
  whole.set_value(id);
  *request.mutable_container_id() = std::move(whole);
}

ReadVolume check_volume(const v1::Volume& volume, const std::string& place, Problems& problems) {
  const Text path = text(volume.container_path(), member(place, "container_path"));
  if (volume.mode() != v1::Volume::RW && volume.mode() != v1::Volume::RO) {
    problems.add(member(place, "mode"), "must be RW or RO");
  }
  const bool read_only = volume.mode() == v1::Volume::RO;
  const std::string source = member(place, "source");
  if (volume.has_source() && volume.has_host_path()) {
    problems.add(place, "has both host_path and source: it is not clear where the data lies");
  }
  switch (volume.source().type()) {
    case v1::Volume::Source::DOCKER_VOLUME: {
      ReadVolume read = read_external(draft_of(volume, place), problems);
      if (volume.create_under_mnt()) read.message.set_create_under_mnt(true);
      return read;
    }
    case v1::Volume::Source::HOST_PATH:
      return read_host(text(volume.source().host_path().path(), member(member(source, "host_path"), "path")),
                       path, read_only, place, problems);
    default:
      break;
  }
  if (volume.has_source()) {
    problems.add(member(source, "type"), "must be DOCKER_VOLUME or HOST_PATH");
    return {.place = place};
  }
  return read_host(text(volume.host_path(), member(place, "host_path")), path, read_only, place, problems);
}

void check_volumes(v1::ContainerRequest& request, Problems& problems) {
  std::vector<ReadVolume> volumes;
  const auto& given = request.container_info().volumes();
  if (too_many_volumes(static_cast<std::size_t>(given.size()), "container_info.volumes", problems)) return;
  for (int i = 0; i < given.size(); ++i) {
    const std::string place = element("container_info.volumes", static_cast<std::size_t>(i));
    volumes.push_back(check_volume(given[i], place, problems));
  }
  check_together(volumes, problems);
  v1::ContainerInfo info;
  info.set_type(v1::ContainerInfo::MESOS);
  for (ReadVolume& volume : volumes) *info.add_volumes() = std::move(volume.message);
  *request.mutable_container_info() = std::move(info);
}

void check_command(const v1::CommandInfo& command, Problems& problems) {
  if (command.has_value()) check_argument(command.value(), "command.value", problems);
  for (int i = 0; i < command.arguments_size(); ++i) {
    check_argument(command.arguments(i), element("command.arguments", static_cast<std::size_t>(i)), problems);
  }
  if (command.has_user()) check_user(text(command.user(), "command.user"), problems);
  std::set<std::string_view> names;
  for (const auto& variable : command.environment().variables()) {
    const std::string place = member("command.environment", variable.name());
    check_variable(text(variable.name(), place), variable.value(), problems);
    if (!names.insert(variable.name()).second) problems.add(place, "is given twice");
    if (variable.type() == v1::Environment::Variable::SECRET)
      problems.add(place, "secrets are not supported");
  }
}

void check_attribution(const v1::Attribution& who, Problems& problems) {
  const auto check = [&](bool there, const std::string& value, std::string_view name) {
    if (there) check_label_text(text(value, member("attribution", name)), problems);
  };
  check(who.has_framework_id(), who.framework_id(), "framework_id");
  check(who.has_role(), who.role(), "role");
  check(who.has_principal(), who.principal(), "principal");
  check(who.has_task_id(), who.task_id(), "task_id");
  check(who.has_task_name(), who.task_name(), "task_name");
  check(who.has_user(), who.user(), "user");
  if (who.labels().labels_size() > static_cast<int>(max_labels)) {
    return problems.add("attribution.labels", fmt::format("has {} labels, a container may have {}",
                                                          who.labels().labels_size(), max_labels));
  }
  for (const v1::Label& label : who.labels().labels()) {
    check_label(label.key(), label.value(), member("attribution.labels", label.key()), problems);
  }
}

void check_places(const v1::ContainerRequest& request, Problems& problems) {
  if (request.has_directory()) {
    check_absolute_path(text(request.directory(), "directory"), "the sandbox", problems);
  }
  if (!request.has_rootfs()) return;
  if (check_absolute_path(text(request.rootfs(), "rootfs"), "the root file system", problems) &&
      request.rootfs().find_first_not_of("/.") == std::string::npos) {
    problems.add("rootfs", "is the host's root: leave it out");
  }
}

void check_warnings(v1::ContainerRequest& request, Problems& problems) {
  if (request.warnings_size() > static_cast<int>(max_warnings)) {
    problems.add("warnings",
                 fmt::format("are {}, at most {} are allowed", request.warnings_size(), max_warnings));
  }
  for (std::string& warning : *request.mutable_warnings()) warning = printable(warning, max_warning_bytes);
}

}  // namespace

Result<v1::ContainerRequest> parse_container_request(const json::value& request) {
  Problems problems;
  v1::ContainerRequest read;
  const json::object* object = request.if_object();
  if (object == nullptr) {
    problems.add("", fmt::format("it is {}, not an object", kind(request)));
    return problems.error("the request");
  }
  fill(*object, "", 0, read, problems);
  // What could not be read would be reported once more, as missing.
  if (!problems.empty()) return problems.error("the request");
  if (read.ByteSizeLong() > max_request_bytes) {
    problems.add("", fmt::format("it is {} bytes long, at most {} are allowed", read.ByteSizeLong(),
                                 max_request_bytes));
    return problems.error("the request");
  }
  check_id(read, problems);
  check_volumes(read, problems);
  check_command(read.command(), problems);
  check_attribution(read.attribution(), problems);
  check_places(read, problems);
  check_warnings(read, problems);
  if (!problems.empty()) return problems.error("the request");
  return read;
}

bool is_container_request(const json::value& document) {
  const json::object* object = document.if_object();
  if (object == nullptr) return false;
  constexpr std::array<std::string_view, 7> names = {
      "container_id", "containerId", "container_info", "containerInfo", "command", "attribution", "forms"};
  return std::any_of(names.begin(), names.end(),
                     [&](std::string_view name) { return object->contains(name); });
}

}  // namespace dvdi::spec
