// The bytes of one request, taken apart: Boost.Beast's parser, made stricter, without any input or output.
#pragma once

#include <cstddef>
#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dvdi::http {

struct RequestHead {
  std::string method;
  std::string path;   // without query; of an absolute target the part after the authority
  std::string query;  // without `?`
  std::vector<std::pair<std::string, std::string>> fields;
  bool http_1_1 = false;
  bool keep_alive = false;
  bool expects_continue = false;

  // The first of that name; "" where there is none.
  std::string_view header(std::string_view name) const;
};

// Why a request is not served: the status to answer with, and a sentence for the client.
struct Refusal {
  int status = 400;
  std::string text;
};

class RequestParser {
 public:
  explicit RequestParser(std::size_t header_bytes);
  ~RequestParser();
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;

  // Takes what it can use from the front of `data` and says how many bytes that were; what it did not take
  // must be there again, followed by more. What it finds of the body is appended to `body`. Not after a
  // refusal.
  std::expected<std::size_t, Refusal> feed(std::string_view data, std::string& body);

  bool head_done() const;
  bool done() const;                // head and body
  const RequestHead& head() const;  // complete once head_done()

 private:
  class Parser;  // keeps Boost.Beast out of this header
  std::unique_ptr<Parser> parser_;
};

}  // namespace dvdi::http
