#include "http/client.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <functional>
#include <semaphore>
#include <stop_token>
#include <thread>

#include "http/sigpipe.h"
#include "linux/fd.h"

namespace dvdi::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;

class TempDir {
 public:
  TempDir() {
    std::string pattern = "/tmp/dvdi-http-test-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(std::begin(address.sun_path), sizeof(address.sun_path) - 1);
  return address;
}

UniqueFd listen_at(const std::string& path, int backlog = 16) {
  sockaddr_un address = unix_address(path);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(::listen(socket.get(), backlog), 0);
  return socket;
}

// A free port, bound but not listened on: connections are refused.
UniqueFd bind_tcp(std::string& url) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  socklen_t size = sizeof(address);
  EXPECT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  url = fmt::format("http://127.0.0.1:{}", ntohs(address.sin_port));
  return socket;
}

constexpr std::size_t most_read = std::size_t{1} << 20U;

// Accepts connections one after the other and gives each, with its whole request read unless that is longer
// than most_read, to `serve`.
class ScriptedServer {
 public:
  using Serve = std::function<void(int connection)>;
  ScriptedServer(UniqueFd socket, Serve serve)
      : socket_(std::move(socket)),
        serve_(std::move(serve)),
        thread_([this](const std::stop_token& stop) { run(stop); }) {}
  ~ScriptedServer() { stop(); }
  void stop() {
    thread_.request_stop();
    ::shutdown(socket_.get(), SHUT_RDWR);  // ends accept()
    if (thread_.joinable()) thread_.join();
  }
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  const std::string& request() const { return request_; }  // of the last connection; after stop()
  int connections() const { return connections_; }

  static void say(int connection, std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = ::send(connection, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  // Until the client closes.
  static void hang(int connection) {
    char byte = 0;
    while (::recv(connection, &byte, 1, 0) > 0) {
    }
  }

 private:
  void run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const UniqueFd connection(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!connection) return;
      ++connections_;
      request_ = read_request(connection.get());
      serve_(connection.get());
    }
  }

  static std::string read_request(int connection) {
    std::string text;
    char byte = 0;
    while (!text.ends_with("\r\n\r\n") && ::recv(connection, &byte, 1, 0) == 1) text += byte;
    const auto at = text.find("Content-Length: ");
    std::size_t left = at == std::string::npos ? 0 : std::stoul(text.substr(at + 16));
    if (left > most_read) left = 0;  // as one that refuses a long body
    while (left-- > 0 && ::recv(connection, &byte, 1, 0) == 1) text += byte;
    return text;
  }

  UniqueFd socket_;
  Serve serve_;
  std::string request_;
  std::atomic<int> connections_ = 0;
  std::jthread thread_;
};

// Each way has code of its own, and does the same.
enum class Way { unix, tcp };

class HttpClient : public testing::TestWithParam<Way> {
 protected:
  static Context context() { return Context().with_timeout(seconds(30)); }

  std::string socket_path() const { return dir_.path() + "/s"; }
  Endpoint endpoint() const {
    return GetParam() == Way::unix ? Endpoint{.unix_socket = socket_path()} : Endpoint{.url = url_};
  }

  ScriptedServer& serve(ScriptedServer::Serve how) {
    server_.reset();
    std::filesystem::remove(socket_path());
    UniqueFd socket = GetParam() == Way::unix ? listen_at(socket_path()) : bind_tcp(url_);
    if (GetParam() == Way::tcp) ::listen(socket.get(), 16);
    server_ = std::make_unique<ScriptedServer>(std::move(socket), std::move(how));
    return *server_;
  }
  ScriptedServer& serve_text(std::string text) {
    return serve([text = std::move(text)](int connection) { ScriptedServer::say(connection, text); });
  }

  void expect_error(const Result<Response>& result, Code code, Outcome outcome) const {
    ASSERT_FALSE(result) << result->status << " " << result->body.substr(0, 200);
    EXPECT_EQ(code_name(result.error().code), code_name(code)) << result.error().text();
    EXPECT_EQ(result.error().outcome, outcome) << result.error().text();
    EXPECT_THAT(result.error().message, HasSubstr(endpoint().text().substr(0, 20)));
  }

  TempDir dir_;
  std::string url_ = "http://127.0.0.1:1";
  std::unique_ptr<ScriptedServer> server_;
};
INSTANTIATE_TEST_SUITE_P(Ways, HttpClient, testing::Values(Way::unix, Way::tcp), [](const auto& one) {
  return std::string(one.param == Way::unix ? "Unix" : "Tcp");
});

