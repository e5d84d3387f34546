#include "cli/arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <sstream>

#include "base/text.h"
#include "base/time_text.h"
#include "cli/help.h"
#include "event/usage.h"

namespace dvdi::cli {

namespace {

constexpr std::string_view program_prefix = "dvdi ";
constexpr int exit_run_failed = 125;  // of `run`: not to be mistaken for an exit code of its task

// What CLI11 fills: text, checked and turned into values afterwards.
struct Raw {
  Arguments common;
  std::string format = "table";
  RunCommand run;
  std::string pid, timeout;
  std::vector<std::string> labels;
  std::vector<std::string> environment;
  VolumeListCommand volume_list;
  std::vector<std::string> inspect_volumes, remove_volumes, release_volumes, create_options;
  VolumeReleaseCommand release;
  std::string create_volume;
  PsCommand ps;
  InspectCommand inspect;
  EventsCommand events;
  std::string events_since;
  UsageCommand usage;
  EventsVerifyCommand events_verify;
  SinkCommand sink;
  std::string usage_by = "volume", usage_since, usage_until;
  std::string config_file;
  PolicyCheckCommand policy_check;
};

// Thrown and caught in this file only.
struct UsageError {
  std::string text;
};

// The number of single-character changes that turn one into the other.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row.back();
}

// "" if nothing is near enough to be what was meant.
std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string& one : known) {
    const std::size_t d = distance(word.substr(0, 64), one);
    if (d < best_distance && d < one.size()) {
      best = one;
      best_distance = d;
    }
  }
  return best;
}

std::vector<std::string> subcommand_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* one : app.get_subcommands({})) names.push_back(one->get_name());
  return names;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* one = &app; one != nullptr; one = one->get_parent()) {
    for (const CLI::Option* option : one->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  return names;
}

// "dvdi volume ls", and the subcommand itself.
std::pair<std::string, const CLI::App*> selected(const CLI::App& app) {
  std::string path = "dvdi";
  const CLI::App* at = &app;
  for (;;) {
    const auto next = at->get_subcommands();
    if (next.empty()) return {path, at};
    at = next.back();
    path += " " + at->get_name();
  }
}

// What a person should read about words that nobody expected.
std::string unexpected(const CLI::App& app, const std::string& word) {
  const auto [path, at] = selected(app);
  const std::string shown = printable(word);
  if (word.starts_with('-') && word.size() > 1) {
    const std::string meant = nearest(word.substr(0, word.find('=')), option_names(*at));
    return fmt::format("{} has no option '{}'{}", path, shown,
                       meant.empty() ? "" : fmt::format("; did you mean {}?", meant));
  }
  const auto names = subcommand_names(*at);
  const bool chosen = at != &app;
  if (!names.empty() && !(chosen && at->get_name() == "events")) {
    const std::string meant = nearest(word, names);
    return fmt::format("{} has no command '{}'; {}", path, shown,
                       meant.empty() ? fmt::format("it has: {}", fmt::join(names, ", "))
                                     : fmt::format("did you mean {}?", meant));
  }
  if (at->get_name() == "run") {
    return fmt::format(
        "dvdi run takes one FILE, and '{}' is one word too many; the command to run follows `--`", shown);
  }
  return fmt::format("{} does not take '{}'", path, shown);
}

VolumeName volume_name(const std::string& text) {
  const auto slash = text.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == text.size()) {
    throw UsageError{
        fmt::format("'{}' is no volume: write DRIVER/NAME, for example local/data", printable(text))};
  }
  return {text.substr(0, slash), text.substr(slash + 1)};
}

std::vector<VolumeName> volume_names(const std::vector<std::string>& texts) {
  std::vector<VolumeName> names;
  names.reserve(texts.size());
  for (const std::string& text : texts) names.push_back(volume_name(text));
  return names;
}

KeyValues key_values(const std::vector<std::string>& texts, std::string_view option) {
  KeyValues pairs;
  for (const std::string& text : texts) {
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      // The text may hold a secret, so it is not repeated.
      throw UsageError{fmt::format("{} takes KEY=VALUE", option)};
    }
    pairs.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  return pairs;
}

