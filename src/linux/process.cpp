#include "linux/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>

#include "base/text.h"
#include "linux/machine.h"

namespace dvdi {

namespace {

Result<std::string> read_small_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return os_error("read " + path, errno);
  std::array<char, 4096> buffer{};
  std::size_t size = 0;
  while (size < buffer.size()) {
    const ssize_t got = ::read(fd.get(), buffer.data() + size, buffer.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      Error failed = os_error("read " + path, error);
      if (error == ESRCH) failed.code = Code::not_found;  // the process ended between open and read
      return failed;
    }
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  return std::string(buffer.data(), size);
}

struct ProcessStat {
  char state = '?';
  std::uint64_t threads = 0;
  std::uint64_t start_ticks = 0;
  // The leading thread of a process may have ended while others still run: the process is a zombie only
  // when it is alone.
  bool ended() const { return state == 'X' || (state == 'Z' && threads <= 1); }
};

// Fields of proc(5), counted from 1. The second is the program's name in parentheses and may itself hold
// spaces and parentheses, so counting starts after the last one.
Result<ProcessStat> read_stat(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/stat", pid);
  DVDI_TRY(const std::string text, read_small_file(path));
  const Error unreadable{.code = Code::internal, .message = fmt::format("{} cannot be understood", path)};
  const auto name_end = text.rfind(')');
  if (name_end == std::string::npos) return unreadable;
  const auto fields = split(std::string_view(text).substr(name_end + 1), ' ');
  // fields[0] is empty (the space after the name), fields[1] is field 3.
  constexpr std::size_t state = 1;
  constexpr std::size_t threads = 20 - 2;
  constexpr std::size_t start = 22 - 2;
  if (fields.size() <= start || fields[state].size() != 1) return unreadable;
  ProcessStat stat{.state = fields[state].front()};
  const auto number = [](std::string_view field, std::uint64_t& value) {
    return std::from_chars(field.data(), field.data() + field.size(), value).ec == std::errc();
  };
  if (!number(fields[threads], stat.threads) || !number(fields[start], stat.start_ticks)) return unreadable;
  return stat;
}

}  // namespace

Result<std::array<std::uint32_t, 4>> user_ids_of(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/status", pid);
  DVDI_TRY(const std::string text, read_small_file(path));
  for (const std::string_view line : split(text, '\n')) {
    if (!line.starts_with("Uid:\t")) continue;
    std::array<std::uint32_t, 4> ids{};
    const auto fields = split(line.substr(5), '\t');
    bool whole = fields.size() == ids.size();
    for (std::size_t i = 0; whole && i < ids.size(); ++i) {
      const auto field = fields[i];
      whole = std::from_chars(field.data(), field.data() + field.size(), ids.at(i)).ec == std::errc();
    }
    if (whole) return ids;
  }
  return Error{.code = Code::internal, .message = fmt::format("{} cannot be understood", path)};
}

Result<std::string> boot_id() {
  if (SimulatedMachine* simulated = simulated_machine(); simulated != nullptr) return simulated->boot_id();
  DVDI_TRY(const std::string text, read_small_file("/proc/sys/kernel/random/boot_id"));
  return std::string(trim(text));
}

Result<ProcessIdentity> identify_process(pid_t pid) {
  if (SimulatedMachine* simulated = simulated_machine(); simulated != nullptr)
    return simulated->identify(pid);
  auto stat = read_stat(pid);
  if (!stat) return fail(std::move(stat).error());
  if (stat->ended()) {
    return Error{.code = Code::not_found, .message = fmt::format("process {} has ended", pid)};
  }
  DVDI_TRY(std::string boot, boot_id());
  return ProcessIdentity{.pid = pid, .start_ticks = stat->start_ticks, .boot_id = std::move(boot)};
}

Result<bool> process_runs(const ProcessIdentity& identity) {
  if (SimulatedMachine* simulated = simulated_machine(); simulated != nullptr)
    return simulated->runs(identity);
  if (identity.pid <= 0) {
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("{} is not the number of a process", identity.pid)};
  }
  DVDI_TRY(const std::string boot, boot_id());
  if (boot != identity.boot_id) return false;
  const auto stat = read_stat(identity.pid);
  if (stat) return stat->start_ticks == identity.start_ticks && !stat->ended();
  // A file that is not there is no proof (/proc may be restricted or not mounted); ESRCH is.
  if (::kill(identity.pid, 0) < 0 && errno == ESRCH) return false;
  return fail(stat.error());
}

}  // namespace dvdi
