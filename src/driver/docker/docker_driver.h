// A volume driver that is a Docker volume plugin.
#pragma once

#include <string>

#include "base/json.h"
#include "driver/docker/connection.h"
#include "driver/driver.h"

namespace dvdi::driver::docker {

struct Settings {
  Patience patience = {};
  std::size_t answer_bytes = std::size_t{1} << 20U;  // longer answers are refused
  std::size_t list_bytes = std::size_t{16} << 20U;   // those of List: it names every volume there is
  bool plain_directories = false;                    // its mount points need not be mounts of their own

  bool operator==(const Settings&) const = default;
};

// What a plugin that lacks an endpoint (HTTP 404) or refuses it still gives:
//   Capabilities  local scope
//   Get           the volume's entry of List; not_found where List does not show it
//   Path          the mount point that Get says
//   List          Code::unsupported
class DockerDriver final : public Driver {
 public:
  DockerDriver(std::string name, Connection::Locate locate, Settings settings);

  const std::string& name() const override { return name_; }
  Status create(const Context& context, const std::string& volume, const Options& options) override;
  Status remove(const Context& context, const std::string& volume) override;
  Result<VolumeInfo> get(const Context& context, const std::string& volume) override;
  Result<std::vector<VolumeInfo>> list(const Context& context) override;
  Result<std::string> path(const Context& context, const std::string& volume) override;
  Result<std::string> mount(const Context& context, const std::string& volume,
                            const std::string& mount_id) override;
  Status unmount(const Context& context, const std::string& volume, const std::string& mount_id) override;
  Result<Capabilities> capabilities(const Context& context) override;
  bool may_be_plain_directory(const std::string& /*volume*/) const override {
    return settings_.plain_directories;
  }

 private:
  struct Call;
  Result<json::object> post(const Context& context, const Call& call);
  Result<VolumeInfo> try_get(const Context& context, const std::string& volume);
  Result<std::vector<VolumeInfo>> try_list(const Context& context);
  // Completes an error that lacks who and what; keeps everything else.
  Error about(Error error, Operation operation, const std::string& volume) const;

  std::string name_;
  Settings settings_;
  Connection connection_;
};

}  // namespace dvdi::driver::docker
