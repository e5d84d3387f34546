// Driver calls with the deadline of their operation and at most so many at once for each driver: a driver
// that hangs starves no other.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/sync.h"
#include "volume/call_statistics.h"
#include "volume/manager.h"

namespace dvdi::volume {

// Thread-safe.
class Calls {
 public:
  Calls(driver::Catalog& drivers, const Policy& policy) : drivers_(drivers), policy_(policy) {}

  Status create(const Context& context, const VolumeKey& volume, const driver::Options& options);
  Status remove(const Context& context, const VolumeKey& volume);
  // `options` are not sent, here and in mount: they are what the answer must not repeat.
  Result<driver::VolumeInfo> get(const Context& context, const VolumeKey& volume,
                                 const driver::Options& options);
  Result<std::vector<driver::VolumeInfo>> list(const Context& context, const std::string& driver);
  Result<std::string> path(const Context& context, const VolumeKey& volume);
  Result<std::string> mount(const Context& context, const VolumeKey& volume, const std::string& mount_id,
                            const driver::Options& options);
  Status unmount(const Context& context, const VolumeKey& volume, const std::string& mount_id);
  // False where the driver cannot be found.
  bool may_be_plain_directory(const Context& context, const VolumeKey& volume);

  std::vector<DriverStatus> drivers(const std::vector<std::string>& names);
  std::vector<CallTimes> times();

 private:
  struct Gate {
    Mutex mutex;
    Condition changed;
    unsigned running = 0, waiting = 0;
    CallStatistics statistics;
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

  driver::Catalog& drivers_;
  const Policy& policy_;
  Mutex mutex_;
  std::map<std::string, Gate> gates_;
};

}  // namespace dvdi::volume
