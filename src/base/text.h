// Small helpers for text that comes from outside or goes to a person.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dvdi {

std::vector<std::string_view> split(std::string_view text, char separator);  // "" gives one empty piece
std::string_view trim(std::string_view text);                                // ASCII white space at both ends
// Printable, on one line and at most `limit` bytes: control and non-ASCII bytes as \xNN, the rest cut with
// "…". For every text from outside that goes into a message.
std::string printable(std::string_view text, std::size_t limit = 200);

}  // namespace dvdi
