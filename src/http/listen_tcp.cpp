#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/text.h"
#include "http/server.h"

namespace dvdi::http {

namespace {

struct TcpAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

// Numbers only: a name would mean one address today and another tomorrow.
Result<TcpAddress> parse_tcp(const std::string& text) {
  const Error wrong{.code = Code::invalid_argument,
                    .message = fmt::format("'{}' is not an address to listen on", printable(text, 100)),
                    .hint = "for example 127.0.0.1:9799 or [::1]:9799, numbers only"};
  const auto colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return wrong;
  std::uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data() + colon + 1, end, port);
  if (error != std::errc() || stopped != end) return wrong;
  std::string host = text.substr(0, colon);
  TcpAddress address;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    sockaddr_in6 six{};
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(port);
    if (::inet_pton(AF_INET6, host.c_str(), &six.sin6_addr) != 1) return wrong;
    std::memcpy(&address.storage, &six, sizeof six);
    address.size = sizeof six;
    return address;
  }
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = htons(port);
  if (::inet_pton(AF_INET, host.c_str(), &four.sin_addr) != 1) return wrong;
  std::memcpy(&address.storage, &four, sizeof four);
  address.size = sizeof four;
  return address;
}

}  // namespace

Status check_tcp_address(const std::string& address) {
  DVDI_CHECK(parse_tcp(address));
  return {};
}

Result<UniqueFd> listen_tcp(const std::string& address) {
  DVDI_TRY(const TcpAddress parsed, parse_tcp(address));
  const std::string what = fmt::format("listen on {}", address);
  UniqueFd socket(::socket(parsed.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return os_error(what, errno);
  const int yes = 1;
  // Connections of a daemon that has ended must not keep the next one from listening.
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      (parsed.storage.ss_family == AF_INET6 &&
       ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes) != 0) ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&parsed.storage), parsed.size) != 0 ||
      ::listen(socket.get(), SOMAXCONN) != 0) {
    return os_error(what, errno);
  }
  return socket;
}

}  // namespace dvdi::http
