#include "http/server.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <semaphore>

#include "http/client.h"
#include "http/server_test_support.h"

namespace dvdi::http {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr std::string_view host = "Host: x\r\n";

std::string get(std::string_view target) { return fmt::format("GET {} HTTP/1.1\r\n{}\r\n", target, host); }
std::string post(std::string_view fields, std::string_view body) {
  return fmt::format("POST /p HTTP/1.1\r\n{}{}\r\n{}", host, fields, body);
}

TEST_F(HttpServer, AnswersOurOwnClient) {
  serve_echo();
  const Context context = Context().with_timeout(std::chrono::seconds(30));
  const Endpoint endpoint{.unix_socket = socket_path()};
  const auto posted =
      send(context, endpoint, {.method = Method::post, .path = "/a%2Fb?c=d&e", .body = "hello"});
  ASSERT_TRUE(posted) << posted.error().text();
  EXPECT_EQ(posted->status, 200);
  EXPECT_EQ(posted->body, "POST|/a%2Fb|c=d&e|hello");
  const auto removed = send(context, endpoint, {.method = Method::del, .path = "/v"});
  ASSERT_TRUE(removed) << removed.error().text();
  EXPECT_EQ(removed->body, "DELETE|/v||");
}

TEST_F(HttpServer, AnswerHasTheHeadThatHttpAsksFor) {
  serve_echo();
  auto one = client();
  one.say(get("/x"));
  const auto [head, body] = one.answer();
  EXPECT_THAT(head, AllOf(StartsWith("HTTP/1.1 200 OK\r\nDate: "), HasSubstr(" GMT\r\n"),
                          HasSubstr("Content-Type: text/plain\r\n"), HasSubstr("Content-Length: 8\r\n"),
                          Not(HasSubstr("Connection:"))));
  EXPECT_EQ(body, "GET|/x||");
}

TEST_F(HttpServer, OneConnectionServesManyRequests) {
  auto& server = serve_echo();
  auto one = client();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(one.say(post("Content-Length: 1\r\n", std::to_string(i))));
    EXPECT_EQ(one.answer().second, fmt::format("POST|/p||{}", i));
  }
  EXPECT_EQ(server.connections(), 1U);
}

TEST_F(HttpServer, RequestsThatComeTogetherAreAnsweredInTheirOrder) {
  serve_echo();
  const std::string answers = exchange(
      get("/1") + post("Content-Length: 3\r\n", "two") +
      post("Transfer-Encoding: chunked\r\n", "3\r\nthr\r\n2;x=y\r\nee\r\n0\r\nT: t\r\n\r\n") + get("/4"));
  std::size_t at = 0;
  for (const std::string_view body : {"GET|/1||", "POST|/p||two", "POST|/p||three", "GET|/4||"}) {
    at = answers.find(body, at);
    ASSERT_NE(at, std::string::npos) << body << " in " << answers;
  }
}

TEST_F(HttpServer, ARequestMayComeByteByByte) {
  serve_echo();
  const std::string all =
      post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n") + get("/next");
  auto one = client();
  for (const char byte : all) ASSERT_TRUE(one.say(std::string_view(&byte, 1)));
  EXPECT_EQ(one.answer().second, "POST|/p||abc0123456789");
  EXPECT_EQ(one.answer().second, "GET|/next||");
}

TEST_F(HttpServer, TargetsOfEveryFormAreUnderstood) {
  serve_echo();
  const auto body_of = [&](std::string_view target) {
    const std::string all = exchange(get(target));
    const auto at = all.find("\r\n\r\n");
    return all.substr(at == std::string::npos ? 0 : at + 4);
  };
  EXPECT_EQ(body_of("http://localhost/v1/x?y"), "GET|/v1/x|y|");
  EXPECT_EQ(body_of("HTTP://dvdi:80"), "GET|/||");
  EXPECT_EQ(body_of("http://dvdi?a=/b"), "GET|/|a=/b|");
  EXPECT_EQ(body_of("/a?b?c"), "GET|/a|b?c|");
  EXPECT_EQ(body_of("/?"), "GET|/||");
  EXPECT_THAT(exchange("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"), EndsWith("OPTIONS|*||"));
}

TEST_F(HttpServer, HeadersAreFoundWhateverTheirCase) {
  std::string seen;
  serve([&](const Context&, IncomingRequest& request, Answer& answer) {
    seen =
        fmt::format("{}|{}|{}", request.header("DVDI-trace-id"), request.header("x"), request.header("no"));
    std::ignore = answer.send(204, "", "");
  });
  EXPECT_THAT(exchange("GET / HTTP/1.1\r\nHost: h\r\nDvdi-Trace-Id:  7 \r\nX: 1\r\nX: 2\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 204 No Content\r\n"), Not(HasSubstr("Content-"))));
  server_.reset();  // what the handler wrote is read here
  EXPECT_EQ(seen, "7|1|");
}

