#include "http/unix_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/un.h>

#include <cerrno>

#include "base/text.h"

namespace dvdi::http {

Result<SocketPath> SocketPath::open(const std::string& path) {
  SocketPath result;
  if (path.size() < sizeof(sockaddr_un::sun_path)) {
    result.short_path_ = path;
    return result;
  }
  const auto refuse = [&](Code code, std::string_view text) {
    return fail({.code = code,
                 .message = fmt::format("connect to unix://{}: {}", printable(path, 400), text),
                 .outcome = Outcome::not_sent});
  };
  const auto slash = path.rfind('/');
  if (slash == std::string::npos || slash == 0) return refuse(Code::invalid_argument, "the path is too long");
  result.folder_.reset(::open(path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!result.folder_) {
    const Error error = os_error("its folder", errno);
    return refuse(error.code == Code::not_found ? Code::unavailable : Code::io, error.message);
  }
  result.short_path_ = fmt::format("/proc/self/fd/{}/{}", result.folder_.get(), path.substr(slash + 1));
  if (result.short_path_.size() >= sizeof(sockaddr_un::sun_path)) {
    return refuse(Code::invalid_argument, "the file name is too long for a socket");
  }
  return result;
}

}  // namespace dvdi::http
