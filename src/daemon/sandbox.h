// The sandboxes that the engine makes for containers whose request names none: STATE_DIR/sandboxes/ID.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "base/context.h"
#include "linux/helper_pool.h"

namespace dvdi {

// Makes the sandbox of container `id`, for `user` alone (USER[:GROUP]; "": root). One that is there is used
// again.
Result<std::string> make_sandbox(const Context& context, HelperPool& helpers, const std::string& state_dir,
                                 const std::string& id, const std::string& user, const std::string& rootfs);

// Whether there is one of that name, whoever's it is.
bool has_sandbox(const std::string& state_dir, const std::string& id);

// Deletes it with what the task left in it; no link is followed and no mount crossed. In a helper: it may be
// large.
Status remove_sandbox(const Context& context, HelperPool& helpers, const std::string& state_dir,
                      const std::string& id);

// Deletes sandboxes older than an hour that belong to none of the containers that live: their makers were
// killed before the ledger knew. `live`: their ids; asked for where there are old ones, and nothing is
// deleted where it cannot say.
void remove_stray_sandboxes(const Context& context, HelperPool& helpers, const std::string& state_dir,
                            const std::function<Result<std::set<std::string>>()>& live);

}  // namespace dvdi
