// Places where a test lets this process die, as by SIGKILL: before and after every durable write and every
// driver call. They are in released programs, too, where they cost one comparison.
//
// DVDI_FAILPOINT=N   the process kills itself when it comes to the Nth place (1 is the first)
// DVDI_FAILPOINT=NAME:N   the same, counting only places of that name
// DVDI_FAILPOINT_LOG=FILE   one line "NUMBER NAME DETAIL" for each place that was passed: what a test
// enumerates
#pragma once

#include <string_view>

namespace dvdi {

// `name`: a literal, for example "store.commit.before". `detail` says which one for a person: the write, or
// the driver's operation.
void failpoint(const char* name, std::string_view detail);

}  // namespace dvdi
