// The built-in driver `local`: volumes on this machine, kept across runs. Section "The local driver" of
// docs/drivers.md says what it offers.
#pragma once

#include <memory>

#include "driver/driver.h"
#include "linux/helper_pool.h"

namespace dvdi::driver::local {

// Several processes may use one directory at the same time. Mounting a volume again, for whichever mount id,
// is the mount that is there; one unmount ends it: the caller mounts a volume once on a node.
class LocalDriver final : public Driver {
 public:
  // `directory` (STATE_DIR/local) is made at the first call that needs it; its parent must exist then.
  // `helpers` must outlive the driver.
  LocalDriver(std::string directory, HelperPool& helpers);
  ~LocalDriver() override;

  const std::string& name() const override;
  Status create(const Context& context, const std::string& volume, const Options& options) override;
  Status remove(const Context& context, const std::string& volume) override;
  Result<VolumeInfo> get(const Context& context, const std::string& volume) override;
  Result<std::vector<VolumeInfo>> list(const Context& context) override;
  Result<std::string> path(const Context& context, const std::string& volume) override;
  Result<std::string> mount(const Context& context, const std::string& volume,
                            const std::string& mount_id) override;
  Status unmount(const Context& context, const std::string& volume, const std::string& mount_id) override;
  Result<Capabilities> capabilities(const Context& context) override;
  // Never: a folder is bound to a mount point of its own, so that the claim can be verified like any other.
  bool may_be_plain_directory(const std::string& volume) const override;

 private:
  class Work;
  std::unique_ptr<Work> work_;
};

}  // namespace dvdi::driver::local
