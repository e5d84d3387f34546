#include "engine.h"

#include "base/sync.h"
#include "isolator/external_volumes.h"

namespace dvdi::simulation {

namespace {

// Stands in for the filesystem isolator: one mount for each volume, and now and then a failure.
class StandIn final : public isolator::Isolator {
 public:
  StandIn(Random& random, const unsigned& faults) : random_(random), faults_(faults) {}

  std::string_view name() const override { return "filesystem"; }
  std::vector<isolator::Property> needs() const override { return {isolator::Property::host_paths}; }

  Status prepare(const Context& /*context*/, isolator::Preparation& preparation) override {
    if (random_.chance(faults_)) return broken("prepare");
    for (const auto& volume : preparation.working.volumes()) {
      auto& mount = *preparation.launch.add_mounts();
      mount.set_source(volume.host_path());
      const auto found = preparation.host_paths.find(volume.host_path());
      if (found == preparation.host_paths.end()) continue;
      mount.set_volume(found->second.label);
      if (found->second.identity) *mount.mutable_identity() = *found->second.identity;
    }
    return {};
  }
  Result<std::vector<isolator::Owed>> cleanup(const Context& /*context*/, const ContainerKey& /*key*/,
                                              const std::vector<isolator::Failure>& /*before*/) override {
    if (random_.chance(faults_)) return broken("clean up");
    return std::vector<isolator::Owed>();
  }
  Result<volume::Recovered> recover(const Context& /*context*/, const isolator::RecoverRequest& /*request*/,
                                    const std::vector<isolator::Failure>& /*before*/) override {
    if (random_.chance(faults_)) return broken("recover");
    return volume::Recovered();
  }

 private:
  static Error broken(const std::string& what) {
    return {.code = Code::io, .message = "told to fail to " + what};
  }
  Random& random_;
  const unsigned& faults_;
};

}  // namespace

SimulatedEngine::~SimulatedEngine() = default;

Result<std::unique_ptr<SimulatedEngine>> SimulatedEngine::open(const Context& context, const Parts& parts) {
  std::unique_ptr<SimulatedEngine> engine(new SimulatedEngine);
  DVDI_TRY(engine->locks_, KeyedLocks::open(parts.lock_file));
  DVDI_TRY(engine->ledger_, Ledger::open(context, database));
  engine->books_ = std::make_unique<isolator::LedgerBooks>(*engine->ledger_);
  engine->volumes_ = std::make_unique<volume::Manager>(
      volume::Manager::Parts{*engine->ledger_, parts.drivers, *engine->locks_, parts.helpers}, parts.policy);
  std::vector<std::unique_ptr<isolator::Isolator>> isolators;
  isolators.push_back(std::make_unique<isolator::ExternalVolumes>(*engine->volumes_));
  isolators.push_back(std::make_unique<StandIn>(parts.random, parts.isolator_faults));
  DVDI_TRY(engine->chain_,
           isolator::Chain::build(std::move(isolators), {.container_locks = *engine->locks_,
                                                         .books = *engine->books_,
                                                         .roll_back_timeout = parts.policy.unmount_deadline +
                                                                              std::chrono::minutes(1)}));
  DVDI_CHECK(engine->volumes_->forget_other_boots(context));
  return engine;
}

void SimulatedEngine::settle(const Context& context) {
  if (const auto dead = volumes_->dead_containers(context, "run")) {
    std::vector<std::function<void()>> work;
    for (const ContainerKey& key : *dead) {
      work.emplace_back([&, key] { static_cast<void>(chain_->cleanup(context, key)); });
    }
    run_parallel(std::move(work));
  }
  static_cast<void>(volumes_->settle(context));
}

}  // namespace dvdi::simulation
