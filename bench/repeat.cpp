// Starts programs over and over, and says how long one round takes: fork, exec and wait, with nothing around.
//
//   bench_repeat [--rounds N] -- COMMAND ARG... [--then COMMAND ARG...]
//
// "{}" in an argument is another text in each round.
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "measure.h"

namespace {

void run(std::vector<std::string> command, const std::string& round,
         const posix_spawn_file_actions_t& actions) {
  std::vector<char*> arguments;
  for (std::string& argument : command) {
    const std::size_t place = argument.find("{}");
    if (place != std::string::npos) argument.replace(place, 2, round);
    arguments.push_back(argument.data());
  }
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, arguments.front(), &actions, nullptr, arguments.data(), environ);
  int status = 0;
  if (error != 0 || ::waitpid(child, &status, 0) != child || status != 0) {
    fmt::print(stderr, "{}: {}, status {}\n", arguments.front(), std::strerror(error), status);
    std::_Exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  bench::Rounds how{.warm_up = 2, .rounds = 100};
  int next = 1;
  if (argc > 2 && std::strcmp(argv[1], "--rounds") == 0) {
    how.rounds = std::strtoull(argv[2], nullptr, 10);
    next = 3;
  }
  if (argc <= next + 1 || std::strcmp(argv[next], "--") != 0) {
    std::fputs("bench_repeat [--rounds N] -- COMMAND ARG... [--then COMMAND ARG...]\n", stderr);
    return 2;
  }
  std::vector<std::vector<std::string>> commands(1);
  for (++next; next < argc; ++next) {
    if (std::strcmp(argv[next], "--then") == 0) {
      commands.emplace_back();
    } else {
      commands.back().emplace_back(argv[next]);
    }
  }
  for (const auto& command : commands) {
    if (command.empty()) return 2;
  }
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  for (const int fd : {0, 1}) ::posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
  std::uint64_t count = 0;
  bench::run_rounds(how, [&](unsigned, std::mt19937&) {
    const std::string round = std::to_string(::getpid()) + "-" + std::to_string(count++);
    for (const auto& command : commands) run(command, round, actions);
  });
  ::posix_spawn_file_actions_destroy(&actions);
}
