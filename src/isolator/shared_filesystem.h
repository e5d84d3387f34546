// The isolator that makes what is on the host appear in the container: each volume of the working copy that
// has a host path becomes a mount instruction. It does not know where the host path came from.
#pragma once

#include <functional>

#include "isolator/isolator.h"
#include "linux/helper_pool.h"

namespace dvdi::isolator {

// Keeps nothing in memory and mounts nothing: the launcher does, in the task's own mount namespace, which
// ends with the task. So cleanup and recover have nothing to undo. Folders that were made for container paths
// stay: those in a sandbox of ours go with it, and nothing in a user's directory or root file system is
// removed.
//
// For another launcher only volumes that an isolator filled become instructions: what has a source, and a
// host path that the request did not give. With a rootfs their targets in the sandbox are named where that
// launcher mounts the sandbox in the rootfs, which would hide them otherwise.
class SharedFilesystem final : public Isolator {
 public:
  struct Options {
    std::string sandbox_in_container =
        "/mnt/mesos/sandbox";  // with a rootfs: where the task sees its sandbox
    // For one prepare: paths of the host and of volumes are looked at, and their file systems may hang.
    Duration path_timeout = std::chrono::seconds(30);
    // Whether a host path that the request names, by its real path, may be shown to that container: the
    // request's own text may lead elsewhere through symbolic links. Absent: every one.
    std::function<Status(const Context& context, const Preparation& preparation, const v1::Volume& volume,
                         const std::string& real_path)>
        may_bind = {};
  };

  explicit SharedFilesystem(HelperPool& helpers) : SharedFilesystem(helpers, Options()) {}
  SharedFilesystem(HelperPool& helpers, Options options) : helpers_(helpers), options_(std::move(options)) {}

  std::string_view name() const override { return "shared filesystem"; }
  std::vector<Property> provides() const override { return {Property::mount_instructions}; }
  std::vector<Property> needs() const override { return {Property::host_paths}; }
  Status prepare(const Context& context, Preparation& preparation) override;
  Result<std::vector<Owed>> cleanup(const Context&, const ContainerKey&,
                                    const std::vector<Failure>&) override {
    return std::vector<Owed>();
  }
  Result<volume::Recovered> recover(const Context&, const RecoverRequest&,
                                    const std::vector<Failure>&) override {
    return volume::Recovered();
  }

 private:
  HelperPool& helpers_;
  const Options options_;
};

}  // namespace dvdi::isolator
