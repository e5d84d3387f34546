// Form 5: --volume DRIVER/NAME:CONTAINER_PATH[:ro][,KEY=VALUE]...
#pragma once

#include <string_view>

#include "spec/volume.h"

namespace dvdi::spec {

// DRIVER ends at the first '/', NAME at the first ':' after it. CONTAINER_PATH ends at the next ':' or ','.
// After a ':' comes ro or rw, then the end or a ','. What is left is split at commas, each piece at its first
// '='. So a path holds neither ':' nor ',', a value no ',': forms 1 to 3 can say those.
ReadVolume read_volume_flag(std::string_view flag, std::size_t index, Problems& problems);

}  // namespace dvdi::spec
