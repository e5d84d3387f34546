#include "event/secret_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "linux/fd.h"

namespace dvdi {

namespace {

constexpr std::size_t most = std::size_t{64} << 10U;

Result<UniqueFd> open_secret(const std::string& path, std::string_view what) {
  const std::string reading = fmt::format("read {} {}", what, path);
  // Not blocking: a FIFO without a writer must not hold up who asks.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return os_error(reading, errno);
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return os_error(reading, errno);
  if (!S_ISREG(status.st_mode))
    return Error{.code = Code::invalid_argument, .message = fmt::format("{} {} is no file", what, path)};
  if ((status.st_mode & 07U) != 0) {
    return Error{.code = Code::permission_denied,
                 .message = fmt::format("{} {} is open to every user", what, path),
                 .hint = "chmod o-rwx"};
  }
  return fd;
}

}  // namespace

Result<std::string> read_secret_file(const std::string& path, std::string_view what) {
  DVDI_TRY(const UniqueFd fd, open_secret(path, what));
  const auto wrong = [&](std::string_view is) {
    return Error{.code = Code::invalid_argument, .message = fmt::format("{} {} {}", what, path, is)};
  };
  std::string text;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(fmt::format("read {} {}", what, path), errno);
    if (got == 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > most) return wrong(fmt::format("is larger than {} KiB", most >> 10U));
  }
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  if (text.empty()) return wrong("is empty");
  if (text.find('\n') != std::string::npos || text.find('\0') != std::string::npos)
    return wrong("has more than one line");
  return text;
}

Status check_secret_file(const std::string& path, std::string_view what) {
  DVDI_CHECK(open_secret(path, what));
  return {};
}

}  // namespace dvdi
