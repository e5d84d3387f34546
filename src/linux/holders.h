// Who keeps a mount busy: for the message of an unmount that the kernel refused.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/context.h"

namespace dvdi {

// Processes whose working folder, root, program, open files or mapped files lie at or below `mount_point`, as
// "NAME (pid N)": at most `most`, best effort, bounded in time. Touches only /proc, so it does not block.
std::vector<std::string> find_holders(const Context& context, const std::string& mount_point,
                                      std::size_t most);

// "in use by NAME (pid N), the mount PATH in it": ten at most. "" if nothing was found.
std::string in_use_by(const Context& context, const std::string& mount_point);

// Helper processes (linux/helper_pool.h) of any dvdi on this machine that were killed and have not gone: each
// is stuck in the kernel. At most `most`, best effort, bounded in time; touches only /proc.
std::vector<pid_t> find_stuck_helpers(const Context& context, std::size_t most);

}  // namespace dvdi
