// Between Mesos' messages as JSON (what JSON::protobuf writes) and dvdid's documents (docs/openapi.yaml).
// Pure functions: no input or output. What dvdid does not need is not in its documents: environments but for
// DVDI_VOLUME_* and the role, command lines, images, secrets, resources but for roles and reservations.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "first_isolator.h"
#include "parameters.h"

namespace dvdi_mesos {

struct PrepareDocument {
  enum class What { nothing, call, refused };
  What what = What::nothing;  // nothing: no external volumes, so dvdid is not asked
  std::string text;           // the document; or why it is refused, for a person
};

// `sandbox_directory`: where the agent shows the sandbox in a root file system.
PrepareDocument prepare_document(const std::string& owner, const std::string& container_id,
                                 const std::string& container_config, const std::string& sandbox_directory,
                                 const Rules& rules);

std::string isolate_document(const std::string& owner, const std::string& container_id, std::int64_t pid);
std::string cleanup_document(const std::string& owner, const std::string& container_id);

// The sandbox of a ContainerConfig; "": it has none.
std::string sandbox_of(const std::string& container_config);

// PARENT.CHILD, as dvdid names a nested container; "": it cannot be read.
std::string container_key(const std::string& container_id);

// One ContainerState of recover.
struct LiveContainer {
  std::string key;
  std::string directory;
  std::string document;   // what dvdid is told of it
  bool external = false;  // it shows external volumes
};
LiveContainer live_container(const std::string& container_state, const Rules& rules);

// What the first isolator mounted for that container, in place of the variables that had asked it to: an
// agent does not always know those any more. False: it mounted nothing for it.
bool add_former_mounts(LiveContainer& live, const std::vector<FormerMount>& mounts);

std::string recover_document(const std::string& owner, const std::vector<LiveContainer>& containers,
                             const std::vector<std::string>& orphans);

// A sentence for a person on each volume of a live container that dvdid's answer to recover says is not
// certainly mounted, and on what else of the list it could not use.
std::vector<std::string> read_recovered(const std::string& answer);

std::string adopt_document(const std::string& from, const std::vector<FormerMount>& mounts);

// dvdid's answer to that: what it made of each mount, in their order. False: it is no such answer.
struct AdoptedMount {
  bool there = false;  // it is mounted, and in dvdid's books
  std::string reason;  // why not
};
bool read_adopted(const std::string& answer, std::vector<AdoptedMount>& adopted);

// The ids of `owner` in dvdid's answer to GET /v1/containers. False: it is no such answer.
bool known_containers(const std::string& answer, const std::string& owner, std::set<std::string>& ids);

struct Mount {
  std::string target;
  std::string source;
  std::string type;     // "": not set
  std::string options;  // the same
  std::uint32_t flags = 0;
};

struct LaunchInfo {
  std::vector<Mount> mounts;  // in this order
  std::vector<int> clone_namespaces;
};

// dvdid's answer to prepare. False: it is none that a launcher could use, and `error` says why.
bool read_launch_info(const std::string& answer, LaunchInfo& launch_info, std::string& error);

// Mesos shows the sandbox of a container with a root file system where the agent's flag says; dvdid, where
// its configuration says. "", or why the mounts would go to the wrong place.
std::string check_sandbox_place(const std::string& container_config, const std::string& sandbox_directory,
                                const LaunchInfo& launch_info, const Rules& rules);

}  // namespace dvdi_mesos
