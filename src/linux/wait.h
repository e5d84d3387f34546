// Waiting for file descriptors with a Context.
#pragma once

#include <poll.h>

#include <span>
#include <string_view>

#include "base/context.h"

namespace dvdi {

// Returns when at least one descriptor is ready (see its `revents`), or with the error of the context when
// that ends first; a cancellation ends the wait at once. `what` is what is waited for.
Status wait_ready(const Context& context, std::span<pollfd> descriptors, std::string_view what);

// Has the process behind this pidfd ended? (Zombies have.)
bool process_ended(int pidfd);

}  // namespace dvdi
