#include "http/request_parser.h"

#include <gmock/gmock.h>

#include <limits>
#include <vector>

namespace dvdi::http {
namespace {

using testing::Pair;

// What the parser makes of a text that comes in pieces of `step` bytes.
struct Parsed {
  int status = 0;  // of the refusal
  bool done = false;
  std::string head;
  std::string body;
  std::size_t used = 0;

  bool operator==(const Parsed&) const = default;
  friend std::ostream& operator<<(std::ostream& out, const Parsed& one) {
    return out << one.status << (one.done ? " done " : " ") << one.head << '|' << one.body << '|' << one.used;
  }
};

Parsed parse(std::string_view text, std::size_t step, std::size_t header_bytes = 4096) {
  RequestParser parser(header_bytes);
  Parsed out;
  std::string waiting;
  std::size_t given = 0;
  while (!parser.done()) {
    const auto used = parser.feed(waiting, out.body);
    if (!used) {
      out.status = used.error().status;
      // How much came before the fault depends on the pieces.
      out.body.clear();
      out.used = 0;
      return out;
    }
    out.used += *used;
    waiting.erase(0, *used);
    if (*used > 0) continue;
    if (given == text.size()) break;
    const std::string_view piece = text.substr(given, step);
    waiting += piece;
    given += piece.size();
  }
  out.done = parser.done();
  if (parser.head_done())
    out.head = parser.head().method + " " + parser.head().path + "?" + parser.head().query;
  return out;
}

// The pieces must not matter.
Parsed parse(std::string_view text) {
  const Parsed whole = parse(text, std::numeric_limits<std::size_t>::max());
  for (const std::size_t step : {1U, 2U, 3U, 4U, 5U, 7U})
    EXPECT_EQ(parse(text, step), whole) << step << ": " << text;
  return whole;
}

Parsed with_fields(std::string_view fields, std::string_view body = "") {
  return parse("POST / HTTP/1.1\r\nHost: x\r\n" + std::string(fields) + "\r\n" + std::string(body));
}

TEST(RequestParser, TakesOneRequestAndNoByteMore) {
  const std::string_view first = "POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
  const Parsed parsed = parse(std::string(first) + "GET / HTTP/1.1\r\n");
  EXPECT_TRUE(parsed.done);
  EXPECT_EQ(parsed.head, "POST /a?b");
  EXPECT_EQ(parsed.body, "abc");
  EXPECT_EQ(parsed.used, first.size());
}

TEST(RequestParser, ChunksAreTakenApart) {
  const std::string_view te = "Transfer-Encoding: Chunked\r\n";
  EXPECT_EQ(with_fields(te, "0\r\n\r\n").body, "");
  EXPECT_TRUE(with_fields(te, "0\r\n\r\n").done);
  EXPECT_EQ(with_fields(te, "1\r\na\r\n00A;ext=\"v\"\r\n0123456789\r\n000\r\n\r\nGET").body, "a0123456789");
  EXPECT_FALSE(with_fields(te, "1\r\na\r\n0\r\n").done);
  EXPECT_EQ(with_fields(te, "1\r\na\r\n0\r\n").status, 0);
}

TEST(RequestParser, TrailersArePartOfNothing) {
  const std::string text =
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Role: root\r\nHost: y\r\n\r\n";
  RequestParser parser(4096);
  std::string body;
  std::size_t used = parser.feed(text, body).value_or(0);
  used += parser.feed(std::string_view(text).substr(used), body).value_or(0);
  EXPECT_EQ(used, text.size());
  EXPECT_TRUE(parser.done());
  EXPECT_EQ(parser.head().header("x-role"), "");
  EXPECT_THAT(parser.head().fields,
              testing::ElementsAre(Pair("Host", "x"), Pair("Transfer-Encoding", "chunked")));
}

TEST(RequestParser, FramingThatCanBeReadInTwoWaysIsRefused) {
  EXPECT_EQ(with_fields("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n").status, 400);
  EXPECT_EQ(with_fields("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n").status, 400);
  EXPECT_EQ(with_fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n").status, 400);
  EXPECT_EQ(with_fields("Transfer-Encoding: chunked, gzip\r\n").status, 501);
  EXPECT_EQ(with_fields("Transfer-Encoding: gzip, chunked\r\n").status, 501);
  EXPECT_EQ(with_fields("Transfer-Encoding: chunked, chunked\r\n").status, 501);
  EXPECT_EQ(with_fields("Transfer-Encoding: xchunked\r\n").status, 501);
  EXPECT_EQ(with_fields("Transfer-Encoding: identity\r\nContent-Length: 1\r\n").status, 501);
  EXPECT_EQ(with_fields("Transfer-Encoding:\r\n").status, 501);
  EXPECT_EQ(with_fields("Transfer-Encoding : chunked\r\n").status, 400);
  EXPECT_EQ(with_fields("Content-Length : 1\r\n").status, 400);
  EXPECT_EQ(with_fields("Content-Length: 1\r\nContent-Length: 2\r\n").status, 400);
  EXPECT_EQ(with_fields("Content-Length: 1, 1\r\n").status, 400);
  for (const std::string_view number :
       {"", "-1", "+1", "0x1", "1 1", "1;", "18446744073709551616", "99999999999999999999999", "\"1\""}) {
    EXPECT_EQ(with_fields("Content-Length: " + std::string(number) + "\r\n").status, 400) << number;
  }
  EXPECT_EQ(parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").status, 400);
}

TEST(RequestParser, ChunksThatAreNoneAreRefused) {
  const std::string_view te = "Transfer-Encoding: chunked\r\n";
  for (const std::string_view body :
       {"\r\n", "g\r\n", "-1\r\nx\r\n", "0x1\r\nx\r\n", " 1\r\nx\r\n", "1\nx\n", "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n", "10000000000000000\r\n", "fffffffffffffffff\r\n", "1 \r\nx\r\n0\r\n\r\n",
        "0\r\nA\r\n\r\n", "0\r\nContent-Length: 5\r\n\r\n"}) {
    // An end for what waits for one.
    EXPECT_EQ(with_fields(te, std::string(body) + "\r\n\r\n").status, 400) << body;
  }
}

TEST(RequestParser, HeadsThatAreNoneAreRefused) {
  for (const std::string_view text : {"GET / HTTP/1.1\nHost: x\n\n",
                                      "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
                                      " GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
                                      "GET /\r\n\r\n",
                                      "GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
                                      "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
                                      "GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n",
                                      "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
                                      "GET / HTTP/1.1\r\n\r\n",
                                      "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
                                      "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET * HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET http:x HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
                                      "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
                                      "GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n"}) {
    // The end of a head, which is looked for first where it comes in pieces.
    EXPECT_EQ(parse(std::string(text) + "\r\n\r\n").status, 400) << text;
  }
  EXPECT_EQ(with_fields("Expect: more\r\n").status, 417);
}

TEST(RequestParser, KnowsWhetherTheConnectionGoesOn) {
  const auto keeps = [](std::string_view text) {
    RequestParser parser(4096);
    std::string body;
    EXPECT_TRUE(parser.feed(text, body));
    return parser.head().keep_alive;
  };
  EXPECT_TRUE(keeps("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_FALSE(keeps("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n"));
  EXPECT_FALSE(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

TEST(RequestParser, TheLimitIsForTheWholeHead) {
  // Neither the first line nor the fields are too long alone.
  const std::string text =
      "GET /" + std::string(60, 'a') + " HTTP/1.1\r\nHost: " + std::string(60, 'b') + "\r\n\r\n";
  for (const std::size_t step : {std::size_t{1}, text.size()}) {
    EXPECT_EQ(parse(text, step, text.size()).status, 0);
    EXPECT_EQ(parse(text, step, text.size() - 1).status, 431);
  }
  // A body that comes along does not count.
  EXPECT_EQ(
      parse("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" + std::string(900, 'x'), 10000, 100)
          .status,
      0);
}

}  // namespace
}  // namespace dvdi::http