WallTime time_or_age(const std::string& text, WallTime now, std::string_view option) {
  if (const auto age = parse_duration(text)) return now - *age;
  if (const auto time = parse_time(text)) return *time;
  throw UsageError{
      fmt::format("{} '{}' is no time: write a duration (24h, 15m, 7d), a date (2026-11-22), or RFC 3339 "
                  "(2026-11-22T10:00:00Z)",
                  option, printable(text))};
}

// A sequence number, if it is one.
std::optional<std::uint64_t> sequence_number(const std::string& text) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  const auto sequence = parse_number<std::uint64_t>(text);
  // SQLite's integers, where sequence numbers are kept, are signed.
  if (!sequence || *sequence > INT64_MAX) {
    throw UsageError{fmt::format("--since '{}' is too large for a sequence number", printable(text))};
  }
  return sequence;
}

class HelpFormatter final : public CLI::Formatter {
 public:
  // CLI11 sees nothing of what follows `--`.
  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string usage = CLI::Formatter::make_usage(app, std::move(name));
    if (app->get_name() == "run") usage.insert(usage.find_last_not_of('\n') + 1, " [-- COMMAND [ARG...]]");
    return usage;
  }
};

// Each value its own option: `--volume A B` must not swallow B.
CLI::Option* repeated(CLI::App* app, const std::string& name, const std::string& type,
                      std::vector<std::string>& into, const std::string& text) {
  return app->add_option(name, into, text)
      ->type_name(type)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void define_run(CLI::App& app, Raw& raw) {
  CLI::App* run = app.add_subcommand("run", "Run a task with the volumes that it asks for");
  run->add_option("FILE", raw.run.file,
                  "The request: JSON of `mesos-execute --volumes`, a Mesos ContainerInfo, or a Marathon app; "
                  "`-` reads standard input")
      ->type_name("");
  repeated(run, "--volume,-V", "VOLUME", raw.run.volumes,
           "A volume, DRIVER/NAME:PATH[:ro][,KEY=VALUE]...; may be repeated");
  run->add_option("--user,-u", raw.run.user, "USER[:GROUP], names or numbers, that the task runs as")
      ->type_name("USER[:GROUP]");
  run->add_option("--rootfs", raw.run.rootfs, "Folder that is the task's root file system")->type_name("DIR");
  run->add_option("--directory", raw.run.directory,
                  "Sandbox: the task's working directory (default: one is made and removed again)")
      ->type_name("DIR");
  run->add_option("--id", raw.run.id, "Id of the container (default: a UUID)")->type_name("ID");
  repeated(run, "--label,-l", "KEY=VALUE", raw.labels,
           "A label of the container, for events and `dvdi usage --by label:KEY`; may be repeated");
  run->add_option("--pid", raw.pid, "`host`: no pid namespace of its own")->check(CLI::IsMember({"host"}));
  repeated(run, "--env,-e", "KEY=VALUE", raw.environment,
           "KEY=VALUE in the task's environment; may be repeated");
  run->add_flag("--inherit-env", raw.run.inherit_environment,
                "Give the task the caller's environment instead of a minimal one");
  run->add_option("--timeout", raw.timeout,
                  "How long preparing may take, for example 90s or 15m (default: 10m)")
      ->type_name("DURATION");
  run->add_flag("--verbose,-v", raw.run.verbose, "Say which container was prepared");
  run->footer(std::string(help::run));
}

void define_volume(CLI::App& app, Raw& raw) {
  CLI::App* volume = app.add_subcommand("volume", "List, show, create, remove and release volumes");
  volume->require_subcommand(1);
  volume->footer(std::string(help::volume));

  CLI::App* list = volume->add_subcommand("ls", "List volumes");
  list->add_flag("--known", raw.volume_list.known_only, "Only what the ledger knows: no driver is asked");
  list->footer(std::string(help::volume_ls));

  CLI::App* inspect = volume->add_subcommand("inspect", "Show all that is known of volumes");
  inspect->add_option("VOLUME", raw.inspect_volumes, "DRIVER/NAME")->type_name("")->required();
  inspect->footer(std::string(help::volume_inspect));

  CLI::App* create = volume->add_subcommand("create", "Create a volume");
  create->add_option("VOLUME", raw.create_volume, "DRIVER/NAME")->type_name("")->required();
  repeated(create, "--option,-o", "KEY=VALUE", raw.create_options,
           "KEY=VALUE for the driver; may be repeated");
  create->footer(std::string(help::volume_create));

  CLI::App* remove = volume->add_subcommand("rm", "Remove volumes and the data on them");
  remove->add_option("VOLUME", raw.remove_volumes, "DRIVER/NAME")->type_name("")->required();
  remove->footer(std::string(help::volume_rm));

  CLI::App* release = volume->add_subcommand("release", "Pay an unmount that is owed, now");
  release->add_option("VOLUME", raw.release_volumes, "DRIVER/NAME")->type_name("")->required();
  release->add_flag("--yes,-y", raw.release.yes, "Do not ask");
  release->add_flag("--dry-run,-n", raw.release.dry_run, "Only say what would be done");
  release->footer(std::string(help::volume_release));
}

void define_looks(CLI::App& app, Raw& raw) {
  CLI::App* ps = app.add_subcommand("ps", "List containers");
  ps->add_flag("--all,-a", raw.ps.all, "Also those that ended within the last hour");
  ps->footer(std::string(help::ps));

  CLI::App* inspect = app.add_subcommand("inspect", "Show one container");
  inspect->add_option("CONTAINER", raw.inspect.container, "Its id, or the beginning of it")
      ->type_name("")
      ->required();
  inspect->footer(std::string(help::inspect));

  CLI::App* events = app.add_subcommand("events", "Show what happened");
  events->require_subcommand(0, 1);
  events->add_flag("--follow,-f", raw.events.follow, "Go on with events as they come");
  events
      ->add_option("--since", raw.events_since,
                   "Only later ones: a sequence number, a time, or a duration such as 24h")
      ->type_name("TIME|NUMBER");
  events->footer(std::string(help::events));
  CLI::App* verify =
      events->add_subcommand("verify", "Check that no event was removed, changed or reordered");
  verify->add_option("--against", raw.events_verify.against, "Compare with what that sink has, too")
      ->type_name("SINK");
  verify->footer(std::string(help::events_verify));

  CLI::App* usage = app.add_subcommand("usage", "Show who used volumes, and for how long");
  usage
      ->add_option("--by", raw.usage_by,
                   "What to sum up by: volume, driver, type, owner, framework, role, principal, user, "
                   "container, label:KEY, day, hour; several with commas")
      ->type_name("WHAT[,WHAT...]")
      ->capture_default_str();
  usage->add_option("--since", raw.usage_since, "From this time, or this long ago (24h, 7d)")
      ->type_name("TIME");
  usage->add_option("--until", raw.usage_until, "Up to this time, or this long ago")->type_name("TIME");
  usage->add_option("--prices", raw.usage.price_file, "File of prices: what it costs")->type_name("FILE");
  usage->footer(std::string(help::usage));

  CLI::App* policy = app.add_subcommand("policy", "Explain what the policy file decides");
  policy->require_subcommand(1);
  policy->footer(std::string(help::policy));
  CLI::App* check = policy->add_subcommand("check", "May this request be carried out, and why (not)?");
  check->add_option("FILE", raw.policy_check.policy_file, "The policy")->type_name("")->required();
  check
      ->add_option("REQUEST", raw.policy_check.request_file,
                   "A request as `dvdi run` takes it; `-` reads standard input")
      ->type_name("")
      ->required();
  check
      ->add_option("--as", raw.policy_check.as,
                   "Who asks: name or number of a user; not root: a member of the group that may ask")
      ->type_name("USER");
  check->add_option("--role", raw.policy_check.role, "Instead of the request's role")->type_name("ROLE");
  check->add_option("--principal", raw.policy_check.principal, "Instead of the request's principal")
      ->type_name("PRINCIPAL");
  check->footer(std::string(help::policy_check));

  app.add_subcommand("doctor", "Can this machine do it, and is the state healthy?")
      ->footer(std::string(help::doctor));
  CLI::App* config = app.add_subcommand("config", "Look at the configuration");
  config->require_subcommand(1);
  config->footer(std::string(help::config));
  CLI::App* config_check =
      config->add_subcommand("check", "Is a configuration right, and what does it lead to?");
  config_check->add_option("FILE", raw.config_file, "The file (default: as for every command)")
      ->type_name("");
  config_check->footer(std::string(help::config_check));
  app.add_subcommand("version", "Show the version")->footer(std::string(help::version));
}

void define_sink(CLI::App& app, Raw& raw) {
  CLI::App* sink = app.add_subcommand("sink", "Show and steer the places that events are carried to");
  sink->require_subcommand(1);
  sink->footer(std::string(help::sink));
  sink->add_subcommand("ls", "List sinks, and how far each is")->footer(std::string(help::sink_ls));
  const auto one = [&](const char* name, const char* what, std::string_view footer) {
    CLI::App* command = sink->add_subcommand(name, what);
    command->add_option("NAME", raw.sink.name, "The sink, as in the configuration")
        ->type_name("")
        ->required();
    command->footer(std::string(footer));
    return command;
  };
  one("test", "Is it there, and would it take events?", help::sink_test);
  one("pause", "Deliver nothing to it until it is resumed", help::sink_pause);
  one("resume", "Go on where it was paused", help::sink_resume);
  one("replay", "Send events once more", help::sink_replay)
      ->add_option("--from", raw.sink.from, "The number of the first event")
      ->type_name("NUMBER")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{INT64_MAX}))
      ->required();
}

