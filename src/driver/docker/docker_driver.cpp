#include "driver/docker/docker_driver.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "driver/docker/protocol.h"

namespace dvdi::driver::docker {

namespace {

// The answer was complete and said no; the plugin is well, it only does not do this.
bool refused(const Error& error) { return error.outcome == Outcome::refused; }

Status check_volume_name(const std::string& volume) {
  const bool control =
      std::ranges::any_of(volume, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == '\x7f'; });
  if (!volume.empty() && volume.size() <= 255 && !control) return {};
  return Error{.code = Code::invalid_argument,
               .message = fmt::format("'{}' cannot be a volume's name: 1 to 255 bytes, no control character",
                                      printable(volume)),
               .outcome = Outcome::not_sent};
}

}  // namespace

struct DockerDriver::Call {
  std::string_view path;
  std::string body;
  EmptyAnswer empty = EmptyAnswer::violation;
  std::size_t limit = 0;  // 0: the setting
};

DockerDriver::DockerDriver(std::string name, Connection::Locate locate, Settings settings)
    : name_(std::move(name)), settings_(settings), connection_(std::move(locate), settings.patience) {}

Error DockerDriver::about(Error error, Operation operation, const std::string& volume) const {
  error.driver = name_;
  error.volume = volume;
  error.operation = operation_name(operation);
  for (Error& one : error.attached) one.driver = name_;
  return error;
}

Result<json::object> DockerDriver::post(const Context& context, const Call& call) {
  const http::Limits limits{.body_bytes = call.limit == 0 ? settings_.answer_bytes : call.limit};
  auto answer = connection_.call(context, plugin_request(context, call.path, call.body), limits);
  if (!answer) {
    Error error = std::move(answer).error();
    if (error.code == Code::resource_exhausted || error.code == Code::corrupted)
      error.code = Code::driver_violation;
    return error;
  }
  auto object = interpret(*answer, call.empty);
  if (!object && refused(object.error()) && lacks_endpoint(*answer)) {
    Error error = std::move(object).error();
    error.code = Code::unsupported;
    error.message = fmt::format("the plugin does not know {} ({})", call.path, error.message);
    return error;
  }
  return object;
}

Status DockerDriver::create(const Context& context, const std::string& volume, const Options& options) {
  const auto work = [&]() -> Status {
    DVDI_CHECK(check_volume_name(volume));
    json::object opts;
    for (const auto& [key, value] : options) opts[key] = value;
    DVDI_CHECK(
        post(context, {.path = "/VolumeDriver.Create",
                       .body = json::serialize(json::object{{"Name", volume}, {"Opts", std::move(opts)}}),
                       .empty = EmptyAnswer::allowed}));
    return {};
  };
  auto done = work();
  return done ? done : fail(about(std::move(done).error(), Operation::create, volume));
}

Status DockerDriver::remove(const Context& context, const std::string& volume) {
  const auto work = [&]() -> Status {
    DVDI_CHECK(check_volume_name(volume));
    DVDI_CHECK(post(context, {.path = "/VolumeDriver.Remove",
                              .body = json::serialize(json::object{{"Name", volume}}),
                              .empty = EmptyAnswer::allowed}));
    return {};
  };
  auto done = work();
  return done ? done : fail(about(std::move(done).error(), Operation::remove, volume));
}

Result<VolumeInfo> DockerDriver::try_get(const Context& context, const std::string& volume) {
  DVDI_CHECK(check_volume_name(volume));
  auto answer =
      post(context, {.path = "/VolumeDriver.Get", .body = json::serialize(json::object{{"Name", volume}})});
  if (answer) return parse_volume(*answer, volume);
  if (!refused(answer.error())) return fail(std::move(answer).error());
  // It says no, and not why: there is no such volume, or it does not know Get. List tells which.
  auto all = try_list(context);
  if (!all) {
    Error error = std::move(answer).error();
    error.attached.push_back(about(std::move(all).error(), Operation::list, ""));
    return error;
  }
  const auto found = std::ranges::find(*all, volume, &VolumeInfo::name);
  if (found != all->end()) return *std::move(found);
  Error error = std::move(answer).error();
  error.code = Code::not_found;
  error.message = fmt::format("there is no such volume: {}", error.message);
  return error;
}

Result<VolumeInfo> DockerDriver::get(const Context& context, const std::string& volume) {
  auto found = try_get(context, volume);
  return found ? found : fail(about(std::move(found).error(), Operation::get, volume));
}

Result<std::vector<VolumeInfo>> DockerDriver::try_list(const Context& context) {
  DVDI_TRY(const json::object answer,
           post(context, {.path = "/VolumeDriver.List", .body = "{}", .limit = settings_.list_bytes}));
  return parse_volumes(answer);
}

Result<std::vector<VolumeInfo>> DockerDriver::list(const Context& context) {
  auto all = try_list(context);
  return all ? all : fail(about(std::move(all).error(), Operation::list, ""));
}

Result<std::string> DockerDriver::path(const Context& context, const std::string& volume) {
  const auto work = [&]() -> Result<std::string> {
    DVDI_CHECK(check_volume_name(volume));
    auto answer = post(
        context, {.path = "/VolumeDriver.Path", .body = json::serialize(json::object{{"Name", volume}})});
    if (answer) return parse_mount_point(*answer);
    if (!refused(answer.error())) return fail(std::move(answer).error());
    // "Not mounted", "no such volume", or it does not know Path: Get says which.
    DVDI_TRY(VolumeInfo info, try_get(context, volume));
    return std::move(info.mount_point);
  };
  auto found = work();
  return found ? found : fail(about(std::move(found).error(), Operation::path, volume));
}

Result<std::string> DockerDriver::mount(const Context& context, const std::string& volume,
                                        const std::string& mount_id) {
  const auto work = [&]() -> Result<std::string> {
    DVDI_CHECK(check_volume_name(volume));
    DVDI_TRY(const json::object answer,
             post(context, {.path = "/VolumeDriver.Mount",
                            .body = json::serialize(json::object{{"Name", volume}, {"ID", mount_id}})}));
    DVDI_TRY(std::string mount_point, parse_mount_point(answer));
    DVDI_CHECK(check_mount_point(mount_point));
    return mount_point;
  };
  auto mounted = work();
  return mounted ? mounted : fail(about(std::move(mounted).error(), Operation::mount, volume));
}

Status DockerDriver::unmount(const Context& context, const std::string& volume, const std::string& mount_id) {
  const auto work = [&]() -> Status {
    DVDI_CHECK(check_volume_name(volume));
    DVDI_CHECK(post(context, {.path = "/VolumeDriver.Unmount",
                              .body = json::serialize(json::object{{"Name", volume}, {"ID", mount_id}}),
                              .empty = EmptyAnswer::allowed}));
    return {};
  };
  auto done = work();
  return done ? done : fail(about(std::move(done).error(), Operation::unmount, volume));
}

Result<Capabilities> DockerDriver::capabilities(const Context& context) {
  auto answer = post(context, {.path = "/VolumeDriver.Capabilities"});
  if (!answer && refused(answer.error())) return Capabilities{};
  auto parsed = answer ? parse_capabilities(*answer) : Result<Capabilities>(std::move(answer).error());
  return parsed ? parsed : fail(about(std::move(parsed).error(), Operation::capabilities, ""));
}

}  // namespace dvdi::driver::docker
