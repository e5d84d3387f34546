// The isolator that has external volumes mounted on the host and writes where into the working copy.
#pragma once

#include "isolator/isolator.h"

namespace dvdi::isolator {

// prepare: all external volumes of the container in one call, one request a volume however often it appears.
// The mount point goes into host_path of each; a host-only volume leaves the working copy. A container
// without external volumes is made known, too: no task runs that the books do not have. cleanup and recover:
// if an isolator failed before this one, somebody may still use the mount points, and nothing is unmounted.
// Neither does recover unmount where the request's lists are not complete. Keeps nothing in memory: what it
// knows is in the volume manager's ledger.
class ExternalVolumes final : public Isolator {
 public:
  explicit ExternalVolumes(volume::Holdings& holdings) : holdings_(holdings) {}  // outlives this

  std::string_view name() const override { return "external volumes"; }
  std::vector<Property> provides() const override { return {Property::host_paths}; }
  Status prepare(const Context& context, Preparation& preparation) override;
  Status isolate(const Context& context, const ContainerKey& key, pid_t pid, bool watch) override;
  Result<std::vector<Owed>> cleanup(const Context& context, const ContainerKey& key,
                                    const std::vector<Failure>& before) override;
  Result<std::vector<Owed>> roll_back(const Context& context, const ContainerKey& key,
                                      const std::vector<Failure>& before, const Error& why) override;
  Result<volume::Recovered> recover(const Context& context, const RecoverRequest& request,
                                    const std::vector<Failure>& before) override;

 private:
  volume::Holdings& holdings_;
};

// The external volumes of a container, one request a volume however often it appears.
Result<std::vector<volume::Request>> volume_requests(const v1::ContainerInfo& info);
Attribution attribution_of(const v1::Attribution& from);

}  // namespace dvdi::isolator
