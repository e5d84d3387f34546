#include "daemon/text_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "linux/fd.h"

namespace dvdi {

Result<std::string> read_text_file(const std::string& path, std::string_view what, std::size_t most,
                                   Trust trust) {
  const std::string reading = fmt::format("read {} {}", what, path);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd) return os_error(reading, errno);
  if (trust == Trust::operator_only) {
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return os_error(reading, errno);
    if ((status.st_uid != 0 && status.st_uid != ::geteuid()) || (status.st_mode & 022U) != 0) {
      return Error{
          .code = Code::permission_denied,
          .message = fmt::format("{} {} belongs to somebody else or can be written by others", what, path),
          .hint = "chown it to root and chmod go-w"};
    }
  }
  std::string text;
  std::array<char, 16384> buffer{};
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(reading, errno);
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > most) {
      return Error{.code = Code::invalid_argument,
                   .message = fmt::format("{} {} is larger than {} KiB", what, path, most >> 10U)};
    }
  }
}

}  // namespace dvdi
