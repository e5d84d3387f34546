// What dvdi run and the task's init say to each other: one go-ahead down, one report up.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "linux/fd.h"

namespace dvdi::launcher {

// The init's report: the program was started, or why it was not.
struct Report {
  std::optional<Error> failure;
};

// The two ends of a packet socket. An end that is gone is read as an empty packet, and writing to it never
// raises SIGPIPE.
struct Channel {
  UniqueFd launcher;
  UniqueFd init;
};
Result<Channel> make_channel();

Status send_go_ahead(int fd);
bool wait_for_go_ahead(int fd);  // false: the launcher is gone
void send_report(int fd, const Report& report);
// nullopt where there is none yet, or the init ended without one.
std::optional<Report> receive_report(int fd);

// What failed before the task's program could be executed must not look like its "not found" (127).
Error setup_error(Error error);

}  // namespace dvdi::launcher
