// What an operator sets in the agent's --modules file, and what the agent itself was started with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace dvdi_mesos {

// How the volumes of a container are read.
struct Rules {
  bool environment_volumes = true;     // DVDI_VOLUME_* variables of the command name volumes
  bool csi_volumes_elsewhere = false;  // another isolator mounts CSI_VOLUME: else they are refused
  std::string default_driver;          // for a docker_volume without a driver; "": dvdid decides
  std::string ownership;               // dvdi.ownership where a volume does not say; "": as it is
};

struct Parameters {
  std::string socket;  // "": libdvdi's own default
  std::int64_t prepare_timeout_ms = std::int64_t{180} * 1000;
  std::int64_t isolate_timeout_ms = std::int64_t{30} * 1000;
  std::int64_t cleanup_timeout_ms = std::int64_t{660} * 1000;  // an unmount alone may take 600 s
  std::int64_t recover_timeout_ms = std::int64_t{60} * 1000;
  std::int64_t recover_wait_ms = std::int64_t{60} * 1000;  // for a daemon that is away
  std::int64_t cleanup_wait_ms = 0;                        // 0: as long as it takes
  std::size_t threads = 16;                                // of each pool
  // What mesos-module-dvdi left: read once. "": not read.
  bool first_isolator_state_given = false;
  std::string first_isolator_state = "/var/run/mesos/isolators/mesos-module-dvdi/dvdimounts.pb";
  std::string work_dir;           // "": from the agent's flags
  std::string sandbox_directory;  // the same
  Rules rules;
};

// The parameters' keys and values, in their order. False: `error` says which one is wrong, and why.
bool read_parameters(const std::vector<std::pair<std::string, std::string>>& given, Parameters& parameters,
                     std::string& error);

// A duration as Mesos writes it (500ms, 30secs, 2mins, 1hrs, 1days), in milliseconds. False: it is none.
bool read_duration(const std::string& text, std::int64_t& milliseconds);

struct AgentFlags {
  std::string work_dir;           // "": not given
  std::string sandbox_directory;  // with the agent's own default
};

// From the agent's command line and its environment ("NAME=VALUE"); the command line goes first, as in Mesos.
AgentFlags read_agent_flags(const std::vector<std::string>& arguments,
                            const std::vector<std::string>& environment);
// Of this process.
AgentFlags own_agent_flags();

// WORK_DIR of WORK_DIR/slaves/…/runs/ID[/containers/ID…] and of WORK_DIR/containers/ID[/containers/ID…];
// "": the sandbox is none of these.
std::string work_dir_of_sandbox(std::string sandbox);

// Without links, `.` and `..`; as it is where it cannot be looked at.
std::string real_path(const std::string& path);

}  // namespace dvdi_mesos
