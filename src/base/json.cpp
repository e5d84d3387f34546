#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
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

constexpr std::size_t max_depth = 64;

Error not_json(std::string_view text, std::string_view what, const boost::json::error_code& error,
               std::size_t offset) {
  return Error{
      .code = Code::invalid_argument,
      .message = fmt::format("{} is not JSON: {} at {}", what, error.message(), place(text, offset))};
}

// What boost::json::basic_parser calls for each piece of the text.
class TextReader {
 public:
  using Code = boost::json::error_code;
  using Piece = boost::json::string_view;
  constexpr static std::size_t max_object_size = SIZE_MAX, max_array_size = SIZE_MAX, max_key_size = SIZE_MAX,
                               max_string_size = SIZE_MAX;

  explicit TextReader(std::span<const TextMember> members) : members_(members) {}

  bool on_document_begin(Code& /*error*/) { return true; }
  bool on_document_end(Code& /*error*/) { return true; }
  bool on_object_begin(Code& /*error*/) { return begin(true); }
  bool on_object_end(std::size_t /*size*/, Code& /*error*/) { return end(); }
  bool on_array_begin(Code& /*error*/) { return begin(false); }
  bool on_array_end(std::size_t /*size*/, Code& /*error*/) { return end(); }
  bool on_key_part(Piece piece, std::size_t /*size*/, Code& /*error*/) {
    if (outermost()) key_.append(piece.data(), piece.size());
    return true;
  }
  bool on_key(Piece piece, std::size_t /*size*/, Code& /*error*/) {
    if (!outermost()) return true;
    key_.append(piece.data(), piece.size());
    member_ = nullptr;
    for (const TextMember& one : members_) {
      if (one.name == key_) member_ = &one;
    }
    if (member_ != nullptr) member_->text->clear();  // of several the last counts, as in a value
    key_.clear();
    return true;
  }
  bool on_string_part(Piece piece, std::size_t /*size*/, Code& /*error*/) {
    if (outermost() && member_ != nullptr) member_->text->append(piece.data(), piece.size());
    return true;
  }
  bool on_string(Piece piece, std::size_t size, Code& error) {
    on_string_part(piece, size, error);
    return true;
  }
  bool on_number_part(Piece /*piece*/, Code& /*error*/) { return true; }
  bool on_int64(std::int64_t /*number*/, Piece /*piece*/, Code& /*error*/) { return true; }
  bool on_uint64(std::uint64_t /*number*/, Piece /*piece*/, Code& /*error*/) { return true; }
  bool on_double(double /*number*/, Piece /*piece*/, Code& /*error*/) { return true; }
  bool on_bool(bool /*value*/, Code& /*error*/) { return true; }
  bool on_null(Code& /*error*/) { return true; }
  bool on_comment_part(Piece /*piece*/, Code& /*error*/) { return true; }
  bool on_comment(Piece /*piece*/, Code& /*error*/) { return true; }

 private:
  bool outermost() const { return depth_ == 1 && is_object_; }
  bool begin(bool is_object) {
    if (depth_++ == 0) is_object_ = is_object;
    return true;
  }
  bool end() {
    --depth_;
    return true;
  }

  std::span<const TextMember> members_;
  const TextMember* member_ = nullptr;
  std::string key_;
  std::size_t depth_ = 0;
  bool is_object_ = false;  // the outermost
};

}  // namespace

Result<void> read_texts(std::string_view text, std::span<const TextMember> members, std::string_view what) {
  for (const TextMember& one : members) one.text->clear();
  boost::json::parse_options options;
  options.max_depth = max_depth;
  boost::json::basic_parser<TextReader> parser(options, members);
  boost::json::error_code error;
  const std::size_t used = parser.write_some(false, text.data(), text.size(), error);
  if (!error && text.find_first_not_of(" \t\r\n", used) != std::string_view::npos)
    error = boost::json::make_error_code(boost::json::error::extra_data);
  if (error) return fail(not_json(text, what, error, used));
  return {};
}

Result<value> parse(std::string_view text, std::string_view what) {
  boost::json::parse_options options;
  options.max_depth = max_depth;
  boost::json::stream_parser parser({}, options);
  boost::json::error_code error;
  const std::size_t used = parser.write(text.data(), text.size(), error);
  if (!error) parser.finish(error);
  if (error) return not_json(text, what, error, used);
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
