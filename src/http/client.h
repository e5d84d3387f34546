// An HTTP/1.1 client for calls to programs on this node: over a Unix socket or TCP, with TLS where asked for.
// Follows no redirect, knows no proxy, reads no configuration of the user's.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"

namespace dvdi::http {

// Files in PEM format; "" for none. Without `ca_file` the machine's certificate authorities are trusted.
struct Tls {
  std::string ca_file = {};
  std::string cert_file = {};
  std::string key_file = {};
  bool insecure_skip_verify = false;
  bool operator==(const Tls&) const = default;
};

struct Endpoint {
  std::string unix_socket = {};  // its path; "": TCP
  std::string url = {};          // of a TCP server: http://host:port or https://host:port
  Tls tls = {};

  // For messages and comparisons: unix:///path or the URL.
  std::string text() const;
  // Says which server listens there: another one, or the same one started again, is another generation. A
  // Unix socket is made anew by each start; of a TCP server only a failed call tells.
  std::string generation() const;
};

enum class Method { get, post, del };

struct Request {
  Method method = Method::get;
  std::string path = "/";                 // with its query, if any
  std::vector<std::string> headers = {};  // "Name: value"
  std::string body = {};                  // of a POST
};

struct Response {
  long status = 0;
  std::string body;
  // Names in lower case; of one that came several times the last.
  std::map<std::string, std::string, std::less<>> headers = {};
};

struct Limits {
  std::size_t body_bytes = std::size_t{1} << 20U;
  std::size_t header_bytes = std::size_t{64} << 10U;
  Duration connect = std::chrono::seconds(10);  // TCP and TLS handshake; the context ends them too
};

// Sends the request on a connection of its own and returns the whole answer, whatever its status. The end of
// the context ends the call at once. Thread-safe. Errors:
//   invalid_argument   not_sent  path or header cannot be sent
//   unavailable        not_sent  nobody listens there, or not yet: trying again can help
//   io                 not_sent  no connection, and trying again will not help: TLS, permission
//   io                 unknown   the connection broke before the answer was complete
//   resource_exhausted unknown   the answer goes beyond a limit; no more than the limit was kept
//   corrupted          unknown   the answer is not HTTP
//   deadline_exceeded, cancelled: not_sent before the request went out, unknown after
Result<Response> send(const Context& context, const Endpoint& endpoint, const Request& request,
                      const Limits& limits = {});

// Connections to Unix sockets that stay open from one call to the next: half of a short call's time is the
// making of its connection, on both sides. Thread-safe; each call has a connection for itself.
class Connections {
 public:
  explicit Connections(std::size_t most_idle);
  ~Connections();

  // As send() above, on a connection that an earlier call left open. It is one of the same server (the file
  // of its socket), and of the same process and user as now. Whoever closes one before he has read the whole
  // request has done nothing of it (the kernel tells: connect(2), ECONNRESET), and is sent it again, on
  // another connection.
  Result<Response> send(const Context& context, const Endpoint& endpoint, const Request& request,
                        const Limits& limits = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The next piece of an answer, as it came in; false: that was enough.
using OnPiece = std::function<bool(std::string_view piece)>;

// As send(), for an answer that is long or has no end: the body of a 2xx goes to `on_piece` as it arrives, is
// kept nowhere and has no limit; the response has an empty body. Another answer comes whole, as from send().
// A stop by `on_piece` is a success.
Result<Response> stream(const Context& context, const Endpoint& endpoint, const Request& request,
                        const Limits& limits, const OnPiece& on_piece);

}  // namespace dvdi::http
