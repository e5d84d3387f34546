// The Docker volume plugin protocol: what an answer means. Pure: no I/O.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "driver/driver.h"
#include "http/client.h"

namespace dvdi::driver::docker {

inline constexpr std::string_view media_type = "application/vnd.docker.plugins.v1.2+json";

// May an answer with status 200 be empty? Some plugins write nothing where there is nothing to say.
enum class EmptyAnswer { allowed, violation };

// The answer's JSON object, if it is one that says yes. Errors:
//   driver_error     refused  it says no: `Err` has a text, or the status is 4xx or 5xx
//   driver_violation unknown  it is no answer of this protocol
Result<json::object> interpret(const http::Response& response, EmptyAnswer empty);

// The plugin does not know this path: a 404 that is not the protocol's own error.
bool lacks_endpoint(const http::Response& response);

// A member by its name, in any case where the exact one is not there: what a client in Go sees.
const json::value* member(const json::object& from, std::string_view name);

// The content of answers that interpret() accepted. Each error is a driver_violation, Outcome::unknown.
Result<std::vector<std::string>> parse_implements(const json::object& answer);
Result<std::string> parse_mount_point(const json::object& answer);  // "" where the driver gives none
Result<VolumeInfo> parse_volume(const json::object& answer, const std::string& expected_name);
Result<std::vector<VolumeInfo>> parse_volumes(const json::object& answer);
Result<Capabilities> parse_capabilities(const json::object& answer);

// A mount point that Mount may answer: absolute, not "/", a path that the kernel can take.
Status check_mount_point(const std::string& mount_point);

}  // namespace dvdi::driver::docker
