// The task's init: the process that the ledger knows. It sets up the namespaces from inside, starts the
// program, passes signals on, reaps, and ends when the program does. It needs nobody: `dvdi run` may be
// killed.
#pragma once

#include "launcher/plan.h"
#include "launcher/signals.h"

namespace dvdi::launcher {

// In the new process. `channel`: the init's end; nothing happens before the go-ahead. Of the descriptors that
// were inherited, 0, 1, 2, `channel` and the plan's stay open.
[[noreturn]] void run_init(Plan& plan, int channel, const sigset_t& ignored);

}  // namespace dvdi::launcher
