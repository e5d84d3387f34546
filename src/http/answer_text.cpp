#include "http/answer_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace dvdi::http {

namespace {

struct Known {
  int status;
  std::string_view reason;
};
constexpr std::array known{
    Known{200, "OK"},
    Known{201, "Created"},
    Known{202, "Accepted"},
    Known{204, "No Content"},
    Known{304, "Not Modified"},
    Known{400, "Bad Request"},
    Known{401, "Unauthorized"},
    Known{403, "Forbidden"},
    Known{404, "Not Found"},
    Known{405, "Method Not Allowed"},
    Known{406, "Not Acceptable"},
    Known{408, "Request Timeout"},
    Known{409, "Conflict"},
    Known{411, "Length Required"},
    Known{412, "Precondition Failed"},
    Known{413, "Content Too Large"},
    Known{415, "Unsupported Media Type"},
    Known{417, "Expectation Failed"},
    Known{422, "Unprocessable Content"},
    Known{429, "Too Many Requests"},
    Known{431, "Request Header Fields Too Large"},
    Known{500, "Internal Server Error"},
    Known{501, "Not Implemented"},
    Known{502, "Bad Gateway"},
    Known{503, "Service Unavailable"},
    Known{504, "Gateway Timeout"},
};

std::string_view reason_of(int status) {
  const auto* const found = std::ranges::find(known, status, &Known::status);
  return found == known.end() ? std::string_view() : found->reason;  // a client reads the number
}

// IMF-fixdate, whatever the locale.
std::string http_date(WallTime time) {
  constexpr std::array days{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array months{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
  std::tm utc{};
  if (::gmtime_r(&seconds, &utc) == nullptr) return {};
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", days.at(static_cast<std::size_t>(utc.tm_wday)),
                     utc.tm_mday, months.at(static_cast<std::size_t>(utc.tm_mon)), utc.tm_year + 1900,
                     utc.tm_hour, utc.tm_min, utc.tm_sec);
}

Code code_of(int status) {
  switch (status) {
    case 408:
      return Code::deadline_exceeded;
    case 413:
    case 431:
      return Code::resource_exhausted;
    case 501:
      return Code::unsupported;
    case 503:
      return Code::unavailable;
    default:
      return status < 500 ? Code::invalid_argument : Code::internal;
  }
}

}  // namespace

bool has_body(int status) { return status >= 200 && status != 204 && status != 304; }

std::string text_of(const AnswerHead& head) {
  std::string text = fmt::format("HTTP/1.1 {:03} {}\r\nDate: {}\r\n", head.status, reason_of(head.status),
                                 http_date(head.date));
  const auto out = std::back_inserter(text);
  if (!head.content_type.empty() && head.framing != BodyFraming::none)
    fmt::format_to(out, "Content-Type: {}\r\n", head.content_type);
  if (head.framing == BodyFraming::length) fmt::format_to(out, "Content-Length: {}\r\n", head.length);
  if (head.framing == BodyFraming::chunked) text += "Transfer-Encoding: chunked\r\n";
  if (head.close) text += "Connection: close\r\n";
  return text + "\r\n";
}

std::string problem_body(int status, std::string_view detail) {
  const json::object problem{{"type", "about:blank"}, {"title", reason_of(status)},
                             {"status", status},      {"detail", detail},
                             {"message", detail},     {"code", code_name(code_of(status))}};
  return json::serialize(problem) + "\n";
}

std::string problem_answer(int status, std::string_view detail, WallTime date) {
  const std::string body = problem_body(status, detail);
  return text_of({.status = status,
                  .content_type = problem_type,
                  .length = body.size(),
                  .close = true,
                  .date = date}) +
         body;
}

}  // namespace dvdi::http
