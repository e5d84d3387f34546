#include "daemon/catalog.h"

#include <algorithm>

namespace dvdi {

NodeCatalog::NodeCatalog(const std::string& state_dir, HelperPool& helpers,
                         driver::docker::PluginCatalog::Config plugins)
    : local_(std::make_shared<driver::local::LocalDriver>(state_dir + "/local", helpers)),
      plugins_(std::move(plugins)) {}

Result<std::shared_ptr<driver::Driver>> NodeCatalog::find(const Context& context, const std::string& name) {
  if (name == local_->name()) return local_;
  return plugins_.find(context, name);
}

std::vector<std::string> NodeCatalog::names() {
  std::vector<std::string> names = plugins_.names();
  std::erase(names, local_->name());
  names.insert(names.begin(), local_->name());
  return names;
}

}  // namespace dvdi
