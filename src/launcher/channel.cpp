#include "launcher/channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <vector>

#include "base/text.h"

namespace dvdi::launcher {

namespace {

constexpr std::size_t max_packet = 64U << 10;
constexpr std::size_t max_field = 15U << 10;

// Fields of an error, separated by NUL, which none of them contains.
std::string encode(const Error& error) {
  std::string packet = std::to_string(static_cast<int>(error.code));
  for (const std::string* field : {&error.message, &error.hint, &error.volume, &error.operation}) {
    packet += '\0';
    packet += field->substr(0, std::min(field->find('\0'), max_field));
  }
  return packet;
}

Error decode(std::string_view packet) {
  const std::vector<std::string_view> fields = split(packet, '\0');
  int code = -1;
  std::from_chars(fields[0].data(), fields[0].data() + fields[0].size(), code);
  if (fields.size() != 5 || code < 0 || code > static_cast<int>(Code::internal))
    return {.code = Code::internal, .message = "the task's init sent a report that cannot be read"};
  return {.code = static_cast<Code>(code),
          .message = std::string(fields[1]),
          .volume = std::string(fields[3]),
          .operation = std::string(fields[4]),
          .hint = std::string(fields[2])};
}

ssize_t receive(int fd, char* buffer, std::size_t size, int flags) {
  ssize_t got = 0;
  while ((got = ::recv(fd, buffer, size, flags)) < 0 && errno == EINTR) {
  }
  return got;
}

}  // namespace

Result<Channel> make_channel() {
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return os_error("making a socket pair", errno);
  return Channel{UniqueFd(pair[0]), UniqueFd(pair[1])};
}

Status send_go_ahead(int fd) {
  const char go = 'g';
  if (::send(fd, &go, 1, MSG_NOSIGNAL) != 1)
    return os_error("telling the task's init to go ahead: it is gone", errno);
  return {};
}

bool wait_for_go_ahead(int fd) {
  char go = 0;
  return receive(fd, &go, 1, 0) == 1 && go == 'g';
}

void send_report(int fd, const Report& report) {
  const std::string packet = report.failure ? encode(*report.failure) : std::string("started");
  // Nobody there to read it is no error: the task goes on without its launcher.
  static_cast<void>(::send(fd, packet.data(), packet.size(), MSG_NOSIGNAL));
}

std::optional<Report> receive_report(int fd) {
  std::vector<char> buffer(max_packet);
  const ssize_t got = receive(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got <= 0) return std::nullopt;
  const std::string_view packet(buffer.data(), static_cast<std::size_t>(got));
  if (packet == "started") return Report{};
  return Report{decode(packet)};
}

Error setup_error(Error error) {
  if (error.code == Code::not_found || error.code == Code::permission_denied)
    error.code = Code::failed_precondition;
  return error;
}

}  // namespace dvdi::launcher
