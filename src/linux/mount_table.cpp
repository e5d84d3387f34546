#include "linux/mount_table.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>

#include "base/sync.h"
#include "base/text.h"
#include "linux/fd.h"
#include "linux/machine.h"

namespace dvdi {

namespace {

constexpr std::size_t table_limit = std::size_t{64} << 20;  // some 400,000 mounts; the kernel allows 100,000

bool octal(char c) { return c >= '0' && c <= '7'; }

// The kernel writes space, tab, newline, backslash and # as \ooo. In place: what is decoded is shorter.
std::string_view unescape(std::span<char> text) {
  auto escape = std::ranges::find(text, '\\');
  auto out = escape;
  for (auto in = escape; in != text.end(); ++out) {
    if (*in == '\\' && text.end() - in > 3 && octal(in[1]) && octal(in[2]) && octal(in[3])) {
      *out = static_cast<char>((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0'));
      in += 4;
    } else {
      *out = *in++;
    }
  }
  return {text.begin(), out};
}

std::string_view view(std::span<char> text) { return {text.data(), text.size()}; }

// What comes before the first `end` in `rest`, which is what comes after it then; all of it, if there is
// none.
std::span<char> cut(std::span<char>& rest, char end) {
  const auto found = std::ranges::find(rest, end);
  const std::span<char> before(rest.begin(), found);
  rest = found == rest.end() ? std::span<char>() : std::span<char>(found + 1, rest.end());
  return before;
}

// "36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue". Fields are
// separated by exactly one space; a source may be empty.
std::optional<MountEntry> parse_line(std::span<char> line) {
  MountEntry entry;
  const bool numbers =
      read_number(view(cut(line, ' ')), entry.id) && read_number(view(cut(line, ' ')), entry.parent) &&
      read_number(view(cut(line, ':')), entry.major) && read_number(view(cut(line, ' ')), entry.minor);
  if (!numbers) return std::nullopt;
  entry.root = unescape(cut(line, ' '));
  entry.mount_point = unescape(cut(line, ' '));
  entry.options = unescape(cut(line, ' '));
  for (;;) {
    if (line.empty()) return std::nullopt;
    const std::string_view tag = view(cut(line, ' '));
    if (tag == "-") break;
    if (tag.starts_with("shared:")) entry.shared = true;
    if (tag.starts_with("master:") && !read_number(tag.substr(7), entry.master)) return std::nullopt;
  }
  // The source ends with a space, too: the options of the super block follow.
  if (std::ranges::count(line, ' ') < 2) return std::nullopt;
  entry.fs_type = unescape(cut(line, ' '));
  entry.source = unescape(cut(line, ' '));
  return entry;
}

Result<UniqueFd> open_table(const std::string& file) {
  UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return os_error("read the mount table " + file, errno);
  return fd;
}

// From where the descriptor stands.
Result<MountTable> read_table(const UniqueFd& fd, const std::string& file) {
  std::vector<char> text;
  std::array<char, std::size_t{64} * 1024> buffer;  // not cleared: the table is read often
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error("read the mount table " + file, errno);
    if (got == 0) return MountTable::parse(std::move(text));
    text.insert(text.end(), buffer.data(), buffer.data() + got);
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
  return parse(std::vector<char>(text.begin(), text.end()));
}

Result<MountTable> MountTable::parse(std::vector<char> text) {
  MountTable table;
  text.shrink_to_fit();  // it may be kept
  table.text_ = std::move(text);
  std::span<char> rest(table.text_);
  table.entries_.reserve(static_cast<std::size_t>(std::ranges::count(rest, '\n')) + 1);
  while (!rest.empty()) {
    const std::span<char> line = cut(rest, '\n');
    auto entry = parse_line(line);
    if (!entry) {
      return Error{.code = Code::corrupted,
                   .message = fmt::format("line {} of the mount table cannot be read: '{}'",
                                          table.entries_.size() + 1, printable(view(line)))};
    }
    table.entries_.push_back(*entry);
  }
  table.make_index();
  return table;
}

void MountTable::make_index() {
  ids_.reserve(entries_.size());
  places_.reserve(entries_.size());
  for (std::uint32_t i = 0; i < entries_.size(); ++i) ids_[entries_[i].id] = i;
  for (std::uint32_t i = 0; i < entries_.size(); ++i) {
    const MountEntry& one = entries_[i];
    const bool top = one.parent == one.id || !ids_.contains(one.parent);
    places_[{.parent = top ? 0 : one.parent, .mount_point = one.mount_point}] = i;
  }
}

const MountEntry* MountTable::by_id(std::uint64_t id) const {
  const auto found = ids_.find(id);
  return found == ids_.end() ? nullptr : &entries_[found->second];
}

// The mount on `parent` that the path meets first.
const MountEntry* MountTable::child(std::uint64_t parent, std::string_view path) const {
  const auto at = [&](std::string_view place) -> const MountEntry* {
    const auto found = places_.find({.parent = parent, .mount_point = place});
    return found == places_.end() ? nullptr : &entries_[found->second];
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
