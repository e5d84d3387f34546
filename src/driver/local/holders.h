// Who keeps a mount busy: for the message of an unmount that the kernel refused.
#pragma once

#include <string>
#include <vector>

#include "base/context.h"

namespace dvdi::driver::local {

// Processes whose working folder, root, program, open files or mapped files lie at or below `mount_point`, as
// "NAME (pid N)": at most `most`, best effort, bounded in time. Touches only /proc, so it does not block.
std::vector<std::string> find_holders(const Context& context, const std::string& mount_point,
                                      std::size_t most);

}  // namespace dvdi::driver::local
