#include "daemon/wire.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <array>

#include "base/time_text.h"

namespace dvdi::wire {

namespace {

json::value text_or_null(const std::string& text) { return text.empty() ? json::value() : json::value(text); }

std::string text(const json::value& from, std::string_view name) {
  return std::string(json::text_or_empty(from, name));
}

template <class Number>
Number whole(const json::value& from, std::string_view name) {
  const json::value* found = json::find(from, name);
  if (found == nullptr || !found->is_number()) return 0;
  boost::system::error_code error;
  const auto value = found->to_number<Number>(error);
  return error ? Number{} : value;
}

bool flag(const json::value& from, std::string_view name) {
  const json::value* found = json::find(from, name);
  return found != nullptr && found->is_bool() && found->get_bool();
}

std::optional<std::uint64_t> optional_number(const json::value& from, std::string_view name) {
  const json::value* found = json::find(from, name);
  if (found == nullptr || !found->is_number()) return std::nullopt;
  return whole<std::uint64_t>(from, name);
}

template <class Visit>
void each(const json::value& from, std::string_view name, Visit visit) {
  const json::value* found = json::find(from, name);
  if (found == nullptr || !found->is_array()) return;
  for (const json::value& one : found->get_array()) visit(one);
}

Result<json::value> message_json(const google::protobuf::Message& message, std::string_view what) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string out;
  const auto status = google::protobuf::util::MessageToJsonString(message, &out, options);
  if (!status.ok())
    return Error{
        .code = Code::internal,
        .message = std::string(what) + " cannot be written as JSON: " + std::string(status.message())};
  return json::parse(out, what);
}

}  // namespace

json::array to_json(const std::vector<std::string>& texts) {
  json::array out;
  for (const std::string& one : texts) out.emplace_back(one);
  return out;
}

std::vector<std::string> texts_of(const json::value& from, std::string_view name) {
  std::vector<std::string> out;
  each(from, name, [&](const json::value& one) {
    if (one.is_string()) out.emplace_back(one.get_string());
  });
  return out;
}

int http_status(Code code) {
  switch (code) {
    case Code::invalid_argument:
      return 400;
    case Code::permission_denied:
      return 403;
    case Code::not_found:
      return 404;
    case Code::already_exists:
    case Code::conflict:
    case Code::failed_precondition:
      return 409;
    case Code::resource_exhausted:
      return 429;
    case Code::unsupported:
      return 501;
    case Code::driver_error:
    case Code::driver_violation:
      return 502;
    case Code::unavailable:
    case Code::cancelled:
      return 503;
    case Code::deadline_exceeded:
      return 504;
    case Code::corrupted:
    case Code::io:
    case Code::internal:
      break;
  }
  return 500;
}

json::object problem(const Error& error) {
  json::object out = to_json(error);
  out["type"] = "about:blank";
  out["title"] = code_name(error.code);
  out["status"] = http_status(error.code);
  out["detail"] = error.text();
  return out;
}

json::object to_json(const ContainerView& view) {
  json::object labels;
  for (const auto& [key, value] : view.labels) labels[key] = value;
  json::array volumes;
  for (const auto& one : view.volumes) {
    volumes.push_back(json::object{{"driver", one.driver},
                                   {"name", one.name},
                                   {"container_path", text_or_null(one.container_path)},
                                   {"mode", one.mode}});
  }
  return json::object{{"owner", view.owner},
                      {"id", view.id},
                      {"state", view.state},
                      {"pid", view.pid == 0 ? json::value() : json::value(view.pid)},
                      {"since", view.since},
                      {"ended", text_or_null(view.ended)},
                      {"kept", text_or_null(view.kept)},
                      {"framework", text_or_null(view.framework)},
                      {"role", text_or_null(view.role)},
                      {"principal", text_or_null(view.principal)},
                      {"task_id", text_or_null(view.task_id)},
                      {"task_name", text_or_null(view.task_name)},
                      {"user", text_or_null(view.user)},
                      {"labels", std::move(labels)},
                      {"volumes", std::move(volumes)}};
}

