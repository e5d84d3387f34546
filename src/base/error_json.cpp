#include "base/error_json.h"

#include <array>
#include <string>
#include <utility>

namespace dvdi::json {

namespace {

constexpr std::array codes = {Code::invalid_argument,
                              Code::not_found,
                              Code::already_exists,
                              Code::conflict,
                              Code::permission_denied,
                              Code::unavailable,
                              Code::deadline_exceeded,
                              Code::cancelled,
                              Code::resource_exhausted,
                              Code::failed_precondition,
                              Code::driver_error,
                              Code::driver_violation,
                              Code::unsupported,
                              Code::corrupted,
                              Code::io,
                              Code::internal};

constexpr std::array<std::pair<Outcome, std::string_view>, 4> outcomes = {{{Outcome::none, "none"},
                                                                           {Outcome::not_sent, "not_sent"},
                                                                           {Outcome::refused, "refused"},
                                                                           {Outcome::unknown, "unknown"}}};

constexpr unsigned most_attached_levels = 8;

std::string text(const value& from, std::string_view name) { return std::string(text_or_empty(from, name)); }

unsigned attempt_of(const value& from) {
  const value* found = find(from, "attempt");
  if (found == nullptr || !found->is_number()) return 0;
  boost::system::error_code error;
  const auto attempt = found->to_number<unsigned>(error);
  return error ? 0 : attempt;
}

Error error_at(const value& from, unsigned level) {
  Error error;
  const std::string_view code = text_or_empty(from, "code");
  for (const Code one : codes) {
    if (code_name(one) == code) error.code = one;
  }
  error.message = text(from, "message");
  error.driver = text(from, "driver");
  error.volume = text(from, "volume");
  error.operation = text(from, "operation");
  error.attempt = attempt_of(from);
  error.hint = text(from, "hint");
  for (const auto& [outcome, name] : outcomes) {
    if (text_or_empty(from, "outcome") == name) error.outcome = outcome;
  }
  const value* attached = find(from, "attached");
  if (level < most_attached_levels && attached != nullptr && attached->is_array()) {
    for (const value& one : attached->get_array()) error.attached.push_back(error_at(one, level + 1));
  }
  return error;
}

}  // namespace

object to_json(const Error& error) {
  array attached;
  for (const Error& one : error.attached) attached.push_back(to_json(one));
  std::string_view outcome_name;
  for (const auto& [outcome, name] : outcomes) {
    if (outcome == error.outcome) outcome_name = name;
  }
  return object{{"code", code_name(error.code)},
                {"message", error.message},
                {"driver", error.driver},
                {"volume", error.volume},
                {"operation", error.operation},
                {"attempt", error.attempt},
                {"hint", error.hint},
                {"outcome", outcome_name},
                {"attached", std::move(attached)}};
}

Error error_of(const value& from) { return error_at(from, 0); }

}  // namespace dvdi::json
