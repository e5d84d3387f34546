// An isolator prepares one aspect of a container. The chain (isolator/chain.h) runs several in a fixed order
// with one error contract.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"
#include "dvdi/v1/container.pb.h"
#include "dvdi/v1/launch.pb.h"
#include "spec/request.h"
#include "volume/manager.h"

namespace dvdi::isolator {

using dvdi::ContainerKey;
using volume::Owed;
using volume::RecoverRequest;

// What isolators may provide to, or need from, one another. Order is derived from these.
enum class Property {
  host_paths,          // every volume of the working copy that is mounted on the host has its host_path
  mount_instructions,  // the launch info has every mount of the container
};

// What a provider of host paths knows about one of them, beyond the path. A host path that is in
// Preparation::host_paths is a folder, and is there; one that is not was named by the request.
struct HostPath {
  std::string label;                                 // as the request called it, for messages: DRIVER/NAME
  std::optional<v1::MountIdentity> identity;         // the mount that it must show; absent for a plain folder
  std::map<std::string, spec::Ownership> ownership;  // by container path; absent: none
  std::set<std::string> suid, dev;                   // container paths where it appears without nosuid, nodev
};

// What a container is prepared from. `request` is the caller's and never changed; `working` is the chain's
// own copy of its ContainerInfo: an isolator writes there what later ones need.
struct Preparation {
  ContainerKey key;
  const v1::ContainerRequest& request;
  std::string digest;                          // of the request
  std::string directory;                       // the sandbox: absolute, exists
  bool directory_is_ours = false;              // the engine made it and removes it with the container
  std::optional<ProcessIdentity> worker = {};  // as in volume::Holder
  // Somebody else launches, by path: only volumes that an isolator filled become mounts, each of a private
  // mount of ours (staged_mounts.h); other isolators of that launcher mount the rest.
  bool staged = false;
  v1::ContainerInfo working;
  std::map<std::string, HostPath> host_paths;  // by host path, from whoever provided it
  v1::ContainerLaunchInfo launch;              // each isolator adds its part
};

// Something that an isolator which ran before this one could not do: reported to those after it.
struct Failure {
  std::string isolator;
  Error error;
};

// Thread-safe; calls for one container come one at a time.
class Isolator {
 public:
  virtual ~Isolator() = default;
  virtual std::string_view name() const = 0;
  virtual std::vector<Property> provides() const { return {}; }
  virtual std::vector<Property> needs() const { return {}; }

  // All or nothing, as far as it can; what is left is for cleanup, which the chain calls after a failure,
  // too. Repeated for a container that is prepared: the same answer, no new effect.
  virtual Status prepare(const Context& context, Preparation& preparation) = 0;
  // `watch`: a daemon cleans the container up when the process has ended.
  virtual Status isolate(const Context&, const ContainerKey&, pid_t, bool /*watch*/) { return {}; }
  // `before`: what failed in the isolators that were cleaned up before this one. Unknown containers succeed.
  virtual Result<std::vector<Owed>> cleanup(const Context& context, const ContainerKey& key,
                                            const std::vector<Failure>& before) = 0;
  // Instead of cleanup, where a prepare failed with `why`: the container may be prepared again at once.
  virtual Result<std::vector<Owed>> roll_back(const Context& context, const ContainerKey& key,
                                              const std::vector<Failure>& before, const Error& /*why*/) {
    return cleanup(context, key, before);
  }
  virtual Result<volume::Recovered> recover(const Context& context, const RecoverRequest& request,
                                            const std::vector<Failure>& before) = 0;
};

}  // namespace dvdi::isolator
