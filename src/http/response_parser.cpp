#include "http/response_parser.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/none.hpp>
#include <cstdint>
#include <limits>
#include <utility>

#include "base/text.h"

namespace dvdi::http {

namespace {

namespace beast = boost::beast;

std::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

class ResponseParser::Parser final : public beast::http::basic_parser<false> {
 public:
  explicit Parser(std::size_t header_bytes) : header_bytes_(header_bytes) {
    constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
    header_limit(static_cast<std::uint32_t>(std::min(header_bytes, most)));
    body_limit(boost::none);  // whoever calls has a limit
    eager(true);
  }

  std::expected<std::size_t, Problem> feed(std::string_view data, std::string& body) {
    body_ = &body;
    std::size_t used = 0;
    while (!is_done()) {
      const std::string_view rest = data.substr(used);
      // As for requests: Beast asserts that it sees all of the end of a chunked body.
      if (rest.empty() || (waits_ && is_header_done() && rest.size() < 5)) break;
      beast::error_code error;
      const bool in_head = !is_header_done();
      const std::size_t taken = put(boost::asio::const_buffer(rest.data(), rest.size()), error);
      used += taken;
      if (in_head) head_bytes_ += taken;
      waits_ = error == beast::http::error::need_more;
      const std::size_t waiting = waits_ ? data.size() - used : 0;
      // Beast's limit is for the first line and for the fields, each, and there is none for a chunk's line.
      if (in_head && waits_ && head_bytes_ + waiting > header_bytes_)
        error = beast::http::error::header_limit;
      if (!in_head && waiting > header_bytes_) error = beast::http::error::bad_chunk;
      if (error == beast::http::error::need_more) break;
      if (error)
        return std::unexpected(
            Problem{.too_long = error == beast::http::error::header_limit, .text = error.message()});
      if (taken == 0) break;
    }
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
  std::size_t on_body_impl(beast::string_view piece, beast::error_code& /*error*/) override {
    body_->append(view(piece));
    return piece.size();
  }
  std::size_t on_chunk_body_impl(std::uint64_t /*left*/, beast::string_view piece,
                                 beast::error_code& error) override {
    return on_body_impl(piece, error);
  }
  void on_request_impl(beast::http::verb /*verb*/, beast::string_view /*method*/,
                       beast::string_view /*target*/, int /*version*/,
                       beast::error_code& /*error*/) override {}
  void on_header_impl(beast::error_code& /*error*/) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>& /*length*/,
                         beast::error_code& /*error*/) override {}
  void on_chunk_header_impl(std::uint64_t /*size*/, beast::string_view /*extensions*/,
                            beast::error_code& /*error*/) override {}
  void on_finish_impl(beast::error_code& /*error*/) override {}

  std::size_t header_bytes_;
  std::size_t head_bytes_ = 0;  // taken so far
  bool waits_ = false;          // cannot go on with what it was given last
  int status_ = 0;
  std::string* body_ = nullptr;  // of the feed() that runs
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
int ResponseParser::status() const { return parser_->status(); }
std::map<std::string, std::string, std::less<>> ResponseParser::take_headers() {
  return std::move(parser_->headers());
}

}  // namespace dvdi::http
