// The command line of `dvdcli`, as the stock Mesos isolator and scripts write it: plain values.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cli/arguments.h"

namespace dvdi::cli {

struct DvdcliCommand {
  enum class Verb { mount, unmount, create, remove, path, get, list, version };
  Verb verb = Verb::version;
  std::string driver;
  std::string name;
  std::vector<std::pair<std::string, std::string>> options;  // as given: mount and create only
  bool explicit_create = false;                              // mount only: the volume must exist
};

// The command, or the help or the error that is all there is to say. Exit code 2 for what the command line
// itself is wrong about, 1 (as the original has it) for a driver or a volume that is not named. Values of
// options are never repeated.
std::variant<DvdcliCommand, Answer> parse_dvdcli(const std::vector<std::string>& words);

}  // namespace dvdi::cli
