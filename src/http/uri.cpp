#include "http/uri.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace dvdi::http {

namespace {

constexpr std::size_t max_query_members = 64;

bool is_unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Result<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const bool whole = i + 2 < text.size();
    const int high = whole ? digit_of(text[i + 1]) : -1;
    const int low = whole ? digit_of(text[i + 2]) : -1;
    if (high < 0 || low < 0 || (high == 0 && low == 0))
      return Error{.code = Code::invalid_argument,
                   .message = fmt::format("'{}' is not a valid part of an address", printable(text))};
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

}  // namespace

std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (is_unreserved(c)) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

Result<std::vector<std::string>> split_path(std::string_view path) {
  if (!path.starts_with('/'))
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("'{}' does not begin with /", printable(path))};
  std::vector<std::string> segments;
  for (const std::string_view piece : split(path.substr(1), '/')) {
    DVDI_TRY(std::string decoded, percent_decode(piece));
    segments.push_back(std::move(decoded));
  }
  return segments;
}

Result<std::map<std::string, std::string>> parse_query(std::string_view query) {
  std::map<std::string, std::string> members;
  if (query.empty()) return members;
  for (const std::string_view piece : split(query, '&')) {
    const std::size_t equals = std::min(piece.find('='), piece.size());
    DVDI_TRY(std::string name, percent_decode(piece.substr(0, equals)));
    DVDI_TRY(std::string value, percent_decode(piece.substr(std::min(equals + 1, piece.size()))));
    if (members.size() == max_query_members || !members.emplace(name, std::move(value)).second)
      return Error{.code = Code::invalid_argument,
                   .message = fmt::format("the query names '{}' twice, or more than {} things",
                                          printable(name), max_query_members)};
  }
  return members;
}

}  // namespace dvdi::http
