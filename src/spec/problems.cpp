#include "spec/problems.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace dvdi::spec {

namespace {

constexpr std::size_t max_kept = 256;

bool plain(std::string_view key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

}  // namespace

std::string member(std::string_view place, std::string_view key) {
  if (!plain(key)) return fmt::format("{}[\"{}\"]", place, printable(key, 100));
  return place.empty() ? std::string(key) : fmt::format("{}.{}", place, key);
}

std::string element(std::string_view place, std::size_t index) { return fmt::format("{}[{}]", place, index); }

std::string quoted(std::string_view text) { return fmt::format("'{}'", printable(text, 100)); }

void Problems::add(std::string_view place, std::string_view message, std::string_view hint) {
  ++count_;
  if (kept_.size() >= max_kept) return;
  kept_.push_back(
      Error{.code = Code::invalid_argument,
            .message = place.empty() ? std::string(message) : fmt::format("{}: {}", place, message),
            .hint = std::string(hint)});
}

void Problems::add(Problems&& others) {
  count_ += others.count_;
  for (Error& error : others.kept_) {
    if (kept_.size() >= max_kept) return;
    kept_.push_back(std::move(error));
  }
}

Error Problems::error(std::string_view what) const {
  Error error{.code = Code::invalid_argument,
              .message = fmt::format("{} cannot be used: {} problem{}", what, count_, count_ == 1 ? "" : "s"),
              .attached = kept_};
  if (count_ > kept_.size()) {
    error.attached.push_back(Error{.code = Code::invalid_argument,
                                   .message = fmt::format("… and {} more problems", count_ - kept_.size())});
  }
  return error;
}

}  // namespace dvdi::spec
