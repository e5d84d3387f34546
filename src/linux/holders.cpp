#include "linux/holders.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <memory>

#include "base/text.h"
#include "linux/fd.h"
#include "linux/machine.h"
#include "linux/mount_table.h"

namespace dvdi {

namespace {

constexpr std::size_t most_entries = 4096;  // of one process: its files, its mappings
constexpr std::size_t most_reasons = 10;

bool lies_in(const std::string& link, const std::string& mount_point) {
  std::array<char, PATH_MAX> text{};
  const ssize_t size = ::readlink(link.c_str(), text.data(), text.size());
  if (size < 0) return false;
  const std::string_view path(text.data(), static_cast<std::size_t>(size));
  return at_or_below(path, mount_point);
}

bool any_in(const std::string& folder, const std::string& mount_point) {
  const UniqueDir dir(::opendir(folder.c_str()));
  if (!dir) return false;
  for (std::size_t count = 0; count < most_entries; ++count) {
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) return false;
    if (lies_in(fmt::format("{}/{}", folder, entry->d_name), mount_point)) return true;
  }
  return false;
}

bool holds(const std::string& process, const std::string& mount_point) {
  for (const char* link : {"cwd", "root", "exe"}) {
    if (lies_in(fmt::format("{}/{}", process, link), mount_point)) return true;
  }
  return any_in(process + "/fd", mount_point) || any_in(process + "/map_files", mount_point);
}

}  // namespace

std::vector<std::string> find_holders(const Context& context, const std::string& mount_point,
                                      std::size_t most) {
  if (simulated_machine() != nullptr) return {};  // its processes keep no mount busy
  const Context bounded = context.detached(std::chrono::seconds(2));
  std::vector<std::string> found;
  const UniqueDir processes(::opendir("/proc"));
  if (!processes) return found;
  while (const dirent* entry = ::readdir(processes.get())) {
    const std::string_view name = entry->d_name;
    if (!std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; })) continue;
    if (found.size() >= most || !bounded.check("look for processes")) break;
    const std::string process = fmt::format("/proc/{}", name);
    if (!holds(process, mount_point)) continue;
    std::string program;
    std::getline(std::ifstream(process + "/comm"), program);
    found.push_back(fmt::format("{} (pid {})", printable(program, 32), name));
  }
  return found;
}

std::vector<pid_t> find_stuck_helpers(const Context& context, std::size_t most) {
  const Context bounded = context.detached(std::chrono::seconds(2));
  std::vector<pid_t> found;
  const UniqueDir processes(::opendir("/proc"));
  if (!processes) return found;
  while (const dirent* entry = ::readdir(processes.get())) {
    const std::string_view name = entry->d_name;
    const auto pid = parse_number<pid_t>(name);
    if (!pid) continue;
    if (found.size() >= most || !bounded.check("look for processes")) break;
    std::ifstream status(fmt::format("/proc/{}/status", name));
    bool helper = false;
    bool zombie = false;
    bool killed = false;
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Name:")) helper = line == "Name:\tdvdi-helper";
      if (!helper) break;
      if (line.starts_with("State:\tZ")) zombie = true;
      if (!line.starts_with("SigPnd:\t") && !line.starts_with("ShdPnd:\t")) continue;
      constexpr std::uint64_t kill_bit = std::uint64_t{1} << (SIGKILL - 1);
      std::uint64_t pending = 0;
      std::from_chars(line.data() + 8, line.data() + line.size(), pending, 16);
      killed = killed || (pending & kill_bit) != 0;
    }
    if (killed && !zombie) found.push_back(*pid);
  }
  return found;
}

std::string in_use_by(const Context& context, const std::string& mount_point) {
  std::vector<std::string> reasons;
  if (const auto table = MountTable::read()) {
    for (const MountEntry* one : table->beneath(mount_point)) {
      if (one->mount_point != mount_point && reasons.size() < most_reasons) {
        reasons.push_back(fmt::format("the mount {} in it", printable(one->mount_point)));
      }
    }
  }
  for (std::string& holder : find_holders(context, mount_point, most_reasons - reasons.size())) {
    reasons.push_back(std::move(holder));
  }
  return reasons.empty() ? "" : fmt::format("in use by {}", fmt::join(reasons, ", "));
}

}  // namespace dvdi
