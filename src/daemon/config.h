// The configuration: a TOML file, every key with a default that works. docs/configuration.md describes each.
#pragma once

#include <map>
#include <string>

#include "base/context.h"
#include "driver/docker/catalog.h"
#include "volume/manager.h"

namespace dvdi {

// Who may ask, and for what: docs/access.md.
struct AccessSettings {
  std::string group;        // name or number; its members may ask the daemon. "": root alone
  std::string policy_file;  // "": none
};

struct Config {
  std::string state_dir = "/var/lib/dvdi";
  // How long a command that starts may take to settle what killed ones left behind; what is not done by then
  // is left to the next command.
  Duration settle_budget = std::chrono::seconds(5);
  std::string sandbox_in_container = "/mnt/mesos/sandbox";
  AccessSettings access;
  volume::Policy volumes;
  driver::docker::PluginCatalog::Config docker;
};

// The configuration that `text` gives. invalid_argument names the key and the line: unknown keys, wrong
// types, values out of range.
Result<Config> parse_config(const std::string& text, const std::string& file_name);

// From `file`; "": DVDI_CONFIG, else /etc/dvdi/dvdi.toml if it is there, else the defaults. `state_dir`, if
// it is given, or else DVDI_STATE_DIR, goes before the file's. state_dir is absolute afterwards.
Result<Config> load_config(const std::string& file, const std::string& state_dir);

}  // namespace dvdi
