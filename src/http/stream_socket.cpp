#include "http/stream_socket.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <utility>

#include "linux/wait.h"

namespace dvdi::http {

namespace {

constexpr std::size_t most_at_once = std::size_t{16} << 10U;

bool would_block(int error_number) { return error_number == EAGAIN || error_number == EWOULDBLOCK; }

}  // namespace

StreamSocket::StreamSocket(UniqueFd socket, int stop_event)
    : socket_(std::move(socket)), stop_event_(stop_event) {}

Error StreamSocket::failed(std::string_view what) {
  const int error_number = errno;
  was_reset_ = was_reset_ || error_number == ECONNRESET || error_number == EPIPE;
  return os_error(what, error_number);
}

Result<bool> StreamSocket::receive_now(std::string& into) {
  std::array<char, most_at_once> buffer;  // not cleared: this is called for every piece
  for (;;) {
    const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got >= 0) {
      into.append(buffer.data(), static_cast<std::size_t>(got));
      return got > 0;
    }
    if (would_block(errno)) return true;
    if (errno != EINTR) return fail(failed("read from the socket"));
  }
}

Result<bool> StreamSocket::receive(const Context& context, std::string& into) {
  const std::size_t before = into.size();
  for (;;) {
    DVDI_TRY(const bool more, receive_now(into));
    if (!more || into.size() > before) return more;
    DVDI_CHECK(wait(context, POLLIN));
  }
}

Status StreamSocket::send(const Context& context, std::initializer_list<std::string_view> pieces,
                          Duration timeout) {
  std::array<iovec, 4> parts{};
  std::size_t count = 0;
  for (const std::string_view piece : pieces) {
    // sendmsg() only reads; iovec is the same for both directions.
    if (!piece.empty())
      parts.at(count++) = {.iov_base = const_cast<char*>(piece.data()), .iov_len = piece.size()};
  }
  std::size_t first = 0;
  while (first < count) {
    msghdr message{};
    message.msg_iov = &parts.at(first);
    message.msg_iovlen = count - first;
    const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (!would_block(errno)) return fail(failed("write to the socket"));
      DVDI_CHECK(wait(context.with_timeout(timeout), POLLOUT));
      continue;
    }
    auto left = static_cast<std::size_t>(sent);
    while (first < count && left >= parts.at(first).iov_len) left -= parts.at(first++).iov_len;
    if (left > 0) {
      iovec& part = parts.at(first);
      part.iov_base = static_cast<char*>(part.iov_base) + left;
      part.iov_len -= left;
    }
  }
  return {};
}

void StreamSocket::end_of_sending() { ::shutdown(socket_.get(), SHUT_WR); }

void StreamSocket::close() {
  // A program that another thread is about to start may have a copy of the descriptor until it executes: the
  // client must see the end now.
  if (socket_) ::shutdown(socket_.get(), SHUT_RDWR);
  socket_.reset();
}

Status StreamSocket::wait(const Context& context, short events) {
  std::array<pollfd, 2> descriptors{pollfd{.fd = socket_.get(), .events = events, .revents = 0},
                                    pollfd{.fd = stop_event_, .events = POLLIN, .revents = 0}};
  DVDI_CHECK(wait_ready(context, descriptors, "wait for the other side"));
  if (descriptors[0].revents != 0) return {};
  return fail({.code = Code::cancelled, .message = "the server stops"});
}

}  // namespace dvdi::http
