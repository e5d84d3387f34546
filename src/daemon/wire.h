// The JSON of the daemon's API and of `--format json`: one form for each value. docs/commands.md describes
// it. What comes from the other side is read leniently: a member that is absent or of another type reads as
// "not set", so that a younger daemon and an older client understand each other.
#pragma once

#include "base/error_json.h"
#include "base/json.h"
#include "daemon/api.h"

namespace dvdi::wire {

using json::error_of;
using json::to_json;
// RFC 9457 application/problem+json: the members above with "type", "title", "status" and "detail".
inline constexpr std::string_view problem_type = "application/problem+json";
int http_status(Code code);
json::object problem(const Error& error);

json::array to_json(const std::vector<std::string>& texts);
// The texts of the array `name`; what is no text is left out.
std::vector<std::string> texts_of(const json::value& value, std::string_view name);

json::object to_json(const ContainerView& view);
ContainerView container_view_of(const json::value& value);
json::object to_json(const VolumeView& view);
VolumeView volume_view_of(const json::value& value);
json::object to_json(const Api::Verified& verified);  // {"intact", "count", "first", "last", "head"}
Api::Verified verified_of(const json::value& value);
json::object to_json(const volume::Release& release);
volume::Release release_of(const json::value& value);
json::object to_json(const volume::DriverStatus& status);
volume::DriverStatus driver_status_of(const json::value& value);
json::object to_json(const Compared& compared);
Compared compared_of(const json::value& value);
json::object to_json(const SinkStatus& status);
SinkStatus sink_status_of(const json::value& value);
json::object to_json(const volume::Recovered& recovered);
json::array to_json(const std::vector<volume::Adopted>& adopted);
json::array to_json(const std::vector<isolator::Owed>& owed);
std::vector<isolator::Owed> owed_of(const json::value& value);

// protobuf's own mapping with the names of the .proto files; as Mesos writes its messages.
Result<json::value> launch_json(const v1::ContainerLaunchInfo& launch);
Result<v1::ContainerLaunchInfo> launch_of(const json::value& value);
Result<json::value> request_json(const v1::ContainerRequest& request);

// ContainerID: {"value", "parent"?}, from "PARENT.CHILD" and back. The text form is taken, too.
json::value container_id_json(const std::string& id);

}  // namespace dvdi::wire
