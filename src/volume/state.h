// The states of a mount and the transitions between them: the table of ARCHITECTURE.md, enforced. The only
// code that writes a mount's row.
#pragma once

#include <string>

#include "store/ledger.h"

namespace dvdi::volume {

// Why a transition happens: what its event says.
struct Cause {
  std::string reason = {};
  std::string error = {};
  unsigned attempt = 0;
  std::optional<Duration> duration = {};  // of the driver call that led here
  bool lost = false;                      // the mount went without us: another boot, or its server is gone
  bool unanswered = false;                // the driver may still be at the call that led here
  std::string trace_id = {};
};

// internal, unless ARCHITECTURE.md's table has it.
Status check_transition(MountState from, MountState to);

// To `unknown`: whoever made the call that is recorded is gone.
Cause nobody_at_work(const std::string& trace_id);

// A row that is not there yet, with a new mount id; to be given to transition().
MountRow new_mount(const VolumeKey& volume);

// Moves the mount to `to`: writes or erases the row, its event, and the interval of its mounted time.
// `row.state` is where it comes from (absent for a new row) and is changed.
Status transition(Transaction& transaction, MountRow& row, MountState to, const Cause& cause);

}  // namespace dvdi::volume
