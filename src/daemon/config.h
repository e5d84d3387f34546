// The configuration: a TOML file, every key with a default that works. docs/configuration.md describes each.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/context.h"
#include "driver/docker/catalog.h"
#include "event/retention.h"
#include "event/sink.h"
#include "spec/agent.h"
#include "volume/manager.h"

namespace dvdi {

// Who may ask, and for what: docs/access.md.
struct AccessSettings {
  std::string group;        // name or number; its members may ask the daemon. "": root alone
  std::string policy_file;  // "": none
};

struct TomlTrace;

struct Config {
  std::string state_dir = "/var/lib/dvdi";
  bool state_dir_chosen = false;  // by an option, the environment or the file: not only the default
  // How long a command that starts may take to settle what killed ones left behind; what is not done by then
  // is left to the next command.
  Duration settle_budget = std::chrono::seconds(5);
  std::string sandbox_in_container = "/mnt/mesos/sandbox";
  AccessSettings access;
  // Of the daemon: where it listens and where it is looked for, and how long what is running when it is told
  // to end has before it is cancelled.
  std::string socket = "/run/dvdi/dvdid.sock";
  Duration drain_timeout = std::chrono::seconds(60);
  std::string metrics_listen;  // ADDRESS:PORT of TCP where it shows its metrics, too; "": nowhere
  spec::AgentRules agent;
  volume::Policy volumes;
  Retention retention;
  driver::docker::PluginCatalog::Config docker;
  std::vector<SinkSettings> sinks;  // in the order of their names
};

// The configuration that `text` gives. invalid_argument names the key and the line: unknown keys, wrong
// types, values out of range. `trace` is for tests (toml_table.h).
Result<Config> parse_config(const std::string& text, const std::string& file_name,
                            TomlTrace* trace = nullptr);

// Where the daemon is: `given`, else DVDI_SOCKET, else the configuration's.
struct SocketChoice {
  std::string path;     // "none": work without a daemon
  bool chosen = false;  // by an option or the environment
};
SocketChoice choose_socket(const Config& config, const std::string& given);

// From `file`; "": DVDI_CONFIG, else /etc/dvdi/dvdi.toml if it is there, else the defaults. `state_dir`, if
// it is given, or else DVDI_STATE_DIR, goes before the file's. state_dir is absolute afterwards.
Result<Config> load_config(const std::string& file, const std::string& state_dir);
// The file that it reads; "": there is none.
std::string config_path(const std::string& file);

}  // namespace dvdi
