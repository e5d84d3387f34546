// An HTTP/1.1 server on a Unix socket, or on TCP for what everybody may read: a thread a connection,
// everything bounded.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"
#include "linux/fd.h"

namespace dvdi::http {

// One request as it comes in: the head is complete and within the limits, the body is read by the handler.
// For the handler's thread only.
class IncomingRequest {
 public:
  virtual ~IncomingRequest() = default;
  virtual const std::string& method() const = 0;  // GET, POST, DELETE, ... in upper case
  virtual const std::string& path() const = 0;    // without query; percent escapes are still in it
  virtual const std::string& query() const = 0;   // without `?`
  // "" where it is absent. Names are compared without regard to case.
  virtual std::string_view header(std::string_view name) const = 0;
  // Who is connected, as the kernel says; over TCP nobody in particular (uid UINT32_MAX), never root.
  virtual const Caller& peer() const = 0;
  virtual int peer_socket()
      const = 0;  // to ask the kernel for more about the peer (getsockopt), nothing else
  // The next piece of the body, at most `most` bytes; "" at its end. Errors: io (the connection broke, or the
  // framing is wrong), deadline_exceeded (nothing came for ServerLimits::body_timeout), cancelled. After the
  // first two the server answers 400 or 408 itself, whatever the handler says then.
  virtual Result<std::string> read(const Context& context, std::size_t most) = 0;
  // The whole body. resource_exhausted beyond `most` bytes.
  Result<std::string> read_all(const Context& context, std::size_t most);
};

// One answer. For the handler's thread only. Errors mean that the client has gone.
class Answer {
 public:
  virtual ~Answer() = default;
  // A whole answer, with Content-Length.
  virtual Status send(int status, std::string_view content_type, std::string_view body) = 0;
  // An answer in pieces (chunked), for what has no end yet: start, then write each piece, which goes out at
  // once. It ends when the handler returns; `fail()` instead cuts it off, so that the client knows that it is
  // not whole.
  virtual Status start(int status, std::string_view content_type) = 0;
  virtual Status write(const Context& context, std::string_view piece) = 0;
  virtual void fail() = 0;
  virtual bool started() const = 0;  // an answer, or its beginning, went out
};

// Called on the connection's thread. The context is cancelled when the client has closed the connection (one
// that only shut down its sending side still waits for the answer) and when the server stops; it has no
// deadline. A handler that answers nothing gives 500.
using Handler = std::function<void(const Context& context, IncomingRequest& request, Answer& answer)>;

struct ServerLimits {
  // Beyond it one that is idle between two requests is closed, and where none is, a new one is answered 503.
  unsigned connections = 4096;
  // Of one user other than root, who may not keep the others out.
  unsigned connections_of_user = 1024;
  std::size_t header_bytes = std::size_t{32} << 10U;
  Duration header_timeout = std::chrono::seconds(10);  // from the first byte to the end of the head
  Duration body_timeout = std::chrono::seconds(30);    // for the next piece of a body
  Duration write_timeout = std::chrono::seconds(30);   // for a client that does not read
  Duration idle_timeout = std::chrono::minutes(5);     // between two requests
};

// The socket at `path`: one that nobody listens on any more is replaced; already_exists if somebody does.
Result<UniqueFd> listen_unix(const std::string& path, unsigned mode);

// On TCP: "127.0.0.1:9799", "[::1]:9799". Port 0: one that is free.
Result<UniqueFd> listen_tcp(const std::string& address);
Status check_tcp_address(const std::string& address);  // invalid_argument where it is none

// Thread-safe.
class Server {
 public:
  // Takes over a listening stream socket, Unix or TCP, and serves until it is destroyed.
  static Result<std::unique_ptr<Server>> start(UniqueFd listening, Handler handler,
                                               const ServerLimits& limits = {},
                                               const Clock& clock = system_clock());
  virtual ~Server() = default;  // cancels what is still running and waits for it
  // Accepts nothing more, closes what is idle, and waits until the last request has been answered or the
  // context ends; false: some are still running.
  virtual bool drain(const Context& context) = 0;
  virtual unsigned connections() const = 0;
};

}  // namespace dvdi::http
