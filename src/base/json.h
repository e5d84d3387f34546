// JSON text from outside: Boost.JSON with our limits. The one place that parses.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace dvdi::json {

using boost::json::array;
using boost::json::object;
using boost::json::serialize;
using boost::json::value;

// Strict JSON (RFC 8259), nested at most 64 deep. `what` names the text in the error, which says where it is
// wrong: line and column.
Result<value> parse(std::string_view text, std::string_view what);

// A member of the outermost object, and where its text goes: "" where it is absent or no string.
struct TextMember {
  std::string_view name;
  std::string* text;
};
// As parse(), but keeps nothing of the text except these members: of many texts a third of the time.
Result<void> read_texts(std::string_view text, std::span<const TextMember> members, std::string_view what);

// The member, or null where it is absent or `from` is no object.
const value* find(const value& from, std::string_view name);

// The text member, or "" where it is absent, null or no string.
std::string_view text_or_empty(const value& from, std::string_view name);

}  // namespace dvdi::json
