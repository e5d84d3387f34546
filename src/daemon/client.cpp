#include "daemon/client.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <tuple>

#include "base/clock.h"
#include "base/sync.h"
#include "base/text.h"
#include "daemon/usage_wire.h"
#include "daemon/wire.h"
#include "http/uri.h"

namespace dvdi {

namespace {

constexpr std::chrono::milliseconds connect_patience = std::chrono::seconds(5);
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

template <auto free>
struct Free {
  template <class T>
  void operator()(T* handle) const {
    free(handle);
  }
};
using OwnedClient = std::unique_ptr<dvdi_client, Free<dvdi_client_free>>;
using OwnedCancellation = std::unique_ptr<dvdi_cancellation, Free<dvdi_cancellation_free>>;
using OwnedAnswer = std::unique_ptr<dvdi_answer, Free<dvdi_answer_free>>;

}  // namespace

// Those of the C API that have no call: each has a trace id for itself.
struct Client::Handles {
  Mutex mutex;
  std::vector<OwnedClient> idle;

  OwnedClient take() {
    const Lock lock(mutex);
    if (idle.empty()) return nullptr;
    OwnedClient last = std::move(idle.back());
    idle.pop_back();
    return last;
  }
  void give_back(OwnedClient one) {
    const Lock lock(mutex);
    idle.push_back(std::move(one));
  }
};

Client::Client(std::string socket) : socket_(std::move(socket)), handles_(std::make_unique<Handles>()) {}
Client::~Client() = default;

Result<std::string> Client::call_text(const Context& context, const char* method, const std::string& path,
                                      const std::string& body) {
  OwnedClient client = handles_->take();
  if (!client) client.reset(dvdi_client_new(socket_.c_str()));
  const OwnedCancellation cancellation(dvdi_cancellation_new());
  if (!client || !cancellation)
    return Error{.code = Code::resource_exhausted,
                 .message = "no memory for a call of the daemon",
                 .outcome = Outcome::not_sent};
  // A trace id that cannot be sent is replaced by one that the daemon makes.
  if (dvdi_client_set_trace_id(client.get(), context.trace_id().c_str()) != DVDI_OK)
    std::ignore = dvdi_client_set_trace_id(client.get(), nullptr);
  // The daemon ends at our deadline by itself, with an error that says more than ours would.
  dvdi_client_set_limits(client.get(), connect_patience.count(), max_answer_bytes);
  std::int64_t timeout_ms = 0;
  if (context.has_deadline())
    timeout_ms = std::chrono::duration_cast<std::chrono::milliseconds>(context.remaining()).count() + 1;
  const std::stop_callback cancel(context.stop(), [&] { dvdi_cancel(cancellation.get()); });
  const OwnedAnswer answer(dvdi_call(client.get(), method, path.c_str(), body.data(), body.size(), timeout_ms,
                                     cancellation.get()));
  handles_->give_back(std::move(client));
  std::size_t size = 0;
  const char* text = dvdi_answer_body(answer.get(), &size);
  if (dvdi_answer_code(answer.get()) == DVDI_OK) return std::string(text, size);
  // The problem has the attached errors, too.
  if (size > 0) {
    DVDI_TRY(const json::value problem, json::parse({text, size}, "the daemon's answer"));
    return wire::error_of(problem);
  }
  return Error{.code = from_c(dvdi_answer_code(answer.get())),
               .message = dvdi_answer_message(answer.get()),
               .operation = dvdi_answer_operation(answer.get()),
               .hint = dvdi_answer_hint(answer.get()),
               .outcome = from_c(dvdi_answer_outcome(answer.get()))};
}

Result<json::value> Client::call(const Context& context, const char* method, const std::string& path,
                                 const std::string& body) {
  DVDI_TRY(const std::string text, call_text(context, method, path, body));
  return json::parse(text, "the daemon's answer");
}

Result<DaemonHealth> Client::health(const Context& context) {
  DVDI_TRY(const json::value answer, call(context, "GET", "/healthz"));
  return DaemonHealth{.version = std::string(json::text_or_empty(answer, "version")),
                      .state_dir = std::string(json::text_or_empty(answer, "state_dir"))};
}

Result<Api::Prepared> Client::prepare(const Context& context, const PrepareOptions& options,
                                      const v1::ContainerRequest& request) {
  DVDI_TRY(json::value message, wire::request_json(request));
  const json::object body{
      {"owner", options.owner}, {"container_request", std::move(message)}, {"staged", options.staged}};
  DVDI_TRY(const json::value answer, call(context, "POST", "/v1/prepare", json::serialize(body)));
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
  DVDI_CHECK(call(context, "POST", "/v1/isolate", json::serialize(body)));
  return {};
}

Result<std::vector<isolator::Owed>> Client::cleanup(const Context& context, const ContainerKey& key) {
  DVDI_TRY(const json::value answer,
           call(context, "POST", "/v1/cleanup", json::serialize(container_members(key))));
  return wire::owed_of(answer);
}

Result<std::vector<ContainerView>> Client::containers(const Context& context, bool ended) {
  DVDI_TRY(const json::value answer,
           call(context, "GET", ended ? "/v1/containers?ended=true" : "/v1/containers"));
  return list<ContainerView>(answer, "containers", wire::container_view_of);
}

Result<ContainerView> Client::find_container(const Context& context, const ContainerKey& key) {
  DVDI_TRY(const json::value answer,
           call(context, "GET",
                fmt::format("/v1/containers/{}/{}", percent_encode(key.owner), percent_encode(key.id))));
  return wire::container_view_of(answer);
}

Result<ContainerView> Client::container(const Context& context, const std::string& id) {
  DVDI_TRY(const auto all, containers(context, true));
  return pick_container(all, id);
}

Result<Api::Volumes> Client::volumes(const Context& context, bool ask_drivers) {
  DVDI_TRY(const json::value answer,
           call(context, "GET", ask_drivers ? "/v1/volumes?ask=true" : "/v1/volumes"));
  return Volumes{.volumes = list<VolumeView>(answer, "volumes", wire::volume_view_of),
                 .warnings = wire::texts_of(answer, "warnings")};
}

Result<VolumeView> Client::volume(const Context& context, const std::string& driver,
                                  const std::string& name) {
  DVDI_TRY(const json::value answer, call(context, "GET", volume_path(driver, name)));
  return wire::volume_view_of(answer);
}

Result<std::vector<std::string>> Client::driver_volumes(const Context& context, const std::string& driver) {
  DVDI_TRY(const json::value answer,
           call(context, "GET", fmt::format("/v1/drivers/{}/volumes", percent_encode(driver))));
  return wire::texts_of(answer, "volumes");
}

Status Client::create_volume(const Context& context, const std::string& driver, const std::string& name,
                             const std::vector<std::pair<std::string, std::string>>& options) {
  json::object given;
  for (const auto& [key, value] : options) given[key] = value;
  const json::object body{{"driver", driver}, {"name", name}, {"options", std::move(given)}};
  DVDI_CHECK(call(context, "POST", "/v1/volumes", json::serialize(body)));
  return {};
}

Status Client::remove_volume(const Context& context, const std::string& driver, const std::string& name) {
  DVDI_CHECK(call(context, "DELETE", volume_path(driver, name)));
  return {};
}

Result<volume::Release> Client::release_volume(const Context& context, const std::string& driver,
                                               const std::string& name, bool dry_run) {
  DVDI_TRY(const json::value answer, call(context, "POST", volume_path(driver, name) + "/release",
                                          json::serialize(json::object{{"dry_run", dry_run}})));
  return wire::release_of(answer);
}

Result<std::vector<volume::DriverStatus>> Client::drivers(const Context& context) {
  DVDI_TRY(const json::value answer, call(context, "GET", "/v1/drivers"));
  return list<volume::DriverStatus>(answer, "drivers", wire::driver_status_of);
}

Result<std::vector<EventView>> Client::events(const Context& context, std::uint64_t after, std::size_t limit,
                                              Duration wait) {
  const auto wait_ms = std::chrono::duration_cast<std::chrono::milliseconds>(wait).count();
  DVDI_TRY(const std::string text,
           call_text(context, "GET",
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
  DVDI_TRY(const json::value answer, call(context, "GET", "/v1/events/verify"));
  auto verified = wire::verified_of(answer);
  if (progress) progress(verified.count);
  return verified;
}

Result<UsageReport> Client::usage(const Context& context, const UsageQuery& query,
                                  const UsageProgress& progress) {
  if (progress) progress(0, 0);  // the daemon does not say how far it is
  DVDI_TRY(const json::value answer,
           call(context, "POST", "/v1/usage", json::serialize(wire::to_json(query))));
  return wire::usage_report_of(answer);
}

Result<Compared> Client::compare_events(const Context& context, const std::string& sink) {
  DVDI_TRY(const json::value answer,
           call(context, "GET", fmt::format("/v1/sinks/{}/compare", percent_encode(sink))));
  return wire::compared_of(answer);
}

Result<std::vector<SinkStatus>> Client::sinks(const Context& context) {
  DVDI_TRY(const json::value answer, call(context, "GET", "/v1/sinks"));
  return list<SinkStatus>(answer, "sinks", wire::sink_status_of);
}

Status Client::ask_sink(const Context& context, const std::string& name, const std::string& what,
                        const json::object& body) {
  DVDI_CHECK(call(context, "POST", fmt::format("/v1/sinks/{}/{}", percent_encode(name), what),
                  json::serialize(body)));
  return {};
}

Status Client::test_sink(const Context& context, const std::string& name) {
  return ask_sink(context, name, "test");
}

Status Client::pause_sink(const Context& context, const std::string& name) {
  return ask_sink(context, name, "pause");
}

Status Client::resume_sink(const Context& context, const std::string& name) {
  return ask_sink(context, name, "resume");
}

Status Client::replay_sink(const Context& context, const std::string& name, std::uint64_t from) {
  return ask_sink(context, name, "replay", {{"from", from}});
}

}  // namespace dvdi
