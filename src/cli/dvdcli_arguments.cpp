#include "cli/dvdcli_arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "base/text.h"

namespace dvdi::cli {

namespace {

using Verb = DvdcliCommand::Verb;

struct VerbHelp {
  Verb verb;
  std::string_view name, summary;
  std::string_view text;  // what it does, and examples
};

constexpr std::array<VerbHelp, 8> verbs = {{
    {Verb::mount, "mount", "Mount a volume and print its mount point",
     R"(Creates the volume where the driver does not know it, has it mounted, and prints the mount point alone.
Repeated, it prints the same again; one unmount releases the volume. Ends within 110 seconds.

Examples:
  dvdcli mount --volumedriver=rc --volumename=v --volumeopts=remote=loc:
  dvdcli mount --volumedriver=nfs --volumename=v --volumeopts=mountopts=nolock,vers=4.1 --volumeopts=size=5
  dvdcli mount --volumedriver=rc --volumename=v --explicitcreate)"},
    {Verb::unmount, "unmount", "Unmount a volume",
     R"(Gives the volume back. It is unmounted unless others (`dvdi run`, an agent) use it, too. Without a mount of
ours there is nothing to do, which is success. An unmount that the driver refuses is recorded and tried
again by dvdid or the next command: a warning, and exit code 0. Ends within 590 seconds.

Examples:
  dvdcli unmount --volumedriver=rc --volumename=v)"},
    {Verb::create, "create", "Create a volume",
     R"(The volume's name goes to standard error.

Examples:
  dvdcli create --volumedriver=rc --volumename=v --volumeopts=remote=loc:
  dvdcli create --volumedriver=local --volumename=v --volumeopts=type=image --volumeopts=size=1G)"},
    {Verb::remove, "remove", "Remove a volume and the data on it",
     R"(Refused while the volume is in use, mounted, or an unmount of it is owed.

Examples:
  dvdcli remove --volumedriver=rc --volumename=v)"},
    {Verb::path, "path", "Print where a volume is mounted",
     R"(Prints nothing where it is not mounted.

Examples:
  dvdcli path --volumedriver=rc --volumename=v)"},
    {Verb::get, "get", "Print a volume's name, if it is there",
     R"(Examples:
  dvdcli get --volumedriver=rc --volumename=v)"},
    {Verb::list, "list", "Print the names of a driver's volumes",
     R"(Examples:
  dvdcli list --volumedriver=rc)"},
    {Verb::version, "version", "Print the version",
     R"(Examples:
  dvdcli version)"},
}};

struct Flag {
  std::string_view name, value, summary;
};

constexpr Flag driver_flag{"volumedriver", "DRIVER", "the volume driver"};
constexpr Flag name_flag{"volumename", "NAME", "the volume"};
constexpr Flag options_flag{"volumeopts", "KEY=VALUE", "an option for the driver; may be repeated"};
constexpr Flag explicit_flag{"explicitcreate", "", "the volume must exist: it is not created"};

// In this order in the help. The first two are the original's global flags: any command takes them.
constexpr std::array<Flag, 4> flags = {driver_flag, name_flag, options_flag, explicit_flag};

bool takes(Verb verb, std::string_view flag) {
  if (flag == options_flag.name) return verb == Verb::mount || verb == Verb::create;
  if (flag == explicit_flag.name) return verb == Verb::mount;
  return flag == driver_flag.name || flag == name_flag.name;
}

// The old Mesos module writes it like that.
std::string_view usual_name(std::string_view flag) {
  return flag == "explicitCreate" ? explicit_flag.name : flag;
}

std::string flag_lines(const std::optional<Verb>& verb) {
  std::string text;
  for (const Flag& flag : flags) {
    if (verb && !takes(*verb, flag.name)) continue;
    const std::string left = fmt::format("--{}{}{}", flag.name, flag.value.empty() ? "" : "=", flag.value);
    text += fmt::format("      {:<28}{}\n", left, flag.summary);
  }
  return text + "  -h, --help                      this text\n";
}

std::string help(const VerbHelp& verb) {
  return fmt::format("{}.\n\nUsage: dvdcli {} [FLAGS]\n\n{}\n\nFlags:\n{}", verb.summary, verb.name,
                     verb.text, flag_lines(verb.verb));
}

std::string help() {
  std::string text =
      "External volumes from Docker volume drivers, for the docker/volume isolator of Mesos and for "
      "scripts.\n\n"
      "Usage: dvdcli COMMAND [FLAGS]\n\nCommands:\n";
  for (const VerbHelp& verb : verbs) text += fmt::format("  {:<10}{}\n", verb.name, verb.summary);
  text += "\nFlags:\n" + flag_lines(std::nullopt);
  return text +
         R"(
Examples:
  dvdcli mount --volumedriver=rc --volumename=v --volumeopts=remote=loc:
  dvdcli unmount --volumedriver=rc --volumename=v

Exit code: 0 done, 1 failed, 2 the command line is wrong. DVDI_SOCKET, DVDI_STATE_DIR and DVDI_CONFIG are as for
dvdi(1). `dvdcli COMMAND --help` says more of each.
)";
}

const VerbHelp* find_verb(std::string_view name) {
  const auto* found = std::ranges::find(verbs, name, &VerbHelp::name);
  return found == verbs.end() ? nullptr : found;
}

Answer wrong(const std::string& text, int exit_code = exit_usage) {
  return Answer{
      .exit_code = exit_code,
      .text = fmt::format("dvdcli: {}\ndvdcli: `dvdcli --help` has the commands and their flags\n", text)};
}

// As Go's strconv.ParseBool, which the original's flags are read with.
std::optional<bool> truth(std::string_view text) {
  constexpr std::array<std::string_view, 6> yes = {"1", "t", "T", "true", "TRUE", "True"};
  constexpr std::array<std::string_view, 6> no = {"0", "f", "F", "false", "FALSE", "False"};
  if (std::ranges::find(yes, text) != yes.end()) return true;
  if (std::ranges::find(no, text) != no.end()) return false;
  return std::nullopt;
}

class Parser {
 public:
  explicit Parser(std::span<const std::string> words) : words_(words) {}

