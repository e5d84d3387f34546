// dvdcli: what the stock docker/volume isolator of Mesos starts for each mount and unmount.

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>

#include "base/random.h"
#include "cli/dvdcli_commands.h"
#include "daemon/open.h"
#include "linux/helper_pool.h"

namespace dvdi::cli {

namespace {

void say_line(std::string_view text) { fmt::print(stderr, "{}\n", text); }

// Signals keep their effect: one that ends dvdcli leaves what was intended and the reference, and whoever
// sent it calls unmount next, which settles both.
int main(const std::vector<std::string>& words) {
  auto parsed = parse_dvdcli(words);
  if (const auto* only = std::get_if<Answer>(&parsed)) {
    if (only->exit_code != 0) {
      fmt::print(stderr, "{}", only->text);
      return only->exit_code;
    }
    Output out(STDOUT_FILENO);
    return out.write(only->text) && out.flush() ? 0 : exit_failed;
  }
  const auto& command = std::get<DvdcliCommand>(parsed);
  const auto failed = [](const Error& error) {
    say_as("dvdcli", fmt::format("{}: {}", code_name(error.code), error.text()));
    return exit_failed;
  };
  std::unique_ptr<HelperPool> helpers;
  const DvdcliServices services{
      .open = [&](const Context& context) { return open_api(context, OpenOptions{}, helpers); },
      .say = [](std::string_view text) { say_as("dvdcli", text); },
      .write_error_line = say_line};
  Output out(STDOUT_FILENO);
  const Status done = dvdcli(Context(system_clock(), random_uuid()), command, services, out);
  return done ? 0 : failed(done.error());
}

}  // namespace

}  // namespace dvdi::cli

int main(int argc, char** argv) {
  if (!dvdi::cli::have_standard_descriptors()) return dvdi::cli::exit_failed;
  // A reader or a driver that went away is an error of write(2), not the end of the process.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return dvdi::cli::main({argv + (argc > 0 ? 1 : 0), argv + argc});
  } catch (const std::exception& error) {
    // Out of memory, or a bug. What was begun is settled by the next command.
    dvdi::cli::say_as("dvdcli", std::string("internal: ") + error.what());
    return dvdi::cli::exit_failed;
  }
}
