// One connection of the server, from its first byte to its last.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "http/request_parser.h"
#include "http/server.h"
#include "http/stream_socket.h"

namespace dvdi::http {

// What all connections of a server have in common; lives longer than they do.
struct ServerCommon {
  Handler handler;
  ServerLimits limits;
  const Clock* clock = &system_clock();
  std::atomic<bool> draining = false;
  UniqueFd drain_event;  // readable from the beginning of the drain on: idle connections end
  UniqueFd stop_event;   // readable once everything must end
};

class Connection {
 public:
  // With `refused` the server has too many already: each request is answered with that.
  Connection(UniqueFd socket, const Caller& peer, bool refused, const ServerCommon& common);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const Caller& peer() const { return peer_; }
  void serve();  // returns when the connection is over, and closed

  // From any thread. What they cancel is told on that thread.
  void client_gone();
  void stop();
  // True: it waited for another request after those that it had, and will end instead. A request that comes
  // meanwhile is answered, or its client is told that nobody has read it.
  bool end_if_kept();

 private:
  bool serve_request();  // true: there may be another one
  bool wait_for_request();
  // Nothing: there is none, and nobody to tell.
  bool read_head(RequestParser& parser, std::string& body, std::optional<Refusal>& refusal);
  void run_handler(const Context& context, IncomingRequest& request, Answer& answer);
  void refuse(const Refusal& refusal);
  void linger();
  std::stop_token begin();
  void cancel(bool& reason);

  const ServerCommon& common_;
  Caller peer_;
  bool refused_;
  StreamSocket socket_;
  std::string unparsed_;
  bool has_served_ = false;

  std::mutex mutex_;  // protects what follows
  bool gone_ = false;
  bool stopped_ = false;
  bool kept_ = false;         // between two requests
  std::stop_source current_;  // of the request that runs
};

}  // namespace dvdi::http
