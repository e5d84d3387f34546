// What the routes share: one request on its way, and how its body is read. For routes*.cpp.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "base/time_text.h"
#include "daemon/request_counts.h"
#include "daemon/routes.h"
#include "daemon/wire.h"
#include "spec/request.h"
#include "spec/rules.h"

namespace dvdi {

inline constexpr std::string_view json_type = "application/json";
// A Mesos ContainerConfig repeats its ContainerInfo three times, with the task's environment.
inline constexpr std::size_t max_body_bytes = std::size_t{8} << 20U;
// What is carried out to its end although the caller may have gone: longer than the longest driver call.
inline constexpr Duration longest_call = std::chrono::hours(24);

inline Error wrong(std::string message, std::string hint = {}) {
  return Error{.code = Code::invalid_argument, .message = std::move(message), .hint = std::move(hint)};
}

inline Result<std::string> text_member(const json::value& body, std::string_view name) {
  const json::value* found = json::find(body, name);
  if (found == nullptr || !found->is_string() || found->get_string().empty())
    return wrong(fmt::format("{}: a text is needed", name));
  return std::string(found->get_string());
}

inline Result<bool> flag_member(const json::value& body, std::string_view name, bool otherwise) {
  const json::value* found = json::find(body, name);
  if (found == nullptr || found->is_null()) return otherwise;
  if (!found->is_bool()) return wrong(fmt::format("{}: must be true or false", name));
  return found->get_bool();
}

inline Status only_members(const json::value& body, std::initializer_list<std::string_view> known) {
  for (const auto& one : body.get_object()) {
    if (std::ranges::find(known, std::string_view(one.key())) == known.end())
      return wrong(
          fmt::format("{}: no such member here; there are {}", printable(one.key()), fmt::join(known, ", ")));
  }
  return {};
}

template <class T>
json::array list(const std::vector<T>& all) {
  json::array out;
  for (const T& one : all) out.push_back(wire::to_json(one));
  return out;
}

// One request on its way.
struct Routes::Call {
  const Context* context;  // ends with the caller, and at the deadline that he gave
  http::IncomingRequest* request;
  CountedAnswer* answer;
  std::vector<std::string> path;
  std::map<std::string, std::string> query;
  std::vector<gid_t> groups;
  Standing standing = Standing::stranger;

  const Caller& caller() const { return request->peer(); }
  // For what goes on to its end when the caller has gone away.
  Context to_the_end() const {
    return context->detached(std::min<Duration>(context->remaining(), longest_call));
  }

  Result<json::value> body() const {
    DVDI_TRY(const std::string text, request->read_all(*context, max_body_bytes));
    DVDI_TRY(json::value value, json::parse(text, "the request's body"));
    if (!value.is_object()) return wrong("the request's body must be a JSON object");
    return value;
  }
  Status give(const json::object& value) const {
    return answer->send(200, json_type, json::serialize(value) + "\n");
  }

  Result<std::uint64_t> number(const std::string& name, std::uint64_t otherwise, std::uint64_t most) const {
    const auto found = query.find(name);
    if (found == query.end()) return otherwise;
    const auto number = parse_number<std::uint64_t>(found->second);
    if (!number || *number > most)
      return wrong(fmt::format("{} must be a whole number from 0 to {}", name, most));
    return *number;
  }
  Result<bool> flag(const std::string& name) const {
    const auto found = query.find(name);
    if (found == query.end() || found->second == "false") return false;
    if (found->second == "true" || found->second.empty()) return true;
    return wrong(fmt::format("{} must be true or false", name));
  }
  Result<std::optional<WallTime>> time(const std::string& name) const {
    const auto found = query.find(name);
    if (found == query.end()) return std::optional<WallTime>();
    std::optional<WallTime> time = parse_time(found->second);
    if (!time) return wrong(fmt::format("{} must be a time as 2026-11-22T10:00:00Z", name));
    return time;
  }
  Status only(std::initializer_list<std::string_view> known) const {
    for (const auto& [name, value] : query) {
      if (std::ranges::find(known, name) == known.end())
        return wrong(fmt::format("the query's '{}' is not known here", printable(name)));
    }
    return {};
  }
  Result<ContainerKey> key(const json::value& body) const {
    ContainerKey key;
    DVDI_TRY(key.owner, text_member(body, "owner"));
    if (key.owner.size() > spec::max_path_bytes) return wrong("owner: too long");
    const json::value* id = json::find(body, "container_id");
    if (id == nullptr) return wrong("container_id: a ContainerID is needed");
    DVDI_TRY(key.id, spec::container_id_text(*id));
    return key;
  }
};

}  // namespace dvdi
