// What std::string has of itself since C++20.
#pragma once

#include <string>

namespace dvdi_mesos {

inline bool starts_with(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

}  // namespace dvdi_mesos
