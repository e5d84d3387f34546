#include "daemon/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/random.h"
#include "base/text.h"
#include "base/time_text.h"
#include "daemon/metrics_server.h"
#include "daemon/routes_call.h"
#include "daemon/usage_wire.h"
#include "daemon/wire.h"
#include "http/uri.h"
#include "isolator/external_volumes.h"
#include "spec/recover_reader.h"
#include "spec/request.h"
#include "spec/rules.h"

namespace dvdi {

namespace {

constexpr std::size_t max_mount_id_bytes = 255;
constexpr std::size_t most_events = 10'000;  // in one answer
constexpr Duration longest_wait = std::chrono::minutes(1);

bool is_trace_id(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
}

}  // namespace

Routes::Routes(Parts parts) : parts_(std::move(parts)) {}

const std::vector<Routes::Route>& Routes::table() {
  static const std::vector<Route> routes = {
      {"GET", "/healthz", &Routes::healthz, std::nullopt},
      {"GET", "/metrics", &Routes::metrics, Action::read_metrics},
      {"POST", "/v1/recover", &Routes::recover, Action::recover},
      {"POST", "/v1/adopt", &Routes::adopt, Action::recover},
      {"POST", "/v1/prepare", &Routes::prepare, Action::prepare},
      {"POST", "/v1/isolate", &Routes::isolate, Action::isolate},
      {"POST", "/v1/cleanup", &Routes::cleanup, Action::cleanup},
      {"GET", "/v1/containers", &Routes::containers, Action::read_containers},
      {"GET", "/v1/containers/*/*", &Routes::container, Action::read_containers},
      {"GET", "/v1/volumes", &Routes::volumes, Action::read_volumes},
      {"POST", "/v1/volumes", &Routes::create_volume, Action::create_volume},
      {"GET", "/v1/volumes/*/*", &Routes::volume, Action::read_volumes},
      {"DELETE", "/v1/volumes/*/*", &Routes::remove_volume, Action::remove_volume},
      {"POST", "/v1/volumes/*/*/release", &Routes::release_volume, Action::release_volume},
      {"GET", "/v1/events", &Routes::events, Action::read_events},
      {"GET", "/v1/events/verify", &Routes::verify_events, Action::verify_events},
      {"GET", "/v1/usage", &Routes::usage, Action::read_usage},
      {"POST", "/v1/usage", &Routes::usage_with_prices, Action::read_usage},
      {"GET", "/v1/drivers", &Routes::drivers, Action::read_drivers},
      {"GET", "/v1/drivers/*/volumes", &Routes::driver_volumes, Action::read_drivers},
      {"GET", "/v1/sinks", &Routes::sinks, Action::read_sinks},
      {"GET", "/v1/sinks/*/compare", &Routes::compare_sink, Action::verify_events},
      {"POST", "/v1/sinks/*/test", &Routes::test_sink, Action::change_sink},
      {"POST", "/v1/sinks/*/pause", &Routes::pause_sink, Action::change_sink},
      {"POST", "/v1/sinks/*/resume", &Routes::resume_sink, Action::change_sink},
      {"POST", "/v1/sinks/*/replay", &Routes::replay_sink, Action::change_sink},
  };
  return routes;
}

void Routes::handle(const Context& context, http::IncomingRequest& request, http::Answer& to_send) {
  CountedAnswer answer(to_send, parts_.requests);
  const std::string_view asked_trace = request.header("Dvdi-Trace-Id");
  const std::string trace = is_trace_id(asked_trace) ? std::string(asked_trace) : random_uuid();
  Context bounded = Context(context.clock(), trace).with_stop(context.stop()).with_caller(request.peer());
  if (const std::string_view text = request.header("Dvdi-Timeout-Ms"); !text.empty()) {
    const auto timeout = parse_number<std::uint32_t>(text);
    if (timeout) bounded = bounded.with_timeout(std::chrono::milliseconds(*timeout));
  }
  Call call{
      .context = &bounded, .request = &request, .answer = &answer, .path = {}, .query = {}, .groups = {}};
  const Status done = dispatch(call);
  if (done) return;
  const Error& error = done.error();
  if (answer.started()) return answer.fail();
  const int status = wire::http_status(error.code);
  if (status >= 500 && parts_.failed) parts_.failed(error);
  // A client that has gone does not read it, and nobody else needs to know.
  static_cast<void>(answer.send(status, wire::problem_type, json::serialize(wire::problem(error)) + "\n"));
}

Status Routes::dispatch(Call& call) {
  DVDI_TRY(call.path, http::split_path(call.request->path()));
  DVDI_TRY(call.query, http::parse_query(call.request->query()));
  DVDI_TRY(call.groups, peer_groups(call.request->peer_socket()));
  call.standing = standing_of(parts_.access(), call.caller(), call.groups);
  std::string methods;
  for (const Route& route : table()) {
    const auto pattern = split(route.path.substr(1), '/');
    const bool fits =
        std::ranges::equal(pattern, call.path, [](std::string_view one, const std::string& other) {
          return one == "*" ? !other.empty() : one == other;
        });
    if (!fits) continue;
    if (route.method == call.request->method() ||
        (route.method == "GET" && call.request->method() == "HEAD")) {
      call.answer->is_for(route.method, route.path);
      // Nothing that a stranger sends is read.
      if (route.action && call.standing == Standing::stranger) DVDI_CHECK(permit(call, *route.action));
      return (this->*route.work)(call);
    }
    methods += (methods.empty() ? "" : ", ") + std::string(route.method);
  }
  if (!methods.empty())
    return Error{
        .code = Code::unsupported,
        .message = fmt::format("{} of {}: this address knows {}", printable(call.request->method(), 20),
                               printable(call.request->path()), methods)};
  return Error{.code = Code::not_found,
               .message = fmt::format("nothing is at {}", printable(call.request->path())),
               .hint = "the addresses begin with /v1/"};
}

Status Routes::refused(Call& call, const Refusal& refusal, Action action, const std::string& what) {
  parts_.denied(*call.context, Denial{.caller = call.caller(),
                                      .action = std::string(action_name(action)),
                                      .what = what,
                                      .rule = refusal.rule,
                                      .error = refusal.error.message});
  return refusal.error;
}

Status Routes::permit(Call& call, Action action, const std::string& owner, const std::string& what) {
  const auto refusal = refuse(call.standing, call.caller(), action, owner);
  return refusal ? refused(call, *refusal, action, what) : Status();
}

Status Routes::healthz(Call& call) {
  json::object health{{"status", "ok"}, {"version", parts_.version}};
  if (call.standing != Standing::stranger) health["state_dir"] = parts_.state_dir;
  return call.give(health);
}

Status Routes::metrics(Call& call) {
  DVDI_CHECK(permit(call, Action::read_metrics));
  DVDI_TRY(const std::string text, parts_.metrics(*call.context));
  return call.answer->send(200, metrics_type, text);
}

Status Routes::recover(Call& call) {
  DVDI_CHECK(permit(call, Action::recover));
  volume::RecoverRequest request;
  std::vector<std::string> warnings;
  const auto container = [&](spec::ContainerState state) -> Status {
    volume::LiveContainer live{
        .id = std::move(state.id), .init = state.pid, .directory = std::move(state.directory)};
    live.attribution = isolator::attribution_of(state.request.attribution());
    // What is wrong with one container's volumes must not keep an agent from coming up.
    if (auto volumes = isolator::volume_requests(state.request.container_info())) {
      live.volumes = *std::move(volumes);
    } else {
      warnings.push_back(fmt::format("container {}: {}", printable(live.id), volumes.error().message));
    }
    request.live.push_back(std::move(live));
    return {};
  };
  spec::RecoverReader reader(parts_.agent(),
                             {.container = container, .orphan = [&](std::string id) -> Status {
                                request.orphans.push_back(std::move(id));
                                return {};
                              }});
  constexpr std::size_t piece_bytes = std::size_t{64} << 10U;
  for (;;) {
    DVDI_TRY(const std::string piece, call.request->read(*call.context, piece_bytes));
    if (piece.empty()) break;
    DVDI_CHECK(reader.feed(piece));
  }
  DVDI_TRY(const spec::RecoverHead head, reader.finish());
  request.owner = head.owner;
  request.complete = head.complete;
  DVDI_TRY(const volume::Recovered recovered, parts_.recover(call.to_the_end(), request));
  parts_.changed();
  json::object out = wire::to_json(recovered);
  out["warnings"] = wire::to_json(warnings);
  // An agent whose work directory the state is not in may want to know.
  if (!head.work_dir.empty()) {
    out["state_dir"] = parts_.state_dir;
    out["state_in_work_dir"] = parts_.state_dir.starts_with(head.work_dir + "/");
  }
  return call.give(out);
}

Status Routes::adopt(Call& call) {
  DVDI_TRY(const json::value body, call.body());
  DVDI_CHECK(only_members(body, {"from", "mounts"}));
  DVDI_CHECK(permit(call, Action::recover));
  DVDI_TRY(const std::string from, text_member(body, "from"));
  if (from.size() > spec::max_path_bytes) return wrong("from: too long");
  const json::value* given = json::find(body, "mounts");
  if (given == nullptr || !given->is_array()) return wrong("mounts: a list of mounts is needed");
  // One that no driver can have mounted does not keep the others from being adopted.
  std::vector<volume::Adopted> all;
  std::vector<volume::LeftBehind> mounts;
  for (const json::value& one : given->get_array()) {
    const std::string place = fmt::format("mounts[{}]", all.size());
    if (!one.is_object()) return wrong(place + ": must be an object");
    DVDI_CHECK(only_members(one, {"driver", "name", "mount_point", "mount_id"}));
    volume::LeftBehind mount;
    DVDI_TRY(mount.volume.driver, text_member(one, "driver"));
    DVDI_TRY(mount.volume.name, text_member(one, "name"));
    DVDI_TRY(mount.mount_point, text_member(one, "mount_point"));
    if (const json::value* id = json::find(one, "mount_id"); id != nullptr && !id->is_null()) {
      if (!id->is_string() || id->get_string().size() > max_mount_id_bytes)
        return wrong(fmt::format("{}.mount_id: a text of at most {} bytes", place, max_mount_id_bytes));
      mount.mount_id = id->get_string();
    }
    spec::Problems problems;
    spec::check_driver_name({.value = mount.volume.driver, .place = "driver"}, problems);
    spec::check_volume_name({.value = mount.volume.name, .place = "name"}, problems);
    spec::check_absolute_path({.value = mount.mount_point, .place = "mount_point"}, "the mount point",
                              problems);
    all.push_back({.volume = mount.volume,
                   .mount_point = mount.mount_point,
                   .what = volume::Adopted::What::absent,
                   .reason = problems.empty() ? "" : problems.error("no driver can have made it").text()});
    if (problems.empty()) mounts.push_back(std::move(mount));
  }
  auto adopted = parts_.adopt(call.to_the_end(), from, mounts);
  parts_.changed();
  if (!adopted) return fail(adopted.error());
  auto next = adopted->begin();
  for (volume::Adopted& one : all) {
    if (one.reason.empty()) one = std::move(*next++);
  }
  return call.give({{"mounts", wire::to_json(all)}});
}

Status Routes::prepare(Call& call) {
  DVDI_TRY(const json::value body, call.body());
  DVDI_CHECK(only_members(
      body, {"owner", "container_id", "container_config", "request", "container_request", "staged"}));
  Api::PrepareOptions options;
  DVDI_TRY(options.owner, text_member(body, "owner"));
  std::string id;
  if (const json::value* given = json::find(body, "container_id"); given != nullptr && !given->is_null()) {
    DVDI_TRY(id, spec::container_id_text(*given));
  }
  const std::string what = id.empty() ? options.owner : options.owner + "/" + id;
  DVDI_CHECK(permit(call, Action::prepare, options.owner, what));

  const json::value* config = json::find(body, "container_config");
  const json::value* form = json::find(body, "request");
  const json::value* own = json::find(body, "container_request");
  if ((config != nullptr) + (form != nullptr) + (own != nullptr) != 1)
    return wrong("exactly one of container_config, request and container_request is needed");
  v1::ContainerRequest request;
  if (config != nullptr) {
    if (id.empty()) return wrong("container_id: a ContainerID is needed with a container_config");
    DVDI_TRY(request, spec::parse_container_config(*config, id, parts_.agent()));
  } else if (own != nullptr) {
    DVDI_TRY(request, spec::parse_container_request(*own));
  } else {
    spec::Input input;
    input.file_text = form->is_string() ? std::string(form->get_string()) : json::serialize(*form);
    input.file_name = "request";
    input.needs_command = false;  // the caller launches
    DVDI_TRY(request, spec::parse_request(input));
  }
  if (!id.empty()) request.mutable_container_id()->set_value(id);
  // Who launches by itself, through descriptors, needs no mounts to bind by path.
  DVDI_TRY(options.staged, flag_member(body, "staged", true));
  if (call.standing != Standing::root) {
    const auto user = parts_.find_user(*call.context, request.command().user());
    if (!user) return fail(user.error());
    if (const auto refusal = adopt_request(call.standing, call.caller(), call.groups, *user, request))
      return refused(call, *refusal, Action::prepare, what);
  }
  // `dvdi run` works on its container itself until the task's init is known; an agent says what is alive when
  // it recovers, so of its containers the daemon itself is in charge.
  if (options.owner == "run") {
    if (auto worker = identify_process(call.caller().pid)) options.worker = *std::move(worker);
  }
  // What a killed dvdcli has begun stays until it is unmounted: whoever started it unmounts then.
  const bool goes_on = isolator::ContainerKey{.owner = options.owner, .id = {}}.lives_until_unmount();
  const auto prepared = parts_.api.prepare(goes_on ? call.to_the_end() : *call.context, options, request);
  parts_.changed();
  if (!prepared) return fail(prepared.error());
  DVDI_TRY(json::value launch, wire::launch_json(prepared->launch));
  const std::vector<std::string> warnings(request.warnings().begin(), request.warnings().end());
  json::object out{{"owner", prepared->key.owner},
                   {"id", prepared->key.id},
                   {"container_id", wire::container_id_json(prepared->key.id)},
                   {"launch_info", std::move(launch)},
                   {"warnings", wire::to_json(warnings)}};
  // They name volumes of others.
  if (!options.staged && call.standing == Standing::root)
    out["foreign_mount_points"] = wire::to_json(prepared->foreign_mount_points);
  return call.give(out);
}

Status Routes::isolate(Call& call) {
  DVDI_TRY(const json::value body, call.body());
  DVDI_CHECK(only_members(body, {"owner", "container_id", "pid", "watch"}));
  DVDI_TRY(const ContainerKey key, call.key(body));
  DVDI_CHECK(permit(call, Action::isolate, key.owner, key.text()));
  const json::value* number = json::find(body, "pid");
  if (number == nullptr || !number->is_int64() || number->get_int64() < 1 || number->get_int64() > (1 << 22))
    return wrong("pid: the number of a process is needed");
  DVDI_TRY(const bool watch, flag_member(body, "watch", false));
  const auto pid = static_cast<pid_t>(number->get_int64());
  UniqueFd held;  // while it is open, the number is that process's
  if (call.standing != Standing::root) {
    auto opened = open_process_of(call.caller().uid, pid);
    if (!opened && opened.error().code == Code::permission_denied)
      return refused(call, {.rule = "own processes only", .error = opened.error()}, Action::isolate,
                     key.text());
    if (!opened) return fail(std::move(opened).error());
    held = *std::move(opened);
  }
  DVDI_CHECK(parts_.api.isolate(call.to_the_end(), key, pid, watch));
  if (held && !has_not_ended(held))
    return Error{.code = Code::not_found, .message = fmt::format("process {} has ended meanwhile", pid)};
  parts_.changed();
  return call.give({});
}

Status Routes::cleanup(Call& call) {
  DVDI_TRY(const json::value body, call.body());
  DVDI_CHECK(only_members(body, {"owner", "container_id"}));
  DVDI_TRY(const ContainerKey key, call.key(body));
  DVDI_CHECK(permit(call, Action::cleanup, key.owner, key.text()));
  const auto owed = parts_.api.cleanup(call.to_the_end(), key);
  parts_.changed();
  if (!owed) return fail(owed.error());
  return call.give({{"owed", wire::to_json(*owed)}});
}

Status Routes::containers(Call& call) {
  DVDI_CHECK(permit(call, Action::read_containers));
  DVDI_CHECK(call.only({"ended"}));
  DVDI_TRY(const bool ended, call.flag("ended"));
  DVDI_TRY(auto all, parts_.api.containers(*call.context, ended));
  std::erase_if(all, [&](const ContainerView& one) { return !may_see(call.standing, call.caller(), one); });
  return call.give({{"containers", list(all)}});
}

Status Routes::container(Call& call) {
  DVDI_CHECK(permit(call, Action::read_containers));
  const ContainerKey key{.owner = call.path[2], .id = call.path[3]};
  DVDI_TRY(const ContainerView one, parts_.api.find_container(*call.context, key));
  if (!may_see(call.standing, call.caller(), one)) return no_container(key);
  return call.give(wire::to_json(one));
}

Status Routes::volumes(Call& call) {
  DVDI_CHECK(permit(call, Action::read_volumes));
  DVDI_CHECK(call.only({"ask"}));
  DVDI_TRY(const bool ask, call.flag("ask"));
  DVDI_TRY(Api::Volumes found, parts_.api.volumes(*call.context, ask && call.standing == Standing::root));
  json::array volumes;
  for (VolumeView& one : found.volumes) {
    if (const auto seen = seen_of(call.standing, call.caller(), std::move(one)))
      volumes.push_back(wire::to_json(*seen));
  }
  return call.give({{"volumes", std::move(volumes)}, {"warnings", wire::to_json(found.warnings)}});
}

Status Routes::volume(Call& call) {
  DVDI_CHECK(permit(call, Action::read_volumes));
  const std::string& driver = call.path[2];
  const std::string& name = call.path[3];
  if (call.standing == Standing::root) {
    DVDI_TRY(const VolumeView view, parts_.api.volume(*call.context, driver, name));
    return call.give(wire::to_json(view));
  }
  // No driver is asked for somebody else: its answer, and how long it takes, would say what it has.
  DVDI_TRY(Api::Volumes known, parts_.api.volumes(*call.context, false));
  for (VolumeView& one : known.volumes) {
    if (one.driver != driver || one.name != name) continue;
    if (const auto seen = seen_of(call.standing, call.caller(), std::move(one)))
      return call.give(wire::to_json(*seen));
  }
  return Error{.code = Code::not_found,
               .message = "no container of yours uses that volume",
               .driver = driver,
               .volume = name};
}

Status Routes::create_volume(Call& call) {
  DVDI_TRY(const json::value body, call.body());
  DVDI_CHECK(only_members(body, {"driver", "name", "options"}));
  DVDI_TRY(const std::string driver, text_member(body, "driver"));
  DVDI_TRY(const std::string name, text_member(body, "name"));
  DVDI_CHECK(permit(call, Action::create_volume, {}, driver + "/" + name));
  spec::Problems problems;
  spec::check_driver_name({.value = driver, .place = "driver"}, problems);
  spec::check_volume_name({.value = name, .place = "name"}, problems);
  std::vector<std::pair<std::string, std::string>> options;
  if (const json::value* given = json::find(body, "options"); given != nullptr && !given->is_null()) {
    if (!given->is_object()) return wrong("options: must be an object");
    for (const auto& one : given->get_object()) {
      if (!one.value().is_string())
        return wrong(fmt::format("options.{}: must be a text", printable(one.key())));
      const std::string place = fmt::format("options.{}", printable(one.key()));
      spec::check_option_key({.value = std::string(one.key()), .place = place}, problems);
      spec::check_option_value(one.value().get_string(), place, problems);
      options.emplace_back(one.key(), one.value().get_string());
    }
  }
  if (options.size() > spec::max_options) problems.add("options", "there are too many");
  if (!problems.empty()) return problems.error("the volume cannot be created");
  DVDI_CHECK(parts_.api.create_volume(call.to_the_end(), driver, name, options));
  return call.give({{"driver", driver}, {"name", name}});
}

Status Routes::remove_volume(Call& call) {
  DVDI_CHECK(permit(call, Action::remove_volume, {}, call.path[2] + "/" + call.path[3]));
  DVDI_CHECK(parts_.api.remove_volume(call.to_the_end(), call.path[2], call.path[3]));
  return call.give({{"driver", call.path[2]}, {"name", call.path[3]}});
}

Status Routes::release_volume(Call& call) {
  DVDI_CHECK(permit(call, Action::release_volume, {}, call.path[2] + "/" + call.path[3]));
  DVDI_TRY(const json::value body, call.body());
  DVDI_CHECK(only_members(body, {"dry_run"}));
  DVDI_TRY(const bool dry_run, flag_member(body, "dry_run", false));
  DVDI_TRY(const auto release,
           parts_.api.release_volume(call.to_the_end(), call.path[2], call.path[3], dry_run));
  parts_.changed();
  return call.give(wire::to_json(release));
}

Status Routes::events(Call& call) {
  DVDI_CHECK(permit(call, Action::read_events));
  DVDI_CHECK(call.only({"after", "limit", "follow", "wait_ms"}));
  DVDI_TRY(const std::uint64_t after, call.number("after", 0, std::uint64_t{1} << 62U));
  DVDI_TRY(const bool follow, call.flag("follow"));
  if (follow) return follow_events(call, after);
  DVDI_TRY(const std::uint64_t limit, call.number("limit", 1000, most_events));
  DVDI_TRY(const std::uint64_t wait, call.number("wait_ms", 0, longest_wait / std::chrono::milliseconds(1)));
  DVDI_TRY(const auto found, parts_.api.events(*call.context, after, limit, std::chrono::milliseconds(wait)));
  std::string lines;
  for (const EventView& one : found) {
    if (may_see_event(call.standing, call.caller(), one.json)) lines += one.json + "\n";
  }
  return call.answer->send(200, "application/x-ndjson", lines);
}

// Without end: what is there, and then each as it comes.
Status Routes::follow_events(Call& call, std::uint64_t after) {
  DVDI_CHECK(call.answer->start(200, "application/x-ndjson"));
  for (;;) {
    DVDI_TRY(const auto found, parts_.api.events(*call.context, after, most_events, longest_wait));
    std::string lines;
    for (const EventView& one : found) {
      if (may_see_event(call.standing, call.caller(), one.json)) lines += one.json + "\n";
      after = one.sequence;
    }
    if (!lines.empty()) DVDI_CHECK(call.answer->write(*call.context, lines));
  }
}

Status Routes::verify_events(Call& call) {
  DVDI_CHECK(permit(call, Action::verify_events));
  DVDI_TRY(const auto verified, parts_.api.verify_events(*call.context, nullptr));
  return call.give(wire::to_json(verified));
}

Status Routes::usage(Call& call) {
  DVDI_CHECK(permit(call, Action::read_usage));
  DVDI_CHECK(call.only({"by", "since", "until"}));
  UsageQuery query;
  if (const auto by = call.query.find("by"); by != call.query.end()) {
    const auto keys = split(by->second, ',');
    query.by.assign(keys.begin(), keys.end());
  }
  DVDI_TRY(query.since, call.time("since"));
  DVDI_TRY(query.until, call.time("until"));
  return give_usage(call, query);
}

Status Routes::usage_with_prices(Call& call) {
  DVDI_CHECK(permit(call, Action::read_usage));
  DVDI_TRY(const json::value body, call.body());
  DVDI_TRY(const UsageQuery query, wire::usage_query_of(body));
  return give_usage(call, query);
}

Status Routes::give_usage(Call& call, const UsageQuery& query) {
  DVDI_TRY(const UsageReport report, parts_.api.usage(*call.context, query, {}));
  DVDI_CHECK(call.answer->start(200, json_type));
  return wire::write_report(report, query,
                            [&](std::string_view piece) { return call.answer->write(*call.context, piece); });
}

Status Routes::drivers(Call& call) {
  DVDI_CHECK(permit(call, Action::read_drivers));
  DVDI_TRY(const auto all, parts_.api.drivers(*call.context));
  return call.give({{"drivers", list(all)}});
}

Status Routes::driver_volumes(Call& call) {
  DVDI_CHECK(permit(call, Action::read_drivers));
  DVDI_TRY(const auto names, parts_.api.driver_volumes(*call.context, call.path[2]));
  return call.give({{"volumes", wire::to_json(names)}});
}

}  // namespace dvdi