  std::variant<DvdcliCommand, Answer> parse();

 private:
  std::optional<Answer> read_flag(std::string_view word);
  std::optional<Answer> read_word(const std::string& word);
  std::optional<Answer> check() const;
  const std::string* next() { return at_ < words_.size() ? &words_[at_++] : nullptr; }

  const std::span<const std::string> words_;
  std::size_t at_ = 0;
  const VerbHelp* verb_ = nullptr;
  bool help_ = false;
  std::vector<std::string>
      given_;  // flags, by their usual names: which command takes them is known at the end
  DvdcliCommand command_;
};

std::optional<Answer> Parser::read_flag(std::string_view word) {
  if (word == "-h" || word == "--help") {
    help_ = true;
    return std::nullopt;
  }
  const auto equals = word.find('=');
  const std::string_view written = word.substr(0, equals);
  const std::string_view name =
      usual_name(written.starts_with("--") ? written.substr(2) : std::string_view());
  if (std::ranges::find(flags, name, &Flag::name) == flags.end())
    return wrong(fmt::format("there is no flag {}", printable(std::string(written))));
  given_.emplace_back(name);
  std::string value;
  if (equals != std::string_view::npos) {
    value = word.substr(equals + 1);
  } else if (name == explicit_flag.name) {
    value = "true";
  } else if (const std::string* following = next()) {
    value = *following;
  } else {
    return wrong(fmt::format("--{} needs a value", name));
  }
  if (name == driver_flag.name) {
    command_.driver = std::move(value);
  } else if (name == name_flag.name) {
    command_.name = std::move(value);
  } else if (name == explicit_flag.name) {
    const auto yes = truth(value);
    if (!yes) return wrong(fmt::format("--{} is true or false", written.substr(2)));
    command_.explicit_create = *yes;
  } else {
    // One option, whatever is in its value. It may be a secret, so it is not repeated.
    const auto middle = value.find('=');
    if (middle == std::string::npos || middle == 0)
      return wrong(fmt::format("number {} of --volumeopts is not KEY=VALUE", command_.options.size() + 1));
    command_.options.emplace_back(value.substr(0, middle), value.substr(middle + 1));
  }
  return std::nullopt;
}

std::optional<Answer> Parser::read_word(const std::string& word) {
  if (verb_ == nullptr && word == "help" && !help_) {
    help_ = true;
    return std::nullopt;
  }
  if (verb_ != nullptr)
    return wrong(fmt::format("'{}' is one word too many after `{}`", printable(word), verb_->name));
  verb_ = find_verb(word);
  if (verb_ == nullptr) return wrong(fmt::format("there is no command '{}'", printable(word)));
  command_.verb = verb_->verb;
  return std::nullopt;
}

std::optional<Answer> Parser::check() const {
  for (const std::string& flag : given_) {
    if (!takes(command_.verb, flag)) return wrong(fmt::format("`{}` has no flag --{}", verb_->name, flag));
  }
  if (command_.verb == Verb::version) return std::nullopt;
  if (command_.driver.empty())
    return wrong(fmt::format("`{}` of a volume: --volumedriver does not name a driver", verb_->name),
                 exit_failed);
  if (command_.verb != Verb::list && command_.name.empty())
    return wrong(fmt::format("`{}` of a volume of driver '{}': --volumename does not name a volume",
                             verb_->name, printable(command_.driver)),
                 exit_failed);
  return std::nullopt;
}

std::variant<DvdcliCommand, Answer> Parser::parse() {
  bool only_words = false;
  while (const std::string* word = next()) {
    std::optional<Answer> answer;
    if (!only_words && *word == "--") {
      only_words = true;
    } else if (!only_words && word->size() > 1 && word->front() == '-') {
      answer = read_flag(*word);
    } else {
      answer = read_word(*word);
    }
    if (answer) return *std::move(answer);
  }
  if (verb_ == nullptr) {
    // As the original: without a command it says how it is used.
    if (help_ || given_.empty()) return Answer{.exit_code = 0, .text = help()};
    return wrong("a command is needed");
  }
  if (help_) return Answer{.exit_code = 0, .text = help(*verb_)};
  if (auto answer = check()) return *std::move(answer);
  return std::move(command_);
}

}  // namespace

std::variant<DvdcliCommand, Answer> parse_dvdcli(const std::vector<std::string>& words) {
  return Parser(words).parse();
}

}  // namespace dvdi::cli
