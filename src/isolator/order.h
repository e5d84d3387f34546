// The order in which isolators prepare: whoever needs a property comes after the one that provides it.
#pragma once

#include <memory>
#include <vector>

#include "isolator/isolator.h"

namespace dvdi::isolator {

std::string_view property_name(Property property);

// Depends on the isolators alone, never on the order in which they are given: where needs leave a choice,
// names decide. invalid_argument: two have one name or provide one property, a need that nobody provides,
// needs in a circle.
Result<std::vector<std::unique_ptr<Isolator>>> in_order(std::vector<std::unique_ptr<Isolator>> isolators);

}  // namespace dvdi::isolator
