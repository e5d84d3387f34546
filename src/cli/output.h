// What a command says: results to standard output, everything else to standard error.
#pragma once

#include <boost/json/fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "cli/arguments.h"

namespace dvdi::cli {

// Standard output, buffered. A reader that went away (`dvdi events | head`) is no failure: reader_gone()
// tells it apart from a full disk.
class Output {
 public:
  explicit Output(int fd) : fd_(fd) {}
  Status write(std::string_view text);
  Status write_json(const boost::json::value& value);  // one document on one line
  Status flush();
  // Also finds a reader that went away while there was nothing to write.
  bool reader_gone();

 private:
  int fd_;
  std::string buffer_;
  bool reader_gone_ = false;
};

// First thing in a program: with a closed 0, 1 or 2 the next file that is opened (the state database) would
// become standard output.
bool have_standard_descriptors();

// "PROGRAM: TEXT" to standard error, each line of it. Failures are ignored: there is nobody left to tell.
void say_as(std::string_view program, std::string_view text);
// "dvdi: TEXT" to standard error, each line of it. Failures are ignored: there is nobody left to tell.
void say(std::string_view text);

// Writes the question to standard error and reads the answer from standard input: yes or y, anything else is
// no. nullopt where one of them is no terminal. An empty question only looks for the terminal.
std::optional<bool> ask(const std::string& question);

// As `say`; with Format::json as one line {"error": {…}}.
void say_error(const Error& error, Format format);

}  // namespace dvdi::cli