void define(CLI::App& app, Raw& raw) {
  app.name("dvdi");
  app.formatter(std::make_shared<HelpFormatter>());
  app.require_subcommand(1);
  app.set_version_flag("--version", "dvdi " DVDI_VERSION, "Show the version and exit");
  app.add_option("--state-dir", raw.common.state_dir,
                 "Where state is kept (default: $DVDI_STATE_DIR, the configuration, /var/lib/dvdi)")
      ->type_name("DIR");
  app.add_option("--config", raw.common.config_file,
                 "Configuration file (default: $DVDI_CONFIG, /etc/dvdi/dvdi.toml)")
      ->type_name("FILE");
  app.add_option("--socket", raw.common.socket,
                 "Where the daemon listens (default: $DVDI_SOCKET, the configuration, /run/dvdi/dvdid.sock); "
                 "`none`: work without a daemon")
      ->type_name("PATH");
  app.add_option("--format", raw.format, "table, or json for programs; csv for `dvdi usage`")
      ->check(CLI::IsMember({"table", "json", "csv"}))
      ->capture_default_str();
  app.footer(std::string(help::dvdi));
  define_run(app, raw);
  define_volume(app, raw);
  define_looks(app, raw);
  define_sink(app, raw);
  // `dvdi ps --format json` is `dvdi --format json ps`.
  auto fall = [](auto& self, CLI::App& one) -> void {
    for (CLI::App* child : one.get_subcommands({})) {
      child->fallthrough();
      self(self, *child);
    }
  };
  fall(fall, app);
}

