#include "cli/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "base/json.h"
#include "base/text.h"
#include "daemon/wire.h"

namespace dvdi::cli {

namespace {

constexpr std::size_t buffer_bytes = std::size_t{64} << 10;

// 0, or errno.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        // Somebody who shares the descriptor made it non-blocking (ssh and some shells do).
        pollfd wait{.fd = fd, .events = POLLOUT, .revents = 0};
        poll(&wait, 1, -1);
        continue;
      }
      return errno;
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

}  // namespace

Status Output::write(std::string_view text) {
  buffer_ += text;
  if (buffer_.size() >= buffer_bytes) return flush();
  return {};
}

Status Output::write_json(const boost::json::value& value) {
  DVDI_CHECK(write(json::serialize(value)));
  return write("\n");
}

Status Output::flush() {
  const int error = write_all(fd_, buffer_);
  buffer_.clear();
  if (error == 0) return {};
  if (error == EPIPE) reader_gone_ = true;
  return os_error("writing to standard output", error);
}

bool Output::reader_gone() {
  if (!reader_gone_) {
    pollfd state{.fd = fd_, .events = 0, .revents = 0};
    // POLLERR on the writing end of a pipe or a socket: nobody reads any more.
    if (poll(&state, 1, 0) == 1 && (state.revents & POLLERR) != 0) reader_gone_ = true;
  }
  return reader_gone_;
}

std::optional<bool> ask(const std::string& question) {
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDERR_FILENO) == 0) return std::nullopt;
  if (question.empty()) return false;
  write_all(STDERR_FILENO, fmt::format("{} [y/N] ", printable(question)));
  std::string answer;
  char c = 0;
  while (answer.size() < 100) {
    const ssize_t got = ::read(STDIN_FILENO, &c, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0 || c == '\n') break;
    answer += c;
  }
  return answer == "y" || answer == "Y" || answer == "yes";
}

bool have_standard_descriptors() {
  for (;;) {
    const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0) return false;
    if (fd > STDERR_FILENO) {
      ::close(fd);
      return true;
    }
    ::fcntl(fd, F_SETFD, 0);  // kept: a task gets it, too
  }
}

void say(std::string_view text) { say_as("dvdi", text); }

void say_as(std::string_view program, std::string_view text) {
  const std::string begin = fmt::format("{}: ", program);
  std::string out = begin;
  for (const char c : text) {
    out += c;
    if (c == '\n') out += begin;
  }
  out += '\n';
  write_all(STDERR_FILENO, out);
}

void say_error(const Error& error, Format format) {
  if (format == Format::json) {
    const json::object out{{"error", wire::to_json(error)}};
    write_all(STDERR_FILENO, json::serialize(out) + "\n");
    return;
  }
  say(fmt::format("{}: {}", code_name(error.code), error.text()));
}

}  // namespace dvdi::cli
