// The mark that a database gave an error of damage while it was in use: the next start checks all of it. Only
// for this folder.
#pragma once

#include <string>

namespace dvdi {

// Best effort, all of them.
void suspect(const std::string& path);
bool is_suspected(const std::string& path);
void clear_suspicion(const std::string& path);

}  // namespace dvdi
