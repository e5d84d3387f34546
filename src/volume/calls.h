// Driver calls with the deadline of their operation and at most so many at once for each driver: a driver
// that hangs starves no other.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/sync.h"
#include "volume/call_statistics.h"
#include "volume/driver_health.h"
#include "volume/manager.h"
#include "volume/secret_values.h"

namespace dvdi::volume {

// Thread-safe.
class Calls {
 public:
  // `had_secrets`: whether earlier requests for a volume had secret options, by what is recorded.
  using HadSecrets = std::function<bool(const Context&, const VolumeKey&)>;
  // Records that a driver is in that state now, if it is not recorded yet. `found`: it was there at some
  // time.
  using NoteState = std::function<Status(const Context&, const std::string& driver, DriverState state,
                                         const std::string& reason, bool found)>;
  Calls(driver::Catalog& drivers, const Policy& policy, HadSecrets had_secrets = {},
        NoteState note_state = {})
      : drivers_(drivers),
        policy_(policy),
        had_secrets_(std::move(had_secrets)),
        note_state_(std::move(note_state)),
        secrets_(policy) {}

  Status create(const Context& context, const VolumeKey& volume, const driver::Options& options);
  Status remove(const Context& context, const VolumeKey& volume);
  // `options` are not sent, here and in mount: the secret ones are what no answer may repeat.
  Result<driver::VolumeInfo> get(const Context& context, const VolumeKey& volume,
                                 const driver::Options& options);
  Result<std::vector<driver::VolumeInfo>> list(const Context& context, const std::string& driver);
  Result<std::string> path(const Context& context, const VolumeKey& volume);
  Result<std::string> mount(const Context& context, const VolumeKey& volume, const std::string& mount_id,
                            const driver::Options& options);
  Status unmount(const Context& context, const VolumeKey& volume, const std::string& mount_id);
  // False where the driver cannot be found.
  bool may_be_plain_directory(const Context& context, const VolumeKey& volume);

  void mount_lost(const std::string& driver);  // counts it
  // That a volume is asked for with those options. `had_some`: it was before, with secret ones.
  void learn_secrets(const VolumeKey& volume, const driver::Options& options, bool had_some) {
    secrets_.learn(volume, options, had_some);
  }

  std::vector<DriverStatus> drivers(const std::vector<std::string>& names);
  std::vector<CallTimes> times();

 private:
  struct Gate {
    Mutex mutex;
    Condition changed;
    unsigned running = 0, waiting = 0;
    CallStatistics statistics;
    DriverHealth health;
    std::optional<DriverState> recorded;  // what of it the ledger has; absent: not looked yet
    // Both under the mutex of Calls: how many hold the gate, and whether the driver was ever found. Gates of
    // drivers that are not there are forgotten: their names come from requests.
    unsigned holders = 0;
    bool found = false;
  };
  class Place;
  template <class Work>
  auto bounded(const Context& context, const VolumeKey& volume, driver::Operation operation,
               const driver::Options& options, Work work)
      -> decltype(work(std::declval<const Context&>(), std::declval<driver::Driver&>()));
  // Waits for a free place among the driver's calls.
  Status enter(const Context& limited, const std::string& driver, Gate& gate) const;
  void note_state(const Context& context, const std::string& driver, Gate& gate);

  driver::Catalog& drivers_;
  const Policy& policy_;
  const HadSecrets had_secrets_;
  const NoteState note_state_;
  Mutex noting_;  // one state after another, so that the last one recorded is the last one
  SecretValues secrets_;
  Mutex mutex_;
  std::map<std::string, Gate> gates_;
};

}  // namespace dvdi::volume
