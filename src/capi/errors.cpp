#include "capi/errors.h"

#include <array>
#include <utility>

namespace dvdi {

namespace {

constexpr std::string_view away = "dvdid";  // the operation of errors that say that the daemon is not there

// The numbers are part of the ABI; `Code` may be reordered.
constexpr std::array<std::pair<Code, dvdi_code>, 16> codes = {{
    {Code::invalid_argument, DVDI_INVALID_ARGUMENT},
    {Code::not_found, DVDI_NOT_FOUND},
    {Code::already_exists, DVDI_ALREADY_EXISTS},
    {Code::failed_precondition, DVDI_FAILED_PRECONDITION},
    {Code::conflict, DVDI_CONFLICT},
    {Code::permission_denied, DVDI_PERMISSION_DENIED},
    {Code::resource_exhausted, DVDI_RESOURCE_EXHAUSTED},
    {Code::unavailable, DVDI_UNAVAILABLE},
    {Code::deadline_exceeded, DVDI_DEADLINE_EXCEEDED},
    {Code::cancelled, DVDI_CANCELLED},
    {Code::driver_error, DVDI_DRIVER_ERROR},
    {Code::driver_violation, DVDI_DRIVER_VIOLATION},
    {Code::unsupported, DVDI_UNSUPPORTED},
    {Code::corrupted, DVDI_CORRUPTED},
    {Code::io, DVDI_IO},
    {Code::internal, DVDI_INTERNAL},
}};

constexpr std::array<std::pair<Outcome, dvdi_outcome>, 4> outcomes = {{
    {Outcome::none, DVDI_OUTCOME_NONE},
    {Outcome::not_sent, DVDI_OUTCOME_NOT_SENT},
    {Outcome::refused, DVDI_OUTCOME_REFUSED},
    {Outcome::unknown, DVDI_OUTCOME_UNKNOWN},
}};

}  // namespace

dvdi_code to_c(Code code) {
  for (const auto& [ours, theirs] : codes) {
    if (ours == code) return theirs;
  }
  return DVDI_INTERNAL;
}

dvdi_outcome to_c(Outcome outcome) {
  for (const auto& [ours, theirs] : outcomes) {
    if (ours == outcome) return theirs;
  }
  return DVDI_OUTCOME_NONE;
}

Code from_c(dvdi_code code) {
  for (const auto& [ours, theirs] : codes) {
    if (theirs == code) return ours;
  }
  return Code::internal;
}

Outcome from_c(dvdi_outcome outcome) {
  for (const auto& [ours, theirs] : outcomes) {
    if (theirs == outcome) return ours;
  }
  return Outcome::none;
}

Error daemon_away(std::string message, Outcome outcome) {
  return Error{.code = Code::unavailable,
               .message = std::move(message),
               .operation = std::string(away),
               .hint = "is dvdid running? `systemctl status dvdid`",
               .outcome = outcome};
}

bool daemon_is_away(const Error& error) {
  return error.code == Code::unavailable && error.operation == away && error.driver.empty();
}

}  // namespace dvdi
