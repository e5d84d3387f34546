// Tables for people: columns as wide as they need, shortened in the middle where the terminal is narrower.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dvdi::cli {

class Table {
 public:
  enum class Align { left, right };
  struct Column {
    std::string title;
    Align align = Align::left;
  };

  explicit Table(std::vector<Column> columns);
  // As many cells as there are columns. Control and non-ASCII bytes are shown as \xNN: names come from
  // outside and must not steer the terminal.
  void add(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }

  // Without a width nothing is shortened. No column gets narrower than 4: with many columns and a very narrow
  // terminal lines are longer than it.
  std::string render(std::optional<std::size_t> width) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// At most `width` columns of the terminal, the middle replaced by "…": both ends of a path or an id tell the
// most. `text` is ASCII.
std::string shorten(std::string_view text, std::size_t width);

// The width of the terminal that standard output is; nullopt where it is none (a pipe, a file).
std::optional<std::size_t> terminal_width();

}  // namespace dvdi::cli
