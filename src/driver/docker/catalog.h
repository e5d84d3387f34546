// The Docker volume plugins of this node, by name.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/sync.h"
#include "driver/docker/discovery.h"
#include "driver/docker/docker_driver.h"
#include "driver/driver.h"

namespace dvdi::driver::docker {

class PluginCatalog final : public Catalog {
 public:
  struct Config {
    Roots roots = {};
    Settings settings = {};                        // of every plugin
    std::map<std::string, Settings> by_name = {};  // instead, of these
  };

  explicit PluginCatalog(Config config);

  // Looks where plugins register and calls nothing: answers at once. A plugin that is registered and does not
  // listen is found; its calls wait for it (Patience). Once found, one Driver serves all callers.
  Result<std::shared_ptr<Driver>> find(const Context& context, const std::string& name) override;
  std::vector<std::string> names() override;

 private:
  Config config_;
  Mutex mutex_;
  // Shared with callers, whose calls may outlive the catalog's interest.
  std::map<std::string, std::shared_ptr<Driver>> drivers_;
};

}  // namespace dvdi::driver::docker
