// Processes: who one is, beyond a number that the kernel uses again; and running a program to its end.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/context.h"
#include "linux/fd.h"

namespace dvdi {

// /proc/sys/kernel/random/boot_id: another value after each start of the machine.
Result<std::string> boot_id();

// A process for all time: a pid is reused, the pair of pid and start time within one boot is not.
struct ProcessIdentity {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;  // field 22 of /proc/PID/stat
  std::string boot_id;

  bool operator==(const ProcessIdentity&) const = default;
};

// not_found if there is no such process.
Result<ProcessIdentity> identify_process(pid_t pid);
// Is that very process there, not yet a zombie? False only with proof; an error if it cannot be told.
Result<bool> process_runs(const ProcessIdentity& identity);

// Its real, effective, saved and file system user (/proc/PID/status). not_found if there is no such process.
Result<std::array<std::uint32_t, 4>> user_ids_of(pid_t pid);

struct ProgramResult {
  int exit_code = 0;   // 128 + n if signal n ended it
  std::string output;  // stdout and stderr together, the first 64 KiB
};
// Runs argv[0] (looked up in the usual system folders, with a fixed environment, no shell), stdin from
// /dev/null, no inherited descriptors. Killed at the end of the context.
Result<ProgramResult> run_program(const Context& context, const std::vector<std::string>& argv);

}  // namespace dvdi
