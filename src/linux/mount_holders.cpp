#include "linux/mount_holders.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>

#include "base/text.h"
#include "linux/fd.h"
#include "linux/machine.h"
#include "linux/mount_table.h"

namespace dvdi {

namespace {

constexpr std::size_t most_processes = 1'000'000;
constexpr std::size_t largest_table = std::size_t{64} << 20;
constexpr std::size_t most_tried = 64;  // processes of one namespace that end while they are looked at

bool has_gone(int error) { return error == ENOENT || error == ESRCH || error == EINVAL; }
bool is_refused(int error) { return error == EACCES || error == EPERM; }

// What a process sees of its mounts: its namespace, and the root that it looks from.
struct View {
  // 0: the kernel does not tell us (a process of another user namespace, say). Then `first` is the first
  // mount that it sees, which no other namespace has.
  std::uint64_t mount_namespace = 0;
  std::uint64_t first = 0;
  std::string root;
  auto operator<=>(const View&) const = default;
};

// nullopt: the process has ended, or is a zombie. 0: we may not know.
Result<std::optional<std::uint64_t>> read_namespace(const std::string& link) {
  std::array<char, 64> text{};
  const ssize_t size = ::readlink(link.c_str(), text.data(), text.size());
  if (size < 0 && has_gone(errno)) return std::optional<std::uint64_t>();
  if (size < 0 && is_refused(errno)) return std::optional<std::uint64_t>(0);
  if (size < 0) return os_error("read " + link, errno);
  std::string_view number(text.data(), static_cast<std::size_t>(size));  // mnt:[4026531841]
  const auto open = number.find('[');
  std::uint64_t value = 0;
  if (open != std::string_view::npos) number.remove_prefix(open + 1);
  if (std::from_chars(number.data(), number.data() + number.size(), value).ec != std::errc()) {
    return Error{.code = Code::internal, .message = fmt::format("{} cannot be understood", link)};
  }
  return std::optional(value);
}

// The numbers that are names in that folder: processes, or threads.
Result<std::vector<pid_t>> numbers_in(const std::string& folder) {
  const UniqueDir dir(::opendir(folder.c_str()));
  std::vector<pid_t> numbers;
  if (!dir) {
    if (has_gone(errno)) return numbers;
    return os_error("read " + folder, errno);
  }
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr && errno != 0 && !has_gone(errno)) return os_error("read " + folder, errno);
    if (entry == nullptr) return numbers;
    const auto number = parse_number<pid_t>(entry->d_name);
    if (!number) continue;
    numbers.push_back(*number);
    if (numbers.size() > most_processes) {
      return Error{.code = Code::resource_exhausted,
                   .message = fmt::format("more than {} processes in {}", most_processes, folder)};
    }
  }
}

// The id of the first mount in the table of a process; nullopt: it has ended.
Result<std::optional<std::uint64_t>> first_mount(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/mountinfo", pid);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 32> begin{};
  const ssize_t got = fd ? ::read(fd.get(), begin.data(), begin.size()) : -1;
  if (got < 0 && has_gone(errno)) return std::optional<std::uint64_t>();
  if (got < 0) return os_error("read " + path, errno);
  std::uint64_t id = 0;
  std::from_chars(begin.data(), begin.data() + got, id);
  return std::optional(id);
}

using Views = std::map<View, std::vector<pid_t>>;

// False: that process, or thread, has ended.
Result<bool> collect_one(pid_t pid, const std::string& folder, std::uint64_t own, Views& found) {
  DVDI_TRY(const auto number, read_namespace(folder + "/ns/mnt"));
  if (!number) return false;
  if (own != 0 && *number == own) return true;
  View view{.mount_namespace = *number};
  if (*number == 0) {
    DVDI_TRY(const auto first, first_mount(pid));
    if (!first) return false;
    view.first = *first;
  } else {
    // One that was moved into a folder sees only the mounts below it.
    std::array<char, PATH_MAX> text{};
    const ssize_t size = ::readlink((folder + "/root").c_str(), text.data(), text.size());
    if (size < 0 && has_gone(errno)) return false;
    view.root =
        size < 0 ? fmt::format("of {}", pid) : std::string(text.data(), static_cast<std::size_t>(size));
  }
  auto& pids = found[std::move(view)];
  if (pids.size() < most_tried) pids.push_back(pid);
  return true;
}

Status collect(const Context& context, std::uint64_t own, Views& found) {
  DVDI_TRY(const auto processes, numbers_in("/proc"));
  for (const pid_t pid : processes) {
    DVDI_CHECK(context.check("look for processes that hold mounts"));
    const std::string folder = fmt::format("/proc/{}", pid);
    DVDI_TRY(const bool there, collect_one(pid, folder, own, found));
    if (there) continue;
    // Its first thread has ended; others may go on, and keep the namespace. A thread is found in /proc under
    // its own number, too, though it is not listed there.
    DVDI_TRY(const auto threads, numbers_in(folder + "/task"));
    for (const pid_t thread : threads)
      DVDI_CHECK(collect_one(thread, fmt::format("{}/task/{}", folder, thread), own, found));
  }
  return {};
}

// False: that process has ended.
Result<bool> read_table(pid_t pid, std::string& text) {
  const std::string path = fmt::format("/proc/{}/mountinfo", pid);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd && has_gone(errno)) return false;
  if (!fd) return os_error("read " + path, errno);
  text.clear();
  std::array<char, std::size_t{64} * 1024> buffer{};
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && has_gone(errno)) return false;
    if (got < 0) return os_error("read " + path, errno);
    if (got == 0) return true;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > largest_table) {
      return Error{.code = Code::resource_exhausted,
                   .message = fmt::format("{} is larger than {} bytes", path, largest_table)};
    }
  }
}

