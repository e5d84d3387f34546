// How a command gets an Api.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "daemon/api.h"
#include "linux/helper_pool.h"

namespace dvdi {

// First thing in main(), before there are threads: options on top of DVDI_STATE_DIR and DVDI_CONFIG.
struct OpenOptions {
  std::string state_dir;    // "": DVDI_STATE_DIR, the configuration, /var/lib/dvdi
  std::string config_file;  // "": DVDI_CONFIG, else /etc/dvdi/dvdi.toml if there is one
  std::string socket;       // "": DVDI_SOCKET, the configuration; "none": no daemon
  // Look at the database, and settle what killed commands left behind. Not where this process did so before.
  bool settle = true;
};

// How often it is looked for a daemon that has gone or is starting.
constexpr Duration between_looks_for_daemon = std::chrono::milliseconds(50);

// The daemon, if one listens for that state directory; else the engine inside this process, which holds
// engine.lock shared until it is destroyed. Only the engine needs `helpers`, which outlives it: they are
// started if they are not yet. No other thread may be at work then, since that forks (one that only waits may
// be there).
Result<std::unique_ptr<Api>> open_api(const Context& context, const OpenOptions& options,
                                      std::unique_ptr<HelperPool>& helpers);

// One line of `dvdi doctor`.
struct Finding {
  enum class Level { ok, warning, problem } level = Level::ok;
  std::string subject;  // root, namespaces, mount API, propagation, state, driver NAME, …
  std::string text;     // what was found
  std::string advice;   // what to do, "" for ok
};
// What `dvdi config check` says of the configuration that these options lead to: the files read, and each
// key's value. An error names file, line and key.
struct ConfigReport {
  std::string file;  // "": there is none, the defaults hold
  std::vector<std::pair<std::string, std::string>>
      effective;  // what one asks for most: state_dir, socket, ...
};
Result<ConfigReport> check_config(const OpenOptions& options);

// Can this machine do it, and is the state healthy? Changes nothing, settles nothing.
std::vector<Finding> diagnose(const Context& context, const OpenOptions& options, HelperPool& helpers);

}  // namespace dvdi
