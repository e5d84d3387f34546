// What a name, a path, an option may look like. Everything from outside goes through these.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "spec/problems.h"

namespace dvdi::spec {

// A text of the request and where it is written.
struct Text {
  std::string value;
  std::string place;
  bool reported = false;  // it could not be read, which was reported: no rule is applied to it
};

bool is_utf8(std::string_view text);

// Each reports what is wrong, and answers whether the text may be used.
bool check_driver_name(const Text& name, Problems& problems);
bool check_volume_name(const Text& name, Problems& problems);
bool check_option_key(const Text& key, Problems& problems);
bool check_option_value(std::string_view value, std::string_view place, Problems& problems);
bool check_argument(std::string_view value, std::string_view place, Problems& problems);  // no NUL, bounded
bool check_user(const Text& user, Problems& problems);                                    // USER[:GROUP]
bool check_label_text(const Text& text,
                      Problems& problems);  // for people and audit: 1 to 255 bytes, no control
bool check_label(std::string_view key, std::string_view value, std::string_view place, Problems& problems);
bool check_container_id(const Text& id, Problems& problems);
// `what` names the path in the message: "a host path".
bool check_absolute_path(const Text& path, std::string_view what, Problems& problems);
bool check_variable(const Text& name, std::string_view value, Problems& problems);

// In the form in which two that mean the same path are equal: no `.`, no `//`, no `/` at the end. nullopt: a
// problem was reported.
std::optional<std::string> check_container_path(const Text& path, Problems& problems);

}  // namespace dvdi::spec
