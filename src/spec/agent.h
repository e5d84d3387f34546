// What a Mesos agent (or ClusterD's) tells an isolator: ContainerID, ContainerConfig and ContainerState, as
// protobuf's JSON mapping with the original names. Fields that dvdi does not know are ignored: the real
// messages have many more. Secrets are never kept.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "dvdi/v1/container.pb.h"

namespace dvdi::spec {

inline constexpr std::size_t max_container_depth = 16;
inline constexpr std::size_t max_nested_id_bytes = 1024;  // of the whole text

// {"value": "CHILD", "parent": {"value": "PARENT"}} is PARENT.CHILD. A value keeps its characters; what would
// make the text ambiguous or unsafe (`.`, `/`, `\`, white space, control characters) is refused, as Mesos
// itself does. A JSON string is dvdi's own text of an id (spec/rules.h: check_container_id), dots and all.
Result<std::string> container_id_text(const json::value& id);

// What an operator may choose about an agent's containers.
struct AgentRules {
  bool environment = true;             // DVDI_VOLUME_* variables of the command name volumes
  bool csi_volumes_elsewhere = false;  // another isolator mounts CSI_VOLUME: else they are an error
  std::string default_driver = {};     // for a docker_volume without a driver; "": an error
};

// prepare's argument. External volumes are those of container_info whose source is DOCKER_VOLUME, and those
// that DVDI_VOLUME_* variables of command_info name. Volumes that other isolators of the agent mount (host
// and sandbox paths, secrets, images) stay in the request with their container path, for comparison. A DEBUG
// container has no volumes of its own. invalid_argument with every problem and its place otherwise.
//
// Attribution: framework_id (else of the sandbox's path) and labels (the task's, else the executor's);
// task_id and task_name of a command task; role from resources[].allocation_info.role, or the variable
// MESOS_ALLOCATION_ROLE; user. No principal: an isolator does not see the framework's. What is wrong there
// never fails a container: texts that are too long are cut.
Result<v1::ContainerRequest> parse_container_config(const json::value& config, const std::string& id,
                                                    const AgentRules& rules = {});

// One live container of recover.
struct ContainerState {
  std::string id;
  std::int32_t pid = 0;   // 0: not known
  std::string directory;  // "": not known
  v1::ContainerRequest request;
};

// Only an id that cannot be read is an error: an agent whose recovery fails does not come up. A volume that
// cannot be read is left out, which is one of the request's warnings.
Result<ContainerState> parse_container_state(const json::value& state, const AgentRules& rules = {});

// dvdi's own form, as dvdi sends it to dvdid: a v1::ContainerRequest in protobuf's JSON mapping (original or
// lowerCamelCase names). It comes from outside like any other, so the same checks apply; here a member that
// is not known is a problem, too.
Result<v1::ContainerRequest> parse_container_request(const json::value& request);

// Does this document look like dvdi's own form, and like none of the others?
bool is_container_request(const json::value& document);

}  // namespace dvdi::spec
