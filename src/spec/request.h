// From what a person or a scheduler wrote to one ContainerRequest. Pure: no file is read, nothing is looked
// up.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "dvdi/v1/container.pb.h"

namespace dvdi::spec {

// Limits on what comes from outside. Beyond one of them the request is refused.
inline constexpr std::size_t max_request_bytes = 1 << 20;
inline constexpr std::size_t max_volumes = 256;
inline constexpr std::size_t max_name_bytes = 255;        // driver and volume names
inline constexpr std::size_t max_path_bytes = 4095;       // PATH_MAX less the terminating NUL
inline constexpr std::size_t max_component_bytes = 255;   // NAME_MAX: one component of a path
inline constexpr std::size_t max_options = 256;           // driver options of one volume
inline constexpr std::size_t max_option_key_bytes = 255;  // also of a label and of an environment variable
inline constexpr std::size_t max_option_value_bytes = 64 << 10;  // also of a label
inline constexpr std::size_t max_labels = 256;
inline constexpr std::size_t max_argument_bytes = (128 << 10) - 1;  // MAX_ARG_STRLEN less the terminating NUL
inline constexpr std::size_t max_container_id_bytes = 255;

// The parts that one `dvdi run` can bring together.
struct Input {
  std::optional<std::string> file_text;   // forms 1 to 3, recognised by content
  std::string file_name;                  // for messages
  std::vector<std::string> volume_flags;  // form 5: DRIVER/NAME:CONTAINER_PATH[:ro][,KEY=VALUE]...
  std::vector<std::pair<std::string, std::string>> environment;  // form 4: DVDI_VOLUME_*; others are ignored
  std::vector<std::string> command;                              // what follows `--`
  std::optional<std::string> user;
  std::optional<std::string> rootfs;
  std::optional<std::string> directory;
  std::optional<std::string> container_id;
  std::vector<std::pair<std::string, std::string>> labels;  // of the container, next to an app's own
  // Somebody else launches: a request without a command is whole, too.
  bool needs_command = true;
};

// The request, or one invalid_argument error whose attached errors are all problems that were found, each
// starting with its place: `container.volumes[2].external.options: …`. Volumes keep their order: file, flags,
// environment.
Result<v1::ContainerRequest> parse_request(const Input& input);

enum class Ownership {
  none,          // owners and modes are left as they are
  match_target,  // the volume's top directory takes owner and mode of the container path (the old module's
                 // rule)
  user,          // the volume's top directory is given to the task's user
  idmap,         // files appear as the task's user; nothing on the volume changes
};

// One external volume of a request, its reserved options taken apart.
struct ExternalVolume {
  std::string driver;
  std::string name;
  std::map<std::string, std::string> options;  // for the driver: no reserved one is among them
  std::string container_path;                  // "" with host_only
  bool read_only = false;
  bool explicit_create = false;  // dvdi.explicit-create: the volume must exist, it is not created on demand
  bool exclusive = false;        // dvdi.exclusive: no other container may refer to it at the same time
  bool host_only = false;        // dvdi.host-only: mounted on the host, not shown to the container
  Ownership ownership = Ownership::none;
  // dvdi.suid, dvdi.dev: the bind is without nosuid, nodev. The engine's policy has to allow it.
  bool suid = false;
  bool dev = false;
  // The container path rule of DVDI_VOLUME_*: the path is absolute; missing, it is created where it lies
  // under /tmp (root:root) and an error elsewhere. Without: the container path rules of Mesos.
  bool create_under_tmp = false;
};

// nullopt for a volume that is not external (host path, sandbox path). The volume is one of a
// ContainerRequest that parse_request() made, or of a Mesos message; then the same checks apply.
Result<std::optional<ExternalVolume>> external_volume(const v1::Volume& volume);

}  // namespace dvdi::spec
