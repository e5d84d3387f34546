#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <latch>
#include <optional>
#include <thread>

#include "http/client.h"
#include "http/server_test_support.h"

namespace dvdi::http {
namespace {

using testing::HasSubstr;

Context minute() { return Context().with_timeout(std::chrono::minutes(1)); }

class HttpConnections : public HttpServer {
 protected:
  Endpoint endpoint() const { return {.unix_socket = socket_path()}; }
  Result<Response> post(const std::string& body, const Context& context = minute()) {
    return connections_->send(context, endpoint(), {.method = Method::post, .path = "/p", .body = body});
  }
  std::string answer(const std::string& body) {
    const auto response = post(body);
    return response ? response->body : response.error().text();
  }

  std::optional<Connections> connections_{std::in_place, 2};
};

// A server that does one thing with each connection, in order.
class Script {
 public:
  using Step = std::function<void(int connection)>;
  Script(const std::string& path, std::vector<Step> steps)
      : listener_(*listen_unix(path, 0600)), thread_([this, all = std::move(steps)] {
          for (const Step& step : all) {
            pollfd waits{.fd = listener_.get(), .events = POLLIN, .revents = 0};
            ASSERT_EQ(::poll(&waits, 1, 30'000), 1) << "nobody connects";
            const UniqueFd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            ++accepted_;
            step(connection.get());
          }
        }) {}
  int accepted() const { return accepted_; }
  void end() { thread_.join(); }

  // Reads a request and answers it.
  static Step answers(std::string body) {
    return [body = std::move(body)](int connection) {
      read(connection);
      say(connection, body);
    };
  }
  static std::string read(int connection) {
    std::string text(65536, '\0');
    const ssize_t got = ::recv(connection, text.data(), text.size(), 0);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
  }
  static void say(int connection, std::string_view body, std::string_view header = "") {
    const std::string text =
        fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{}\r\n{}", body.size(), header, body);
    ASSERT_EQ(::send(connection, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }

 private:
  UniqueFd listener_;
  std::atomic<int> accepted_ = 0;
  std::jthread thread_;
};

TEST_F(HttpConnections, OneIsUsedAgain) {
  auto& server = serve_echo();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(answer(std::to_string(i)), fmt::format("POST|/p||{}", i));
    EXPECT_EQ(server.connections(), 1U);
  }
  connections_.reset();
  wait_until([&] { return server.connections() == 0; });
}

TEST_F(HttpConnections, CallsAtTheSameTimeHaveOneEachAndAFewAreKept) {
  std::latch all(5);
  auto& server = serve([&](const Context& context, IncomingRequest& request, Answer& answer) {
    all.arrive_and_wait();
    echo(context, request, answer);
  });
  std::vector<std::jthread> callers;
  for (int i = 0; i < 5; ++i) {
    callers.emplace_back([&, i] { EXPECT_EQ(answer(std::to_string(i)), fmt::format("POST|/p||{}", i)); });
  }
  callers.clear();
  wait_until([&] { return server.connections() == 2; });
}

TEST_F(HttpConnections, AServerThatWasStartedAgainIsFound) {
  serve_echo();
  EXPECT_EQ(answer("a"), "POST|/p||a");
  server_.reset();
  EXPECT_EQ(post("b").error().outcome, Outcome::not_sent);
  serve_echo();
  EXPECT_EQ(answer("c"), "POST|/p||c");
}

TEST_F(HttpConnections, AnotherServerAtThePathIsAskedAndNotTheOldOne) {
  serve([](const Context&, IncomingRequest&, Answer& answer) {
    std::ignore = answer.send(200, "text/plain", "old");
  });
  EXPECT_EQ(answer("a"), "old");
  const auto old = std::move(server_);  // it runs on
  ASSERT_EQ(::unlink(socket_path().c_str()), 0);
  serve_echo();
  EXPECT_EQ(answer("b"), "POST|/p||b");
}

TEST_F(HttpConnections, OneThatTheServerHasClosedIsNotUsed) {
  Script server(socket_path(), {Script::answers("one"), Script::answers("two")});
  EXPECT_EQ(answer("a"), "one");
  EXPECT_EQ(answer("b"), "two");
  server.end();
}

TEST_F(HttpConnections, OneThatEndsBeforeTheRequestWasReadIsReplaced) {
  std::string second;
  Script server(socket_path(), {[](int connection) {
                                  Script::read(connection);
                                  Script::say(connection, "one");
                                  pollfd more{.fd = connection, .events = POLLIN, .revents = 0};
                                  ASSERT_EQ(::poll(&more, 1, 30'000),
                                            1);  // the next request is there; not read
                                },
                                [&](int connection) {
                                  second = Script::read(connection);
                                  Script::say(connection, "two");
                                }});
  EXPECT_EQ(answer("a"), "one");
  EXPECT_EQ(answer("b"), "two");
  server.end();
  EXPECT_THAT(second, HasSubstr("\r\n\r\nb"));
}

// Whoever has read it may have done it.
TEST_F(HttpConnections, ARequestThatWasReadIsNotSentAgain) {
  Script server(socket_path(), {[](int connection) {
                  Script::read(connection);
                  Script::say(connection, "one");
                  EXPECT_THAT(Script::read(connection), HasSubstr("\r\n\r\nb"));
                }});
  EXPECT_EQ(answer("a"), "one");
  const auto lost = post("b");
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code, Code::io);
  EXPECT_EQ(lost.error().outcome, Outcome::unknown);
  server.end();
  EXPECT_EQ(server.accepted(), 1);
}

TEST_F(HttpConnections, AnAnswerThatBreaksOffIsNoReasonToAskAgain) {
  Script server(socket_path(), {[](int connection) {
                  Script::read(connection);
                  Script::say(connection, "one");
                  pollfd more{.fd = connection, .events = POLLIN, .revents = 0};
                  ASSERT_EQ(::poll(&more, 1, 30'000), 1);
                  ASSERT_EQ(::send(connection, "HTTP/1.1 200", 12, MSG_NOSIGNAL), 12);  // and closed, unread
                }});
  EXPECT_EQ(answer("a"), "one");
  const auto lost = post("b");
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().outcome, Outcome::unknown);
  server.end();
}

TEST_F(HttpConnections, OneIsNotKeptWhereTheServerSaysSo) {
  Script server(socket_path(), {[](int connection) {
                                  Script::read(connection);
                                  Script::say(connection, "one", "Connection: close\r\n");
                                  EXPECT_EQ(Script::read(connection), "") << "the client closes it";
                                },
                                Script::answers("two")});
  EXPECT_EQ(answer("a"), "one");
  EXPECT_EQ(answer("b"), "two");
  server.end();
}

TEST_F(HttpConnections, OneIsNotKeptWithSomethingUnread) {
  Script server(socket_path(), {[](int connection) {
                                  Script::read(connection);
                                  const std::string_view both =
                                      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
                                      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong";
                                  ::send(connection, both.data(), both.size(), MSG_NOSIGNAL);
                                  EXPECT_EQ(Script::read(connection), "");
                                },
                                Script::answers("two")});
  EXPECT_EQ(answer("a"), "one");
  EXPECT_EQ(answer("b"), "two");
  server.end();
}

TEST_F(HttpConnections, ACallThatWasCancelledEndsItsConnection) {
  std::stop_source stop;
  auto& server = serve([&](const Context& context, IncomingRequest& request, Answer& answer) {
    if (request.path() == "/p" && !stop.stop_requested()) {
      stop.request_stop();
      wait_until([&] { return context.cancelled(); });  // the client has gone
      return;
    }
    echo(context, request, answer);
  });
  EXPECT_EQ(post("a", minute().with_stop(stop.get_token())).error().code, Code::cancelled);
  EXPECT_EQ(answer("b"), "POST|/p||b");
  wait_until([&] { return server.connections() == 1; });
}

// Both would read from one connection.
TEST_F(HttpConnections, AForkedChildHasItsOwn) {
  auto& server = serve_echo();
  EXPECT_EQ(answer("a"), "POST|/p||a");
  std::array<int, 2> until_seen{};  // the child stays until the other end is closed
  ASSERT_EQ(::pipe2(until_seen.data(), O_CLOEXEC), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::close(until_seen[1]);
    const bool answered = answer("child") == "POST|/p||child";
    char none = 0;
    (void)!::read(until_seen[0], &none, 1);
    ::_exit(answered ? 0 : 1);
  }
  ::close(until_seen[0]);
  wait_until([&] { return server.connections() == 2; });
  ::close(until_seen[1]);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  wait_until([&] { return server.connections() == 1; });
  EXPECT_EQ(answer("b"), "POST|/p||b") << "the parent's is whole";
  EXPECT_EQ(server.connections(), 1U);
}

}  // namespace
}  // namespace dvdi::http
