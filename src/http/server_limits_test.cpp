// What a client may not do, and what it is told then.
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <semaphore>
#include <thread>
#include <vector>

#include "http/server_test_support.h"

namespace dvdi::http {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr std::string_view unfinished = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n";

bool readable(const RawClient& client) {
  pollfd one{.fd = client.get(), .events = POLLIN, .revents = 0};
  return ::poll(&one, 1, 0) == 1;
}

int unread_by_server(const RawClient& client) {
  int bytes = 0;
  return ::ioctl(client.get(), SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

TEST_F(HttpServer, AHeadThatDoesNotComeIs408) {
  serve_echo({.header_timeout = milliseconds(20)});
  auto one = client();
  one.say("GET / HTTP/1.1\r\nHost:");
  EXPECT_THAT(one.rest(),
              AllOf(StartsWith("HTTP/1.1 408 Request Timeout\r\n"), HasSubstr("Connection: close\r\n"),
                    HasSubstr("application/problem+json"), HasSubstr("\"deadline_exceeded\"")));
  EXPECT_TRUE(one.at_end());
}

// A millisecond later each time that it is asked: however fast the machine is, time passes with every step.
class TickingClock final : public Clock {
 public:
  BootTime boot() const override { return BootTime(milliseconds(++ticks_)); }
  WallTime wall() const override { return system_clock().wall(); }

 private:
  mutable std::atomic<int> ticks_ = 0;
};

TEST_F(HttpServer, AHeadThatDripsIs408Too) {
  const TickingClock clock;
  serve(&echo, {.header_timeout = milliseconds(200)}, clock);
  auto one = client();
  one.say("GET / HTTP/1.1\r\nX: ");
  // Always something new, never an end: the time is for the whole head, not for each of its bytes.
  for (int i = 0; i < 10000 && !readable(one); ++i) {
    if (!one.say("x")) break;
    wait_until([&] { return readable(one) || unread_by_server(one) == 0; });
  }
  EXPECT_THAT(one.rest(), StartsWith("HTTP/1.1 408 "));
  server_.reset();  // before its clock
}

TEST_F(HttpServer, ABodyThatDoesNotComeIs408WhateverTheHandlerSays) {
  Code seen{};
  serve(
      [&](const Context& context, IncomingRequest& request, Answer& answer) {
        const auto body = request.read_all(context, 100);
        if (!body) seen = body.error().code;
        std::ignore = answer.send(418, "text/plain", "teapot");
      },
      {.body_timeout = milliseconds(20)});
  auto one = client();
  one.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
  EXPECT_THAT(one.rest(), AllOf(StartsWith("HTTP/1.1 408 "), Not(HasSubstr("teapot"))));
  server_.reset();  // what the handler wrote is read here
  EXPECT_EQ(code_name(seen), code_name(Code::deadline_exceeded));
}

TEST_F(HttpServer, TheHandlersOwnDeadlineIsItsOwnAffair) {
  serve([&](const Context& context, IncomingRequest& request, Answer& answer) {
    const auto body = request.read_all(context.with_timeout(milliseconds(1)), 100);
    std::ignore = answer.send(body ? 200 : 504, "text/plain", "mine");
  });
  auto one = client();
  one.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
  EXPECT_THAT(one.answer().first, StartsWith("HTTP/1.1 504 "));
}

TEST_F(HttpServer, AClientThatDoesNotReadIsLeft) {
  std::binary_semaphore ended(0);
  Code seen{};
  auto& server = serve(
      [&](const Context& context, IncomingRequest&, Answer& answer) {
        Status status = answer.start(200, "text/plain");
        const std::string piece(100000, 'x');
        while (status) status = answer.write(context, piece);
        seen = status.error().code;
        // Once the client has gone, all that is written fails.
        EXPECT_FALSE(answer.write(context, "more"));
        ended.release();
      },
      {.write_timeout = milliseconds(20)});
  auto one = client();
  one.say(whole_request);
  ended.acquire();
  EXPECT_EQ(code_name(seen), code_name(Code::deadline_exceeded));
  wait_until([&] { return server.connections() == 0; });
  EXPECT_THAT(one.rest(), Not(EndsWith("0\r\n\r\n")));
}

// Stands still until the test says otherwise.
class StandingClock final : public Clock {
 public:
  BootTime boot() const override { return BootTime(milliseconds(passed_)); }
  WallTime wall() const override { return system_clock().wall(); }
  void advance(milliseconds time) { passed_ += time.count(); }

 private:
  std::atomic<std::int64_t> passed_ = 0;
};

TEST_F(HttpServer, AnIdleConnectionIsClosed) {
  StandingClock clock;
  auto& server = serve(&echo, {.idle_timeout = milliseconds(20)}, clock);
  // Until the server has closed it: when its wait begins is not seen from here.
  const auto stays_idle = [&](const RawClient& client) {
    wait_until([&] {
      clock.advance(milliseconds(10));
      return readable(client);
    });
  };
  auto fresh = client();
  stays_idle(fresh);
  EXPECT_EQ(fresh.rest(), "");
  EXPECT_TRUE(fresh.at_end());
  auto used = client();
  used.say(whole_request);
  EXPECT_EQ(used.answer().second, "GET|/||");
  stays_idle(used);
  EXPECT_EQ(used.rest(), "");
  EXPECT_TRUE(used.at_end());
  wait_until([&] { return server.connections() == 0; });
  server_.reset();  // before its clock
}

TEST_F(HttpServer, AHeadHasALimit) {
  serve_echo({.header_bytes = 1000});
  const auto head_of = [](std::size_t bytes) {
    std::string head = "GET / HTTP/1.1\r\nHost: x\r\nX: ";
    head += std::string(bytes - head.size() - 4, 'x');
    return head + "\r\n\r\n";
  };
  EXPECT_THAT(exchange(head_of(1000)), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(exchange(head_of(1001)),
              AllOf(StartsWith("HTTP/1.1 431 Request Header Fields Too Large\r\n"), HasSubstr("1000 bytes")));
  EXPECT_THAT(exchange("GET /" + std::string(2000, 'x')), StartsWith("HTTP/1.1 431 "));
  // It is not that the end was missing: a client that sends without end is told as well.
  auto endless = client();
  while (endless.say("X: y\r\n") && !readable(endless)) {
  }
  EXPECT_THAT(endless.rest(), StartsWith("HTTP/1.1 4"));
}

TEST_F(HttpServer, ABodyHasTheHandlersLimit) {
  serve([](const Context& context, IncomingRequest& request, Answer& answer) {
    const auto body = request.read_all(context, 1000);
    if (body) return static_cast<void>(answer.send(200, "", std::to_string(body->size())));
    EXPECT_EQ(code_name(body.error().code), code_name(Code::resource_exhausted));
    std::ignore = answer.send(413, "", "too long");
  });
  const auto sized = [](std::size_t bytes) {
    return fmt::format("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", bytes,
                       std::string(bytes, 'x'));
  };
  const auto chunked = [](std::size_t bytes) {
    return fmt::format(
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n", bytes,
        std::string(bytes, 'x'));
  };
  EXPECT_THAT(exchange(sized(1000)), EndsWith("1000"));
  EXPECT_THAT(exchange(sized(1001)), AllOf(StartsWith("HTTP/1.1 413 "), EndsWith("too long")));
  EXPECT_THAT(exchange(chunked(1000)), EndsWith("1000"));
  EXPECT_THAT(exchange(chunked(1001)), StartsWith("HTTP/1.1 413 "));
  // Nobody asks for a body that is known to be too long.
  EXPECT_THAT(exchange("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n"),
              StartsWith("HTTP/1.1 413 "));
  // A client that goes on sending sees the answer all the same.
  auto one = client();
  one.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
  one.say(std::string(500000, 'x'));
  EXPECT_THAT(one.answer().first, StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpServer, TheLineOfAChunkAndTheTrailersHaveALimit) {
  serve_echo({.header_bytes = 1000});
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_THAT(exchange(head + "1;" + std::string(100000, 'x') + "\r\nx\r\n0\r\n\r\n"),
              StartsWith("HTTP/1.1 400 "));
  std::string trailers;
  for (int i = 0; i < 10000; ++i) trailers += "X: yyyyyyyy\r\n";
  EXPECT_THAT(exchange(head + "1\r\nx\r\n0\r\n" + trailers + "\r\n"), StartsWith("HTTP/1.1 400 "));
}

TEST_F(HttpServer, ARequestThatIsCutShortIs400) {
  serve_echo();
  const auto is_400 = AllOf(StartsWith("HTTP/1.1 400 Bad Request\r\n"), HasSubstr("\"invalid_argument\""));
  EXPECT_THAT(exchange("GET / HT"), is_400);
  EXPECT_THAT(exchange("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"), is_400);
  EXPECT_THAT(exchange("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
              is_400);
  EXPECT_EQ(exchange(""), "");
}

TEST_F(HttpServer, WhatIsMalformedOrAmbiguousEndsTheConnection) {
  std::atomic<int> answered = 0;
  serve([&](const Context& context, IncomingRequest& request, Answer& answer) {
    if (request.path() == "/smuggled") ++answered;
    echo(context, request, answer);
  });
  const std::string smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
  const auto expect = [&](int status, const std::string& bytes) {
    const std::string all = exchange(bytes + smuggled);
    EXPECT_THAT(all, StartsWith(fmt::format("HTTP/1.1 {} ", status))) << bytes;
    EXPECT_THAT(all, HasSubstr("Connection: close\r\n")) << bytes;
  };
  const std::string start = "POST / HTTP/1.1\r\nHost: x\r\n";
  expect(400, start + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
  expect(400, start + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n");
  expect(400, start + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx");
  expect(400, start + "Transfer-Encoding: chunked\r\n\r\nZ\r\nxx\r\n0\r\n\r\n");
  expect(400, start + "Transfer-Encoding: chunked\r\n\r\n1\r\nxxx\r\n0\r\n\r\n");
  expect(501, start + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
  expect(400, "\x16\x03\x01\x02\r\n\r\n");  // TLS
  expect(400, "GET / HTTP/2.0\r\nHost: x\r\n\r\n");
  expect(400, "GET /" + std::string(1, '\0') + " HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(answered, 0);
}

TEST_F(HttpServer, ConnectionsHaveALimit) {
  auto& server = serve_echo({.connections = 2});
  std::vector<RawClient> inside;
  for (int i = 0; i < 2; ++i) {
    inside.push_back(client());
    inside.back().say(unfinished);
  }
  // Some more are told when they ask, ...
  std::vector<RawClient> outside;
  for (int i = 0; i < 64; ++i) outside.push_back(client());
  wait_until([&] { return server.connections() == 66; });
  // ... and the rest at once.
  auto beyond = client();
  EXPECT_THAT(beyond.rest(),
              AllOf(StartsWith("HTTP/1.1 503 Service Unavailable\r\n"), HasSubstr("\"unavailable\"")));
  for (RawClient& one : outside) {
    ASSERT_TRUE(one.say(whole_request));
    EXPECT_THAT(one.rest(), AllOf(StartsWith("HTTP/1.1 503 Service Unavailable\r\n"),
                                  HasSubstr("Connection: close\r\n"), HasSubstr("too many connections")));
    EXPECT_TRUE(one.at_end());
  }
  wait_until([&] { return server.connections() == 2; });
  // One that is kept for a next request makes room, and the one that is at work stays.
  inside.front().say("x");
  EXPECT_EQ(inside.front().answer().second, "POST|/||x");
  std::optional<RawClient> again;
  wait_until([&] {
    again.emplace(client());  // until the other one is seen to be idle
    again->say(whole_request);
    return again->answer().first.starts_with("HTTP/1.1 200 ");
  });
  EXPECT_EQ(inside.front().rest(), "");
  EXPECT_TRUE(inside.front().at_end());
  inside.back().say("y");
  EXPECT_EQ(inside.back().answer().second, "POST|/||y");
}

// Connected as another user, which one thread may be for a moment.
RawClient client_of(uid_t uid, const std::string& path) {
  std::optional<RawClient> client;
  std::thread([&] {
    EXPECT_EQ(::syscall(SYS_setresuid, -1, uid, -1), 0);
    client.emplace(path);
  }).join();
  return *std::move(client);
}

TEST_F(HttpServer, OneUserDoesNotKeepTheOthersOut) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  auto& server = serve_echo({.connections_of_user = 2});
  for (const std::string& place : {folder(), socket_path()}) ASSERT_EQ(::chmod(place.c_str(), 0777), 0);
  std::vector<RawClient> inside;
  for (const uid_t uid : {65534U, 65534U, 65533U, 0U, 0U, 0U}) {
    inside.push_back(client_of(uid, socket_path()));
    inside.back().say(unfinished);
  }
  wait_until([&] { return server.connections() == 6; });
  EXPECT_THAT(client_of(65534, socket_path()).rest(),
              AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("this user has too many connections")));
  // One that he keeps for a next request makes room for another one of his.
  for (RawClient& one : inside) {
    one.say("x");
    EXPECT_EQ(one.answer().second, "POST|/||x");
  }
  std::optional<RawClient> again;
  wait_until([&] {
    again.emplace(client_of(65534, socket_path()));
    again->say(whole_request);
    return again->answer().first.starts_with("HTTP/1.1 200 ");
  });
  wait_until([&] { return server.connections() == 6; });  // the one that made room has gone
  for (std::size_t i = 2; i < inside.size(); ++i) {
    inside[i].say(whole_request);
    EXPECT_EQ(inside[i].answer().second, "GET|/||") << "another user's stay";
  }
}

// Sets the limit of descriptors of this process for as long as it lives.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t most) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit lower{.rlim_cur = most, .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &lower);
  }
  ~DescriptorLimit() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;

 private:
  rlimit before_{};
};

TEST_F(HttpServer, WithoutDescriptorsAClientIsToldAndLaterOnesAreServed) {
  serve_echo();
  auto first = client();
  first.say(whole_request);
  EXPECT_EQ(first.answer().second, "GET|/||");
  {
    // What a client opens must be open before there is no more: the limit is on numbers, and all below are
    // taken.
    std::vector<UniqueFd> sockets;
    for (int i = 0; i < 3; ++i) sockets.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    std::vector<UniqueFd> taken;
    do {
      taken.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    } while (taken.back().get() < sockets.back().get());
    const DescriptorLimit none_left(static_cast<rlim_t>(taken.back().get()) + 1);
    const sockaddr_un address = address_of(socket_path());
    for (const UniqueFd& one : sockets) {
      ASSERT_EQ(::connect(one.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
      std::string answer(4096, '\0');
      const ssize_t got = ::recv(one.get(), answer.data(), answer.size(), 0);
      EXPECT_GT(got, 0);
      EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("no file descriptor left")));
    }
    // Those that are served already do not notice.
    first.say(whole_request);
    EXPECT_EQ(first.answer().second, "GET|/||");
  }
  auto later = client();
  later.say(whole_request);
  EXPECT_EQ(later.answer().second, "GET|/||");
}

TEST_F(HttpServer, AClientThatCannotEvenBeToldWaitsUntilThereIsRoom) {
  std::atomic<int> started = 0;
  std::atomic<int> gone = 0;
  serve([&](const Context& context, IncomingRequest& request, Answer& answer) {
    if (request.path() != "/stay") return echo(context, request, answer);
    ++started;
    wait_until([&] { return context.cancelled(); });
    ++gone;
  });
  std::vector<RawClient> staying;
  for (int i = 0; i < 2; ++i) {
    staying.push_back(client());
    staying.back().say("GET /stay HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  wait_until([&] { return started == 2; });
  const UniqueFd early(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  {
    // Below the number of every descriptor that could be given up for the client.
    const DescriptorLimit nothing(3);
    const sockaddr_un address = address_of(socket_path());
    ASSERT_EQ(::connect(early.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(::send(early.get(), whole_request.data(), whole_request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(whole_request.size()));
    // Once the second of two clients that went one after the other has been missed, the new one has been seen
    // before it. And all else goes on.
    for (int i = 0; i < 2; ++i) {
      staying.at(static_cast<std::size_t>(i)).close();
      wait_until([&] { return gone == i + 1; });
    }
    char byte = 0;
    EXPECT_EQ(::recv(early.get(), &byte, 1, MSG_DONTWAIT), -1);
    EXPECT_EQ(errno, EAGAIN);
  }
  std::string answer(4096, '\0');
  EXPECT_GT(::recv(early.get(), answer.data(), answer.size(), 0), 0);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
}

}  // namespace
}  // namespace dvdi::http
