// Files that an operator writes for dvdi.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace dvdi {

enum class Trust {
  whoever,        // whoever may write it
  operator_only,  // permission_denied where somebody but root (or this process's user) may write it
};

// The whole file. `what` names it in errors: "the configuration". invalid_argument beyond `most` bytes.
Result<std::string> read_text_file(const std::string& path, std::string_view what, std::size_t most,
                                   Trust trust = Trust::whoever);

}  // namespace dvdi