class HttpClientOnUnix : public HttpClient {};
INSTANTIATE_TEST_SUITE_P(Unix, HttpClientOnUnix, testing::Values(Way::unix));
class HttpClientOnTcp : public HttpClient {};
INSTANTIATE_TEST_SUITE_P(Tcp, HttpClientOnTcp, testing::Values(Way::tcp));

TEST_P(HttpClient, Posts) {
  auto& server = serve_text("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
  const auto answer = send(context(), endpoint(),
                           {.method = Method::post,
                            .path = "/a.b?c=d",
                            .headers = {"X-One: 1", "Accept: a/b"},
                            .body = "{\"x\":1}"});
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->body, "{}");
  server.stop();
  const std::string seen = server.request();
  EXPECT_THAT(seen,
              AllOf(HasSubstr("POST /a.b?c=d HTTP/1.1\r\n"),
                    HasSubstr(GetParam() == Way::unix ? "Host: localhost\r\n" : "Host: 127.0.0.1:"),
                    HasSubstr("X-One: 1\r\n"), HasSubstr("Accept: a/b\r\n"), testing::Not(HasSubstr("*/*")),
                    HasSubstr("Content-Length: 7\r\n"), testing::EndsWith("\r\n\r\n{\"x\":1}")));
}

TEST_P(HttpClient, TheHeadersAreThoseOfTheAnswerItself) {
  serve_text(
      "HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n"
      "HTTP/1.1 429 Slow Down\r\nRETRY-after:  5 \r\nX-Two: a\r\nX-Two: b\r\nContent-Length: 0\r\n\r\n");
  const auto answer = send(context(), endpoint(), {});
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 429);
  EXPECT_THAT(answer->headers,
              testing::UnorderedElementsAre(testing::Pair("retry-after", "5"), testing::Pair("x-two", "b"),
                                            testing::Pair("content-length", "0")));
}

TEST_P(HttpClient, GetsAnAnswerInChunks) {
  serve_text("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  const auto answer = send(context(), endpoint(), {.path = "/x"});
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 404);
  EXPECT_EQ(answer->body, "abc");
}

TEST_P(HttpClient, TakesAnAnswerByteByByte) {
  serve([](int connection) {
    for (const char c : std::string_view("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-One: 1\r\n"
                                         "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n"
                                         "X-Two: 2\r\n\r\n"))
      ScriptedServer::say(connection, std::string_view(&c, 1));
  });
  const auto answer = send(context(), endpoint(), {});
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->body, "abcde");
  EXPECT_EQ(answer->headers.count("x-one"), 1U);
}

// A server that refuses a body need not read it. (Over TCP its end may overtake its answer.)
TEST_P(HttpClientOnUnix, AnAnswerBeforeTheEndOfTheRequestCounts) {
  serve_text("HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno");
  const auto answer =
      send(context(), endpoint(), {.method = Method::post, .body = std::string(4 * most_read, 'x')});
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 413);
  EXPECT_EQ(answer->body, "no");
}

TEST_P(HttpClient, DeletesWithoutABody) {
  auto& server = serve_text("HTTP/1.1 204 No Content\r\n\r\n");
  const auto answer = send(context(), endpoint(), {.method = Method::del, .path = "/v"});
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 204);
  server.stop();
  EXPECT_THAT(server.request(),
              AllOf(testing::StartsWith("DELETE /v HTTP/1.1\r\n"), testing::EndsWith("\r\n\r\n")));
}

TEST_P(HttpClient, StreamsAnAnswerUntilTheCallerHasEnough) {
  // Each piece is sent only after the one before it was taken: the client does not wait for the end.
  std::counting_semaphore<> taken(1);
  serve([&](int connection) {
    ScriptedServer::say(connection, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 3; ++i) {
      taken.acquire();
      ScriptedServer::say(connection, fmt::format("2\r\n{}\n\r\n", i));
    }
    ScriptedServer::hang(connection);
  });
  std::vector<std::string> pieces;
  const auto answer = stream(context(), endpoint(), {}, {.body_bytes = 1}, [&](std::string_view piece) {
    pieces.emplace_back(piece);
    taken.release();
    return pieces.size() < 3;
  });
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->body, "");
  EXPECT_THAT(pieces, testing::ElementsAre("0\n", "1\n", "2\n"));
}

