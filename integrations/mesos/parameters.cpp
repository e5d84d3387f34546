#include "parameters.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>

#include "text.h"

// NOLINTNEXTLINE(readability-redundant-declaration): of the C library, which shows it to GNU programs alone
extern "C" char** environ;

namespace dvdi_mesos {

namespace {

constexpr const char* keys =
    "socket, prepare_timeout, isolate_timeout, cleanup_timeout, recover_timeout, recover_wait, cleanup_wait, "
    "threads, work_dir, sandbox_directory, default_driver, environment_volumes, csi_volumes_elsewhere, "
    "ownership, first_isolator_state";
constexpr std::int64_t max_duration_ms = std::int64_t{7} * 24 * 3600 * 1000;
constexpr std::size_t max_threads = 256;

bool is_number(const std::string& text) {
  return !text.empty() && text.size() <= 9 && text.find_first_not_of("0123456789") == std::string::npos;
}

// "": it was read.
std::string read_boolean(const std::string& value, bool& to) {
  if (value != "true" && value != "false") return "must be true or false";
  to = value == "true";
  return {};
}

std::string read_time(const std::string& value, bool zero, std::int64_t& to) {
  std::int64_t read = 0;
  if (!read_duration(value, read) || read > max_duration_ms || (read == 0 && !zero)) {
    return std::string("must be a duration such as 30secs or 2mins, at most 7days") +
           (zero ? "" : ", and not 0");
  }
  to = read;
  return {};
}

std::string read_path(const std::string& value, std::string& to) {
  if (value.empty() || value[0] != '/') return "must be an absolute path";
  to = value;
  return {};
}

std::string read_path_or_none(const std::string& value, std::string& to) {
  if (value != "none") return read_path(value, to);
  to.clear();
  return {};
}

std::string read_threads(const std::string& value, std::size_t& to) {
  const std::size_t read = is_number(value) ? std::stoul(value) : 0;
  if (read == 0 || read > max_threads) return "must be a number from 1 to " + std::to_string(max_threads);
  to = read;
  return {};
}

std::string read_ownership(const std::string& value, std::string& to) {
  if (value != "none" && value != "match-target" && value != "user" && value != "idmap") {
    return "must be none, match-target, user or idmap";
  }
  to = value;
  return {};
}

std::string read_one(const std::string& key, const std::string& value, Parameters& to) {
  if (key == "socket") return read_path(value, to.socket);
  if (key == "prepare_timeout") return read_time(value, false, to.prepare_timeout_ms);
  if (key == "isolate_timeout") return read_time(value, false, to.isolate_timeout_ms);
  if (key == "cleanup_timeout") return read_time(value, false, to.cleanup_timeout_ms);
  if (key == "recover_timeout") return read_time(value, false, to.recover_timeout_ms);
  if (key == "recover_wait") return read_time(value, true, to.recover_wait_ms);
  if (key == "cleanup_wait") return read_time(value, true, to.cleanup_wait_ms);
  if (key == "threads") return read_threads(value, to.threads);
  if (key == "work_dir") return read_path(value, to.work_dir);
  if (key == "sandbox_directory") return read_path(value, to.sandbox_directory);
  if (key == "environment_volumes") return read_boolean(value, to.rules.environment_volumes);
  if (key == "csi_volumes_elsewhere") return read_boolean(value, to.rules.csi_volumes_elsewhere);
  if (key == "ownership") return read_ownership(value, to.rules.ownership);
  if (key == "first_isolator_state") {
    to.first_isolator_state_given = true;
    return read_path_or_none(value, to.first_isolator_state);
  }
  if (key == "default_driver") {
    to.rules.default_driver = value;
    return value.empty() ? "is empty" : "";
  }
  return std::string("is not known; there are ") + keys;
}

std::vector<std::string> split_at_nul(const std::string& text) {
  std::vector<std::string> parts;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find('\0', at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

// The last one of "PREFIX VALUE"; false: there is none.
bool value_of(const std::vector<std::string>& texts, const std::string& prefix, std::string& value) {
  const auto found = std::find_if(texts.rbegin(), texts.rend(),
                                  [&](const std::string& text) { return starts_with(text, prefix); });
  if (found == texts.rend()) return false;
  value = found->substr(prefix.size());
  return true;
}

std::string flag(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
                 const std::string& name, const std::string& variable) {
  std::string value;
  if (!value_of(arguments, "--" + name + "=", value)) value_of(environment, variable + "=", value);
  return value;
}

}  // namespace

bool read_parameters(const std::vector<std::pair<std::string, std::string>>& given, Parameters& parameters,
                     std::string& error) {
  std::vector<std::string> seen;
  for (const auto& one : given) {
    std::string wrong = read_one(one.first, one.second, parameters);
    if (wrong.empty() && std::find(seen.begin(), seen.end(), one.first) != seen.end())
      wrong = "is given twice";
    if (!wrong.empty()) {
      error = "module parameter '" + one.first + "' " + wrong + "; it is '" + one.second + "'";
      return false;
    }
    seen.push_back(one.first);
  }
  return true;
}

bool read_duration(const std::string& text, std::int64_t& milliseconds) {
  const std::size_t end = text.find_first_not_of("0123456789");
  const std::string number = text.substr(0, end);
  if (!is_number(number)) return false;
  const std::string unit = end == std::string::npos ? "" : text.substr(end);
  const std::int64_t count = std::stoll(number);
  static const std::array<std::pair<const char*, std::int64_t>, 5> units = {
      {{"ms", 1}, {"secs", 1000}, {"mins", 60 * 1000}, {"hrs", 3600 * 1000}, {"days", 24 * 3600 * 1000}}};
  for (const auto& one : units) {
    if (unit != one.first) continue;
    milliseconds = count * one.second;
    return true;
  }
  milliseconds = 0;
  return unit.empty() && count == 0;
}

AgentFlags read_agent_flags(const std::vector<std::string>& arguments,
                            const std::vector<std::string>& environment) {
  AgentFlags flags;
  flags.work_dir = flag(arguments, environment, "work_dir", "MESOS_WORK_DIR");
  flags.sandbox_directory = flag(arguments, environment, "sandbox_directory", "MESOS_SANDBOX_DIRECTORY");
  if (flags.sandbox_directory.empty()) flags.sandbox_directory = "/mnt/mesos/sandbox";
  return flags;
}

AgentFlags own_agent_flags() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::string> variables;
  for (char** one = environ; one != nullptr && *one != nullptr; ++one) variables.emplace_back(*one);
  return read_agent_flags(split_at_nul(bytes), variables);
}

std::string work_dir_of_sandbox(std::string sandbox) {
  const std::string inner = "/containers/";
  bool nested = false;
  for (;;) {
    const std::size_t last = sandbox.rfind('/');
    if (last == std::string::npos || last < inner.size() - 1) break;
    const std::size_t start = last - (inner.size() - 1);
    if (sandbox.compare(start, inner.size(), inner) != 0) break;
    sandbox.resize(start);
    nested = true;
  }
  // From the end: a work directory may have any name.
  const std::size_t slaves = sandbox.rfind("/slaves/");
  const std::size_t frameworks = sandbox.rfind("/frameworks/");
  if (slaves != std::string::npos && frameworks != std::string::npos && frameworks > slaves &&
      sandbox.find("/runs/", frameworks) != std::string::npos) {
    return sandbox.substr(0, slaves);
  }
  return nested ? sandbox : std::string();
}

std::string real_path(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  return real == nullptr ? path : std::string(real.get());
}

}  // namespace dvdi_mesos
