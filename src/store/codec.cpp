#include "store/codec.h"

#include <array>

namespace dvdi {

namespace {

// Columns that hold JSON were written by this program: a text that is none reads as empty.
json::value parsed(const std::string& text) {
  return json::parse(text, "a stored value").value_or(json::value());
}

std::string text_of(const json::value& from, std::string_view name) {
  return std::string(json::text_or_empty(from, name));
}

std::uint64_t number_of(const json::value& from, std::string_view name) {
  const json::value* member = json::find(from, name);
  if (member == nullptr) return 0;
  if (member->is_uint64()) return member->get_uint64();
  return member->is_int64() && member->get_int64() > 0 ? static_cast<std::uint64_t>(member->get_int64()) : 0;
}

using Field = std::pair<const char*, std::string Attribution::*>;
constexpr std::array<Field, 6> attribution_fields = {{{"framework", &Attribution::framework},
                                                      {"role", &Attribution::role},
                                                      {"principal", &Attribution::principal},
                                                      {"task_id", &Attribution::task_id},
                                                      {"task_name", &Attribution::task_name},
                                                      {"user", &Attribution::user}}};

}  // namespace

std::string to_json(const Attribution& attribution) {
  json::object out;
  for (const auto& [name, member] : attribution_fields) {
    if (!(attribution.*member).empty()) out[name] = attribution.*member;
  }
  json::array labels;
  for (const auto& [key, text] : attribution.labels) labels.push_back(json::array({key, text}));
  if (!labels.empty()) out["labels"] = std::move(labels);
  return json::serialize(out);
}

Attribution attribution_of(const std::string& text) {
  const json::value from = parsed(text);
  Attribution out;
  for (const auto& [name, member] : attribution_fields) out.*member = text_of(from, name);
  if (const json::value* labels = json::find(from, "labels"); labels != nullptr && labels->is_array()) {
    for (const json::value& label : labels->get_array()) {
      const json::array* pair = label.if_array();
      if (pair == nullptr || pair->size() != 2 || !(*pair)[0].is_string() || !(*pair)[1].is_string())
        continue;
      out.labels.emplace_back((*pair)[0].get_string(), (*pair)[1].get_string());
    }
  }
  return out;
}

std::string labels_json(const Attribution& attribution) {
  if (attribution.labels.empty()) return {};
  json::object labels;
  for (const auto& [key, text] : attribution.labels) labels[key] = text;
  return json::serialize(labels);
}

std::vector<std::pair<std::string, std::string>> labels_of(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> out;
  const json::value from = parsed(text);
  if (!from.is_object()) return out;
  for (const auto& label : from.get_object()) {
    if (label.value().is_string()) out.emplace_back(label.key(), label.value().get_string());
  }
  return out;
}

std::string to_json(const std::vector<ReferenceRow::Use>& uses) {
  json::array out;
  for (const auto& use : uses) {
    out.push_back(json::object({{"container_path", use.container_path}, {"read_only", use.read_only}}));
  }
  return json::serialize(out);
}

std::vector<ReferenceRow::Use> uses_of(const std::string& text) {
  const json::value from = parsed(text);
  std::vector<ReferenceRow::Use> out;
  if (!from.is_array()) return out;
  for (const json::value& use : from.get_array()) {
    const json::value* read_only = json::find(use, "read_only");
    out.push_back({.container_path = text_of(use, "container_path"),
                   .read_only = read_only != nullptr && read_only->is_bool() && read_only->get_bool()});
  }
  return out;
}

std::string to_json(const StoredIdentity& identity) {
  return json::serialize(json::object({{"mount_id", identity.mount_id},
                                       {"major", identity.major},
                                       {"minor", identity.minor},
                                       {"root", identity.root},
                                       {"source", identity.source},
                                       {"fs_type", identity.fs_type}}));
}

StoredIdentity identity_of(const std::string& text) {
  const json::value from = parsed(text);
  return {.mount_id = number_of(from, "mount_id"),
          .major = static_cast<std::uint32_t>(number_of(from, "major")),
          .minor = static_cast<std::uint32_t>(number_of(from, "minor")),
          .root = text_of(from, "root"),
          .source = text_of(from, "source"),
          .fs_type = text_of(from, "fs_type")};
}

}  // namespace dvdi
