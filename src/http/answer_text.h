// The text of answers: the head, and the body of those that the server gives itself.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace dvdi::http {

enum class BodyFraming {
  length,  // Content-Length
  chunked,
  until_close,
  none,  // there is no body, and nothing to say about it
};

struct AnswerHead {
  int status = 200;
  std::string_view content_type = {};
  BodyFraming framing = BodyFraming::length;
  std::size_t length = 0;
  bool close = false;  // the connection ends with this answer
  WallTime date = {};
};

// With the empty line at its end.
std::string text_of(const AnswerHead& head);

// 1xx, 204 and 304 never have a body.
bool has_body(int status);

inline constexpr std::string_view problem_type = "application/problem+json";  // RFC 9457
std::string problem_body(int status, std::string_view detail);

// A whole answer of that kind, after which the connection ends.
std::string problem_answer(int status, std::string_view detail, WallTime date);

}  // namespace dvdi::http
