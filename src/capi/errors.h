// dvdi's errors as the C API numbers them, and the error that says that the daemon is not there.
#pragma once

#include "base/error.h"
#include "dvdi/dvdi.h"

namespace dvdi {

dvdi_code to_c(Code code);
dvdi_outcome to_c(Outcome outcome);
// DVDI_OK is no error, and an unknown number none of ours: both are internal.
Code from_c(dvdi_code code);
Outcome from_c(dvdi_outcome outcome);

// Does the error say that there is no daemon (any more), or that one owns the state directory and does not
// answer yet? The same call may be repeated: each is idempotent.
bool daemon_is_away(const Error& error);
Error daemon_away(std::string message, Outcome outcome);

}  // namespace dvdi
