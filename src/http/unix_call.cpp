#include "http/unix_call.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <system_error>

#include "base/text.h"
#include "http/unix_socket.h"

namespace dvdi::http {

namespace {

constexpr Duration no_own_limit = std::chrono::hours(24);  // the context has one

std::string text_of(const Request& request) {
  constexpr std::array<std::string_view, 3> names = {"GET", "POST", "DELETE"};
  std::string text = fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\n",
                                 names.at(static_cast<std::size_t>(request.method)), request.path);
  for (const std::string& header : request.headers) {
    text += header;
    text += "\r\n";
  }
  if (request.method == Method::post) text += fmt::format("Content-Length: {}\r\n", request.body.size());
  text += "\r\n";
  return text;
}

}  // namespace

Result<UniqueFd> connect_unix(const Endpoint& endpoint) {
  const auto failed = [&](int error_number) {
    const bool hopeless = error_number == EACCES || error_number == EPERM || error_number == EMFILE;
    return fail(failure(hopeless ? Code::io : Code::unavailable, Outcome::not_sent, endpoint,
                        fmt::format("cannot connect: {}", std::generic_category().message(error_number))));
  };
  DVDI_TRY(const SocketPath path, SocketPath::open(endpoint.unix_socket));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.short_path().copy(std::begin(address.sun_path), sizeof(address.sun_path) - 1);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // Where the queue of the listener is full it says so at once (EAGAIN): like nobody there, not yet.
  if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return failed(errno);
  return socket;
}

UnixCall::UnixCall(const Context& context, const Endpoint& endpoint, const Limits& limits,
                   const OnPiece* on_piece, UniqueFd socket)
    : context_(context),
      endpoint_(endpoint),
      limits_(limits),
      on_piece_(on_piece),
      socket_(std::move(socket), -1),
      parser_(limits.header_bytes) {}

Result<Response> UnixCall::perform(const Request& request) {
  const std::string head = text_of(request);
  const bool post = request.method == Method::post;
  const auto sent = socket_.send(context_, {head, post ? std::string_view(request.body) : std::string_view()},
                                 no_own_limit);
  DVDI_CHECK(check_context());
  // A server that has heard enough may answer, and close, before it has all of the request.
  DVDI_CHECK(receive(sent));
  reusable_ = sent && parser_.keeps_connection() && unparsed_.empty();
  Response response;
  response.status = parser_.status();
  response.headers = parser_.take_headers();
  response.body = std::move(body_);
  return response;
}

Status UnixCall::check_context() const {
  auto ended = context_.check(printable(endpoint_.text()));
  if (ended) return {};
  return fail(ended_call(std::move(ended).error(), true));
}

Error UnixCall::unknown(Code code, std::string_view text) const {
  return failure(code, Outcome::unknown, endpoint_, text);
}

Status UnixCall::receive(const Status& sent) {
  while (!parser_.done()) {
    // Here too: what comes in without a pause is never waited for.
    DVDI_CHECK(check_context());
    const auto more = socket_.receive(context_, unparsed_);
    heard_ = heard_ || !unparsed_.empty();
    if (!more || !*more) {
      if (!more) DVDI_CHECK(check_context());
      if (more && sent && parser_.status() != 0 && parser_.end()) return {};
      const std::string why = !sent   ? sent.error().message
                              : !more ? more.error().message
                                      : std::string("the other side closed it");
      return fail(
          unknown(Code::io, fmt::format("the connection broke before the answer was complete: {}", why)));
    }
    const auto used = parser_.feed(unparsed_, body_);
    if (!used && used.error().too_long) {
      return fail(unknown(Code::resource_exhausted,
                          fmt::format("the answer's header is longer than {} bytes", limits_.header_bytes)));
    }
    if (!used)
      return fail(unknown(Code::corrupted, fmt::format("the answer is not HTTP: {}", used.error().text)));
    unparsed_.erase(0, *used);
    if (on_piece_ != nullptr && parser_.status() >= 200 && parser_.status() < 300) {
      const bool enough = !body_.empty() && !(*on_piece_)(body_);
      body_.clear();
      if (enough) return {};
    } else if (body_.size() > limits_.body_bytes) {
      return fail(unknown(Code::resource_exhausted,
                          fmt::format("the answer is longer than {} bytes", limits_.body_bytes)));
    }
  }
  return {};
}

Result<Response> call_over_unix(const Context& context, const Endpoint& endpoint, const Request& request,
                                const Limits& limits, const OnPiece* on_piece) {
  DVDI_TRY(UniqueFd socket, connect_unix(endpoint));
  return UnixCall(context, endpoint, limits, on_piece, std::move(socket)).perform(request);
}

}  // namespace dvdi::http