Command command_of(const CLI::App& app, Raw& raw, std::vector<std::string> after_dashes, WallTime now) {
  const auto [path, at] = selected(app);
  const std::string name = path.substr(path.find(' ') + 1);
  if (name == "run") {
    if (!raw.timeout.empty()) {
      const auto timeout = parse_duration(raw.timeout);
      if (!timeout || *timeout <= Duration::zero()) {
        throw UsageError{
            fmt::format("--timeout '{}' is no duration: write 90s, 15m or 1h30m", printable(raw.timeout))};
      }
      raw.run.timeout = *timeout;
    }
    raw.run.host_pid = raw.pid == "host";
    raw.run.labels = key_values(raw.labels, "--label");
    raw.run.environment = key_values(raw.environment, "--env");
    raw.run.command = std::move(after_dashes);
    return std::move(raw.run);
  }
  if (name == "volume ls") return raw.volume_list;
  if (name == "volume inspect") return VolumeInspectCommand{volume_names(raw.inspect_volumes)};
  if (name == "volume create") {
    return VolumeCreateCommand{volume_name(raw.create_volume), key_values(raw.create_options, "--option")};
  }
  if (name == "volume rm") return VolumeRemoveCommand{volume_names(raw.remove_volumes)};
  if (name == "volume release") {
    raw.release.volumes = volume_names(raw.release_volumes);
    return std::move(raw.release);
  }
  if (name == "ps") return raw.ps;
  if (name == "inspect") return raw.inspect;
  if (name == "events") {
    raw.events.after = sequence_number(raw.events_since);
    if (!raw.events_since.empty() && !raw.events.after) {
      raw.events.since = time_or_age(raw.events_since, now, "--since");
    }
    return raw.events;
  }
  if (name == "events verify") return std::move(raw.events_verify);
  if (name == "usage") {
    if (!raw.usage_since.empty()) raw.usage.since = time_or_age(raw.usage_since, now, "--since");
    if (!raw.usage_until.empty()) raw.usage.until = time_or_age(raw.usage_until, now, "--until");
    if (raw.usage.since && raw.usage.until && *raw.usage.since >= *raw.usage.until) {
      throw UsageError{"--since is not before --until"};
    }
    const auto keys = split(raw.usage_by, ',');
    raw.usage.by.assign(keys.begin(), keys.end());
    if (const auto checked = usage_keys(raw.usage.by); !checked) {
      throw UsageError{fmt::format("--by: {} ({})", checked.error().message, checked.error().hint)};
    }
    return std::move(raw.usage);
  }
  if (name == "sink ls") return SinkListCommand{};
  if (name.starts_with("sink ")) {
    using What = SinkCommand::What;
    raw.sink.what = name == "sink pause"    ? What::pause
                    : name == "sink resume" ? What::resume
                    : name == "sink replay" ? What::replay
                                            : What::test;
    return std::move(raw.sink);
  }
  if (name == "policy check") return std::move(raw.policy_check);
  if (name == "doctor") return DoctorCommand{};
  if (name == "config check") {
    if (!raw.config_file.empty()) raw.common.config_file = raw.config_file;
    return ConfigCheckCommand{};
  }
  return VersionCommand{};
}

}  // namespace

