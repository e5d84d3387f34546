#include "cli/table.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <ranges>

#include "base/text.h"

namespace dvdi::cli {

namespace {

constexpr std::size_t gap = 2;        // blanks between columns
constexpr std::size_t narrowest = 4;  // of a column that is shortened

void pad(std::string& out, std::size_t count) { out.append(count, ' '); }

}  // namespace

std::string shorten(std::string_view text, std::size_t width) {
  if (text.size() <= width) return std::string(text);
  if (width == 0) return {};
  const std::size_t kept = width - 1;  // the ellipsis takes one column, whatever it takes in bytes
  const std::size_t tail = kept / 2;
  std::string out(text.substr(0, kept - tail));
  out += "…";
  out += text.substr(text.size() - tail);
  return out;
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::add(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  for (std::string& cell : cells) cell = printable(cell, std::numeric_limits<std::size_t>::max());
  rows_.push_back(std::move(cells));
}

std::string Table::render(std::optional<std::size_t> width) const {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    std::size_t widest = columns_[i].title.size();
    for (const auto& row : rows_) widest = std::max(widest, row[i].size());
    widths.push_back(widest);
  }
  if (width) {
    const std::size_t gaps = columns_.empty() ? 0 : gap * (columns_.size() - 1);
    auto total = [&] { return std::accumulate(widths.begin(), widths.end(), gaps); };
    // The widest column gives first, down to the second widest, and so on: short ones stay whole.
    while (total() > *width) {
      const auto widest = std::ranges::max_element(widths);
      if (widest == widths.end() || *widest <= narrowest) break;
      --*widest;
    }
  }

  std::string out;
  auto line = [&](auto cell_of) {
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const std::string_view whole = cell_of(i);
      const std::string cell = shorten(whole, widths[i]);
      const std::size_t used = std::min(whole.size(), widths[i]);
      if (columns_[i].align == Align::right) pad(out, widths[i] - used);
      out += cell;
      const bool last = i + 1 == columns_.size();
      if (!last) pad(out, gap + (columns_[i].align == Align::left ? widths[i] - used : 0));
    }
    // An empty last cell leaves the blanks of those before it.
    out.erase(out.find_last_not_of(' ') + 1);
    out += '\n';
  };
  line([&](std::size_t i) -> std::string_view { return columns_[i].title; });
  for (const auto& row : rows_) {
    line([&](std::size_t i) -> std::string_view { return row[i]; });
  }
  return out;
}

std::optional<std::size_t> terminal_width() {
  if (isatty(STDOUT_FILENO) == 0) return std::nullopt;
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  if (const char* columns = std::getenv("COLUMNS")) {
    if (const auto value = parse_number<std::size_t>(columns); value && *value > 0) return value;
  }
  return 80;
}

}  // namespace dvdi::cli
