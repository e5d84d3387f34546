// As little HTTP/1.1 over a Unix socket as a benchmark's floor needs: whole messages with a Content-Length,
// on connections that stay open. Nothing of dvdi's, since it is what dvdi is held against.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

namespace bench {

[[noreturn]] inline void fail(const char* what) {
  std::perror(what);
  std::_Exit(1);
}

inline sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    errno = ENAMETOOLONG;
    fail(path.c_str());
  }
  std::memcpy(&address.sun_path[0], path.c_str(), path.size() + 1);
  return address;
}

inline void write_all(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t n = ::send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    if (n < 0) return;  // the other side sees an end
    data.remove_prefix(static_cast<std::size_t>(n));
  }
}

struct Message {
  std::string_view start_line;
  std::string_view body;
};

// One end of a connection. The message is valid until the next one is read.
class Stream {
 public:
  explicit Stream(int fd) : fd_(fd) {}
  ~Stream() { ::close(fd_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // False: the other side has closed.
  bool read(Message& message) {
    buffer_.erase(0, used_);
    used_ = 0;
    std::size_t head = 0;
    while ((head = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!more()) return false;
    }
    head += 4;
    std::size_t length = 0;
    constexpr std::string_view name = "ontent-length: ";
    std::size_t at = buffer_.find(name);
    if (at == std::string::npos || at > head) at = buffer_.find("ontent-Length: ");
    if (at != std::string::npos && at < head) {
      std::from_chars(buffer_.data() + at + name.size(), buffer_.data() + head, length);
    }
    while (buffer_.size() < head + length) {
      if (!more()) return false;
    }
    used_ = head + length;
    const std::string_view all(buffer_);
    message.start_line = all.substr(0, all.find("\r\n"));
    message.body = all.substr(head, length);
    return true;
  }

  void write(std::string_view data) const { write_all(fd_, data); }

 private:
  bool more() {
    char piece[16384];
    const ssize_t n = ::recv(fd_, &piece[0], sizeof(piece), 0);
    if (n <= 0) return false;
    buffer_.append(&piece[0], static_cast<std::size_t>(n));
    return true;
  }

  int fd_;
  std::string buffer_;
  std::size_t used_ = 0;
};

inline int connect_to(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  const sockaddr_un address = address_of(path);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) fail(path.c_str());
  return fd;
}

inline std::string post(std::string_view path, std::string_view body) {
  std::string text = "POST ";
  text += path;
  text += " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";
  text += std::to_string(body.size());
  text += "\r\n\r\n";
  text += body;
  return text;
}

inline std::string answer(std::string_view body) {
  std::string text = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
  text += std::to_string(body.size());
  text += "\r\n\r\n";
  text += body;
  return text;
}

// A thread for each connection, for ever. `handle` gets the path without "POST " and the body.
inline void serve(const std::string& path,
                  const std::function<std::string(std::string_view path, std::string_view body)>& handle) {
  ::unlink(path.c_str());
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = address_of(path);
  if (listener < 0 || ::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(listener, 4096) != 0)
    fail(path.c_str());
  while (true) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) fail("accept");
    std::thread([fd, &handle] {
      Stream stream(fd);
      Message message;
      while (stream.read(message)) {
        const std::size_t begin = message.start_line.find(' ') + 1;
        const std::string_view path_only =
            message.start_line.substr(begin, message.start_line.find(' ', begin) - begin);
        stream.write(answer(handle(path_only, message.body)));
      }
    }).detach();
  }
}

}  // namespace bench
