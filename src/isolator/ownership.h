// Who a volume belongs to: the ownership policies of a request (docs/isolator-questions.md).
#pragma once

#include <string>

#include "isolator/container_path.h"
#include "isolator/isolator.h"

namespace dvdi::isolator {

// The ids of `user` (USER[:GROUP], names or numbers; "": root), as the launcher will find them. Names are
// looked up in the rootfs's own passwd and group files if there is a rootfs, else by the host, in a helper: a
// directory service can hang. Without GROUP it is the user's own group; a number without an account needs a
// GROUP.
Result<Owner> find_owner(const Context& context, HelperPool& helpers, const std::string& user,
                         const std::string& rootfs);

struct OwnershipRequest {
  spec::Ownership policy = spec::Ownership::none;
  std::string host_path;  // the volume's top directory
  std::optional<v1::MountIdentity> identity;
  PathInfo target;       // the container path, as it is beneath the volume
  Owner user;            // the task's
  std::string key = {};  // of the helper's work: DRIVER/NAME
};

// match_target and user change owner (and mode) of the volume's top directory on the host, and only of that;
// what is so already is not touched. This happens before a read-only bind, so also for a container that may
// not write: it is the request's author who asks, not the task. idmap changes nothing and fills
// `mount.idmap`.
Status apply_ownership(const Context& context, HelperPool& helpers, const OwnershipRequest& request,
                       v1::ContainerMountInfo& mount);

}  // namespace dvdi::isolator