TEST_F(HttpServer, TheKernelSaysWhoIsConnected) {
  Caller seen{};
  Caller in_context{};
  serve([&](const Context& context, IncomingRequest& request, Answer& answer) {
    seen = request.peer();
    in_context = context.caller().value_or(Caller{});
    std::ignore = answer.send(200, "", "");
  });
  exchange(get("/"));
  server_.reset();  // what the handler wrote is read here
  EXPECT_EQ(seen, (Caller{.uid = ::getuid(), .gid = ::getgid(), .pid = ::getpid()}));
  EXPECT_EQ(in_context, seen);
}

TEST_F(HttpServer, HeadGetsTheHeadOnly) {
  serve([](const Context& context, IncomingRequest& request, Answer& answer) {
    if (request.path() == "/whole") {
      std::ignore = answer.send(200, "text/plain", "four");
    } else {
      std::ignore = answer.start(200, "text/plain");
      std::ignore = answer.write(context, "piece");
    }
  });
  const std::string answers =
      exchange("HEAD /whole HTTP/1.1\r\nHost: x\r\n\r\nHEAD /pieces HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(answers, AllOf(HasSubstr("Content-Length: 4\r\n\r\nHTTP/1.1 200 OK\r\n"),
                             EndsWith("Transfer-Encoding: chunked\r\n\r\n")));
}

TEST_F(HttpServer, AnAnswerInPiecesGoesOutAsItIsWritten) {
  serve([](const Context& context, IncomingRequest& request, Answer& answer) {
    ASSERT_TRUE(answer.start(200, "application/x-ndjson"));
    // Each piece waits for a byte of the body: if pieces were held back, neither side would go on.
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(answer.write(context, fmt::format("piece {}\n", i)));
      ASSERT_TRUE(answer.write(context, ""));
      ASSERT_EQ(request.read(context, 1).value_or("?"), "x");
    }
  });
  auto one = client();
  one.say(post("Content-Length: 3\r\n", ""));
  EXPECT_THAT(one.until("\r\n\r\n"), AllOf(HasSubstr("Transfer-Encoding: chunked\r\n"),
                                           HasSubstr("Content-Type: application/x-ndjson\r\n")));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(one.until("\n\r\n"), fmt::format("8\r\npiece {}\n\r\n", i));
    one.say("x");
  }
  EXPECT_EQ(one.until("0\r\n\r\n"), "0\r\n\r\n");
}

TEST_F(HttpServer, AnAnswerThatIsCutOffHasNoEnd) {
  serve([](const Context& context, IncomingRequest&, Answer& answer) {
    std::ignore = answer.start(200, "text/plain");
    std::ignore = answer.write(context, "half");
    answer.fail();
  });
  auto one = client();
  one.say(get("/"));
  EXPECT_THAT(one.rest(), EndsWith("4\r\nhalf\r\n"));
  EXPECT_TRUE(one.at_end());
}

TEST_F(HttpServer, WhoSpeaksHttp10GetsAnAnswerUpToTheEndOfTheConnection) {
  serve([](const Context& context, IncomingRequest& request, Answer& answer) {
    if (request.path() == "/whole") return static_cast<void>(answer.send(200, "text/plain", "whole"));
    std::ignore = answer.start(200, "text/plain");
    std::ignore = answer.write(context, "pie");
    std::ignore = answer.write(context, "ces");
  });
  auto one = client();
  one.say("GET /pieces HTTP/1.0\r\n\r\n");
  EXPECT_THAT(one.rest(), AllOf(Not(HasSubstr("chunked")), EndsWith("Connection: close\r\n\r\npieces")));
  auto other = client();
  other.say("GET /whole HTTP/1.0\r\n\r\n");
  EXPECT_THAT(other.rest(), EndsWith("Connection: close\r\n\r\nwhole"));
  EXPECT_TRUE(other.at_end());
}

