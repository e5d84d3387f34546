// A user namespace that nobody lives in: the kernel takes the owner mapping of a mount from one.
#pragma once

#include "base/result.h"
#include "dvdi/v1/launch.pb.h"
#include "linux/fd.h"

namespace dvdi {

// Its map exchanges from_* and to_*, and leaves every other number as it is: files of from_uid appear as
// to_uid's and new files of to_uid are stored as from_uid's; a plain shift would leave the owners that are
// not part of it as nobody's, and no file could be made by them. Needs CAP_SETUID, CAP_SETGID and
// CAP_SYS_ADMIN.
Result<UniqueFd> make_user_namespace(const v1::ContainerMountInfo::IdMap& map);

}  // namespace dvdi