TEST_P(HttpClient, AStreamEndsWithTheAnswerOrSaysThatItBroke) {
  std::string all;
  const auto take = [&](std::string_view piece) {
    all += piece;
    return true;
  };
  serve_text("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
  const auto whole = stream(context(), endpoint(), {}, {}, take);
  ASSERT_TRUE(whole) << whole.error().text();
  EXPECT_EQ(all, "abc");
  serve_text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
  expect_error(stream(context(), endpoint(), {}, {}, take), Code::io, Outcome::unknown);
}

TEST_P(HttpClient, AnErrorInsteadOfAStreamComesWhole) {
  serve_text("HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nwhy?");
  bool called = false;
  const auto answer = stream(context(), endpoint(), {}, {}, [&](std::string_view) { return called = true; });
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 400);
  EXPECT_EQ(answer->body, "why?");
  EXPECT_FALSE(called);
}

TEST_P(HttpClientOnUnix, NobodyThereIsUnavailableAndNotSent) {
  expect_error(send(context(), endpoint(), {}), Code::unavailable, Outcome::not_sent);  // no file
  {
    const UniqueFd gone = listen_at(socket_path());
  }
  expect_error(send(context(), endpoint(), {}), Code::unavailable,
               Outcome::not_sent);  // a file without listener
}

TEST_P(HttpClientOnTcp, NobodyThereIsUnavailableAndNotSent) {
  const UniqueFd bound = bind_tcp(url_);
  expect_error(send(context(), endpoint(), {}), Code::unavailable, Outcome::not_sent);
}

