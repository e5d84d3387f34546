// The file that `dvdi usage --prices` reads; docs/usage.md describes it.
#pragma once

#include <string>

#include "event/prices.h"

namespace dvdi {

// invalid_argument names file, line and key.
Result<PriceList> parse_prices(const std::string& text, const std::string& file_name);
Result<PriceList> load_prices(const std::string& path);

}  // namespace dvdi
