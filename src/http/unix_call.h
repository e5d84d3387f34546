// One request and its answer on one connection to a Unix socket. Only for this folder.
#pragma once

#include <string>
#include <string_view>

#include "http/client_call.h"
#include "http/response_parser.h"
#include "http/stream_socket.h"

namespace dvdi::http {

Result<UniqueFd> connect_unix(const Endpoint& endpoint);

// For one thread. What it is given outlives it.
class UnixCall {
 public:
  UnixCall(const Context& context, const Endpoint& endpoint, const Limits& limits, const OnPiece* on_piece,
           UniqueFd socket);

  Result<Response> perform(const Request& request);
  // After a call that failed: the other side had closed the connection before it had read all of the request.
  bool unread() const { return socket_.was_reset() && !heard_; }
  // After a call that did not: the connection is good for another one.
  bool reusable() const { return reusable_; }
  UniqueFd release() { return socket_.release(); }

 private:
  Status check_context() const;
  Error unknown(Code code, std::string_view text) const;
  Status receive(const Status& sent);

  const Context& context_;
  const Endpoint& endpoint_;
  const Limits& limits_;
  const OnPiece* on_piece_;
  StreamSocket socket_;
  ResponseParser parser_;
  std::string unparsed_, body_;
  bool heard_ = false;  // something of an answer
  bool reusable_ = false;
};

}  // namespace dvdi::http
