// Deleting a folder with everything in it, safely: no link is followed, no mount is crossed.
#pragma once

#include <string>

#include "base/result.h"

namespace dvdi {

// Deletes `name` in the folder `parent`. One that is not there is a success. A mount in it is an error, and
// the mount's content is left alone. Whatever the depth of the tree, memory and descriptors are bounded.
Status remove_tree(int parent, const std::string& name);

}  // namespace dvdi
