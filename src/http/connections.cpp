#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/sync.h"
#include "http/unix_call.h"

namespace dvdi::http {

namespace {

// Whose connection it is, on both ends: the kernel told the server who we were when it was connected.
struct Ends {
  std::string server;  // Endpoint::generation()
  pid_t pid = ::getpid();
  uid_t user = ::geteuid();

  bool operator==(const Ends&) const = default;
};

// Nothing has come and it is open: whatever comes before a request is none of its answer.
bool is_quiet(const UniqueFd& socket) {
  char byte = 0;
  return ::recv(socket.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
         (errno == EAGAIN || errno == EWOULDBLOCK);
}

struct Idle {
  Ends ends;
  UniqueFd socket;
};

}  // namespace

struct Connections::State {
  const std::size_t most;
  Mutex mutex;
  std::vector<Idle> idle;  // the last is the warmest

  // None: there is none of the same ends. Those that have ended meanwhile go.
  UniqueFd take(const Ends& ends) {
    const Lock lock(mutex);
    while (!idle.empty()) {
      Idle last = std::move(idle.back());
      idle.pop_back();
      if (last.ends == ends && is_quiet(last.socket)) return std::move(last.socket);
    }
    return {};
  }
  void give_back(const Ends& ends, UniqueFd socket) {
    const Lock lock(mutex);
    if (idle.size() < most) idle.push_back({ends, std::move(socket)});
  }
};

Connections::Connections(std::size_t most_idle) : state_(std::make_unique<State>(most_idle)) {}
Connections::~Connections() = default;

Result<Response> Connections::send(const Context& context, const Endpoint& endpoint, const Request& request,
                                   const Limits& limits) {
  if (endpoint.unix_socket.empty()) return http::send(context, endpoint, request, limits);
  DVDI_CHECK(check_request(context, endpoint, request));
  const Ends ends{.server = endpoint.generation()};
  for (;;) {
    UniqueFd socket = state_->take(ends);
    const bool is_new = !socket;
    if (is_new) {
      DVDI_TRY(socket, connect_unix(endpoint));
    }
    UnixCall call(context, endpoint, limits, nullptr, std::move(socket));
    auto response = call.perform(request);
    if (response && call.reusable()) state_->give_back(ends, call.release());
    if (response || is_new || !call.unread()) return response;
  }
}

}  // namespace dvdi::http