ContainerView container_view_of(const json::value& value) {
  ContainerView view{.owner = text(value, "owner"),
                     .id = text(value, "id"),
                     .state = text(value, "state"),
                     .framework = text(value, "framework"),
                     .role = text(value, "role"),
                     .principal = text(value, "principal"),
                     .task_id = text(value, "task_id"),
                     .task_name = text(value, "task_name"),
                     .user = text(value, "user"),
                     .labels = {},
                     .pid = whole<std::int64_t>(value, "pid"),
                     .since = text(value, "since"),
                     .ended = text(value, "ended"),
                     .kept = text(value, "kept"),
                     .volumes = {}};
  if (const json::value* labels = json::find(value, "labels"); labels != nullptr && labels->is_object()) {
    for (const auto& one : labels->get_object()) {
      view.labels.emplace_back(one.key(), one.value().is_string() ? one.value().get_string().c_str() : "");
    }
  }
  each(value, "volumes", [&](const json::value& one) {
    view.volumes.push_back(
        {text(one, "driver"), text(one, "name"), text(one, "container_path"), text(one, "mode")});
  });
  return view;
}

json::object to_json(const VolumeView& view) {
  json::value owed;
  if (view.owed) {
    owed = json::object{{"since", view.owed->since},
                        {"attempts", view.owed->attempts},
                        {"last_error", view.owed->last_error},
                        {"next_try", text_or_null(view.owed->next_try)},
                        {"parked", view.owed->parked}};
  }
  json::value foreign;
  if (!view.foreign_since.empty()) {
    foreign = json::object{{"since", view.foreign_since}, {"evidence", view.foreign_evidence}};
  }
  return json::object{{"driver", view.driver},
                      {"name", view.name},
                      {"state", view.state.empty() ? "absent" : view.state},
                      {"mount_id", text_or_null(view.mount_id)},
                      {"mount_point", text_or_null(view.mount_point)},
                      {"fs_type", text_or_null(view.fs_type)},
                      {"source", text_or_null(view.source)},
                      {"since", text_or_null(view.since)},
                      {"size_bytes", view.size_bytes ? json::value(*view.size_bytes) : json::value()},
                      {"exclusive", view.exclusive},
                      {"containers", to_json(view.containers)},
                      {"owed", std::move(owed)},
                      {"foreign", std::move(foreign)},
                      {"lost", text_or_null(view.lost)},
                      {"fenced", text_or_null(view.fenced)}};
}

VolumeView volume_view_of(const json::value& value) {
  VolumeView view{.driver = text(value, "driver"),
                  .name = text(value, "name"),
                  .state = text(value, "state"),
                  .mount_id = text(value, "mount_id"),
                  .mount_point = text(value, "mount_point"),
                  .fs_type = text(value, "fs_type"),
                  .source = text(value, "source"),
                  .since = text(value, "since"),
                  .size_bytes = optional_number(value, "size_bytes"),
                  .containers = texts_of(value, "containers"),
                  .exclusive = flag(value, "exclusive"),
                  .owed = {},
                  .foreign_since = {},
                  .foreign_evidence = {},
                  .lost = text(value, "lost"),
                  .fenced = text(value, "fenced")};
  if (view.state == "absent") view.state.clear();
  if (const json::value* owed = json::find(value, "owed"); owed != nullptr && owed->is_object()) {
    view.owed = VolumeView::Debt{.since = text(*owed, "since"),
                                 .last_error = text(*owed, "last_error"),
                                 .next_try = text(*owed, "next_try"),
                                 .attempts = whole<unsigned>(*owed, "attempts"),
                                 .parked = flag(*owed, "parked")};
  }
  if (const json::value* foreign = json::find(value, "foreign"); foreign != nullptr) {
    view.foreign_since = text(*foreign, "since");
    view.foreign_evidence = text(*foreign, "evidence");
  }
  return view;
}

