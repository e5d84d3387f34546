#include "driver/docker/catalog.h"

namespace dvdi::driver::docker {

PluginCatalog::PluginCatalog(Config config) : config_(std::move(config)) {}

Result<std::shared_ptr<Driver>> PluginCatalog::find(const Context& context, const std::string& name) {
  const auto about = [&](Error error) {
    error.driver = name;
    error.outcome = Outcome::not_sent;
    return fail(std::move(error));
  };
  if (auto ended = context.check("find the driver"); !ended) return about(std::move(ended).error());
  {
    // A plugin that was there and is not any more is waited for by its calls, not forgotten.
    const Lock lock(mutex_);
    if (const auto known = drivers_.find(name); known != drivers_.end()) return known->second;
  }
  if (auto endpoint = find_endpoint(config_.roots, name); !endpoint)
    return about(std::move(endpoint).error());
  const auto own = config_.by_name.find(name);
  auto driver = std::make_shared<DockerDriver>(
      name, [roots = config_.roots, name] { return find_endpoint(roots, name); },
      own == config_.by_name.end() ? config_.settings : own->second);
  const Lock lock(mutex_);
  return drivers_.emplace(name, std::move(driver)).first->second;
}

std::vector<std::string> PluginCatalog::names() { return registered_names(config_.roots); }

}  // namespace dvdi::driver::docker
