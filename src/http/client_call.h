// The two ways of the client: over a Unix socket by itself, over TCP by libcurl. Only for this folder.
#pragma once

#include <string_view>

#include "http/client.h"

namespace dvdi::http {

Error failure(Code code, Outcome outcome, const Endpoint& endpoint, std::string_view text);
// Of a context that has ended.
Error ended_call(Error error, bool sent);

// The request has been checked. nullptr: the whole body is kept.
Result<Response> call_over_unix(const Context& context, const Endpoint& endpoint, const Request& request,
                                const Limits& limits, const OnPiece* on_piece);
Status check_request(const Context& context, const Endpoint& endpoint, const Request& request);
Result<Response> call_over_tcp(const Context& context, const Endpoint& endpoint, const Request& request,
                               const Limits& limits, const OnPiece* on_piece);

}  // namespace dvdi::http
