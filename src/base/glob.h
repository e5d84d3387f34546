// Patterns with `*` (any bytes, also none, also `/`) and `?` (any one byte). Everything else means itself.
#pragma once

#include <string_view>

namespace dvdi {

// At most pattern.size() * text.size() steps, whatever the two are.
bool glob_matches(std::string_view pattern, std::string_view text);

}  // namespace dvdi
