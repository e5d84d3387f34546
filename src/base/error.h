// What went wrong, for a person and for the code that has to decide what to do about it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dvdi {

// The kind of an error. Code decides by this and by Outcome, never by the text.
enum class Code {
  invalid_argument,  // the request is wrong; repeating it cannot help
  not_found,         // the volume, container or driver is not there
  already_exists,
  conflict,  // the same container with other arguments; exclusive access that is taken
  permission_denied,
  unavailable,  // nobody listens; try again later
  deadline_exceeded,
  cancelled,
  resource_exhausted,   // a limit of ours or of the machine
  failed_precondition,  // the state does not allow it: a parent with children, a held volume
  driver_error,         // the driver answered with an error
  driver_violation,     // the driver's answer breaks the protocol or is not true
  unsupported,          // this kernel, file system or driver cannot do it
  corrupted,            // stored state is damaged
  io,                   // the operating system refused; the message has its text
  internal,             // a bug
};

std::string_view code_name(Code code);

// What is known about the effect of a call that failed.
enum class Outcome {
  none,      // not a call with an effect elsewhere
  not_sent,  // the other side never saw the request
  refused,   // a complete answer that says no
  unknown,   // it may have happened, or may still happen
};

struct Error {
  Code code = Code::internal;
  // What was being done and what came back: one sentence, no trailing stop. Never holds a secret.
  std::string message;
  std::string driver = {};
  std::string volume = {};
  std::string operation = {};
  unsigned attempt = 0;   // 1 is the first; 0 where attempts do not apply
  std::string hint = {};  // what to do next
  Outcome outcome = Outcome::none;
  std::vector<Error> attached = {};  // what else went wrong on the way, for example in the roll-back

  // One line: message, volume, attempt, hint. Attached errors follow, each on a line of its own, indented.
  std::string text() const;
};

// An error of the operating system: `what` and the text of `error_number` (errno).
Error os_error(std::string_view what, int error_number);

}  // namespace dvdi
