#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "base/text.h"
#include "http/server.h"
#include "http/unix_socket.h"

namespace dvdi::http {

namespace {

sockaddr_un address_of(const SocketPath& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.short_path().copy(&address.sun_path[0], sizeof(address.sun_path) - 1);
  return address;
}

Result<UniqueFd> new_socket(std::string_view what) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail(os_error(what, errno));
  return socket;
}

// Removes a socket that nobody listens on.
Status make_way(const SocketPath& path, const sockaddr_un& address, const std::string& what) {
  struct stat status{};
  if (::lstat(path.short_path().c_str(), &status) != 0)
    return errno == ENOENT ? Status() : fail(os_error(what, errno));
  if (!S_ISSOCK(status.st_mode)) {
    return fail({.code = Code::already_exists,
                 .message = what + ": there is something else than a socket",
                 .hint = "remove it, or choose another path"});
  }
  DVDI_TRY(const UniqueFd probe, new_socket(what));
  const int connected = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  // EAGAIN: somebody listens, and has no place for us just now.
  if (connected == 0 || errno == EAGAIN || errno == EINPROGRESS) {
    return fail({.code = Code::already_exists,
                 .message = what + ": another program listens there",
                 .hint = "stop it, or choose another path"});
  }
  if (errno != ECONNREFUSED && errno != ENOENT) return fail(os_error(what, errno));
  if (::unlink(path.short_path().c_str()) != 0 && errno != ENOENT) return fail(os_error(what, errno));
  return {};
}

}  // namespace

Result<UniqueFd> listen_unix(const std::string& path, unsigned mode) {
  const std::string what = fmt::format("listen on unix://{}", printable(path, 400));
  if (path.empty()) return Error{.code = Code::invalid_argument, .message = what + ": the path is empty"};
  DVDI_TRY(const SocketPath short_path, SocketPath::open(path));
  const sockaddr_un address = address_of(short_path);
  DVDI_CHECK(make_way(short_path, address, what));
  DVDI_TRY(UniqueFd socket, new_socket(what));
  // The file gets the socket's own mode less the umask, so it is never more open than asked for; what the
  // umask took away is given back before anybody can connect, which needs the listen().
  if (::fchmod(socket.get(), mode) != 0 ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return fail(os_error(what, errno));
  }
  if (::chmod(short_path.short_path().c_str(), mode) != 0 || ::listen(socket.get(), SOMAXCONN) != 0) {
    const Error error = os_error(what, errno);
    ::unlink(short_path.short_path().c_str());
    return error;
  }
  return socket;
}

}  // namespace dvdi::http
