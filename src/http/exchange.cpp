#include "http/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace dvdi::http {

namespace {

Error misuse(std::string_view text) { return {.code = Code::internal, .message = std::string(text)}; }

}  // namespace

Exchange::Exchange(const Surroundings& around, RequestParser& parser, std::string body,
                   const Context& context)
    : around_(around),
      parser_(&parser),
      body_(std::move(body)),
      context_(&context),
      last_(!parser.head().keep_alive) {}

std::string Exchange::take(std::size_t most) {
  std::string piece = body_.substr(taken_, most);
  taken_ += piece.size();
  if (taken_ == body_.size()) {
    body_.clear();
    taken_ = 0;
  }
  return piece;
}

// What has been received of the body goes into body_, which so never holds more than one reception.
Status Exchange::parse() {
  auto used = parser_->feed(around_.unparsed, body_);
  if (!used) {
    refusal_ = std::move(used).error();
    return ::dvdi::fail({.code = Code::io, .message = refusal_->text});
  }
  around_.unparsed.erase(0, *used);
  return {};
}

Result<std::string> Exchange::read(const Context& context, std::size_t most) {
  if (most == 0) return misuse("a body is read in pieces of at least a byte");
  const auto broke = [this](std::string_view text) {
    refusal_ = Refusal{.status = 400, .text = std::string(text)};
    return ::dvdi::fail({.code = Code::io, .message = refusal_->text});
  };
  const Context bounded = context.with_timeout(around_.limits.body_timeout);
  for (;;) {
    if (taken_ < body_.size()) return take(most);
    if (parser_->done()) return std::string();
    if (refusal_) return ::dvdi::fail({.code = Code::io, .message = refusal_->text});
    DVDI_CHECK(parse());
    if (taken_ < body_.size() || parser_->done()) continue;
    if (parser_->head().expects_continue && !continued_ && !started_) {
      continued_ = true;
      DVDI_CHECK(put(context, {"HTTP/1.1 100 Continue\r\n\r\n"}));
    }
    const auto more = around_.socket.receive(bounded, around_.unparsed);
    if (!more) {
      const bool ours = more.error().code == Code::deadline_exceeded && context.check("read").has_value();
      if (ours) refusal_ = Refusal{.status = 408, .text = "the body of the request did not come in time"};
      return ::dvdi::fail(more.error());
    }
    if (!*more) return broke("the request ended before its body was complete");
  }
}

Status Exchange::put(const Context& context, std::initializer_list<std::string_view> pieces) {
  if (broken_) return ::dvdi::fail({.code = Code::io, .message = "the client has gone"});
  auto sent = around_.socket.send(context, pieces, around_.limits.write_timeout);
  broken_ = !sent;
  return sent;
}

Status Exchange::begin(int status, std::string_view content_type, BodyFraming framing, std::size_t length,
                       std::string_view body) {
  started_ = true;
  // A body that has come but was not read does not cost the connection; one that is still to come does.
  if (!parser_->done() && !refusal_ && parse() && !parser_->done() &&
      around_.socket.receive_now(around_.unparsed)) {
    std::ignore = parse();
  }
  last_ = last_ || around_.ends || !parser_->done() || framing == BodyFraming::until_close;
  framing_ = has_body(status) ? framing : BodyFraming::none;
  const std::string head = text_of({.status = status,
                                    .content_type = content_type,
                                    .framing = framing_,
                                    .length = length,
                                    .close = last_,
                                    .date = context_->clock().wall()});
  const bool with_body = framing_ != BodyFraming::none && !to_head();
  return put(*context_, {head, with_body ? body : std::string_view()});
}

Status Exchange::send(int status, std::string_view content_type, std::string_view body) {
  if (started_) return ::dvdi::fail(misuse("a request is answered once"));
  if (refusal_) {
    const std::string problem = problem_body(refusal_->status, refusal_->text);
    return begin(refusal_->status, problem_type, BodyFraming::length, problem.size(), problem);
  }
  return begin(status, content_type, BodyFraming::length, body.size(), body);
}

Status Exchange::start(int status, std::string_view content_type) {
  if (started_) return ::dvdi::fail(misuse("a request is answered once"));
  if (refusal_) {
    DVDI_CHECK(send(status, content_type, {}));
    return ::dvdi::fail({.code = Code::io, .message = refusal_->text});
  }
  streaming_ = true;
  const bool chunks = parser_->head().http_1_1;
  return begin(status, content_type, chunks ? BodyFraming::chunked : BodyFraming::until_close, 0, {});
}

Status Exchange::write(const Context& context, std::string_view piece) {
  if (!streaming_) return ::dvdi::fail(misuse("an answer in pieces has not been started"));
  // A chunk of no bytes would be the end.
  if (piece.empty() || to_head() || framing_ == BodyFraming::none) return {};
  if (framing_ == BodyFraming::until_close) return put(context, {piece});
  const std::string size = fmt::format("{:x}\r\n", piece.size());
  return put(context, {size, piece, "\r\n"});
}

void Exchange::finish() {
  if (!started_) {
    std::ignore = send(500, problem_type, problem_body(500, "the server has no answer to this request"));
    return;
  }
  if (streaming_ && !failed_ && framing_ == BodyFraming::chunked && !to_head())
    std::ignore = put(*context_, {"0\r\n\r\n"});
  streaming_ = false;
}

}  // namespace dvdi::http
