#include "linux/mount_table.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/sync.h"
#include "base/text.h"
#include "linux/fd.h"
#include "linux/machine.h"

namespace dvdi {

namespace {

constexpr std::size_t table_limit = std::size_t{64} << 20;  // some 400,000 mounts; the kernel allows 100,000

bool octal(char c) { return c >= '0' && c <= '7'; }

// The kernel writes space, tab, newline, backslash and # as \ooo.
std::string unescape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) &&
        octal(text[i + 3])) {
      const int byte = (text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0');
      out += static_cast<char>(byte);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// "36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue". Fields are
// separated by exactly one space; a source may be empty.
std::optional<MountEntry> parse_line(std::string_view line) {
  const std::vector<std::string_view> fields = split(line, ' ');
  const auto dash = std::find(fields.begin(), fields.end(), "-");
  if (dash - fields.begin() < 6 || fields.end() - dash < 4) return std::nullopt;
  MountEntry entry;
  const auto colon = fields[2].find(':');
  if (colon == std::string_view::npos || !read_number(fields[0], entry.id) ||
      !read_number(fields[1], entry.parent) || !read_number(fields[2].substr(0, colon), entry.major) ||
      !read_number(fields[2].substr(colon + 1), entry.minor)) {
    return std::nullopt;
  }
  entry.root = unescape(fields[3]);
  entry.mount_point = unescape(fields[4]);
  entry.options = unescape(fields[5]);
  for (auto tag = fields.begin() + 6; tag != dash; ++tag) {
    if (tag->starts_with("shared:")) entry.shared = true;
    if (tag->starts_with("master:") && !read_number(tag->substr(7), entry.master)) return std::nullopt;
  }
  entry.fs_type = unescape(dash[1]);
  entry.source = unescape(dash[2]);
  return entry;
}

Result<UniqueFd> open_table(const std::string& file) {
  UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return os_error("read the mount table " + file, errno);
  return fd;
}

// From where the descriptor stands.
Result<MountTable> read_table(const UniqueFd& fd, const std::string& file) {
  std::string text;
  std::array<char, std::size_t{64} * 1024> buffer;  // not cleared: the table is read often
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error("read the mount table " + file, errno);
    if (got == 0) return MountTable::parse(text);
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > table_limit) {
      return Error{.code = Code::resource_exhausted,
                   .message = fmt::format("the mount table {} is larger than {} bytes", file, table_limit)};
    }
  }
}

Result<MountTable> read_table(const std::string& file) {
  DVDI_TRY(const UniqueFd fd, open_table(file));
  return read_table(fd, file);
}

constexpr const char* own_file = "/proc/self/mountinfo";

}  // namespace

bool at_or_below(std::string_view path, std::string_view folder) {
  if (folder == "/") return path.starts_with('/');
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

Result<MountTable> MountTable::read() {
  if (SimulatedMachine* simulated = simulated_machine(); simulated != nullptr) {
    DVDI_TRY(const std::string text, simulated->mount_table());
    return parse(text);
  }
  return read_table(own_file);
}

Result<MountTable> MountTable::read(pid_t pid) { return read_table(fmt::format("/proc/{}/mountinfo", pid)); }

struct WatchedMountTable::State {
  Mutex mutex;
  UniqueFd file;
  std::shared_ptr<const MountTable> table;
};

WatchedMountTable::WatchedMountTable() : state_(std::make_unique<State>()) {}
WatchedMountTable::~WatchedMountTable() = default;

Result<std::shared_ptr<const MountTable>> WatchedMountTable::now() {
  if (simulated_machine() != nullptr) {
    DVDI_TRY(MountTable simulated, MountTable::read());
    return std::make_shared<const MountTable>(std::move(simulated));
  }
  State& state = *state_;
  const Lock lock(state.mutex);
  if (!state.file) {
    DVDI_TRY(state.file, open_table(own_file));
  }
  // Asked before it is read: what changes meanwhile is a change for the next one, too.
  pollfd changes{.fd = state.file.get(), .events = POLLPRI, .revents = 0};
  const int changed = ::poll(&changes, 1, 0);
  if (changed == 0 && state.table) return state.table;
  state.table.reset();
  if (::lseek(state.file.get(), 0, SEEK_SET) != 0)
    return os_error(fmt::format("read the mount table {}", own_file), errno);
  DVDI_TRY(MountTable read, read_table(state.file, own_file));
  state.table = std::make_shared<const MountTable>(std::move(read));
  return state.table;
}

Result<MountTable> MountTable::parse(std::string_view text) {
  MountTable table;
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.empty()) return table;
  table.entries_.reserve(static_cast<std::size_t>(std::ranges::count(text, '\n')) +
                         1);  // exactly: it may be kept
  for (const std::string_view line : split(text, '\n')) {
    auto entry = parse_line(line);
    if (!entry) {
      return Error{.code = Code::corrupted,
                   .message = fmt::format("line {} of the mount table cannot be read: '{}'",
                                          table.entries_.size() + 1, printable(line))};
    }
    table.entries_.push_back(std::move(*entry));
  }
  table.make_index();
  return table;
}

void MountTable::make_index() {
  ids_.reserve(entries_.size());
  places_.reserve(entries_.size());
  for (const MountEntry& one : entries_) ids_[one.id] = &one;
  for (const MountEntry& one : entries_) {
    const bool top = one.parent == one.id || !ids_.contains(one.parent);
    places_[{.parent = top ? 0 : one.parent, .mount_point = one.mount_point}] = &one;
  }
}

const MountEntry* MountTable::by_id(std::uint64_t id) const {
  const auto found = ids_.find(id);
  return found == ids_.end() ? nullptr : found->second;
}

// The mount on `parent` that the path meets first.
const MountEntry* MountTable::child(std::uint64_t parent, std::string_view path) const {
  const auto at = [&](std::string_view place) -> const MountEntry* {
    const auto found = places_.find({.parent = parent, .mount_point = place});
    return found == places_.end() ? nullptr : found->second;
  };
  if (const MountEntry* root = at("/")) return root;
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    if (const MountEntry* child = at(path.substr(0, end))) return child;
    if (end == std::string_view::npos) return nullptr;
  }
}

const MountEntry* MountTable::at(std::string_view path) const {
  const MountEntry* mount = containing(path);
  return mount != nullptr && mount->mount_point == path ? mount : nullptr;
}

const MountEntry* MountTable::containing(std::string_view path) const {
  if (!path.starts_with('/')) return nullptr;
  // At first the mounts whose parent is out of sight (the root, or beyond a chroot), then, again and again,
  // the child of the current one.
  const MountEntry* mount = child(0, path);
  for (std::size_t steps = 0; mount != nullptr && steps <= entries_.size();
       ++steps) {  // a made-up table may be circular
    const MountEntry* deeper = child(mount->id, path);
    if (deeper == nullptr || deeper == mount) break;
    mount = deeper;
  }
  return mount;
}

std::vector<const MountEntry*> MountTable::beneath(std::string_view path) const {
  std::vector<const MountEntry*> found;
  for (const MountEntry& one : entries_) {
    if (at_or_below(one.mount_point, path)) found.push_back(&one);
  }
  return found;
}

}  // namespace dvdi