TEST_F(HttpServer, ABodyIsAskedForOnlyByWhoReadsIt) {
  serve([](const Context& context, IncomingRequest& request, Answer& answer) {
    if (request.path() == "/p") return echo(context, request, answer);
    std::ignore = answer.send(403, "text/plain", "no");
  });
  auto one = client();
  one.say(post("Content-Length: 5\r\nExpect: 100-continue\r\n", ""));
  EXPECT_EQ(one.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  one.say("hello");
  EXPECT_EQ(one.answer().second, "POST|/p||hello");
  // The body is there already: nothing to ask for.
  one.say(post("Content-Length: 5\r\nExpect: 100-continue\r\n", "again"));
  EXPECT_THAT(one.answer().first, StartsWith("HTTP/1.1 200 OK\r\n"));

  auto other = client();
  other.say("POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  const std::string refused = other.until("no");
  EXPECT_THAT(refused, AllOf(StartsWith("HTTP/1.1 403 Forbidden\r\n"), HasSubstr("Connection: close\r\n")));
  EXPECT_EQ(other.rest(), "");
  EXPECT_TRUE(other.at_end());
}

TEST_F(HttpServer, ABodyThatWasNotReadCostsTheConnectionOnlyIfItIsStillToCome) {
  serve([](const Context&, IncomingRequest&, Answer& answer) { std::ignore = answer.send(200, "", "ok"); });
  auto one = client();
  one.say(post("Content-Length: 5\r\n", "12345"));
  EXPECT_THAT(one.answer().first, Not(HasSubstr("Connection: close")));
  one.say(post("Content-Length: 5\r\n", "123"));
  EXPECT_THAT(one.answer().first, HasSubstr("Connection: close\r\n"));
  // What comes after the answer is no request, and does not hide the answer.
  one.say("45" + get("/"));
  EXPECT_EQ(one.rest(), "");
  EXPECT_TRUE(one.at_end());
}

TEST_F(HttpServer, ABodyThatComesWhileTheHandlerWorksDoesNotCostTheConnection) {
  std::binary_semaphore called(0);
  std::binary_semaphore sent(0);
  serve([&](const Context&, IncomingRequest&, Answer& answer) {
    called.release();
    sent.acquire();
    std::ignore = answer.send(200, "", "ok");
  });
  auto one = client();
  one.say(post("Content-Length: 5\r\n", ""));
  called.acquire();
  one.say("12345");
  sent.release();
  EXPECT_THAT(one.answer().first, Not(HasSubstr("Connection: close")));
}

TEST_F(HttpServer, AHandlerThatAnswersNothingOrThrowsIs500) {
  serve([](const Context&, IncomingRequest& request, Answer& answer) {
    if (request.path() == "/throw") throw std::runtime_error("out of something");
    if (request.path() == "/late") {
      std::ignore = answer.start(200, "");
      throw std::runtime_error("out of something");
    }
  });
  auto one = client();
  one.say(get("/"));
  EXPECT_THAT(one.answer().first, AllOf(StartsWith("HTTP/1.1 500 Internal Server Error\r\n"),
                                        HasSubstr("application/problem+json")));
  one.say(get("/throw"));
  EXPECT_THAT(one.answer().first, StartsWith("HTTP/1.1 500"));
  one.say(get("/late"));
  EXPECT_THAT(one.rest(), AllOf(StartsWith("HTTP/1.1 200"), Not(EndsWith("0\r\n\r\n"))));
}

TEST_F(HttpServer, ARequestIsAnsweredOnce) {
  std::array<bool, 4> sent{};
  serve([&](const Context& context, IncomingRequest&, Answer& answer) {
    sent[0] = answer.write(context, "before").has_value();
    sent[1] = answer.send(200, "", "first").has_value();
    sent[2] = answer.send(200, "", "second").has_value();
    sent[3] = answer.start(200, "").has_value();
  });
  EXPECT_THAT(exchange(get("/")), AllOf(EndsWith("first"), Not(HasSubstr("before"))));
  server_.reset();  // what the handler wrote is read here
  EXPECT_THAT(sent, testing::ElementsAre(false, true, false, false));
}

TEST_F(HttpServer, AHundredMegabytesPassInPieces) {
  constexpr std::size_t total = std::size_t{100} << 20U;
  std::size_t seen = 0;
  std::size_t longest = 0;
  bool right = true;
  serve([&](const Context& context, IncomingRequest& request, Answer& answer) {
    for (;;) {
      const auto piece = request.read(context, std::size_t{1} << 20U);
      if (!piece || piece->empty()) break;
      longest = std::max(longest, piece->size());
      right = right && std::ranges::all_of(*piece, [](char c) { return c == 'x'; });
      seen += piece->size();
    }
    std::ignore = answer.send(200, "", "done");
  });
  auto one = client();
  one.say(post("Transfer-Encoding: chunked\r\n", ""));
  const std::string chunk = "186A0\r\n" + std::string(100000, 'x') + "\r\n";
  std::size_t sent = 0;
  for (; sent + 100000 <= total; sent += 100000) ASSERT_TRUE(one.say(chunk));
  one.say("0\r\n\r\n");
  EXPECT_EQ(one.answer().second, "done");
  server_.reset();  // what the handler wrote is read here
  EXPECT_EQ(seen, sent);
  EXPECT_TRUE(right);
  // However much has come: what is kept is one reception, not the chunk and not the body.
  EXPECT_LE(longest, std::size_t{16} << 10U);
}

TEST_F(HttpServer, ServesListeningUnixSocketsOnly) {
  const auto refused = [](UniqueFd socket) {
    const auto server = Server::start(std::move(socket), &echo);
    return !server && server.error().code == Code::invalid_argument;
  };
  EXPECT_TRUE(refused(UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))));  // does not listen
  EXPECT_TRUE(refused(UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))));
  EXPECT_TRUE(refused(UniqueFd()));
}

}  // namespace
}  // namespace dvdi::http
