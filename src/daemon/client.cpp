#include "daemon/client.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "base/text.h"
#include "daemon/wire.h"
#include "http/client.h"
#include "http/uri.h"

namespace dvdi {

namespace {

constexpr std::string_view away = "dvdid";  // the operation of errors that say that the daemon is not there
constexpr std::size_t max_answer_bytes = std::size_t{1}
                                         << 30U;  // a list of 100,000 containers has some 50 MB

using http::percent_encode;

std::string volume_path(const std::string& driver, const std::string& name) {
  return fmt::format("/v1/volumes/{}/{}", percent_encode(driver), percent_encode(name));
}

template <class T, class Read>
std::vector<T> list(const json::value& answer, std::string_view name, Read read) {
  std::vector<T> out;
  const json::value* found = json::find(answer, name);
  if (found == nullptr || !found->is_array()) return out;
  for (const json::value& one : found->get_array()) out.push_back(read(one));
  return out;
}

json::object container_members(const ContainerKey& key) {
  return json::object{{"owner", key.owner}, {"container_id", wire::container_id_json(key.id)}};
}

}  // namespace

Error daemon_away(std::string message, Outcome outcome) {
  return Error{.code = Code::unavailable,
               .message = std::move(message),
               .operation = std::string(away),
               .hint = "is dvdid running? `systemctl status dvdid`",
               .outcome = outcome};
}

bool daemon_is_away(const Error& error) {
  return error.code == Code::unavailable && error.operation == away && error.driver.empty();
}

Result<std::string> Client::call_text(const Context& context, Verb verb, const std::string& path,
                                      std::string body) {
  http::Request request{.path = path, .body = std::move(body)};
  request.method = verb == Verb::get    ? http::Method::get
                   : verb == Verb::post ? http::Method::post
                                        : http::Method::del;
  if (verb == Verb::post) request.headers.emplace_back("Content-Type: application/json");
  if (!context.trace_id().empty()) request.headers.push_back("Dvdi-Trace-Id: " + context.trace_id());
  if (context.has_deadline()) {
    request.headers.push_back(
        fmt::format("Dvdi-Timeout-Ms: {}",
                    std::chrono::duration_cast<std::chrono::milliseconds>(context.remaining()).count() + 1));
  }
  // The daemon ends at our deadline by itself, with an error that says more than ours would.
  const Context patient =
      context.has_deadline()
          ? context.detached(context.remaining() + std::chrono::seconds(5)).with_stop(context.stop())
          : context;
  auto response = http::send(patient, {.unix_socket = socket_}, request, {.body_bytes = max_answer_bytes});
  if (!response) {
    const Error& error = response.error();
    if (error.code == Code::unavailable || (error.code == Code::io && error.outcome == Outcome::unknown))
      return daemon_away(
          fmt::format("the daemon at {} is not there, or went away: {}", socket_, error.message),
          error.outcome);
    return fail(std::move(response).error());
  }
  if (response->status >= 200 && response->status < 300) return std::move(response->body);
  const auto problem = json::parse(response->body, "the daemon's answer");
  if (!problem || !problem->is_object() || json::text_or_empty(*problem, "code").empty())
    return Error{.code = Code::corrupted,
                 .message = fmt::format("{}: HTTP status {} with '{}'", socket_, response->status,
                                        printable(response->body)),
                 .hint = "is another program listening there?"};
  return wire::error_of(*problem);
}

Result<json::value> Client::call(const Context& context, Verb verb, const std::string& path,
                                 std::string body) {
  DVDI_TRY(const std::string text, call_text(context, verb, path, std::move(body)));
  return json::parse(text, "the daemon's answer");
}

Result<DaemonHealth> Client::health(const Context& context) {
  DVDI_TRY(const json::value answer, call(context, Verb::get, "/healthz"));
  return DaemonHealth{.version = std::string(json::text_or_empty(answer, "version")),
                      .state_dir = std::string(json::text_or_empty(answer, "state_dir"))};
}

Result<Api::Prepared> Client::prepare(const Context& context, const PrepareOptions& options,
                                      const v1::ContainerRequest& request) {
  DVDI_TRY(json::value message, wire::request_json(request));
  const json::object body{
      {"owner", options.owner}, {"container_request", std::move(message)}, {"staged", options.staged}};
  DVDI_TRY(const json::value answer, call(context, Verb::post, "/v1/prepare", json::serialize(body)));
  Prepared prepared;
  prepared.key = {.owner = options.owner, .id = std::string(json::text_or_empty(answer, "id"))};
  const json::value* launch = json::find(answer, "launch_info");
  if (launch == nullptr || prepared.key.id.empty())
    return Error{.code = Code::corrupted, .message = "the daemon's answer to prepare has no launch_info"};
  DVDI_TRY(prepared.launch, wire::launch_of(*launch));
  prepared.foreign_mount_points = wire::texts_of(answer, "foreign_mount_points");
  return prepared;
}

Status Client::isolate(const Context& context, const ContainerKey& key, pid_t pid, bool watch) {
  json::object body = container_members(key);
  body["pid"] = pid;
  body["watch"] = watch;
  DVDI_CHECK(call(context, Verb::post, "/v1/isolate", json::serialize(body)));
  return {};
}

Result<std::vector<isolator::Owed>> Client::cleanup(const Context& context, const ContainerKey& key) {
  DVDI_TRY(const json::value answer,
           call(context, Verb::post, "/v1/cleanup", json::serialize(container_members(key))));
  return wire::owed_of(answer);
}

Result<std::vector<ContainerView>> Client::containers(const Context& context, bool ended) {
  DVDI_TRY(const json::value answer,
           call(context, Verb::get, ended ? "/v1/containers?ended=true" : "/v1/containers"));
  return list<ContainerView>(answer, "containers", wire::container_view_of);
}

Result<ContainerView> Client::container(const Context& context, const std::string& id) {
  DVDI_TRY(const auto all, containers(context, true));
  return pick_container(all, id);
}

Result<Api::Volumes> Client::volumes(const Context& context, bool ask_drivers) {
  DVDI_TRY(const json::value answer,
           call(context, Verb::get, ask_drivers ? "/v1/volumes?ask=true" : "/v1/volumes"));
  return Volumes{.volumes = list<VolumeView>(answer, "volumes", wire::volume_view_of),
                 .warnings = wire::texts_of(answer, "warnings")};
}

Result<VolumeView> Client::volume(const Context& context, const std::string& driver,
                                  const std::string& name) {
  DVDI_TRY(const json::value answer, call(context, Verb::get, volume_path(driver, name)));
  return wire::volume_view_of(answer);
}

Status Client::create_volume(const Context& context, const std::string& driver, const std::string& name,
                             const std::vector<std::pair<std::string, std::string>>& options) {
  json::object given;
  for (const auto& [key, value] : options) given[key] = value;
  const json::object body{{"driver", driver}, {"name", name}, {"options", std::move(given)}};
  DVDI_CHECK(call(context, Verb::post, "/v1/volumes", json::serialize(body)));
  return {};
}

Status Client::remove_volume(const Context& context, const std::string& driver, const std::string& name) {
  DVDI_CHECK(call(context, Verb::remove, volume_path(driver, name)));
  return {};
}

Result<volume::Release> Client::release_volume(const Context& context, const std::string& driver,
                                               const std::string& name, bool dry_run) {
  DVDI_TRY(const json::value answer, call(context, Verb::post, volume_path(driver, name) + "/release",
                                          json::serialize(json::object{{"dry_run", dry_run}})));
  return wire::release_of(answer);
}

Result<std::vector<volume::DriverStatus>> Client::drivers(const Context& context) {
  DVDI_TRY(const json::value answer, call(context, Verb::get, "/v1/drivers"));
  return list<volume::DriverStatus>(answer, "drivers", wire::driver_status_of);
}

Result<std::vector<EventView>> Client::events(const Context& context, std::uint64_t after, std::size_t limit,
                                              Duration wait) {
  const auto wait_ms = std::chrono::duration_cast<std::chrono::milliseconds>(wait).count();
  DVDI_TRY(const std::string text,
           call_text(context, Verb::get,
                     fmt::format("/v1/events?after={}&limit={}&wait_ms={}", after, limit, wait_ms), {}));
  std::vector<EventView> events;
  for (const std::string_view line : split(text, '\n')) {
    if (line.empty()) continue;
    DVDI_TRY(const json::value event, json::parse(line, "an event"));
    EventView view{.json = std::string(line)};
    for (const char c : json::text_or_empty(event, "sequence")) {
      if (c < '0' || c > '9') return Error{.code = Code::corrupted, .message = "an event without a number"};
      view.sequence = view.sequence * 10 + static_cast<std::uint64_t>(c - '0');
    }
    events.push_back(std::move(view));
  }
  return events;
}

Result<Api::Verified> Client::verify_events(const Context& context,
                                            const std::function<void(std::uint64_t)>& progress) {
  DVDI_TRY(const json::value answer, call(context, Verb::get, "/v1/events/verify"));
  auto verified = wire::verified_of(answer);
  if (progress) progress(verified.count);
  return verified;
}

Result<std::vector<UsageRow>> Client::usage(const Context& context, const UsageQuery& query) {
  std::string path = "/v1/usage?by=" + percent_encode(query.by);
  if (query.since) path += "&since=" + percent_encode(rfc3339(*query.since));
  if (query.until) path += "&until=" + percent_encode(rfc3339(*query.until));
  DVDI_TRY(const json::value answer, call(context, Verb::get, path));
  return list<UsageRow>(answer, "rows", wire::usage_row_of);
}

}  // namespace dvdi
