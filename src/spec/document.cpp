#include "spec/document.h"

#include <fmt/format.h>

#include <boost/json/basic_parser_impl.hpp>
#include <set>
#include <vector>

namespace dvdi::spec {

std::string_view kind(const json::value& value) {
  if (value.is_null()) return "null";
  if (value.is_bool()) return "a truth value";
  if (value.is_number()) return "a number";
  if (value.is_string()) return "a text";
  return value.is_array() ? "an array" : "an object";
}

const json::value* present(const json::object& from, std::string_view key) {
  const json::value* found = from.if_contains(key);
  return found == nullptr || found->is_null() ? nullptr : found;
}

const json::object* object_member(const json::object& from, std::string_view key, std::string_view place,
                                  Problems& problems) {
  const json::value* found = present(from, key);
  if (found == nullptr) return nullptr;
  if (!found->is_object())
    problems.add(member(place, key), fmt::format("is {}, not an object", kind(*found)));
  return found->if_object();
}

const json::array* array_member(const json::object& from, std::string_view key, std::string_view place,
                                Problems& problems) {
  const json::value* found = present(from, key);
  if (found == nullptr) return nullptr;
  if (!found->is_array()) problems.add(member(place, key), fmt::format("is {}, not an array", kind(*found)));
  return found->if_array();
}

std::optional<std::string> text_of(const json::value& value, std::string_view place, Problems& problems) {
  if (const auto* text = value.if_string()) return std::string(text->data(), text->size());
  problems.add(place, fmt::format("is {}, not a text", kind(value)),
               value.is_number() || value.is_bool() ? "write it in double quotes" : "");
  return std::nullopt;
}

std::optional<std::string> text_member(const json::object& from, std::string_view key, std::string_view place,
                                       Problems& problems) {
  const json::value* found = present(from, key);
  if (found == nullptr) return std::nullopt;
  return text_of(*found, member(place, key), problems);
}

Text text_at(const json::object& from, std::string_view key, std::string_view place, Problems& problems) {
  auto text = text_member(from, key, place, problems);
  const bool reported = !text && present(from, key) != nullptr;
  return {.value = std::move(text).value_or(""), .place = member(place, key), .reported = reported};
}

namespace {

// Follows the parser through the document. Boost.JSON calls these by name.
class DuplicateKeys {
 public:
  static constexpr std::size_t max_object_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_array_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_key_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_string_size = static_cast<std::size_t>(-1);

  explicit DuplicateKeys(Problems& problems) : problems_(problems) {}

  using Code = boost::json::error_code;
  using Text = boost::json::string_view;

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }
  bool on_object_begin(Code&) {
    levels_.push_back(Level{.array = false});
    return true;
  }
  bool on_object_end(std::size_t, Code&) { return leave(); }
  bool on_array_begin(Code&) {
    levels_.push_back(Level{.array = true});
    return true;
  }
  bool on_array_end(std::size_t, Code&) { return leave(); }
  bool on_key_part(Text part, std::size_t, Code&) {
    key_.append(part.data(), part.size());
    return true;
  }
  bool on_key(Text part, std::size_t, Code&) {
    key_.append(part.data(), part.size());
    Level& level = levels_.back();
    level.key = std::exchange(key_, {});
    if (!level.keys.insert(level.key).second) problems_.add(place(), "is there twice");
    return true;
  }
  bool on_string_part(Text, std::size_t, Code&) { return true; }
  bool on_string(Text, std::size_t, Code&) { return value(); }
  bool on_number_part(Text, Code&) { return true; }
  bool on_int64(std::int64_t, Text, Code&) { return value(); }
  bool on_uint64(std::uint64_t, Text, Code&) { return value(); }
  bool on_double(double, Text, Code&) { return value(); }
  bool on_bool(bool, Code&) { return value(); }
  bool on_null(Code&) { return value(); }
  bool on_comment_part(Text, Code&) { return true; }
  bool on_comment(Text, Code&) { return true; }

 private:
  struct Level {
    bool array = false;
    std::size_t index = 0;            // of an array: the element that is being read
    std::string key = {};             // of an object: the member that is being read
    std::set<std::string> keys = {};  // of an object
  };

  // A value is complete: the next one of the array that it is in follows.
  bool value() {
    if (!levels_.empty() && levels_.back().array) ++levels_.back().index;
    return true;
  }

  bool leave() {
    levels_.pop_back();
    return value();
  }

  std::string place() const {
    std::string out;
    for (const Level& level : levels_) {
      out = level.array ? element(out, level.index) : member(out, level.key);
    }
    return out;
  }

  Problems& problems_;
  std::vector<Level> levels_;
  std::string key_;
};

}  // namespace

void check_duplicate_keys(std::string_view text, Problems& problems) {
  boost::json::parse_options options;
  options.max_depth = 64;  // as json::parse, which has accepted this text
  boost::json::basic_parser<DuplicateKeys> parser(options, problems);
  boost::json::error_code error;
  parser.write_some(false, text.data(), text.size(), error);
}

}  // namespace dvdi::spec
