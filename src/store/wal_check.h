// SQLite's write-ahead log, held against what its index says was committed. Only for this folder.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace dvdi {

// SQLite takes a log that is cut short, or in which a bit has flipped, for one whose last writer died: it
// goes back to an earlier moment and says nothing. The index (-shm) of the same boot knows better. What is
// wrong, or nullopt. Only while nobody has the database open, and if the index was written in this boot.
Result<std::optional<std::string>> find_log_damage(const std::string& log, const std::string& index);

}  // namespace dvdi
