// A damaged ledger: found out before anything is believed that it says, set aside, replaced by an empty one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/ledger.h"

namespace dvdi {

// Why the database at `path` cannot be relied on; nullopt: it is whole, or there never was one. Looks at the
// tables of the state, not at all events: it is for every start. Only while nobody has it open.
Result<std::optional<std::string>> find_damage(const Context& context, const std::string& path);

// Renames the database with its log and index to PATH.damaged-TIME…, and returns that name. Safe to repeat
// after a crash at any point.
Result<std::string> set_aside(const std::string& path, WallTime now);

// Databases that were set aside, oldest first.
std::vector<std::string> databases_set_aside(const std::string& path);

// Opens or creates the database as Ledger::open does, but sets a damaged one aside first; the new one then
// says so (rebuilt_books() in store/rebuilt.h, and an event). Only while nobody else has it open.
Result<std::unique_ptr<Ledger>> open_whole(const Context& context, const std::string& path,
                                           OpenFor how_long = OpenFor::long_work);

}  // namespace dvdi