std::uint64_t device_key(std::uint32_t major, std::uint32_t minor) {
  return (std::uint64_t{major} << 32U) | minor;
}

// The device of a line of mountinfo, its third field; nothing else of it is looked at.
std::optional<std::uint64_t> device_of(std::string_view line) {
  const auto first = line.find(' ');
  const auto second = first == std::string_view::npos ? first : line.find(' ', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  const char* const end = line.data() + line.size();
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  const auto [colon, error] = std::from_chars(line.data() + second + 1, end, major);
  if (error != std::errc() || colon == end || *colon != ':') return std::nullopt;
  if (std::from_chars(colon + 1, end, minor).ec != std::errc()) return std::nullopt;
  return device_key(major, minor);
}

class Search {
 public:
  Search(const std::vector<MountedTree>& trees, const MountTable& own,
         const std::function<bool(std::size_t, std::uint64_t)>& ignore)
      : trees_(trees), own_table_(own), ignore_(ignore), holders_(trees.size()) {
    own_.resize(trees.size());
    for (std::size_t i = 0; i < trees.size(); ++i) {
      by_device_[device_key(trees[i].major, trees[i].minor)].push_back(i);
      const MountEntry* entry = own.at(trees[i].mount_point);
      const MountEntry* parent = entry == nullptr ? nullptr : own.by_id(entry->parent);
      own_[i] = parent;
    }
  }

  Status look_at(std::uint64_t mount_namespace, pid_t pid, std::string_view text) {
    // Most tables have nothing of ours: only the device of each line is read.
    bool any = false;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const auto device = device_of(text.substr(begin, end - begin));
      any = any || (device && by_device_.contains(*device));
      begin = end + 1;
    }
    if (!any) return {};
    DVDI_TRY(const MountTable table, MountTable::parse(text));
    for (const MountEntry& one : table.entries()) {
      const auto known = by_device_.find(device_key(one.major, one.minor));
      // Our own namespace, seen by a process of which we may not know that it is in it.
      if (known == by_device_.end() || own_table_.by_id(one.id) != nullptr) continue;
      for (const std::size_t tree : known->second) {
        if (holders_[tree].pid != 0 || !at_or_below(one.root, trees_[tree].root)) continue;
        const MountEntry* parent = table.by_id(one.parent);
        if (parent != nullptr && is_propagated_copy(tree, one, *parent)) continue;
        if (ignore_ && ignore_(tree, mount_namespace)) continue;
        std::string program;
        std::getline(std::ifstream(fmt::format("/proc/{}/comm", pid)), program);
        holders_[tree] = {.mount_namespace = mount_namespace,
                          .pid = pid,
                          .program = printable(program, 32),
                          .mount_point = std::string(one.mount_point)};
      }
    }
    return {};
  }

  std::vector<MountHolder> holders() && { return std::move(holders_); }

 private:
  bool is_propagated_copy(std::size_t tree, const MountEntry& one, const MountEntry& parent) const {
    return (one.shared || one.master != 0) && own_[tree] && one.mount_point == trees_[tree].mount_point &&
           one.root == trees_[tree].root && parent.major == own_[tree]->major &&
           parent.minor == own_[tree]->minor && parent.root == own_[tree]->root &&
           parent.mount_point == own_[tree]->mount_point;
  }

  const std::vector<MountedTree>& trees_;
  const MountTable& own_table_;
  const std::function<bool(std::size_t, std::uint64_t)>& ignore_;
  std::vector<MountHolder> holders_;
  std::vector<const MountEntry*> own_;  // the mount that ours lies on, in our own table
  std::unordered_map<std::uint64_t, std::vector<std::size_t>> by_device_;
};

}  // namespace

std::string MountHolder::text() const {
  return fmt::format("{} (pid {}) has it mounted at {}", program, pid, printable(mount_point));
}

Result<std::uint64_t> mount_namespace_of(pid_t pid) {
  DVDI_TRY(const auto found, read_namespace(fmt::format("/proc/{}/ns/mnt", pid)));
  if (!found) return Error{.code = Code::not_found, .message = fmt::format("process {} has ended", pid)};
  if (*found == 0) return os_error(fmt::format("read /proc/{}/ns/mnt", pid), EACCES);
  return *found;
}

Result<std::vector<MountHolder>> find_mount_holders(
    const Context& context, const std::vector<MountedTree>& trees,
    const std::function<bool(std::size_t, std::uint64_t)>& ignore) {
  // A simulated machine has one mount namespace.
  if (trees.empty() || simulated_machine() != nullptr) return std::vector<MountHolder>(trees.size());
  DVDI_TRY(const auto own, read_namespace("/proc/self/ns/mnt"));
  DVDI_TRY(const MountTable table, MountTable::read());
  Search search(trees, table, ignore);
  std::set<View> looked_at;
  std::string text;
  // Again until nothing new appears: a process may hand its mounts on to a child in a namespace of its own
  // while we look, and end.
  constexpr int most_rounds = 10;
  for (int round = 0; round < most_rounds; ++round) {
    Views views;
    DVDI_CHECK(collect(context, own.value_or(0), views));
    bool anything_new = false;
    for (const auto& [view, processes] : views) {
      if (looked_at.contains(view)) continue;
      anything_new = true;
      for (const pid_t pid : processes) {
        DVDI_CHECK(context.check("look for processes that hold mounts"));
        DVDI_TRY(const bool read, read_table(pid, text));
        if (!read) continue;
        DVDI_CHECK(search.look_at(view.mount_namespace, pid, text));
        looked_at.insert(view);
        break;
      }
    }
    if (!anything_new) return std::move(search).holders();
  }
  return Error{.code = Code::unavailable,
               .message = "processes with mount namespaces of their own come and go too fast to be looked at",
               .hint = "try again"};
}

}  // namespace dvdi
