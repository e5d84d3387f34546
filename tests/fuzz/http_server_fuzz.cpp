// Whatever a client sends, the server's connection ends, with answers that are answers.
//
// An input is what the client sends before it shuts down its sending side. The handler does what the path
// says:
//   /pieces...   reads the body byte by byte, answers in pieces      /ignore...   does not read the body
//   /fail...     begins an answer and cuts it off                    others       read the whole body, up to
//   a limit
#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "http/connection.h"

namespace {

using dvdi::http::Answer;
using dvdi::http::IncomingRequest;
using dvdi::http::RequestParser;

void require(bool holds, std::string_view what) {
  if (holds) return;
  fmt::print(stderr, "broken promise: {}\n", what);
  std::abort();
}

bool has_any(std::string_view text, std::string_view bytes) {
  return text.find_first_of(bytes) != std::string_view::npos;
}

constexpr std::string_view line_ends("\r\n\0", 3);

void check_head(const IncomingRequest& request) {
  require(!request.method().empty() && !has_any(request.method(), " \t\r\n"), "a method is one word");
  require(request.path().starts_with('/') || (request.path() == "*" && request.method() == "OPTIONS"),
          "a path begins with a slash");
  require(!has_any(request.path(), "?# ") && !has_any(request.path(), line_ends), "a path is a path");
  require(!has_any(request.query(), "# ") && !has_any(request.query(), line_ends), "a query is a query");
  for (const std::string_view name : {"content-length", "transfer-encoding", "host", "x"})
    require(!has_any(request.header(name), line_ends), "a field is on one line");
  require(request.header("content-length").empty() || request.header("transfer-encoding").empty(),
          "a body has one length");
}

void handle(const dvdi::Context& context, IncomingRequest& request, Answer& answer) {
  check_head(request);
  if (request.path().starts_with("/ignore")) {
    std::ignore = answer.send(200, "text/plain", "ignored");
  } else if (request.path().starts_with("/fail")) {
    std::ignore = answer.start(200, "text/plain");
    std::ignore = answer.write(context, "half");
    answer.fail();
  } else if (request.path().starts_with("/pieces")) {
    std::ignore = answer.start(200, "text/plain");
    for (;;) {
      const auto piece = request.read(context, 1);
      if (!piece || piece->empty()) break;
      require(piece->size() == 1, "a piece is not longer than asked for");
      std::ignore = answer.write(context, *piece);
    }
  } else {
    const auto body = request.read_all(context, 1000);
    require(!body || body->size() <= 1000, "a body is not longer than asked for");
    std::ignore = answer.send(body ? 200 : 413, "text/plain", body ? "whole" : "no");
  }
}

struct Common : dvdi::http::ServerCommon {
  Common() {
    handler = &handle;
    limits.header_bytes = 2000;
    limits.write_timeout = std::chrono::milliseconds(1);
    drain_event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    stop_event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
};

std::string serve(std::string_view input) {
  static const Common common;
  std::array<int, 2> ends{};
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0, "socketpair");
  const dvdi::UniqueFd client(ends[0]);
  dvdi::http::Connection connection(dvdi::UniqueFd(ends[1]), {}, false, common);
  require(
      ::send(client.get(), input.data(), input.size(), MSG_DONTWAIT) == static_cast<ssize_t>(input.size()),
      "an input fits into a socket");
  ::shutdown(client.get(), SHUT_WR);
  connection.serve();
  std::string all;
  std::array<char, 65536> buffer{};
  for (ssize_t got = 0; (got = ::recv(client.get(), buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0;)
    all.append(buffer.data(), static_cast<std::size_t>(got));
  return all;
}

// How the first request of the input is read when it comes in pieces of this size.
struct Reading {
  bool refused = false;
  bool done = false;
  std::string text;
};

Reading read(std::string_view input, std::size_t step) {
  RequestParser parser(2000);
  Reading out;
  std::string body;
  std::string waiting;
  std::size_t used_in_all = 0;
  while (!parser.done()) {
    const auto used = parser.feed(waiting, body);
    if (!used) return {.refused = true};
    require(*used <= waiting.size(), "no more is used than was given");
    used_in_all += *used;
    waiting.erase(0, *used);
    if (*used > 0) continue;
    if (input.empty()) return out;
    waiting += input.substr(0, step);
    input.remove_prefix(std::min(step, input.size()));
  }
  out.done = true;
  out.text = fmt::format("{} {} {} {} {}", parser.head().method, parser.head().path, parser.head().query,
                         used_in_all, body);
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 50000) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string answers = serve(input);
  require(answers.empty() || answers.starts_with("HTTP/1.1 "), "an answer begins like one");
  require(!input.empty() || answers.empty(), "nothing is said to who says nothing");

  const Reading whole = read(input, size + 1);
  for (const std::size_t step : {1U, 3U, 5U}) {
    const Reading pieces = read(input, step);
    require(pieces.done == whole.done && pieces.text == whole.text,
            "it does not matter how a request arrives");
  }
  return 0;
}
