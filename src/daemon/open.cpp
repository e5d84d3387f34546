#include "daemon/open.h"

#include <fmt/format.h>

#include "base/sync.h"
#include "daemon/access.h"
#include "daemon/client.h"
#include "daemon/config.h"
#include "daemon/engine.h"
#include "daemon/policy.h"

namespace dvdi {

namespace {

constexpr Duration health_timeout = std::chrono::seconds(10);
// A daemon that starts or ends has the state directory and does not listen: so long is waited for it.
constexpr Duration start_patience = std::chrono::seconds(30);

// The daemon that listens there, if it is the one of our state directory. nullptr: none listens.
Result<std::unique_ptr<Api>> find_daemon(const Context& context, const Config& config,
                                         const std::string& socket) {
  auto client = std::make_unique<Client>(socket);
  const auto health = client->health(context.with_timeout(health_timeout));
  if (!health) {
    if (daemon_is_away(health.error())) return std::unique_ptr<Api>();
    return fail(health.error());
  }
  // It tells whom it serves. Two ledgers of one node would unmount volumes under each other's tasks.
  if (config.state_dir_chosen && !health->state_dir.empty() && health->state_dir != config.state_dir) {
    return Error{
        .code = Code::failed_precondition,
        .message = fmt::format("the daemon at {} keeps its state in {}, not in {}", socket, health->state_dir,
                               config.state_dir),
        .hint =
            "leave --state-dir and DVDI_STATE_DIR out, or name another daemon with --socket; `--socket "
            "none` works without one"};
  }
  return std::unique_ptr<Api>(std::move(client));
}

}  // namespace

Result<std::unique_ptr<Api>> open_api(const Context& context, const OpenOptions& options,
                                      std::unique_ptr<HelperPool>& helpers) {
  DVDI_TRY(const Config config, load_config(options.config_file, options.state_dir));
  const SocketChoice socket = choose_socket(config, options.socket);
  const Context patient = context.with_timeout(start_patience);
  for (;;) {
    if (socket.path != "none") {
      DVDI_TRY(auto daemon, find_daemon(context, config, socket.path));
      if (daemon) return daemon;
    }
    if (!helpers) {
      DVDI_TRY(helpers, HelperPool::start());
    }
    auto engine = Engine::open(context, config, *helpers,
                               options.settle ? Engine::Mode::command : Engine::Mode::command_again);
    if (engine) {
      if (options.settle) (*engine)->settle(context.with_timeout(config.settle_budget));
      return std::unique_ptr<Api>(*std::move(engine));
    }
    if (!daemon_is_away(engine.error()) || socket.path == "none") return fail(engine.error());
    if (!pause(patient, between_looks_for_daemon, "wait for the daemon")) return fail(engine.error());
  }
}

Result<ConfigReport> check_config(const OpenOptions& options) {
  DVDI_TRY(const Config config, load_config(options.config_file, options.state_dir));
  DVDI_CHECK(load_policy(config.access.policy_file));
  DVDI_CHECK(find_group(config.access.group));
  const auto or_none = [](const std::string& text) { return text.empty() ? std::string("none") : text; };
  return ConfigReport{.file = config_path(options.config_file),
                      .effective = {{"state_dir", config.state_dir},
                                    {"socket", choose_socket(config, options.socket).path},
                                    {"access.group", or_none(config.access.group)},
                                    {"access.policy_file", or_none(config.access.policy_file)}}};
}

}  // namespace dvdi