TEST_P(HttpClientOnUnix, AFullQueueOfConnectionsIsUnavailableAndNotSent) {
  const UniqueFd listener = listen_at(socket_path(), 0);
  std::vector<UniqueFd> waiting;
  for (;;) {
    UniqueFd one(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const sockaddr_un address = unix_address(socket_path());
    if (::connect(one.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) break;
    waiting.push_back(std::move(one));
    ASSERT_LT(waiting.size(), 100U);
  }
  expect_error(send(context(), endpoint(), {}), Code::unavailable, Outcome::not_sent);
}

TEST_P(HttpClientOnUnix, APathLongerThanASocketAddressWorks) {
  const std::string deep = dir_.path() + "/" + std::string(100, 'd');
  ASSERT_EQ(::mkdir(deep.c_str(), 0700), 0);
  std::filesystem::create_directory_symlink(deep, dir_.path() + "/short");
  const ScriptedServer server(listen_at(dir_.path() + "/short/s"), [](int connection) {
    ScriptedServer::say(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });
  ASSERT_GT(deep.size() + 2, sizeof(sockaddr_un::sun_path));
  const auto answer = send(context(), {.unix_socket = deep + "/s"}, {});
  ASSERT_TRUE(answer) << answer.error().text();
  expect_error(send(context(), {.unix_socket = deep + "/" + std::string(120, 'f')}, {}),
               Code::invalid_argument, Outcome::not_sent);
}

TEST_P(HttpClient, TheDeadlineEndsACallThatIsNotAnswered) {
  serve(&ScriptedServer::hang);
  const auto start = system_clock().boot();
  expect_error(send(Context().with_timeout(milliseconds(150)), endpoint(), {}), Code::deadline_exceeded,
               Outcome::unknown);
  EXPECT_LT(system_clock().boot() - start, seconds(5));
}

TEST_P(HttpClient, TheDeadlineIsForTheWholeAnswer) {
  // There is always more to read: the client never sees silence, and never an end.
  serve([](int connection) {
    ScriptedServer::say(connection, "HTTP/1.1 200 OK\r\n\r\n");
    const std::string much(std::size_t{1} << 18U, 'x');
    while (::send(connection, much.data(), much.size(), MSG_NOSIGNAL) > 0) {
    }
  });
  const Context short_one = Context().with_timeout(milliseconds(150));
  int pieces = 0;
  const auto answer = stream(short_one, endpoint(), {}, {}, [&](std::string_view) {
    while (short_one.remaining() > Duration::zero()) std::this_thread::yield();
    ++pieces;
    return true;
  });
  expect_error(answer, Code::deadline_exceeded, Outcome::unknown);
  // libcurl gives away what it has read before it looks up.
  if (GetParam() == Way::unix) {
    EXPECT_EQ(pieces, 1);
  }
}

TEST_P(HttpClient, CancellationTakesEffectAtOnce) {
  std::counting_semaphore<> asked(0);
  serve([&](int connection) {
    asked.release();
    ScriptedServer::hang(connection);
  });
  // A wake-up ends the wait in less than a millisecond. Without it, libcurl's own timers do so after 200 ms
  // at the earliest. The best of five: the machine may be busy.
  Duration best = Duration::max();
  for (int i = 0; i < 5; ++i) {
    std::stop_source stop;
    BootTime cancelled_at;
    std::jthread canceller([&] {
      asked.acquire();
      cancelled_at = system_clock().boot();
      stop.request_stop();
    });
    expect_error(send(context().with_stop(stop.get_token()), endpoint(), {}), Code::cancelled,
                 Outcome::unknown);
    const BootTime ended_at = system_clock().boot();
    canceller.join();
    best = std::min(best, ended_at - cancelled_at);
  }
  EXPECT_LT(best, milliseconds(100));
}

TEST_P(HttpClient, NothingIsSentInAContextThatHasEnded) {
  auto& server = serve_text("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  std::stop_source stop;
  stop.request_stop();
  expect_error(send(context().with_stop(stop.get_token()), endpoint(), {}), Code::cancelled,
               Outcome::not_sent);
  expect_error(send(Context().with_timeout(Duration::zero()), endpoint(), {}), Code::deadline_exceeded,
               Outcome::not_sent);
  EXPECT_EQ(server.connections(), 0);
}

TEST_P(HttpClient, AnAnswerHasALimit) {
  const std::string head = "HTTP/1.1 200 OK\r\n\r\n";
  serve([&](int connection) { ScriptedServer::say(connection, head + std::string(1000, 'x')); });
  const auto fits = send(context(), endpoint(), {}, {.body_bytes = 1000});
  ASSERT_TRUE(fits) << fits.error().text();
  EXPECT_EQ(fits->body.size(), 1000U);
  expect_error(send(context(), endpoint(), {}, {.body_bytes = 999}), Code::resource_exhausted,
               Outcome::unknown);
}

TEST_P(HttpClient, AHeaderHasALimit) {
  serve([](int connection) {
    ScriptedServer::say(connection, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 100; ++i)
      ScriptedServer::say(connection, fmt::format("X-{}: {}\r\n", i, std::string(1000, 'h')));
    ScriptedServer::say(connection, "\r\n");
  });
  expect_error(send(context(), endpoint(), {}), Code::resource_exhausted, Outcome::unknown);
}

TEST_P(HttpClient, ABrokenConnectionIsAnUnknownOutcomeAndNeverSentAgain) {
  auto& server = serve([](int) {});
  expect_error(send(context(), endpoint(), {.method = Method::post}), Code::io, Outcome::unknown);
  EXPECT_EQ(server.connections(), 1);
  serve_text("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
  expect_error(send(context(), endpoint(), {}), Code::io, Outcome::unknown);
}

TEST_P(HttpClient, WhatIsNotHttpIsSaidSo) {
  serve_text("hello, who is there?\r\n\r\n");
  expect_error(send(context(), endpoint(), {}), Code::corrupted, Outcome::unknown);
}

TEST_P(HttpClient, ARedirectIsAnAnswerLikeAnyOther) {
  auto& server = serve_text("HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
  const auto answer = send(context(), endpoint(), {.method = Method::post, .body = "x"});
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 307);
  EXPECT_EQ(server.connections(), 1);
}

TEST_P(HttpClientOnTcp, ProxiesOfTheEnvironmentAreNotUsed) {
  serve_text("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  std::string nobody;
  const UniqueFd bound = bind_tcp(nobody);
  ASSERT_EQ(::setenv("http_proxy", nobody.c_str(), 1), 0);
  const auto answer = send(context(), endpoint(), {});
  ::unsetenv("http_proxy");
  EXPECT_TRUE(answer) << answer.error().text();
}

TEST_P(HttpClient, RefusesWhatWouldBeAnotherRequest) {
  auto& server = serve_text("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  expect_error(send(context(), endpoint(), {.headers = {"X: 1\r\nY: 2"}}), Code::invalid_argument,
               Outcome::not_sent);
  expect_error(send(context(), endpoint(), {.path = "/ HTTP/1.1\r\n"}), Code::invalid_argument,
               Outcome::not_sent);
  expect_error(send(context(), endpoint(), {.path = "x"}), Code::invalid_argument, Outcome::not_sent);
  const auto file = send(context(), {.url = "file:///etc/passwd"}, {});
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, Code::invalid_argument);
  EXPECT_EQ(server.connections(), 0);
}

TEST(SigpipeBlock, SwallowsItsOwnSignalAndKeepsAnotherOnes) {
  // Would end this program if it got through.
  const auto write_into_nothing = [] {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    ::close(ends[0]);
    EXPECT_EQ(::write(ends[1], "x", 1), -1);
    ::close(ends[1]);
  };
  {
    const SigpipeBlock block;
    write_into_nothing();
  }
  const SigpipeBlock outer;
  write_into_nothing();
  {
    const SigpipeBlock inner;
  }
  sigset_t pending;
  ASSERT_EQ(sigpending(&pending), 0);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 1);
}

}  // namespace
}  // namespace dvdi::http
