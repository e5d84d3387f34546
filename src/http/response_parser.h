// The bytes of one answer, taken apart by Boost.Beast's parser, without any input or output.
#pragma once

#include <cstddef>
#include <expected>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace dvdi::http {

class ResponseParser {
 public:
  struct Problem {
    bool too_long = false;  // the head is longer than the limit; else it is no HTTP
    std::string text = {};
  };

  explicit ResponseParser(std::size_t header_bytes);
  ~ResponseParser();
  ResponseParser(const ResponseParser&) = delete;
  ResponseParser& operator=(const ResponseParser&) = delete;

  // Takes what it can use from the front of `data` and says how many bytes that were; what it did not take
  // must be there again, followed by more. What it finds of the body is appended to `body`. Answers with a
  // status of 1xx are passed over. Not after a problem.
  std::expected<std::size_t, Problem> feed(std::string_view data, std::string& body);
  // The other side sends nothing more. False: the answer is not complete.
  bool end();

  bool done() const;
  bool keeps_connection() const;  // of an answer that is done: another may follow on the same connection
  int status() const;             // 0: the head is not complete
  // Names in lower case; of one that came several times the last. Complete with the head.
  std::map<std::string, std::string, std::less<>> take_headers();

 private:
  class Parser;  // keeps Boost.Beast out of this header
  std::unique_ptr<Parser> parser_;
  std::size_t header_bytes_;
};

}  // namespace dvdi::http
