// One connection to a NATS server, over libnats, which this file's .cpp alone includes.
//
// libnats is driven as if by an event loop: the thread that asks reads and writes the socket itself, and
// waits for it with its context. Debian's libnats 3.4 would otherwise read in a thread of its own, and with
// TLS use one OpenSSL object from two threads at once, which OpenSSL does not allow (nats.c, pull request
// 913); and its waits know nothing of a context that is cancelled.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/context.h"
#include "event/sink.h"

namespace dvdi {

using NatsHeaders = std::vector<std::pair<std::string, std::string>>;

struct NatsReply {
  std::string payload;
  bool nobody = false;  // nobody listens to that subject; the server says so at once
};

// Not thread-safe.
class NatsConnection {
 public:
  // To the first of the servers that answers. Reads the files of passwords, tokens, keys now. Ends with the
  // context, also where a server leaves a handshake hanging.
  //   invalid_argument, permission_denied   a file, or the server refuses the user
  //   unavailable                           no server answered
  static Result<std::unique_ptr<NatsConnection>> open(const Context& context,
                                                      const NatsSinkSettings& settings);
  ~NatsConnection();
  NatsConnection(const NatsConnection&) = delete;
  NatsConnection& operator=(const NatsConnection&) = delete;

  // Takes what the server has sent meanwhile; false: it has closed the connection.
  bool alive();

  // Publishes, and waits for the answer. After an error it is not known whether the message arrived, and the
  // connection is good for nothing more. `what` is what is being done.
  Result<NatsReply> request(const Context& context, const std::string& subject, const NatsHeaders& headers,
                            std::string_view payload, std::string_view what);

  // The largest message that the server takes, headers included.
  std::uint64_t max_payload() const;
  // What the headers of a message take of that.
  static std::size_t size_of(const NatsHeaders& headers);

 private:
  struct Handle;
  explicit NatsConnection(std::unique_ptr<Handle> handle);
  Status turn(const Context& context, std::string_view what);
  Error lost(std::string_view what) const;

  std::unique_ptr<Handle> handle_;
};

}  // namespace dvdi
