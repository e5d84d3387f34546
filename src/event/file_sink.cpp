#include "event/file_sink.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>

#include "base/text.h"
#include "event/event_line.h"

namespace dvdi {

namespace {

constexpr std::size_t piece_bytes = std::size_t{64} << 10U;
constexpr std::size_t write_bytes = std::size_t{1} << 20U;  // between two looks at the context
constexpr std::size_t most_ranges = 100'000;                // of numbers, in head()

Error refuse(std::string message, std::string hint = {}) {
  return Error{.code = Code::failed_precondition, .message = std::move(message), .hint = std::move(hint)};
}

// Which numbers there are, as ranges: first and last.
class Numbers {
 public:
  Status add(std::uint64_t number) {
    auto next = ranges_.upper_bound(number);
    if (next != ranges_.begin()) {
      auto before = std::prev(next);
      if (number <= before->second) return {};
      if (number == before->second + 1) {
        before->second = number;
        ++count_;
        if (next != ranges_.end() && next->first == number + 1) {
          before->second = next->second;
          ranges_.erase(next);
        }
        return {};
      }
    }
    ++count_;
    if (next != ranges_.end() && next->first == number + 1) {
      const std::uint64_t last = next->second;
      ranges_.erase(next);
      ranges_.emplace(number, last);
    } else {
      ranges_.emplace(number, number);
    }
    if (ranges_.size() <= most_ranges) return {};
    return Error{.code = Code::resource_exhausted,
                 .message = fmt::format("there are more than {} gaps between the events", most_ranges)};
  }
  std::uint64_t count() const { return count_; }

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;
  std::uint64_t count_ = 0;
};

// Whoever else could have made it could read or lead elsewhere what we append.
Status check_file(int fd, const std::string& path) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return os_error(fmt::format("look at {}", path), errno);
  if (!S_ISREG(status.st_mode)) return refuse(fmt::format("{} is no regular file", path));
  if (status.st_uid != ::geteuid())
    return refuse(fmt::format("{} belongs to uid {}, not to the daemon's user", path, status.st_uid),
                  "chown it, or have rotation make it for root");
  return {};
}

}  // namespace

std::string FileSink::where() const { return where_of({.name = {}, .kind = FileSinkSettings{path_}}); }

std::string FileSink::doing(std::string_view what) const {
  return fmt::format("{} {}", what, printable(path_, 4096));
}

void FileSink::sent_again_until(std::uint64_t sequence) {
  again_until_ = sequence;
  appended_ = there_ = 0;
}

Status FileSink::open_current() {
  struct stat there{};
  const bool is_there = ::lstat(path_.c_str(), &there) == 0;
  if (!is_there && errno != ENOENT) return os_error(doing("look at"), errno);
  if (file_ && is_there) {
    struct stat ours{};
    if (::fstat(file_.get(), &ours) != 0) return os_error(doing("look at"), errno);
    if (ours.st_dev == there.st_dev && ours.st_ino == there.st_ino) return {};
  }
  // Rotated. What of a batch is in the old file counts only if it is durable there.
  if (file_ && unsynced_ && ::fdatasync(file_.get()) != 0) appended_ = 0;
  unsynced_ = false;
  file_.reset();
  if (is_there && S_ISLNK(there.st_mode)) return refuse(doing("it is a symbolic link:"));
  UniqueFd opened(::open(path_.c_str(),
                         O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600));
  if (!opened) return os_error(doing("open"), errno);
  DVDI_CHECK(check_file(opened.get(), path_));
  if (!is_there) {
    const std::string folder = std::filesystem::path(path_).parent_path().string();
    const UniqueFd parent(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!parent || ::fsync(parent.get()) != 0) return os_error(fmt::format("make {} durable", folder), errno);
  }
  file_ = std::move(opened);
  return {};
}

// The line that ends at `end`, which is behind its newline; "" at the beginning of the file.
Result<std::string> FileSink::last_line(const Context& context, off_t end) const {
  std::string line;
  off_t at = std::max<off_t>(end - 1, 0);
  while (at > 0) {
    DVDI_CHECK(context.check(doing("read the end of")));
    const auto size =
        static_cast<std::size_t>(std::min<off_t>(at, static_cast<off_t>(std::max(piece_bytes, line.size()))));
    std::string piece(size, '\0');
    const ssize_t got = ::pread(file_.get(), piece.data(), size, at - static_cast<off_t>(size));
    if (got < 0) return os_error(doing("read the end of"), errno);
    if (static_cast<std::size_t>(got) != size) return refuse(doing("it became shorter while it was read:"));
    const auto newline = piece.rfind('\n');
    line.insert(0, newline == std::string::npos ? piece : piece.substr(newline + 1));
    if (newline != std::string::npos) break;
    if (line.size() > longest_event_line) return refuse(doing("a line is too long to be an event:"));
    at -= static_cast<off_t>(size);
  }
  return line;
}

