#include "base/error.h"

#include <fmt/format.h>

#include <system_error>

namespace dvdi {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::invalid_argument:
      return "invalid_argument";
    case Code::not_found:
      return "not_found";
    case Code::already_exists:
      return "already_exists";
    case Code::conflict:
      return "conflict";
    case Code::permission_denied:
      return "permission_denied";
    case Code::unavailable:
      return "unavailable";
    case Code::deadline_exceeded:
      return "deadline_exceeded";
    case Code::cancelled:
      return "cancelled";
    case Code::resource_exhausted:
      return "resource_exhausted";
    case Code::failed_precondition:
      return "failed_precondition";
    case Code::driver_error:
      return "driver_error";
    case Code::driver_violation:
      return "driver_violation";
    case Code::unsupported:
      return "unsupported";
    case Code::corrupted:
      return "corrupted";
    case Code::io:
      return "io";
    case Code::internal:
      return "internal";
  }
  return "internal";
}

namespace {

void write(const Error& error, std::string_view indent, std::string& out) {
  out += indent;
  if (!error.operation.empty() || !error.volume.empty() || !error.driver.empty()) {
    if (!error.operation.empty()) out += error.operation;
    if (!error.volume.empty()) {
      fmt::format_to(std::back_inserter(out), "{}volume '{}'", error.operation.empty() ? "" : " of ",
                     error.volume);
    }
    if (!error.driver.empty()) {
      fmt::format_to(std::back_inserter(out), "{}driver '{}'",
                     error.volume.empty() ? (error.operation.empty() ? "" : " by ") : " by ", error.driver);
    }
    if (error.attempt > 1) fmt::format_to(std::back_inserter(out), ", attempt {}", error.attempt);
    out += ": ";
  }
  out += error.message;
  if (!error.hint.empty()) fmt::format_to(std::back_inserter(out), " ({})", error.hint);
  for (const Error& one : error.attached) {
    out += '\n';
    write(one, fmt::format("{}  ", indent), out);
  }
}

}  // namespace

std::string Error::text() const {
  std::string out;
  write(*this, "", out);
  return out;
}

Error os_error(std::string_view what, int error_number) {
  const std::error_code code(error_number, std::generic_category());
  Code kind = Code::io;
  if (code == std::errc::no_such_file_or_directory) kind = Code::not_found;
  if (code == std::errc::operation_not_permitted || code == std::errc::permission_denied) {
    kind = Code::permission_denied;
  }
  return Error{.code = kind, .message = fmt::format("{}: {}", what, code.message())};
}

}  // namespace dvdi
