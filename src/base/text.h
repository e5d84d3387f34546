// Small helpers for text that comes from outside or goes to a person.
#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dvdi {

std::vector<std::string_view> split(std::string_view text, char separator);  // "" gives one empty piece
std::string_view trim(std::string_view text);                                // ASCII white space at both ends
// Printable, on one line and at most `limit` bytes: control and non-ASCII bytes as \xNN, the rest cut with
// "…". For every text from outside that goes into a message.
std::string printable(std::string_view text, std::size_t limit = 200);

// The whole text as a number: without a sign where Number has none, without spaces. nullopt: it is none, or
// does not fit.
template <class Number>
std::optional<Number> parse_number(std::string_view text, int base = 10) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// The same for a number that has a place; it is left as it is where false is returned.
template <class Number>
bool read_number(std::string_view text, Number& number) {
  const auto read = parse_number<Number>(text);
  if (read) number = *read;
  return read.has_value();
}

}  // namespace dvdi
