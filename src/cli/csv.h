// Comma-separated values, RFC 4180, safe to open with a spreadsheet.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dvdi::cli {

// A text from outside as a cell. One that a spreadsheet would take for a formula (it begins with = + - @, a
// tab or a line break) gets an apostrophe in front: whoever names a role or a label must not run anything on
// the machine of who reads the bill.
std::string csv_text(std::string_view text);

// The cells, quoted where they need it, and the end of the line.
std::string csv_line(const std::vector<std::string>& cells);

}  // namespace dvdi::cli
