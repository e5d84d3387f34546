// What the task executes: program, arguments, environment.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "launcher/launch.h"
#include "launcher/user.h"

namespace dvdi::launcher {

struct Program {
  std::string file;                    // a path if it contains `/`, else looked up in the environment's PATH
  std::vector<std::string> arguments;  // argv, the program's own name first
  std::vector<std::string> environment;  // NAME=VALUE
};

// `caller_environment`: environ of this process. `directory`: the working folder as the task sees it.
Result<Program> make_program(const Task& task, const Identity& identity, const std::string& directory,
                             const std::vector<std::string>& caller_environment);

// Replaces this process by the program. Returns only where that failed: the error number.
int execute(const Program& program);

// not_found or permission_denied for what is the program's own fault, as a shell distinguishes 127 and 126.
Error execution_error(const Program& program, int error_number);

}  // namespace dvdi::launcher
