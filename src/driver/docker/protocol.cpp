#include "driver/docker/protocol.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <optional>

#include "base/text.h"

namespace dvdi::driver::docker {

namespace {

Error violation(std::string message) {
  return Error{.code = Code::driver_violation,
               .message = std::move(message),
               .hint = "the plugin breaks the Docker volume plugin protocol; report it to its makers",
               .outcome = Outcome::unknown};
}

Error refusal(std::string message) {
  return Error{.code = Code::driver_error, .message = std::move(message), .outcome = Outcome::refused};
}

bool same_letters(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

// "" for absent and null.
Result<std::string> text_member(const json::object& from, std::string_view name) {
  const json::value* found = member(from, name);
  if (found == nullptr || found->is_null()) return std::string();
  if (!found->is_string()) return violation(fmt::format("the answer's {} is no string", name));
  return std::string(found->get_string());
}

std::string with_status(long status, std::string_view text) {
  return text.empty() ? fmt::format("the driver answered HTTP {} without a text", status)
                      : fmt::format("the driver answered HTTP {}: {}", status, printable(trim(text), 1000));
}

std::string status_text(const json::value& value) {
  return value.is_string() ? std::string(value.get_string()) : json::serialize(value);
}

Result<VolumeInfo> parse_one(const json::value& value) {
  const json::object* volume = value.if_object();
  if (volume == nullptr) return violation("a volume in the answer is no JSON object");
  VolumeInfo info;
  DVDI_TRY(info.name, text_member(*volume, "Name"));
  DVDI_TRY(info.mount_point, text_member(*volume, "Mountpoint"));
  DVDI_TRY(info.created_at, text_member(*volume, "CreatedAt"));
  const json::value* status = member(*volume, "Status");
  if (status != nullptr && !status->is_null()) {
    const json::object* entries = status->if_object();
    if (entries == nullptr) return violation("the Status of a volume in the answer is no JSON object");
    for (const auto& [key, entry] : *entries) info.status.emplace(std::string(key), status_text(entry));
  }
  return info;
}

// Err's text, "" for none; nullopt where Err is no text.
std::optional<std::string> error_text(const json::object& answer) {
  const json::value* found = member(answer, "Err");
  if (found == nullptr || found->is_null()) return std::string();
  if (!found->is_string()) return std::nullopt;
  return std::string(found->get_string());
}

}  // namespace

const json::value* member(const json::object& from, std::string_view name) {
  if (const json::value* exact = from.if_contains(name)) return exact;
  const auto found =
      std::ranges::find_if(from, [&](const auto& one) { return same_letters(one.key(), name); });
  return found == from.end() ? nullptr : &found->value();
}

Result<json::object> interpret(const http::Response& response, EmptyAnswer empty) {
  const bool says_no = response.status >= 400;
  const bool says_yes = response.status >= 200 && response.status < 300;
  if (!says_no && !says_yes) {
    return violation(
        fmt::format("the driver answered HTTP {}, which the protocol does not know", response.status));
  }
  const std::string_view text = trim(response.body);
  if (text.empty()) {
    if (says_no) return refusal(with_status(response.status, ""));
    if (empty == EmptyAnswer::allowed) return json::object();
    return violation("the driver's answer is empty");
  }
  auto parsed = json::parse(text, "the driver's answer");
  const json::object* answer = parsed ? parsed->if_object() : nullptr;
  if (answer == nullptr) {
    if (says_no) return refusal(with_status(response.status, text));  // plain text
    std::string problem = parsed ? "the driver's answer is no JSON object" : parsed.error().message;
    return violation(fmt::format("{}; it begins with '{}'", problem, printable(text, 80)));
  }
  const std::optional<std::string> error = error_text(*answer);
  if (error && !error->empty()) {
    return refusal(fmt::format("the driver answered: {}", printable(trim(*error), 1000)));
  }
  if (says_no) return refusal(with_status(response.status, error ? std::string_view() : text));
  if (!error) return violation("the answer's Err is no string");
  return *answer;
}

bool lacks_endpoint(const http::Response& response) {
  if (response.status != 404) return false;
  const auto parsed = json::parse(trim(response.body), "the answer");
  const json::object* answer = parsed ? parsed->if_object() : nullptr;
  return answer == nullptr || member(*answer, "Err") == nullptr;
}

Result<std::vector<std::string>> parse_implements(const json::object& answer) {
  const json::value* found = member(answer, "Implements");
  std::vector<std::string> names;
  if (found == nullptr || found->is_null()) return names;
  const json::array* list = found->if_array();
  if (list == nullptr) return violation("the answer's Implements is no list");
  for (const json::value& one : *list) {
    if (!one.is_string()) return violation("the answer's Implements holds something that is no string");
    names.emplace_back(one.get_string());
  }
  return names;
}

Result<std::string> parse_mount_point(const json::object& answer) {
  return text_member(answer, "Mountpoint");
}

Result<VolumeInfo> parse_volume(const json::object& answer, const std::string& expected_name) {
  const json::value* found = member(answer, "Volume");
  if (found == nullptr || found->is_null()) return violation("the answer has no Volume");
  DVDI_TRY(VolumeInfo info, parse_one(*found));
  if (info.name.empty()) info.name = expected_name;
  if (info.name != expected_name) {
    return violation(fmt::format("the answer is about another volume, '{}'", printable(info.name)));
  }
  return info;
}

Result<std::vector<VolumeInfo>> parse_volumes(const json::object& answer) {
  const json::value* found = member(answer, "Volumes");
  std::vector<VolumeInfo> volumes;
  if (found == nullptr || found->is_null()) return volumes;
  const json::array* list = found->if_array();
  if (list == nullptr) return violation("the answer's Volumes is no list");
  for (const json::value& one : *list) {
    if (one.is_null()) continue;
    DVDI_TRY(VolumeInfo info, parse_one(one));
    if (info.name.empty()) return violation("a volume in the answer has no Name");
    volumes.push_back(std::move(info));
  }
  return volumes;
}

Result<Capabilities> parse_capabilities(const json::object& answer) {
  const json::value* found = member(answer, "Capabilities");
  if (found == nullptr || found->is_null()) return Capabilities{};
  const json::object* capabilities = found->if_object();
  if (capabilities == nullptr) return violation("the answer's Capabilities is no JSON object");
  DVDI_TRY(const std::string scope, text_member(*capabilities, "Scope"));
  return Capabilities{.global = same_letters(scope, "global")};
}

Status check_mount_point(const std::string& mount_point) {
  if (mount_point.empty()) return violation("the driver says that it mounted, and gives no mount point");
  const auto refuse = [&](std::string_view why) {
    return fail(violation(fmt::format("the driver's mount point '{}' {}", printable(mount_point), why)));
  };
  if (mount_point.size() >= PATH_MAX) return refuse("is longer than a path can be");
  if (mount_point.find('\0') != std::string::npos) return refuse("holds a NUL byte");
  if (mount_point.front() != '/') return refuse("is not absolute");
  const std::vector<std::string_view> parts = split(mount_point, '/');
  if (std::ranges::find(parts, "..") != parts.end()) return refuse("goes up with '..'");
  if (std::ranges::all_of(parts, [](std::string_view part) { return part.empty() || part == "."; })) {
    return refuse("is the root of the file system");
  }
  return {};
}

}  // namespace dvdi::driver::docker
