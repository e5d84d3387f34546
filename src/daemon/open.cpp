#include "daemon/open.h"

#include "daemon/engine.h"

namespace dvdi {

Result<std::unique_ptr<Api>> open_api(const Context& context, const OpenOptions& options,
                                      HelperPool& helpers) {
  DVDI_TRY(const Config config, load_config(options.config_file, options.state_dir));
  DVDI_TRY(auto engine, Engine::open(context, config, helpers));
  if (options.settle) engine->settle(context.with_timeout(config.settle_budget));
  return std::unique_ptr<Api>(std::move(engine));
}

}  // namespace dvdi
