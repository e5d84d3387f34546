// Reading members of a JSON document with their places. An absent member and `null` are the same, as in
// protobuf's JSON mapping; a member of the wrong type is a problem.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "spec/problems.h"
#include "spec/rules.h"

namespace dvdi::spec {

// "a text", "a number", "an object", …
std::string_view kind(const json::value& value);

// The member, or null where it is absent or `null`. No problem in either case.
const json::value* present(const json::object& from, std::string_view key);

// The member, or null: absent, or of another type, which is reported.
const json::object* object_member(const json::object& from, std::string_view key, std::string_view place,
                                  Problems& problems);
const json::array* array_member(const json::object& from, std::string_view key, std::string_view place,
                                Problems& problems);
std::optional<std::string> text_member(const json::object& from, std::string_view key, std::string_view place,
                                       Problems& problems);

// The same for the rules of rules.h: absent is empty, of another type is `reported`.
Text text_at(const json::object& from, std::string_view key, std::string_view place, Problems& problems);

// As a text; another type is reported. `place` is the value's own.
std::optional<std::string> text_of(const json::value& value, std::string_view place, Problems& problems);

// Reports each key that an object of this (valid) document has twice. JSON leaves open which of the two
// holds, so that a checker and a user of the document may see different ones.
void check_duplicate_keys(std::string_view text, Problems& problems);

}  // namespace dvdi::spec
