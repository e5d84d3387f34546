#include "http/request_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "http/piece_parser.h"

namespace dvdi::http {

namespace {

namespace beast = boost::beast;
using beast::http::field;

bool same(std::string_view a, std::string_view b) { return beast::iequals(a, b); }

Refusal refusal_of(const beast::error_code& error, std::size_t header_bytes) {
  if (error == beast::http::error::header_limit) {
    return {.status = 431,
            .text = fmt::format("the head of the request is longer than {} bytes", header_bytes)};
  }
  return {.status = 400, .text = fmt::format("the request is not HTTP/1.1 or 1.0: {}", error.message())};
}

}  // namespace

std::string_view RequestHead::header(std::string_view name) const {
  const auto found = std::ranges::find_if(fields, [&](const auto& one) { return same(one.first, name); });
  return found == fields.end() ? std::string_view() : found->second;
}

class RequestParser::Parser final : public PieceParser<true> {
 public:
  using PieceParser::PieceParser;

  std::expected<std::size_t, Refusal> feed(std::string_view data, std::string& body) {
    const bool in_head = !is_header_done();
    beast::error_code error;
    const std::size_t used = take(data, body, error);
    if (refusal_) return std::unexpected(std::move(*refusal_));
    if (error) return std::unexpected(refusal_of(error, header_bytes()));
    // The caller may want to answer before it reads the body.
    if (in_head && is_header_done()) {
      if (auto refused = check_head()) return std::unexpected(std::move(*refused));
    }
    return used;
  }

  const RequestHead& head() const { return head_; }

 private:
  void on_request_impl(beast::http::verb /*verb*/, beast::string_view method, beast::string_view target,
                       int version, beast::error_code& error) override {
    head_.method = std::string(view(method));
    head_.http_1_1 = version == 11;
    std::string_view rest = view(target);
    const std::string_view scheme = rest.substr(0, rest.find(':'));
    if (same(scheme, "http") || same(scheme, "https")) {
      rest.remove_prefix(scheme.size());
      if (!rest.starts_with("://")) return refuse(400, "the request's target is not a path or a URL", error);
      rest.remove_prefix(3);
      rest.remove_prefix(std::min(rest.find_first_of("/?"), rest.size()));
      head_.path = rest.starts_with('/') ? "" : "/";
    } else if (!rest.starts_with('/') && !(rest == "*" && head_.method == "OPTIONS")) {
      return refuse(400, "the request's target is not a path or a URL", error);
    }
    if (rest.find('#') != std::string_view::npos)
      return refuse(400, "the request's target has a fragment", error);
    const auto mark = rest.find('?');
    head_.path += rest.substr(0, mark);
    if (mark != std::string_view::npos) head_.query = std::string(rest.substr(mark + 1));
  }

  void on_field_impl(field name, beast::string_view name_text, beast::string_view value,
                     beast::error_code& error) override {
    if (is_header_done()) return;  // a trailer: nothing of it may pass for a part of the head
    if (name == field::host) ++hosts_;
    // Whatever another program could read otherwise than we do is refused: who sits between us and the client
    // must see the same requests.
    if (name == field::transfer_encoding && !same(view(value), "chunked"))
      return refuse(501, "of the transfer codings only chunked is understood", error);
    if (name == field::content_length &&
        (value.empty() || !std::ranges::all_of(value, [](char c) { return c >= '0' && c <= '9'; })))
      return refuse(400, "Content-Length is not a number", error);
    head_.fields.emplace_back(view(name_text), view(value));
  }

  std::optional<Refusal> check_head() {
    head_.keep_alive = head_.http_1_1 && keep_alive();
    if (head_.http_1_1 && hosts_ != 1) return Refusal{.status = 400, .text = "there must be one Host"};
    if (!head_.http_1_1 && chunked())
      return Refusal{.status = 400, .text = "HTTP/1.0 has no transfer codings"};
    const std::string_view expectation = head_.header("expect");
    if (!expectation.empty() && !same(expectation, "100-continue")) {
      return Refusal{.status = 417,
                     .text = fmt::format("'{}' is more than can be expected", printable(expectation))};
    }
    head_.expects_continue = head_.http_1_1 && !expectation.empty();
    return std::nullopt;
  }

  void refuse(int status, std::string_view text, beast::error_code& error) {
    refusal_ = Refusal{.status = status, .text = std::string(text)};
    error = beast::http::error::bad_value;  // stops the parser; the refusal says more
  }

  void on_response_impl(int /*status*/, beast::string_view /*reason*/, int /*version*/,
                        beast::error_code& /*error*/) override {}

  int hosts_ = 0;
  RequestHead head_;
  std::optional<Refusal> refusal_;
};

RequestParser::RequestParser(std::size_t header_bytes) : parser_(std::make_unique<Parser>(header_bytes)) {}
RequestParser::~RequestParser() = default;

std::expected<std::size_t, Refusal> RequestParser::feed(std::string_view data, std::string& body) {
  return parser_->feed(data, body);
}
bool RequestParser::head_done() const { return parser_->is_header_done(); }
bool RequestParser::done() const { return parser_->is_done(); }
const RequestHead& RequestParser::head() const { return parser_->head(); }

}  // namespace dvdi::http
