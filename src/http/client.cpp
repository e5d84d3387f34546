#include "http/client.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "http/client_call.h"

namespace dvdi::http {

namespace {

bool sendable(std::string_view text) {
  return std::ranges::none_of(text, [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
}

Status check_parts(const Endpoint& endpoint, const Request& request) {
  const auto refuse = [&](std::string_view text) {
    return fail(failure(Code::invalid_argument, Outcome::not_sent, endpoint, text));
  };
  if (request.path.empty() || request.path.front() != '/' || !sendable(request.path) ||
      request.path.find(' ') != std::string::npos) {
    return refuse(fmt::format("'{}' is no path of a request", printable(request.path)));
  }
  for (const std::string& header : request.headers) {
    if (!sendable(header)) return refuse(fmt::format("'{}' is no header line", printable(header)));
  }
  const bool tcp = endpoint.url.starts_with("http://") || endpoint.url.starts_with("https://");
  if (endpoint.unix_socket.empty() && !tcp) return refuse("the address is neither http:// nor https://");
  return {};
}

Result<Response> call(const Context& context, const Endpoint& endpoint, const Request& request,
                      const Limits& limits, const OnPiece* on_piece) {
  DVDI_CHECK(check_request(context, endpoint, request));
  return endpoint.unix_socket.empty() ? call_over_tcp(context, endpoint, request, limits, on_piece)
                                      : call_over_unix(context, endpoint, request, limits, on_piece);
}

}  // namespace

Status check_request(const Context& context, const Endpoint& endpoint, const Request& request) {
  DVDI_CHECK(check_parts(endpoint, request));
  if (auto ended = context.check(printable(endpoint.text())); !ended)
    return fail(ended_call(std::move(ended).error(), false));
  return {};
}

Error failure(Code code, Outcome outcome, const Endpoint& endpoint, std::string_view text) {
  return Error{.code = code,
               .message = fmt::format("{}: {}", printable(endpoint.text()), printable(text)),
               .outcome = outcome};
}

Error ended_call(Error error, bool sent) {
  error.outcome = sent ? Outcome::unknown : Outcome::not_sent;
  if (sent) error.message += "; the request had been sent, the answer was not complete";
  return error;
}

std::string Endpoint::text() const { return unix_socket.empty() ? url : "unix://" + unix_socket; }

std::string Endpoint::generation() const {
  struct stat what{};
  if (unix_socket.empty() || ::stat(unix_socket.c_str(), &what) != 0) return text();
  return fmt::format("{} {}:{} {}.{:09}", text(), what.st_dev, what.st_ino, what.st_ctim.tv_sec,
                     what.st_ctim.tv_nsec);
}

Result<Response> send(const Context& context, const Endpoint& endpoint, const Request& request,
                      const Limits& limits) {
  return call(context, endpoint, request, limits, nullptr);
}

Result<Response> stream(const Context& context, const Endpoint& endpoint, const Request& request,
                        const Limits& limits, const OnPiece& on_piece) {
  return call(context, endpoint, request, limits, &on_piece);
}

}  // namespace dvdi::http
