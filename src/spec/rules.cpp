#include "spec/rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "spec/request.h"

namespace dvdi::spec {

namespace {

// The rule of the first DVDI isolator for names, kept: a name appears in paths (a driver's socket, a volume's
// folder), in messages and, with other tools, in command lines.
constexpr std::string_view refused_in_names = "%/:;<>|`$'\"?^&{}[]\\";

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

bool too_long(std::string_view text, std::size_t limit, std::string_view place, Problems& problems) {
  if (text.size() <= limit) return false;
  problems.add(place, fmt::format("is {} bytes long, at most {} are allowed", text.size(), limit));
  return true;
}

bool has_control(std::string_view text, std::string_view place, Problems& problems) {
  const auto found = std::find_if(text.begin(), text.end(), is_control);
  if (found == text.end()) return false;
  problems.add(place, fmt::format("has a control character (byte {} is 0x{:02x})", found - text.begin(),
                                  static_cast<unsigned char>(*found)));
  return true;
}

bool has_nul(std::string_view text, std::string_view place, Problems& problems) {
  if (text.find('\0') == std::string_view::npos) return false;
  problems.add(place, "has a NUL character");
  return true;
}

bool check_name(const Text& name, std::string_view what, Problems& problems) {
  if (name.reported) return false;
  if (name.value.empty()) {
    problems.add(name.place, fmt::format("{} is required", what));
    return false;
  }
  if (too_long(name.value, max_name_bytes, name.place, problems)) return false;
  if (name.value == "." || name.value == "..") {
    problems.add(name.place, fmt::format("{} must not be '{}'", what, name.value));
    return false;
  }
  const auto refused = std::find_if(name.value.begin(), name.value.end(), [](char c) {
    return c == ' ' || is_control(c) || refused_in_names.find(c) != std::string_view::npos;
  });
  if (refused == name.value.end()) return true;
  problems.add(name.place, fmt::format("{} {} has the character {}, which is not allowed in names", what,
                                       quoted(name.value), quoted(std::string_view(&*refused, 1))));
  return false;
}

// The parts of checking a path that hold for every path: length, characters, components.
bool check_path(const Text& path, Problems& problems) {
  if (too_long(path.value, max_path_bytes, path.place, problems)) return false;
  if (has_control(path.value, path.place, problems)) return false;
  for (const std::string_view component : split(path.value, '/')) {
    if (component == "..") {
      problems.add(path.place, fmt::format("{} has a '..' component", quoted(path.value)));
      return false;
    }
    if (component.size() > max_component_bytes) {
      problems.add(path.place, fmt::format("has a component of {} bytes, at most {} are allowed",
                                           component.size(), max_component_bytes));
      return false;
    }
  }
  return true;
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto at = [&](std::size_t k) { return static_cast<unsigned char>(text[k]); };
    const unsigned first = at(i);
    const std::size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (length == 0 || first > 0xf4 || length > text.size() - i) return false;
    for (std::size_t k = 1; k < length; ++k) {
      if ((at(i + k) & 0xc0U) != 0x80) return false;
    }
    if (length > 2) {
      const unsigned second = at(i + 1);
      // Overlong forms, surrogates, and what lies beyond U+10FFFF.
      if (first == 0xe0 && second < 0xa0) return false;
      if (first == 0xed && second >= 0xa0) return false;
      if (first == 0xf0 && second < 0x90) return false;
      if (first == 0xf4 && second >= 0x90) return false;
    }
    i += length;
  }
  return true;
}

bool check_driver_name(const Text& name, Problems& problems) {
  return check_name(name, "a driver name", problems);
}

bool check_volume_name(const Text& name, Problems& problems) {
  return check_name(name, "a volume name", problems);
}

bool check_option_key(const Text& key, Problems& problems) {
  if (key.value.empty()) {
    problems.add(key.place, "an option has no name");
    return false;
  }
  if (too_long(key.value, max_option_key_bytes, key.place, problems)) return false;
  if (has_control(key.value, key.place, problems)) return false;
  if (key.value.find(' ') == std::string::npos) return true;
  problems.add(key.place, fmt::format("the option name {} has a space", quoted(key.value)));
  return false;
}

bool check_option_value(std::string_view value, std::string_view place, Problems& problems) {
  return !too_long(value, max_option_value_bytes, place, problems) && !has_nul(value, place, problems);
}

bool check_label(std::string_view key, std::string_view value, std::string_view place, Problems& problems) {
  if (key.empty() || key.size() > max_option_key_bytes) {
    problems.add(place, fmt::format("the key of a label has 1 to {} bytes", max_option_key_bytes));
    return false;
  }
  return check_option_value(value, place, problems);
}

bool check_argument(std::string_view value, std::string_view place, Problems& problems) {
  return !too_long(value, max_argument_bytes, place, problems) && !has_nul(value, place, problems);
}

bool check_user(const Text& user, Problems& problems) {
  if (user.reported) return false;
  if (user.value.empty()) {
    problems.add(user.place, "is empty");
    return false;
  }
  if (too_long(user.value, max_name_bytes, user.place, problems)) return false;
  if (has_control(user.value, user.place, problems)) return false;
  const auto parts = split(user.value, ':');
  const bool empty_part = std::any_of(parts.begin(), parts.end(), [](auto part) { return part.empty(); });
  if (parts.size() <= 2 && !empty_part && user.value.find(' ') == std::string::npos) return true;
  problems.add(user.place, fmt::format("{} is not of the form USER or USER:GROUP", quoted(user.value)));
  return false;
}

bool check_label_text(const Text& text, Problems& problems) {
  if (text.value.empty()) {
    problems.add(text.place, "is empty");
    return false;
  }
  return !too_long(text.value, max_name_bytes, text.place, problems) &&
         !has_control(text.value, text.place, problems);
}

bool check_container_id(const Text& id, Problems& problems) {
  if (too_long(id.value, max_container_id_bytes, id.place, problems)) return false;
  const bool characters = std::all_of(id.value.begin(), id.value.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
  if (characters && !id.value.empty() && id.value != "." && id.value != "..") return true;
  problems.add(id.place, fmt::format("{} is no container id: 1 to {} of A-Z a-z 0-9 . _ -", quoted(id.value),
                                     max_container_id_bytes));
  return false;
}

bool check_absolute_path(const Text& path, std::string_view what, Problems& problems) {
  if (path.reported) return false;
  if (path.value.empty()) {
    problems.add(path.place, fmt::format("{} is required", what));
    return false;
  }
  if (!check_path(path, problems)) return false;
  if (path.value.front() == '/') return true;
  problems.add(path.place, fmt::format("{} must be absolute, {} is not", what, quoted(path.value)));
  return false;
}

bool check_variable(const Text& name, std::string_view value, Problems& problems) {
  if (name.value.empty() || name.value.find('=') != std::string::npos) {
    problems.add(name.place, "is no name of an environment variable");
    return false;
  }
  if (too_long(name.value, max_option_key_bytes, name.place, problems)) return false;
  return !has_control(name.value, name.place, problems) && check_argument(value, name.place, problems);
}

std::optional<std::string> check_container_path(const Text& path, Problems& problems) {
  if (path.reported) return std::nullopt;
  if (path.value.empty()) {
    problems.add(path.place, "a container path is required");
    return std::nullopt;
  }
  if (!check_path(path, problems)) return std::nullopt;
  const bool absolute = path.value.front() == '/';
  std::string normal;
  for (const std::string_view component : split(path.value, '/')) {
    if (component.empty() || component == ".") continue;
    if (absolute || !normal.empty()) normal += '/';
    normal += component;
  }
  if (!normal.empty()) return normal;
  problems.add(path.place, absolute ? "a volume cannot be mounted over the root '/'"
                                    : "a volume cannot be mounted over the sandbox itself");
  return std::nullopt;
}

}  // namespace dvdi::spec
