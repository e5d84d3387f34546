// What happened in a simulation, line by line: written to a file where one is wanted, and the last lines kept
// for the report of a violation.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <string>

namespace dvdi::simulation {

class Trace {
 public:
  // `file` may be null; it is the caller's.
  explicit Trace(std::FILE* file = nullptr) : file_(file) {}

  // What stands before each line: step, time, thread.
  std::function<std::string()> prefix;

  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    write(fmt::format(format, std::forward<Args>(args)...));
  }

  // An invariant does not hold, or the simulation cannot go on: reports it and ends the program.
  [[noreturn]] void violation(const std::string& what);
  // Says how to replay; printed with a violation.
  std::string replay;
  // Of every line so far.
  std::uint64_t digest() const { return digest_; }

 private:
  void write(const std::string& text);

  static constexpr std::size_t kept = 150;
  std::FILE* file_;
  std::deque<std::string> tail_;
  std::uint64_t digest_ = 14695981039346656037U;
};

}  // namespace dvdi::simulation