Status FileSink::look_at_end(const Context& context, const std::string& node) {
  struct stat status{};
  if (::fstat(file_.get(), &status) != 0) return os_error(doing("look at"), errno);
  off_t end = status.st_size;
  const auto cut = [&](const std::string& line, off_t more) -> Status {
    end -= static_cast<off_t>(line.size()) + more;
    if (::ftruncate(file_.get(), end) != 0) return os_error(doing("cut the torn end of"), errno);
    return {};
  };
  // With an end of its own: as if a newline followed.
  DVDI_TRY(const std::string torn, last_line(context, end + 1));
  if (!torn.empty() && begins_event_line(torn)) {
    DVDI_CHECK(cut(torn, 0));
  } else if (!torn.empty()) {
    // Somebody else's text: ours begins on a line of its own.
    if (::write(file_.get(), "\n", 1) != 1) return os_error(doing("write to"), errno);
    return {};
  }
  while (end > 0) {
    DVDI_TRY(const std::string line, last_line(context, end));
    if (line.find('\0') != std::string::npos && begins_event_line(line)) {
      DVDI_CHECK(cut(line, 1));  // written, but not to the disk, when the power went
      continue;
    }
    const auto event = read_event_line(line);
    if (event && event->whole && event->node == node) there_ = event->sequence;
    return {};
  }
  return {};
}

Status FileSink::append(const Context& context, const std::vector<const StoredEvent*>& batch) {
  struct stat before{};
  if (::fstat(file_.get(), &before) != 0) return os_error(doing("look at"), errno);
  std::string text;
  std::vector<std::size_t> ends;  // of lines
  for (const StoredEvent* event : batch) {
    text += event->json();
    text += '\n';
    ends.push_back(text.size());
  }
  std::size_t written = 0;
  Status done;
  unsynced_ = true;
  while (written < text.size() && done) {
    done = context.check(doing("append to"));
    if (!done) break;
    const ssize_t got =
        ::write(file_.get(), text.data() + written, std::min(write_bytes, text.size() - written));
    if (got < 0 && errno != EINTR) done = os_error(doing("append to"), errno);
    if (got > 0) written += static_cast<std::size_t>(got);
  }
  if (done) {
    if (::fdatasync(file_.get()) == 0) {
      unsynced_ = false;
      return {};
    }
    // The kernel may have dropped what it could not write: nothing of it counts.
    done = os_error(doing("make durable"), errno);
    written = 0;
  }
  // No half line stays, for whoever reads it meanwhile.
  const auto whole = std::ranges::upper_bound(ends, written) - ends.begin();
  const std::size_t kept = whole == 0 ? 0 : ends[static_cast<std::size_t>(whole) - 1];
  if (whole > 0) appended_ = batch[static_cast<std::size_t>(whole) - 1]->sequence;
  if (::ftruncate(file_.get(), before.st_size + static_cast<off_t>(kept)) != 0) {
    file_.reset();
    looked_ = false;  // and so the torn end is found when it is opened again
  }
  return done;
}

Status FileSink::deliver(const Context& context, const std::vector<StoredEvent>& batch) {
  DVDI_CHECK(context.check(doing("append to")));
  DVDI_CHECK(open_current());
  if (!looked_) {
    DVDI_CHECK(look_at_end(context, node_of(batch.front())));
    looked_ = true;
  }
  std::vector<const StoredEvent*> missing;
  for (const StoredEvent& event : batch) {
    const bool is_there = event.sequence <= there_ && event.sequence > again_until_;
    if (!is_there && event.sequence > appended_) missing.push_back(&event);
  }
  // Also where all of it is there: whether it is durable nobody knows.
  DVDI_CHECK(append(context, missing));
  appended_ = 0;
  return {};
}

Result<SinkHead> FileSink::head(const Context& context, const std::string& node_id) {
  const UniqueFd file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  if (!file && errno == ENOENT) return SinkHead{};
  if (!file) return os_error(doing("open"), errno);
  DVDI_CHECK(check_file(file.get(), path_));
  SinkHead head;
  Numbers numbers;
  std::uint64_t number = 0;  // of the line
  const auto take = [&](std::string_view line) -> Status {
    ++number;
    const auto event = read_event_line(line);
    if (!event || event->node != node_id) return {};
    if (!event->whole)
      return Error{
          .code = Code::corrupted,
          .message = fmt::format("{}:{}: event {} was changed: its hash is not the hash of its bytes",
                                 printable(path_, 4096), number, event->sequence)};
    DVDI_CHECK(numbers.add(event->sequence));
    head.first = head.first == 0 ? event->sequence : std::min(head.first, event->sequence);
    if (event->sequence > head.sequence) {
      head.sequence = event->sequence;
      head.hash = event->hash;
    }
    return {};
  };
  std::string line;
  std::string piece(piece_bytes, '\0');
  for (;;) {
    DVDI_CHECK(context.check(doing("read")));
    const ssize_t got = ::read(file.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(doing("read"), errno);
    if (got == 0) break;  // a last line without its end is not there yet
    std::string_view rest(piece.data(), static_cast<std::size_t>(got));
    for (std::size_t newline = 0; (newline = rest.find('\n')) != std::string_view::npos;) {
      line += rest.substr(0, newline);
      DVDI_CHECK(take(line));
      line.clear();
      rest.remove_prefix(newline + 1);
    }
    line += rest;
    if (line.size() > longest_event_line)
      return refuse(
          fmt::format("{}: line {} is too long to be an event", printable(path_, 4096), number + 1));
  }
  head.count = numbers.count();
  return head;
}

Status FileSink::test(const Context& context) {
  DVDI_CHECK(context.check(doing("look at")));
  const UniqueFd file(
      ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  if (file) return check_file(file.get(), path_);
  if (errno != ENOENT) return os_error(doing("open"), errno);
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    return os_error(fmt::format("write to the folder {}", folder), errno);
  return {};
}

}  // namespace dvdi