json::object to_json(const Api::Verified& verified) {
  return json::object{{"intact", true},
                      {"count", verified.count},
                      {"first", verified.first},
                      {"last", verified.last},
                      {"head", verified.head}};
}

Api::Verified verified_of(const json::value& value) {
  return {.count = whole<std::uint64_t>(value, "count"),
          .first = whole<std::uint64_t>(value, "first"),
          .last = whole<std::uint64_t>(value, "last"),
          .head = text(value, "head")};
}

json::object to_json(const volume::Release& release) {
  return json::object{
      {"steps", to_json(release.steps)}, {"done", release.done}, {"left", text_or_null(release.left)}};
}

volume::Release release_of(const json::value& value) {
  return {.steps = texts_of(value, "steps"), .done = flag(value, "done"), .left = text(value, "left")};
}

json::object to_json(const volume::DriverStatus& status) {
  return json::object{
      {"name", status.name},
      {"running", status.running},
      {"waiting", status.waiting},
      {"calls_at_once", status.calls_at_once},
      {"calls_waiting", status.calls_waiting},
      {"calls", status.calls},
      {"errors", status.errors},
      {"timeouts", status.timeouts},
      {"turned_away", status.turned_away},
      {"last_error", text_or_null(status.last_error)},
      {"last_error_time",
       status.last_error_time ? json::value(rfc3339(*status.last_error_time)) : json::value()},
      {"state", driver_state_name(status.state)},
      {"state_reason", text_or_null(status.state_reason)},
      {"state_since", status.state_since ? json::value(rfc3339(*status.state_since)) : json::value()}};
}

volume::DriverStatus driver_status_of(const json::value& value) {
  volume::DriverStatus status{.name = text(value, "name"),
                              .running = whole<unsigned>(value, "running"),
                              .waiting = whole<unsigned>(value, "waiting"),
                              .calls_at_once = whole<unsigned>(value, "calls_at_once"),
                              .calls_waiting = whole<unsigned>(value, "calls_waiting"),
                              .calls = whole<std::uint64_t>(value, "calls"),
                              .errors = whole<std::uint64_t>(value, "errors"),
                              .timeouts = whole<std::uint64_t>(value, "timeouts"),
                              .turned_away = whole<std::uint64_t>(value, "turned_away"),
                              .last_error = text(value, "last_error"),
                              .last_error_time = {},
                              .state = driver_state_of(text(value, "state")),
                              .state_reason = text(value, "state_reason"),
                              .state_since = {}};
  status.state_since = parse_time(json::text_or_empty(value, "state_since"));
  status.last_error_time = parse_time(json::text_or_empty(value, "last_error_time"));
  return status;
}

json::array to_json(const std::vector<isolator::Owed>& owed) {
  json::array out;
  for (const isolator::Owed& one : owed)
    out.push_back(json::object{{"driver", one.driver}, {"volume", one.volume}, {"reason", one.reason}});
  return out;
}

std::vector<isolator::Owed> owed_of(const json::value& value) {
  std::vector<isolator::Owed> owed;
  each(value, "owed", [&](const json::value& one) {
    owed.push_back(
        {.driver = text(one, "driver"), .volume = text(one, "volume"), .reason = text(one, "reason")});
  });
  return owed;
}

json::array to_json(const std::vector<volume::Adopted>& adopted) {
  json::array mounts;
  for (const volume::Adopted& one : adopted) {
    using What = volume::Adopted::What;
    const char* result = one.what == What::found ? "found" : one.what == What::known ? "known" : "absent";
    mounts.push_back(json::object{{"driver", one.volume.driver},
                                  {"name", one.volume.name},
                                  {"mount_point", one.mount_point},
                                  {"result", result},
                                  {"reason", one.reason}});
  }
  return mounts;
}

json::object to_json(const Compared& compared) {
  return json::object{{"same", compared.same},
                      {"sequence", compared.sink.sequence},
                      {"hash", text_or_null(compared.sink.hash)},
                      {"first", compared.sink.first},
                      {"count", compared.sink.count},
                      {"not_told", text_or_null(compared.not_told)}};
}

