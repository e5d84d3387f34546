#include "daemon/service.h"

#include <fmt/format.h>

#include "base/random.h"
#include "daemon/metrics.h"
#include "daemon/metrics_server.h"
#include "isolator/ownership.h"

namespace dvdi {

namespace {

// A scrape waits for the ledger no longer than that.
constexpr Duration longest_look = std::chrono::seconds(5);
constexpr Duration last_batch = std::chrono::seconds(3);  // of each sink, when the daemon ends

// Of what the daemon holds to from its start to its end: tables and keys whose values are not those in force.
std::vector<std::string> what_differs(const Config& read, const Config& in_force) {
  const volume::Policy& now = read.volumes;
  const volume::Policy& then = in_force.volumes;
  std::vector<std::string> names;
  const auto compare = [&](const char* name, bool same) {
    if (!same) names.emplace_back(name);
  };
  compare("state_dir", read.state_dir == in_force.state_dir);
  compare("socket", read.socket == in_force.socket);
  compare("sandbox_in_container", read.sandbox_in_container == in_force.sandbox_in_container);
  compare("[deadlines]", now.mount_deadline == then.mount_deadline &&
                             now.unmount_deadline == then.unmount_deadline &&
                             now.call_deadline == then.call_deadline);
  compare("[limits]",
          now.calls_per_driver == then.calls_per_driver && now.calls_waiting == then.calls_waiting);
  compare("[debts]", now.unmount_attempts == then.unmount_attempts && now.debt_backoff == then.debt_backoff &&
                         now.debt_backoff_cap == then.debt_backoff_cap &&
                         now.late_answer == then.late_answer);
  compare("[retention]", read.retention == in_force.retention);
  compare("[secrets]", now.secret_options == then.secret_options);
  compare("[docker]",
          read.docker.roots == in_force.docker.roots && read.docker.settings == in_force.docker.settings);
  compare("[driver]", now.by_driver == then.by_driver && read.docker.by_name == in_force.docker.by_name);
  compare("[sink]", read.sinks == in_force.sinks);
  return names;
}

}  // namespace

Service::~Service() {
  // Nobody may call the engine any more before it goes.
  metrics_server_.reset();
  server_.reset();
  housekeeper_.reset();
  reconciler_.reset();
  if (engine_) engine_->event_sinks().stop(Context().with_timeout(Duration::zero()));
}

Result<std::unique_ptr<Service>> Service::open(const Context& context, const Config& config, Parts parts) {
  std::unique_ptr<Service> service(new Service(config, std::move(parts)));
  DVDI_TRY(service->group_, find_group(config.access.group));
  DVDI_TRY(service->engine_, Engine::open(context, config, service->parts_.helpers, Engine::Mode::daemon));
  Engine& engine = *service->engine_;
  service->reconciler_ = std::make_unique<Reconciler>(
      Reconciler::Parts{.volumes = engine.manager(),
                        .ledger = engine.ledger(),
                        .clock = context.clock(),
                        .cleanup = [&engine](const Context& call,
                                             const ContainerKey& key) { return engine.cleanup(call, key); },
                        .let_go = [&engine](const Context& call,
                                            const VolumeKey& volume) { return engine.let_go(call, volume); },
                        .tidy = [&engine](const Context& call) { return engine.tidy(call); },
                        .say = service->parts_.info});
  DVDI_CHECK(service->reconciler_->start());
  service->housekeeper_ = std::make_unique<Housekeeper>(Housekeeper::Parts{.ledger = engine.ledger(),
                                                                           .retention = config.retention,
                                                                           .sinks = sink_names(config.sinks),
                                                                           .say = service->parts_.info},
                                                        Context(context.clock(), random_uuid()));
  return service;
}

Status Service::serve(UniqueFd listening) {
  routes_ = std::make_unique<Routes>(
      Routes::Parts{.api = *engine_,
                    .recover = std::bind_front(&Engine::recover, engine_.get()),
                    .adopt = std::bind_front(&Engine::adopt, engine_.get()),
                    .version = parts_.version,
                    .state_dir = config_.state_dir,
                    .access = [this] { return access(); },
                    .agent = [this] { return agent(); },
                    .find_user = [this](const Context& context,
                                        const std::string& user) -> Result<std::optional<MemberUser>> {
                      if (user.empty()) return std::optional<MemberUser>();
                      DVDI_TRY(const auto found, isolator::find_owner(context, parts_.helpers, user, ""));
                      return std::optional(MemberUser{.uid = found.uid, .gid = found.gid});
                    },
                    .denied = [this](const Context& context,
                                     const Denial& denial) { engine_->admission().record(context, denial); },
                    .metrics = [this](const Context& context) { return metrics(context); },
                    .requests = &requests_,
                    .changed = [this] { reconciler_->wake(); },
                    .failed = [this](const Error& error) { parts_.warning(error.text()); }});
  if (parts_.make_sink) {
    const auto say = [this](const std::string& text) { parts_.warning(text); };
    DVDI_CHECK(engine_->event_sinks().start(Context(), parts_.make_sink, say));
  }
  DVDI_TRY(server_,
           http::Server::start(std::move(listening),
                               [this](const Context& context, http::IncomingRequest& request,
                                      http::Answer& answer) { routes_->handle(context, request, answer); }));
  counted_ = server_.get();
  show_metrics_at(config_.metrics_listen);
  return {};
}

void Service::show_metrics_at(const std::string& address) {
  metrics_server_.reset();
  if (address.empty()) return;
  auto server =
      serve_metrics(address, parts_.version, [this](const Context& context) { return metrics(context); });
  if (!server) {
    parts_.warning(fmt::format("metrics_listen: {}; all else is served", server.error().text()));
    return;
  }
  metrics_server_ = *std::move(server);
  parts_.info(fmt::format("metrics at http://{}/metrics, for whoever reaches it", address));
}

Result<std::vector<std::string>> Service::reload(const Config& config) {
  DVDI_TRY(const auto group, find_group(config.access.group));
  DVDI_CHECK(engine_->admission().load(config.access.policy_file));
  // Also where it is the same: it may not have been free before.
  if (routes_ && (config.metrics_listen != config_.metrics_listen || !metrics_server_))
    show_metrics_at(config.metrics_listen);
  const Lock lock(mutex_);
  config_.metrics_listen = config.metrics_listen;
  config_.access = config.access;
  config_.agent = config.agent;
  config_.drain_timeout = config.drain_timeout;
  group_ = group;
  return what_differs(config, config_);
}

Duration Service::drain_timeout() {
  const Lock lock(mutex_);
  return config_.drain_timeout;
}

bool Service::drain(const Context& context) {
  const bool all = server_ == nullptr || server_->drain(context);
  metrics_server_.reset();
  server_.reset();  // cancels the rest, and waits for its roll-back
  counted_ = nullptr;
  reconciler_->stop(context);
  engine_->event_sinks().stop(Context().with_timeout(last_batch));
  return all;
}

AccessRules Service::access() {
  const Lock lock(mutex_);
  return {.group = group_};
}

spec::AgentRules Service::agent() {
  const Lock lock(mutex_);
  return config_.agent;
}

Result<std::string> Service::metrics(const Context& context) {
  Ledger& ledger = engine_->ledger();
  DVDI_TRY(LedgerFigures figures, ledger.figures(context.with_timeout(longest_look)));
  DVDI_TRY(auto drivers, engine_->drivers(context));
  DVDI_TRY(auto sinks, engine_->sinks(context.with_timeout(longest_look)));
  const http::Server* server = counted_;
  return metrics_text({.version = parts_.version,
                       .ledger = std::move(figures),
                       .writes = ledger.write_times(),
                       .store = ledger.size(),
                       .drivers = std::move(drivers),
                       .call_times = engine_->manager().call_times(),
                       .sinks = std::move(sinks),
                       .now = context.clock().wall(),
                       .helpers = parts_.helpers.counts(),
                       .requests = requests_.counts(),
                       .connections = server == nullptr ? 0 : server->connections(),
                       .process = process_figures()});
}

}  // namespace dvdi
