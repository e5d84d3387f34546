// The tables [sink.NAME] of the configuration.
#pragma once

#include <vector>

#include "daemon/toml_table.h"
#include "event/sink.h"

namespace dvdi {

Status read_sinks(Table& table, std::vector<SinkSettings>& sinks);

}  // namespace dvdi
