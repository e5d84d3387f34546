#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/stream_parser.hpp>

namespace dvdi::json {

namespace {

std::string place(std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, offset);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const auto start = before.rfind('\n');
  const auto column = start == std::string_view::npos ? before.size() + 1 : before.size() - start;
  return fmt::format("line {}, column {}", line, column);
}

}  // namespace

Result<value> parse(std::string_view text, std::string_view what) {
  boost::json::parse_options options;
  options.max_depth = 64;
  boost::json::stream_parser parser({}, options);
  boost::json::error_code error;
  const std::size_t used = parser.write(text.data(), text.size(), error);
  if (!error) parser.finish(error);
  if (error) {
    return Error{
        .code = Code::invalid_argument,
        .message = fmt::format("{} is not JSON: {} at {}", what, error.message(), place(text, used))};
  }
  return parser.release();
}

const value* find(const value& from, std::string_view name) {
  const object* members = from.if_object();
  return members == nullptr ? nullptr : members->if_contains(name);
}

std::string_view text_or_empty(const value& from, std::string_view name) {
  const value* member = find(from, name);
  if (member == nullptr || !member->is_string()) return {};
  return {member->get_string().data(), member->get_string().size()};
}

}  // namespace dvdi::json
