// A password, token or key that an operator keeps in a file of its own.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace dvdi {

// Its one line, without the newline at its end. `what` names it in errors, which never show what is in it.
// permission_denied where every user may open it; invalid_argument where it is empty, has more than one line,
// or is larger than 64 KiB.
Result<std::string> read_secret_file(const std::string& path, std::string_view what);

// As above, of a file whose lines mean something to somebody else: only who may read it is looked at.
Status check_secret_file(const std::string& path, std::string_view what);

}  // namespace dvdi
