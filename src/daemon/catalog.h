// All drivers of this node: the built-in `local`, and the Docker volume plugins.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "driver/docker/catalog.h"
#include "driver/driver.h"
#include "driver/local/local_driver.h"

namespace dvdi {

// The name `local` is always the built-in driver, also where a plugin of that name is registered.
class NodeCatalog final : public driver::Catalog {
 public:
  NodeCatalog(const std::string& state_dir, HelperPool& helpers,
              driver::docker::PluginCatalog::Config plugins);

  Result<std::shared_ptr<driver::Driver>> find(const Context& context, const std::string& name) override;
  std::vector<std::string> names() override;

 private:
  std::shared_ptr<driver::Driver> local_;  // handed to callers as the interface says
  driver::docker::PluginCatalog plugins_;
};

}  // namespace dvdi
