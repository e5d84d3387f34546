// The command line as plain values: what a person asked for, checked as far as it can be without looking at
// the machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "event/prices.h"

namespace dvdi::cli {

enum class Format { table, json, csv };  // csv: of `dvdi usage` only

struct VolumeName {
  std::string driver;
  std::string name;
  bool operator==(const VolumeName&) const = default;
};

using KeyValues = std::vector<std::pair<std::string, std::string>>;

struct RunCommand {
  std::optional<std::string> file;  // `-`: standard input
  std::vector<std::string> volumes;
  std::optional<std::string> user, rootfs, directory, id;
  bool host_pid = false;
  KeyValues labels;
  KeyValues environment;
  bool inherit_environment = false;
  Duration timeout = std::chrono::minutes(10);  // of everything before the task
  bool verbose = false;
  std::vector<std::string> command;  // what follows `--`
};

struct VolumeListCommand {
  bool known_only = false;  // what the ledger knows, no driver is asked
};
struct VolumeInspectCommand {
  std::vector<VolumeName> volumes;
};
struct VolumeCreateCommand {
  VolumeName volume;
  KeyValues options;
};
struct VolumeRemoveCommand {
  std::vector<VolumeName> volumes;
};
struct VolumeReleaseCommand {
  std::vector<VolumeName> volumes;
  bool yes = false;      // nobody is asked
  bool dry_run = false;  // only says what it would do
};
struct PsCommand {
  bool all = false;
};
struct InspectCommand {
  std::string container;
};
struct EventsCommand {
  bool follow = false;
  std::optional<std::uint64_t> after = {};  // only events with a larger sequence number
  std::optional<WallTime> since = {};       // only events that are not older
  Duration wait = std::chrono::seconds(1);  // of `follow`: then it looks whether its reader is still there
};
struct EventsVerifyCommand {
  std::string against;  // a sink's name; "": none
};
struct UsageCommand {
  std::vector<std::string> by = {"volume"};
  std::optional<WallTime> since = {}, until = {};
  std::string price_file = {};           // "": without prices
  std::optional<PriceList> prices = {};  // what is in it: filled by who reads the file
};
struct SinkListCommand {};
// For one sink.
struct SinkCommand {
  enum class What { test, pause, resume, replay } what = What::test;
  std::string name;
  std::uint64_t from = 0;  // of a replay
};
struct PolicyCheckCommand {
  std::string policy_file;
  std::string request_file;  // `-`: standard input
  std::string as;            // name or number of the caller; "": root
  std::optional<std::string> role, principal;
};
struct DoctorCommand {};
struct ConfigCheckCommand {};
struct VersionCommand {};

using Command = std::variant<RunCommand, VolumeListCommand, VolumeInspectCommand, VolumeCreateCommand,
                             VolumeRemoveCommand, VolumeReleaseCommand, PsCommand, InspectCommand,
                             EventsCommand, EventsVerifyCommand, UsageCommand, SinkListCommand, SinkCommand,
                             PolicyCheckCommand, DoctorCommand, ConfigCheckCommand, VersionCommand>;

struct Arguments {
  std::string state_dir;    // "": not given
  std::string config_file;  // "": not given
  std::string socket;       // "": not given; "none": without a daemon
  Format format = Format::table;
  Command command;
};

// Nothing is to be done but to say this: help, the version, or what is wrong with the command line.
struct Answer {
  int exit_code = 0;
  std::string text;  // to standard output with exit code 0, else to standard error
};

// Exit codes of commands other than `run`; `run` has those of command_run.h.
inline constexpr int exit_failed = 1;
inline constexpr int exit_usage = 2;

// `words`: argv without the program's name. `now` is what durations such as `--since 24h` are taken from.
std::variant<Arguments, Answer> parse_arguments(const std::vector<std::string>& words, WallTime now);

}  // namespace dvdi::cli
