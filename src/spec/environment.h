// Form 4: the environment variables of the first DVDI isolator.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spec/volume.h"

namespace dvdi::spec {

bool is_volume_variable(std::string_view name);  // DVDI_VOLUME_…

// The volumes of one set of variables, in the order of their digits. Variables of other names are ignored.
// `place`: where the set stands, "" for the caller's own environment.
std::vector<ReadVolume> read_environment(const std::vector<std::pair<std::string, std::string>>& variables,
                                         std::string_view place, Problems& problems,
                                         std::vector<std::string>& warnings);

// The rule of this form for a volume that is named twice: the second one is dropped if both are for the host
// only, and a problem otherwise.
std::vector<ReadVolume> without_repetitions(std::vector<ReadVolume> volumes, Problems& problems);

}  // namespace dvdi::spec
