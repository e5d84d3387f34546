// What `dvdi run` was asked for, from its file, its options and the environment.
#pragma once

#include <string>

#include "base/result.h"
#include "cli/arguments.h"
#include "dvdi/v1/container.pb.h"

namespace dvdi::cli {

// Reads at most `limit` bytes; a longer file is an error. "-" is standard input.
Result<std::string> read_bounded(const std::string& file, std::size_t limit);

// `environment` is that of the process (environ): its DVDI_VOLUME_* are the request's fourth form.
Result<v1::ContainerRequest> run_request(const RunCommand& command, const char* const* environment);

// The same from a file and the environment alone; there need be nothing to run.
Result<v1::ContainerRequest> file_request(const std::string& file, const char* const* environment);

}  // namespace dvdi::cli
