// Boost.Beast's parser fed with whatever has come so far: what requests and answers have in common. Only for
// this folder.
#pragma once

#include <algorithm>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/none.hpp>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace dvdi::http {

inline std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

template <bool is_request>
class PieceParser : public boost::beast::http::basic_parser<is_request> {
 public:
  explicit PieceParser(std::size_t header_bytes) : header_bytes_(header_bytes) {
    constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
    this->header_limit(static_cast<std::uint32_t>(std::min(header_bytes, most)));
    this->body_limit(boost::none);  // whoever reads it has a limit
  }

  // Takes what it can use from the front of `data`, but stops behind the head, and says how many bytes that
  // were. What is found of the body is appended to `body`. No error where more is needed.
  std::size_t take(std::string_view data, std::string& body, boost::beast::error_code& error) {
    namespace http = boost::beast::http;
    body_ = &body;
    std::size_t used = 0;
    while (!this->is_done()) {
      const std::string_view rest = data.substr(used);
      // What ends a chunked body has five bytes at least. Beast asserts that it sees all of them once it has
      // seen the first three, so it is not asked again before they are there.
      if (rest.empty() || (waits_ && this->is_header_done() && rest.size() < 5)) break;
      const bool in_head = !this->is_header_done();
      const std::size_t taken = this->put(boost::asio::const_buffer(rest.data(), rest.size()), error);
      used += taken;
      if (in_head) head_bytes_ += taken;
      waits_ = error == http::error::need_more;
      // Beast's limit holds for the first line and for the fields, each; ours for both together. And for the
      // line of a chunk, and for what follows the last one, there is none.
      const std::size_t waiting = waits_ ? data.size() - used : 0;
      if (in_head && head_bytes_ + waiting > header_bytes_) error = http::error::header_limit;
      if (!in_head && waiting > header_bytes_) error = http::error::bad_chunk;
      if (error == http::error::need_more) error = {};
      if (error || waits_ || taken == 0 || (in_head && this->is_header_done())) break;
    }
    return used;
  }

 protected:
  std::size_t header_bytes() const { return header_bytes_; }

 private:
  std::size_t on_body_impl(boost::beast::string_view piece, boost::beast::error_code& /*error*/) final {
    body_->append(view(piece));
    return piece.size();
  }
  std::size_t on_chunk_body_impl(std::uint64_t /*left*/, boost::beast::string_view piece,
                                 boost::beast::error_code& error) final {
    return on_body_impl(piece, error);
  }
  void on_header_impl(boost::beast::error_code& /*error*/) final {}
  void on_body_init_impl(const boost::optional<std::uint64_t>& /*length*/,
                         boost::beast::error_code& /*error*/) final {}
  void on_chunk_header_impl(std::uint64_t /*size*/, boost::beast::string_view /*extensions*/,
                            boost::beast::error_code& /*error*/) final {}
  void on_finish_impl(boost::beast::error_code& /*error*/) final {}

  std::size_t header_bytes_;
  std::size_t head_bytes_ = 0;   // taken so far
  bool waits_ = false;           // cannot go on with what it was given last
  std::string* body_ = nullptr;  // of the take() that runs
};

}  // namespace dvdi::http
