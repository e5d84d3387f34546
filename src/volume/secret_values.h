// The secret values of driver options: what a driver's answers must not repeat into a log, a record or an
// event. Kept in memory only.
#pragma once

#include <map>
#include <set>
#include <string>

#include "base/sync.h"
#include "driver/driver.h"
#include "store/types.h"
#include "volume/manager.h"

namespace dvdi::volume {

bool has_secrets(const driver::Options& options, const Policy& policy);

// Thread-safe.
class SecretValues {
 public:
  explicit SecretValues(const Policy& policy) : policy_(policy) {}  // outlives this

  // `had_some`: earlier requests for the volume had secrets, too, which this process may not know.
  void learn(const VolumeKey& volume, const driver::Options& options, bool had_some);
  void forget(const VolumeKey& volume);
  // Without the values that are known of the volume, or of all of the driver's where it names none. If they
  // are not all known, and `had_some`, the driver's own words are withheld.
  Error without(Error error, const VolumeKey& volume, bool had_some) const;
  // Every secret of the volume since it was first asked for was learnt here.
  bool knows_all(const VolumeKey& volume) const;

 private:
  // Longer ones first: one may be the beginning of another.
  struct Longer {
    bool operator()(const std::string& a, const std::string& b) const {
      return a.size() != b.size() ? a.size() > b.size() : a < b;
    }
  };
  struct Values {
    std::set<std::string, Longer> texts;
    bool all = true;
  };
  // Beyond it the values of some volume are forgotten, and its driver's words withheld.
  static constexpr std::size_t max_volumes = 10'000;

  const Policy& policy_;
  mutable Mutex mutex_;
  std::map<VolumeKey, Values> volumes_;
};

}  // namespace dvdi::volume
