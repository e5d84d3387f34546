#include "daemon/service.h"

#include <fmt/format.h>

#include "base/random.h"
#include "daemon/metrics.h"
#include "isolator/ownership.h"

namespace dvdi {

Service::~Service() {
  // Nobody may call the engine any more before it goes.
  server_.reset();
  reconciler_.reset();
}

Result<std::unique_ptr<Service>> Service::open(const Context& context, const Config& config, Parts parts) {
  std::unique_ptr<Service> service(new Service(config, std::move(parts)));
  DVDI_TRY(service->group_, find_group(config.access.group));
  DVDI_TRY(service->engine_, Engine::open(context, config, service->parts_.helpers, Engine::Mode::daemon));
  for (const std::string& notice : service->engine_->notices()) service->parts_.warning(notice);
  Engine& engine = *service->engine_;
  service->reconciler_ = std::make_unique<Reconciler>(
      Reconciler::Parts{.volumes = engine.manager(),
                        .ledger = engine.ledger(),
                        .clock = context.clock(),
                        .cleanup = [&engine](const Context& call,
                                             const ContainerKey& key) { return engine.cleanup(call, key); },
                        .let_go = [&engine](const Context& call,
                                            const VolumeKey& volume) { return engine.let_go(call, volume); },
                        .say = service->parts_.info});
  DVDI_CHECK(service->reconciler_->start());
  return service;
}

Status Service::serve(UniqueFd listening) {
  routes_ = std::make_unique<Routes>(
      Routes::Parts{.api = *engine_,
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
                    .changed = [this] { reconciler_->wake(); },
                    .failed = [this](const Error& error) { parts_.warning(error.text()); }});
  DVDI_TRY(server_,
           http::Server::start(std::move(listening),
                               [this](const Context& context, http::IncomingRequest& request,
                                      http::Answer& answer) { routes_->handle(context, request, answer); }));
  return {};
}

Result<std::vector<std::string>> Service::reload(const Config& config) {
  DVDI_TRY(const auto group, find_group(config.access.group));
  DVDI_CHECK(engine_->admission().load(config.access.policy_file));
  std::vector<std::string> rest;
  const Lock lock(mutex_);
  if (config.state_dir != config_.state_dir) rest.emplace_back("state_dir");
  if (config.socket != config_.socket) rest.emplace_back("socket");
  if (config.sandbox_in_container != config_.sandbox_in_container) rest.emplace_back("sandbox_in_container");
  const std::string state_dir = config_.state_dir;
  config_ = config;
  config_.state_dir = state_dir;
  group_ = group;
  return rest;
}

bool Service::drain(const Context& context) {
  const bool all = server_ == nullptr || server_->drain(context);
  server_.reset();  // cancels the rest, and waits for its roll-back
  reconciler_->stop(context);
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
  DVDI_TRY(const auto containers, engine_->containers(context, false));
  DVDI_TRY(const auto volumes, engine_->volumes(context, false));
  DVDI_TRY(const auto drivers, engine_->drivers(context));
  const auto call_times = engine_->manager().call_times();
  return metrics_text({.containers = containers,
                       .volumes = volumes.volumes,
                       .drivers = drivers,
                       .call_times = call_times,
                       .connections = server_ ? server_->connections() : 0,
                       .stuck_helpers = parts_.helpers.stuck()});
}

}  // namespace dvdi
