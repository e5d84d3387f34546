#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "base/text.h"

namespace dvdi {

// A user's or group's number. (uid_t)-1 means "leave it as it is" to chown(2) and setresuid(2): it is
// nobody's.
inline std::optional<std::uint32_t> parse_id(std::string_view text) {
  const auto id = parse_number<std::uint32_t>(text);
  return id == std::numeric_limits<std::uint32_t>::max() ? std::nullopt : id;
}

}  // namespace dvdi
