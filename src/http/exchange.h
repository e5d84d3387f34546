// One request and its answer on a connection, as the handler sees them.
#pragma once

#include <atomic>
#include <optional>
#include <string>

#include "http/answer_text.h"
#include "http/request_parser.h"
#include "http/server.h"
#include "http/stream_socket.h"

namespace dvdi::http {

class Exchange final : public IncomingRequest, public Answer {
 public:
  // What belongs to the connection and outlives the request.
  struct Surroundings {
    StreamSocket& socket;
    std::string& unparsed;  // received, and not yet given to a parser
    const Caller& peer;
    const ServerLimits& limits;
    const std::atomic<bool>& ends;  // the connection, with this answer
  };

  // The head is complete; `body` is what the parser has found of the body so far. `context` is the handler's.
  Exchange(const Surroundings& around, RequestParser& parser, std::string body, const Context& context);

  const std::string& method() const override { return parser_->head().method; }
  const std::string& path() const override { return parser_->head().path; }
  const std::string& query() const override { return parser_->head().query; }
  std::string_view header(std::string_view name) const override { return parser_->head().header(name); }
  const Caller& peer() const override { return around_.peer; }
  int peer_socket() const override { return around_.socket.get(); }
  Result<std::string> read(const Context& context, std::size_t most) override;

  Status send(int status, std::string_view content_type, std::string_view body) override;
  Status start(int status, std::string_view content_type) override;
  Status write(const Context& context, std::string_view piece) override;
  void fail() override { failed_ = true; }
  bool started() const override { return started_; }

  // When the handler has returned: ends the answer, or gives one.
  void finish();
  // After finish(): the connection is at the beginning of another request.
  bool reusable() const { return parser_->done() && !last_ && !broken_ && !failed_; }
  // After finish(): the client has a whole answer and may still be sending.
  bool answered_early() const { return !broken_ && !failed_ && !parser_->done(); }

 private:
  std::string take(std::size_t most);
  Status parse();
  Status begin(int status, std::string_view content_type, BodyFraming framing, std::size_t length,
               std::string_view body);
  Status put(const Context& context, std::initializer_list<std::string_view> pieces);
  bool to_head() const { return method() == "HEAD"; }

  Surroundings around_;
  RequestParser* parser_;
  std::string body_;
  std::size_t taken_ = 0;  // of body_
  const Context* context_;
  std::optional<Refusal> refusal_;  // what is wrong with the body
  bool last_;                       // the connection ends with the answer
  bool continued_ = false;          // the client knows that its body is wanted
  bool started_ = false;
  bool streaming_ = false;  // between start() and finish()
  BodyFraming framing_ = BodyFraming::length;
  bool broken_ = false;  // nothing more can be sent
  bool failed_ = false;  // the handler cut the answer off
};

}  // namespace dvdi::http
