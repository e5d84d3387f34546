// The sandboxes that the engine makes for containers whose request names none: STATE_DIR/sandboxes/ID.
#pragma once

#include <set>
#include <string>

#include "base/context.h"
#include "linux/helper_pool.h"

namespace dvdi {

// Makes the sandbox of container `id`, for `user` alone (USER[:GROUP]; "": root). One that is there is used
// again.
Result<std::string> make_sandbox(const Context& context, HelperPool& helpers, const std::string& state_dir,
                                 const std::string& id, const std::string& user, const std::string& rootfs);

// Deletes it with what the task left in it; no link is followed and no mount crossed. In a helper: it may be
// large.
Status remove_sandbox(const Context& context, HelperPool& helpers, const std::string& state_dir,
                      const std::string& id);

// Deletes sandboxes older than an hour that belong to none of `ids`: their makers were killed before the
// ledger knew.
void remove_stray_sandboxes(const Context& context, HelperPool& helpers, const std::string& state_dir,
                            const std::set<std::string>& ids);

}  // namespace dvdi