Compared compared_of(const json::value& value) {
  return {.sink = {.sequence = whole<std::uint64_t>(value, "sequence"),
                   .hash = text(value, "hash"),
                   .first = whole<std::uint64_t>(value, "first"),
                   .count = whole<std::uint64_t>(value, "count")},
          .same = flag(value, "same"),
          .not_told = text(value, "not_told")};
}

json::object to_json(const SinkStatus& status) {
  const auto number_or_null = [](std::uint64_t number) {
    return number == 0 ? json::value() : json::value(number);
  };
  const auto time_or_null = [](const std::optional<WallTime>& time) {
    return time ? json::value(rfc3339(*time)) : json::value();
  };
  return {{"name", status.name},
          {"type", status.type},
          {"where", status.where},
          {"state", status.state},
          {"paused", status.paused},
          {"cursor", status.cursor},
          {"behind", status.behind},
          {"oldest", time_or_null(status.oldest)},
          {"replay_until", number_or_null(status.replay_until)},
          {"undelivered", number_or_null(status.undelivered)},
          {"last_error", text_or_null(status.last_error)},
          {"last_error_time", time_or_null(status.last_error_time)},
          {"next_try", time_or_null(status.next_try)},
          {"delivered_total", status.delivered_total},
          {"failures_total", status.failures_total}};
}

SinkStatus sink_status_of(const json::value& value) {
  return {.name = text(value, "name"),
          .type = text(value, "type"),
          .where = text(value, "where"),
          .state = text(value, "state"),
          .cursor = whole<std::uint64_t>(value, "cursor"),
          .behind = whole<std::uint64_t>(value, "behind"),
          .oldest = parse_time(text(value, "oldest")),
          .replay_until = whole<std::uint64_t>(value, "replay_until"),
          .undelivered = whole<std::uint64_t>(value, "undelivered"),
          .paused = flag(value, "paused"),
          .last_error = text(value, "last_error"),
          .last_error_time = parse_time(text(value, "last_error_time")),
          .next_try = parse_time(text(value, "next_try")),
          .delivered_total = whole<std::uint64_t>(value, "delivered_total"),
          .failures_total = whole<std::uint64_t>(value, "failures_total")};
}

json::object to_json(const volume::Recovered& recovered) {
  json::array kept, missing;
  for (const auto& one : recovered.kept) kept.push_back(json::object{{"id", one.id}, {"reason", one.reason}});
  for (const auto& one : recovered.missing) {
    missing.push_back(
        json::object{{"id", one.id}, {"driver", one.driver}, {"volume", one.volume}, {"reason", one.reason}});
  }
  return json::object{{"dropped", to_json(recovered.dropped)},
                      {"kept", std::move(kept)},
                      {"missing", std::move(missing)},
                      {"owed", to_json(recovered.owed)}};
}

Result<json::value> launch_json(const v1::ContainerLaunchInfo& launch) {
  return message_json(launch, "the launch info");
}

Result<v1::ContainerLaunchInfo> launch_of(const json::value& value) {
  v1::ContainerLaunchInfo launch;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto status = google::protobuf::util::JsonStringToMessage(json::serialize(value), &launch, options);
  if (!status.ok())
    return Error{.code = Code::corrupted,
                 .message = "the daemon's launch info cannot be read: " + std::string(status.message())};
  return launch;
}

Result<json::value> request_json(const v1::ContainerRequest& request) {
  return message_json(request, "the request");
}

json::value container_id_json(const std::string& id) {
  json::value out;
  std::size_t begin = 0;
  for (;;) {
    const std::size_t dot = id.find('.', begin);
    json::object one{{"value", id.substr(begin, dot - begin)}};
    if (!out.is_null()) one["parent"] = std::move(out);
    out = std::move(one);
    if (dot == std::string::npos) return out;
    begin = dot + 1;
  }
}

}  // namespace dvdi::wire
