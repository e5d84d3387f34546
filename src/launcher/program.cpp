#include "launcher/program.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/text.h"

namespace dvdi::launcher {

namespace {

constexpr std::string_view default_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// An environment in which a later value of a name replaces the earlier one.
class Environment {
 public:
  void set(const std::string& name, const std::string& value) {
    std::erase_if(entries_, [&](const std::string& entry) { return is(entry, name); });
    entries_.push_back(name + "=" + value);
  }
  void set_default(const std::string& name, const std::string& value) {
    if (std::ranges::none_of(entries_, [&](const std::string& entry) { return is(entry, name); }))
      set(name, value);
  }
  std::vector<std::string> take() { return std::move(entries_); }

 private:
  static bool is(const std::string& entry, const std::string& name) {
    return entry.size() > name.size() && entry[name.size()] == '=' && entry.starts_with(name);
  }
  std::vector<std::string> entries_;
};

bool has_nul(std::string_view text) { return text.find('\0') != std::string_view::npos; }

Status add(Environment& environment, const v1::Environment& variables, std::string_view whose) {
  for (const auto& variable : variables.variables()) {
    const std::string& name = variable.name();
    if (name.empty() || name.find('=') != std::string::npos || has_nul(name) || has_nul(variable.value()))
      return Error{
          .code = Code::invalid_argument,
          .message = fmt::format("environment of the {}: '{}' is no name of a variable, or its value "
                                 "contains a NUL",
                                 whose, printable(name))};
    if (!variable.has_value())
      return Error{
          .code = Code::invalid_argument,
          .message = fmt::format("environment of the {}: variable '{}' has no value", whose, printable(name)),
          .hint = "variables whose value is a secret of Mesos are not known here"};
    environment.set(name, variable.value());
  }
  return {};
}

Result<std::vector<std::string>> make_environment(const Task& task, const Identity& identity,
                                                  const std::string& directory,
                                                  const std::vector<std::string>& caller) {
  Environment environment;
  for (const std::string& entry : caller) {
    const std::size_t equals = entry.find('=');
    if (equals == std::string::npos || equals == 0) continue;
    const std::string name = entry.substr(0, equals);
    // Of the minimal environment, the terminal's type alone is the caller's: the terminal is.
    if (!task.inherit_environment && name != "TERM") continue;
    if (name.starts_with("DVDI_"))
      continue;  // our own settings and requests, options with secrets among them
    environment.set(name, entry.substr(equals + 1));
  }
  environment.set_default("PATH", std::string(default_path));
  const bool whole = identity.change || !task.inherit_environment;
  for (const auto& [name, value] : {std::pair<std::string, std::string>{"HOME", identity.home},
                                    {"USER", identity.name},
                                    {"LOGNAME", identity.name},
                                    {"SHELL", identity.shell}}) {
    if (whole) {
      environment.set(name, value);
    } else {
      environment.set_default(name, value);
    }
  }
  environment.set("PWD", directory);
  DVDI_CHECK(add(environment, task.launch.environment(), "container"));
  DVDI_CHECK(add(environment, task.command.environment(), "command"));
  return environment.take();
}

std::string value_of(const std::vector<std::string>& environment, std::string_view name) {
  for (const std::string& entry : environment) {
    if (entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=')
      return entry.substr(name.size() + 1);
  }
  return {};
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  // execve() takes char* const* for C's sake and writes to none of them.
  for (const std::string& one : strings) result.push_back(const_cast<char*>(one.c_str()));
  result.push_back(nullptr);
  return result;
}

}  // namespace

Result<Program> make_program(const Task& task, const Identity& identity, const std::string& directory,
                             const std::vector<std::string>& caller_environment) {
  const v1::CommandInfo& command = task.command;
  Program program;
  const bool shell = !command.has_shell() || command.shell();  // as in Mesos
  if (shell) {
    program.file = "/bin/sh";
    program.arguments = {"sh", "-c", command.value()};
  } else {
    program.arguments.assign(command.arguments().begin(), command.arguments().end());
    if (!command.value().empty()) {
      program.file = command.value();
      if (program.arguments.empty()) program.arguments.push_back(program.file);
    } else if (!program.arguments.empty()) {
      program.file = program.arguments.front();
    }
  }
  if (program.file.empty() || (shell && command.value().empty()))
    return Error{.code = Code::invalid_argument, .message = "the task has no command to run"};
  if (has_nul(program.file) || std::ranges::any_of(program.arguments, has_nul))
    return Error{.code = Code::invalid_argument, .message = "the task's command contains a NUL"};
  DVDI_TRY(program.environment, make_environment(task, identity, directory, caller_environment));
  return program;
}

int execute(const Program& program) {
  const std::vector<char*> arguments = pointers(program.arguments);
  const std::vector<char*> environment = pointers(program.environment);
  if (program.file.find('/') != std::string::npos) {
    ::execve(program.file.c_str(), arguments.data(), environment.data());
    return errno;
  }
  std::string path = value_of(program.environment, "PATH");
  if (path.empty()) path = default_path;
  int result = ENOENT;
  for (const std::string_view folder : split(path, ':')) {
    const std::string candidate =
        folder.empty() ? "./" + program.file : fmt::format("{}/{}", folder, program.file);
    ::execve(candidate.c_str(), arguments.data(), environment.data());
    switch (errno) {
      case ENOENT:
      case ENOTDIR:
      case ENAMETOOLONG:
      case ELOOP:
        break;
      case EACCES:  // maybe a later folder has one that may be executed
        result = EACCES;
        break;
      default:
        return errno;
    }
  }
  return result;
}

Error execution_error(const Program& program, int error_number) {
  Error error = os_error(fmt::format("executing '{}'", printable(program.file)), error_number);
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP:
      error.code = Code::not_found;
      error.hint = "the program, or the interpreter that it names, is not in the task's file system";
      break;
    case EACCES:
    case EPERM:
    case ENOEXEC:
    case EISDIR:
    case ETXTBSY:
    case EINVAL:
    case ELIBBAD:
      error.code = Code::permission_denied;
      break;
    default:
      error.code = Code::io;
      break;
  }
  return error;
}

}  // namespace dvdi::launcher
