#include "http/response_parser.h"

#include <utility>

#include "base/text.h"
#include "http/piece_parser.h"

namespace dvdi::http {

namespace beast = boost::beast;

class ResponseParser::Parser final : public PieceParser<false> {
 public:
  using PieceParser::PieceParser;

  std::expected<std::size_t, Problem> feed(std::string_view data, std::string& body) {
    beast::error_code error;
    const bool in_head = !is_header_done();
    std::size_t used = take(data, body, error);
    if (!error && in_head && is_header_done()) used += take(data.substr(used), body, error);
    if (error)
      return std::unexpected(
          Problem{.too_long = error == beast::http::error::header_limit, .text = error.message()});
    return used;
  }

  bool end() {
    beast::error_code error;
    put_eof(error);
    return !error && is_done();
  }

  int status() const { return is_header_done() ? status_ : 0; }
  std::map<std::string, std::string, std::less<>>& headers() { return headers_; }

 private:
  void on_response_impl(int status, beast::string_view /*reason*/, int /*version*/,
                        beast::error_code& /*error*/) override {
    status_ = status;
  }
  void on_field_impl(beast::http::field /*name*/, beast::string_view name_text, beast::string_view value,
                     beast::error_code& /*error*/) override {
    if (is_header_done()) return;  // a trailer
    std::string name(view(name_text));
    for (char& c : name) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    headers_[std::move(name)] = trim(view(value));
  }
  void on_request_impl(beast::http::verb /*verb*/, beast::string_view /*method*/,
                       beast::string_view /*target*/, int /*version*/,
                       beast::error_code& /*error*/) override {}

  int status_ = 0;
  std::map<std::string, std::string, std::less<>> headers_;
};

ResponseParser::ResponseParser(std::size_t header_bytes)
    : parser_(std::make_unique<Parser>(header_bytes)), header_bytes_(header_bytes) {}
ResponseParser::~ResponseParser() = default;

std::expected<std::size_t, ResponseParser::Problem> ResponseParser::feed(std::string_view data,
                                                                         std::string& body) {
  std::size_t used = 0;
  for (;;) {
    auto taken = parser_->feed(data.substr(used), body);
    if (!taken) return taken;
    used += *taken;
    // Bounded by what was received: each of them takes some of it.
    if (!parser_->is_done() || parser_->status() >= 200) return used;
    parser_ = std::make_unique<Parser>(header_bytes_);
  }
}

bool ResponseParser::end() { return parser_->end(); }
bool ResponseParser::done() const { return parser_->is_done(); }
bool ResponseParser::keeps_connection() const { return done() && parser_->keep_alive(); }
int ResponseParser::status() const { return parser_->status(); }
std::map<std::string, std::string, std::less<>> ResponseParser::take_headers() {
  return std::move(parser_->headers());
}

}  // namespace dvdi::http
