// The engine: the isolator chain over the volume manager over the ledger, in this process.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "daemon/admission.h"
#include "daemon/api.h"
#include "daemon/catalog.h"
#include "daemon/config.h"
#include "event/sink_runner.h"
#include "isolator/chain.h"
#include "isolator/ledger_books.h"
#include "isolator/staged_mounts.h"
#include "linux/file_lock.h"
#include "linux/helper_pool.h"
#include "store/ledger.h"
#include "volume/manager.h"

namespace dvdi {

// Thread-safe.
class Engine final : public Api {
 public:
  // Who hosts it: one of several commands that work side by side (`command_again`: one that had it open
  // before, and so has looked at the database), or a daemon that has the state directory to itself.
  enum class Mode { command, command_again, daemon };
  // Opens the state directory, which is made if it is not there. `helpers` outlives the engine. A daemon
  // waits, while the context lasts, until no command works on it; a command does not wait for a daemon:
  // daemon_is_away().
  static Result<std::unique_ptr<Engine>> open(const Context& context, const Config& config,
                                              HelperPool& helpers, Mode mode = Mode::command);
  ~Engine() override;

  // Ends what belonged to another boot, cleans up after killed commands, pays debts that are due: each volume
  // until the context ends. What was done is in notices().
  void settle(const Context& context);

  Result<Prepared> prepare(const Context& context, const PrepareOptions& options,
                           const v1::ContainerRequest& request) override;
  Status isolate(const Context& context, const ContainerKey& key, pid_t pid, bool watch) override;
  Result<std::vector<isolator::Owed>> cleanup(const Context& context, const ContainerKey& key) override;

  // The containers that an agent has after its restart; what is in neither list is dropped with proof that it
  // is dead, and else kept.
  Result<volume::Recovered> recover(const Context& context, const volume::RecoverRequest& request);
  Result<std::vector<volume::Adopted>> adopt(const Context& context, const std::string& from,
                                             const std::vector<volume::LeftBehind>& mounts);

  Result<std::vector<ContainerView>> containers(const Context& context, bool ended) override;
  Result<ContainerView> find_container(const Context& context, const isolator::ContainerKey& key) override;
  Result<ContainerView> container(const Context& context, const std::string& id) override;
  Result<Volumes> volumes(const Context& context, bool ask_drivers) override;
  Result<VolumeView> volume(const Context& context, const std::string& driver,
                            const std::string& name) override;
  Result<std::vector<std::string>> driver_volumes(const Context& context, const std::string& driver) override;
  Status create_volume(const Context& context, const std::string& driver, const std::string& name,
                       const std::vector<std::pair<std::string, std::string>>& options) override;
  Status remove_volume(const Context& context, const std::string& driver, const std::string& name) override;

  Result<volume::Release> release_volume(const Context& context, const std::string& driver,
                                         const std::string& name, bool dry_run) override;
  Result<std::vector<volume::DriverStatus>> drivers(const Context& context) override;

  Result<std::vector<EventView>> events(const Context& context, std::uint64_t after, std::size_t limit,
                                        Duration wait) override;
  Result<Verified> verify_events(const Context& context,
                                 const std::function<void(std::uint64_t)>& progress) override;
  Result<UsageReport> usage(const Context& context, const UsageQuery& query,
                            const UsageProgress& progress) override;
  Result<Compared> compare_events(const Context& context, const std::string& sink) override;
  Result<std::vector<SinkStatus>> sinks(const Context& context) override { return sinks_->status(context); }
  Status test_sink(const Context& context, const std::string& name) override {
    return sinks_->test(context, name);
  }
  Status pause_sink(const Context& context, const std::string& name) override {
    return sinks_->pause(context, name);
  }
  Status resume_sink(const Context& context, const std::string& name) override {
    return sinks_->resume(context, name);
  }
  Status replay_sink(const Context& context, const std::string& name, std::uint64_t from) override {
    return sinks_->replay(context, name, from);
  }
  bool holds_state() const override { return true; }
  std::vector<std::string> notices() override { return notices_; }

  // For what the host of this engine does without a caller (Reconciler).
  volume::Manager& manager() { return *volumes_; }
  // Takes away private mounts and sandboxes that ended containers left behind. One sentence for each thing
  // that was done or could not be done.
  std::vector<std::string> tidy(const Context& context);
  // Before the owed unmount of a volume is paid: StagedMounts::let_go().
  Status let_go(const Context& context, const VolumeKey& volume) { return staged_->let_go(context, volume); }
  Ledger& ledger() { return *ledger_; }
  Sinks& event_sinks() { return *sinks_; }  // started by a daemon only
  // The policy, and the record of what was refused: also for refusals of whoever hosts this engine.
  Admission& admission() { return *admission_; }

 private:
  Engine(Config config, HelperPool& helpers, Mode mode)
      : config_(std::move(config)), mode_(mode), helpers_(helpers) {}
  Result<bool> take_engine_lock(const Context& context);
  Status open_ledger(const Context& context, bool alone);

  // A sandbox of ours goes with its container. One that cannot be deleted is left to a later command.
  void remove_own_sandbox(const Context& context, const std::optional<ContainerRow>& row);

  const Config config_;
  const Mode mode_;
  HelperPool& helpers_;
  UniqueFd engine_lock_;
  std::unique_ptr<KeyedLocks> locks_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<isolator::LedgerBooks> books_;
  std::unique_ptr<Sinks> sinks_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<NodeCatalog> drivers_;
  std::unique_ptr<volume::Manager> volumes_;
  isolator::StagedMounts* staged_ = nullptr;  // the chain's
  std::unique_ptr<isolator::Chain> chain_;
  std::vector<std::string> notices_;
};

}  // namespace dvdi
