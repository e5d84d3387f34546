// A folder of ours that holds mounts is a shared mount of its own, bound on itself, from the first mount in
// it to the last: what is mounted and unmounted in it here is so in the mount namespaces that were made
// meanwhile, too, whatever the propagation of the host's root is.
#pragma once

#include <string>

#include "base/result.h"
#include "linux/fd.h"

namespace dvdi {

bool is_mount_root(int fd);

// Opens DIRECTORY/NAME, which is there, as a shared mount. While the descriptor is open, the kernel refuses
// to take that mount away (busy), so no lock needs to be held while something is mounted in it, which may
// take long. DIRECTORY/NAME.lock is held while the mount itself is made or taken away.
Result<UniqueFd> open_shared_folder(const std::string& directory, const std::string& name);

// Takes the folder's own mount away, if it is ours and nothing is mounted or being mounted in it: else the
// kernel says busy, and whoever unmounts the last thing in it does it. Not worth an error.
void tidy_shared_folder(const std::string& directory, const std::string& name);

}  // namespace dvdi
