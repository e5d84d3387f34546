// The daemon's log: lines to standard error, with the journal's priorities where the journal reads them. Only
// for dvdid itself: libraries return errors, and whoever handles one logs it, once.
#pragma once

#include <string_view>

namespace dvdi::log {

enum class Level { error, warning, info, debug };

// To the journal (JOURNAL_STREAM is set) with "<N>" before the line; else with the time.
void start(Level least);
void set_level(Level least);

void error(std::string_view text);
void warning(std::string_view text);
void info(std::string_view text);
void debug(std::string_view text);

}  // namespace dvdi::log