std::variant<Arguments, Answer> parse_arguments(const std::vector<std::string>& words, WallTime now) {
  // Everything from the first `--` on is the task's, however much it looks like options of ours.
  const auto dashes = std::find(words.begin(), words.end(), "--");
  std::vector<std::string> ours(words.begin(), dashes);
  std::vector<std::string> after_dashes;
  if (dashes != words.end()) after_dashes.assign(dashes + 1, words.end());

  CLI::App app("External volumes for the tasks of a Linux node");
  Raw raw;
  define(app, raw);
  std::string problem;
  if (ours.empty()) return Answer{exit_usage, app.help()};
  try {
    std::reverse(ours.begin(), ours.end());  // how CLI11 takes them
    app.parse(ours);
    if (dashes != words.end() && !app.got_subcommand("run")) {
      throw UsageError{fmt::format("{} takes no `--`: only `dvdi run` runs a command", selected(app).first)};
    }
    raw.common.format = raw.format == "json"  ? Format::json
                        : raw.format == "csv" ? Format::csv
                                              : Format::table;
    if (raw.common.format == Format::csv && !app.got_subcommand("usage")) {
      throw UsageError{fmt::format("{} has no csv: only `dvdi usage` has", selected(app).first)};
    }
    raw.common.command = command_of(app, raw, std::move(after_dashes), now);
    return std::move(raw.common);
  } catch (const CLI::Success& asked) {  // --help, --version
    std::ostringstream out;
    app.exit(asked, out, out);
    return Answer{0, out.str()};
  } catch (const CLI::ParseError& error) {
    const auto [path, at] = selected(app);
    const auto names = subcommand_names(*at);
    const auto strange = app.remaining(true);
    const bool extra = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
    const bool missing = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
    // A misspelt command is for CLI11 first of all a missing one.
    if (!strange.empty() && (extra || (missing && !names.empty()))) {
      problem = unexpected(app, strange.front());
    } else if (missing && !names.empty()) {
      problem = fmt::format("{} needs a command: {}", path, fmt::join(names, ", "));
    } else {
      problem = fmt::format("{}: {}", path, printable(error.what(), 1000));
    }
  } catch (const UsageError& error) {
    problem = error.text;
  }
  const std::string path = selected(app).first;
  // Starts with "dvdi: " like every error: that is how `dvdi run`'s are told from the task's.
  if (problem.starts_with(program_prefix) && path.size() > program_prefix.size()) {
    problem.erase(0, program_prefix.size());
  }
  return Answer{app.got_subcommand("run") ? exit_run_failed : exit_usage,
                fmt::format("dvdi: {}\nSee `{} --help`.\n", problem, path)};
}

}  // namespace dvdi::cli
