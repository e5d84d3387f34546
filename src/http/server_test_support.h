// For the tests of the server: a server in a folder of its own, and a client that sends what it is told to.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "http/server.h"
#include "linux/fd.h"

namespace dvdi::http {

// How many tasks or descriptors this process has: entries of a folder of /proc/self. Both are counted with
// what the counting itself needs, always the same.
inline long entries_of_proc_self(std::string_view folder) {
  const std::filesystem::directory_iterator all(fmt::format("/proc/self/{}", folder));
  return std::distance(begin(all), end(all));
}

// Until it holds; a test that waits for ever is ended by its runner.
inline void wait_until(const std::function<bool()>& holds) {
  while (!holds()) std::this_thread::yield();
}

inline sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(&address.sun_path[0], sizeof(address.sun_path) - 1);
  return address;
}

// A blocking client. What does not come within half a minute is missing.
class RawClient {
 public:
  explicit RawClient(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_un address = address_of(path);
    connected_ = ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
    const timeval patience{.tv_sec = 30, .tv_usec = 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  }

  bool connected() const { return connected_; }
  int get() const { return socket_.get(); }

  bool say(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  void end_of_sending() { ::shutdown(socket_.get(), SHUT_WR); }
  void close() { socket_.reset(); }

  // The next bytes; "" at the end, or where nothing came.
  std::string some() {
    std::string piece(65536, '\0');
    const ssize_t got = ::recv(socket_.get(), piece.data(), piece.size(), 0);
    piece.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    at_end_ = at_end_ || got == 0;
    return piece;
  }
  // Until `text` has come, and no byte further; what came then.
  std::string until(std::string_view text) {
    std::string seen;
    char byte = 0;
    while (!seen.ends_with(text) && ::recv(socket_.get(), &byte, 1, 0) == 1) seen += byte;
    return seen;
  }
  // To the end of the connection.
  std::string rest() {
    std::string all;
    for (std::string piece = some(); !piece.empty(); piece = some()) all += piece;
    return all;
  }
  bool at_end() const { return at_end_; }  // the server has closed: seen by some() or rest()

  // One answer, which must have a Content-Length: its head and its body.
  std::pair<std::string, std::string> answer() {
    std::string head = until("\r\n\r\n");
    const auto at = head.find("Content-Length: ");
    std::size_t left = at == std::string::npos ? 0 : std::stoul(head.substr(at + 16));
    std::string body;
    char byte = 0;
    while (left-- > 0 && ::recv(socket_.get(), &byte, 1, 0) == 1) body += byte;
    return {head, body};
  }

 private:
  UniqueFd socket_;
  bool connected_ = false;
  bool at_end_ = false;
};

inline constexpr std::string_view whole_request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

class HttpServer : public testing::Test {
 protected:
  HttpServer() {
    std::string pattern = "/tmp/dvdi-server-test-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  ~HttpServer() override {
    server_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  const std::string& folder() const { return folder_; }
  std::string socket_path() const { return folder_ + "/s"; }

  Server& serve(Handler handler, const ServerLimits& limits = {}, const Clock& clock = system_clock()) {
    auto listening = listen_unix(socket_path(), 0600);
    EXPECT_TRUE(listening) << listening.error().text();
    auto server = Server::start(std::move(*listening), std::move(handler), limits, clock);
    EXPECT_TRUE(server) << server.error().text();
    server_ = std::move(*server);
    return *server_;
  }
  // Answers with what it was asked: method, path, query and body.
  Server& serve_echo(const ServerLimits& limits = {}) { return serve(&echo, limits); }

  static void echo(const Context& context, IncomingRequest& request, Answer& answer) {
    const auto body = request.read_all(context, std::size_t{1} << 20U);
    if (!body) {
      std::ignore = answer.send(body.error().code == Code::resource_exhausted ? 413 : 418, "text/plain",
                                body.error().text());
      return;
    }
    std::ignore =
        answer.send(200, "text/plain",
                    fmt::format("{}|{}|{}|{}", request.method(), request.path(), request.query(), *body));
  }

  RawClient client() const { return RawClient(socket_path()); }
  // What comes back for these bytes, to the end of the connection.
  std::string exchange(std::string_view bytes) const {
    RawClient one = client();
    one.say(bytes);
    one.end_of_sending();
    return one.rest();
  }

  std::string folder_;
  std::unique_ptr<Server> server_;
};

}  // namespace dvdi::http
