// An error as JSON, and back: the form of the daemon's API and of `--format json`; docs/errors.md has it.
#pragma once

#include "base/json.h"

namespace dvdi::json {

// {"code", "message", "driver", "volume", "operation", "attempt", "hint", "outcome", "attached"}
object to_json(const Error& error);
// Lenient: what is absent or of another type is "not set", a code that this version does not know is
// internal.
Error error_of(const value& from);

}  // namespace dvdi::json
