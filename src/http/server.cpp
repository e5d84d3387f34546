#include "http/server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <system_error>
#include <thread>
#include <utility>

#include "base/sync.h"
#include "http/answer_text.h"
#include "http/connection.h"

namespace dvdi::http {

namespace {

// Connections beyond the limit that are still heard, so that each is told in an answer why it is not served.
// Still more are told before they have asked.
constexpr unsigned heard_beyond_limit = 64;
// How long no connection is accepted when the machine has no descriptor or memory for one, unless one ends.
constexpr int no_room_ms = 100;
constexpr std::size_t accepted_at_once = 64;

// What an event of the loop is about; greater numbers are connections.
constexpr std::uint64_t about_listener = 0;
constexpr std::uint64_t about_wake = 1;

Result<UniqueFd> new_event() {
  UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return fail(os_error("make an eventfd", errno));
  return event;
}

UniqueFd open_spare() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

void signal(const UniqueFd& event) {
  const std::uint64_t one = 1;
  // Cannot fail in a way that matters: a full counter is readable too.
  [[maybe_unused]] const ssize_t written = ::write(event.get(), &one, sizeof one);
}

Status check_listening(int socket) {
  const auto option = [&](int name) {
    int value = 0;
    socklen_t size = sizeof(value);
    return ::getsockopt(socket, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
  };
  const int domain = option(SO_DOMAIN);
  const bool known = domain == AF_UNIX || domain == AF_INET || domain == AF_INET6;
  if (!known || option(SO_TYPE) != SOCK_STREAM || option(SO_ACCEPTCONN) != 1) {
    return fail({.code = Code::invalid_argument,
                 .message = "serve HTTP: the descriptor is not a listening stream socket"});
  }
  return {};
}

Caller peer_of(int socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  const Caller nobody{.uid = UINT32_MAX, .gid = UINT32_MAX, .pid = 0};
  int domain = 0;
  socklen_t domain_size = sizeof(domain);
  // The kernel knows who connected a Unix socket, and cannot fail to say so.
  if (::getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &domain_size) != 0 || domain != AF_UNIX ||
      ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return nobody;
  return {.uid = credentials.uid, .gid = credentials.gid, .pid = credentials.pid};
}

// One thread (the loop) accepts, learns that clients have gone, and joins the threads of connections that are
// over. It waits without a timeout, but for the moments without room for a connection.
class ThreadedServer final : public Server {
 public:
  explicit ThreadedServer(UniqueFd listening) : listener_(std::move(listening)) {}
  ~ThreadedServer() override;
  ThreadedServer(const ThreadedServer&) = delete;
  ThreadedServer& operator=(const ThreadedServer&) = delete;

  Status open(Handler handler, const ServerLimits& limits, const Clock& clock);
  bool drain(const Context& context) override;
  unsigned connections() const override;

 private:
  struct Record {
    std::unique_ptr<Connection> connection;
    std::thread thread;
  };
  using Records = std::map<std::uint64_t, Record>;

  void loop();
  bool watch(int operation, int descriptor, std::uint32_t events, std::uint64_t about);
  void accept_some();
  bool accept_one();
  bool no_room();
  void tell(int socket, std::string_view why) const;
  void begin(UniqueFd socket);
  bool end_kept(const std::function<bool(const Connection&)>& may_end);
  void over(std::uint64_t id);
  void client_gone(std::uint64_t id);
  void join_finished();
  void stop_accepting();

  ServerCommon common_;
  // Of the loop; also of open() before and of the destructor after it.
  UniqueFd listener_;
  UniqueFd epoll_;
  UniqueFd spare_;  // given up for a moment to tell a client that there are no descriptors left
  bool paused_ = false;

  UniqueFd wake_;        // of the loop
  mutable Mutex mutex_;  // protects what follows
  Condition changed_;
  Records running_;
  Records finished_;
  std::uint64_t next_id_ = about_wake + 1;
  bool stopping_ = false;
  bool accepting_ = true;

  std::thread loop_;  // the last: it uses all the others
};

Status ThreadedServer::open(Handler handler, const ServerLimits& limits, const Clock& clock) {
  DVDI_CHECK(check_listening(listener_.get()));
  common_.handler = std::move(handler);
  common_.limits = limits;
  common_.clock = &clock;
  DVDI_TRY(common_.drain_event, new_event());
  DVDI_TRY(common_.stop_event, new_event());
  DVDI_TRY(wake_, new_event());
  const int flags = ::fcntl(listener_.get(), F_GETFL);
  if (flags < 0 || ::fcntl(listener_.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    return fail(os_error("serve HTTP", errno));
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_ || !watch(EPOLL_CTL_ADD, listener_.get(), EPOLLIN, about_listener) ||
      !watch(EPOLL_CTL_ADD, wake_.get(), EPOLLIN, about_wake)) {
    return fail(os_error("serve HTTP: make an epoll", errno));
  }
  spare_ = open_spare();
  try {
    loop_ = std::thread([this] { loop(); });
  } catch (const std::system_error& error) {
    return fail(os_error("serve HTTP: make a thread", error.code().value()));
  }
  return {};
}

ThreadedServer::~ThreadedServer() {
  {
    const Lock lock(mutex_);
    stopping_ = true;
  }
  common_.draining = true;
  signal(common_.drain_event);
  signal(common_.stop_event);
  signal(wake_);
  if (loop_.joinable()) loop_.join();
  // From here on nobody adds a connection or destroys one.
  std::vector<Connection*> all;
  {
    const Lock lock(mutex_);
    for (const auto& [id, record] : running_) all.push_back(record.connection.get());
  }
  for (Connection* one : all) one->stop();
  {
    Lock lock(mutex_);
    std::ignore = changed_.wait(Context(), lock, [this] { return running_.empty(); }, "stop serving");
  }
  join_finished();
}

bool ThreadedServer::watch(int operation, int descriptor, std::uint32_t events, std::uint64_t about) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = about;
  return ::epoll_ctl(epoll_.get(), operation, descriptor, &event) == 0;
}

void ThreadedServer::loop() {
  for (;;) {
    std::array<epoll_event, 64> events{};
    const int count =
        ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), paused_ ? no_room_ms : -1);
    bool resumes = count == 0;
    bool may_accept = false;
    for (int i = 0; i < count; ++i) {
      const std::uint64_t about = events.at(static_cast<std::size_t>(i)).data.u64;
      if (about == about_listener) {
        may_accept = true;
      } else if (about == about_wake) {
        std::uint64_t ignored = 0;
        [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &ignored, sizeof ignored);
        resumes = true;  // a connection that ended has left room
      } else {
        client_gone(about);
      }
    }
    join_finished();
    {
      const Lock lock(mutex_);
      if (stopping_) return;
    }
    // If somebody waits, the next turn hears of it; if nobody does, nothing wakes the loop any more.
    if (paused_ && resumes) paused_ = !watch(EPOLL_CTL_MOD, listener_.get(), EPOLLIN, about_listener);
    if (common_.draining) {
      stop_accepting();
    } else if (may_accept) {
      accept_some();
    }
  }
}

// A few at a time: what waits still makes the listener ready, and the loop has other things to do.
void ThreadedServer::accept_some() {
  std::size_t count = 0;
  while (count < accepted_at_once && accept_one()) ++count;
}

// False: none waits, or there is no room for one.
bool ThreadedServer::accept_one() {
  UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) {
    if (errno == EINTR || errno == ECONNABORTED) return true;
    return errno == EAGAIN || errno == EWOULDBLOCK ? false : no_room();
  }
  begin(std::move(socket));
  return true;
}

// No descriptor, most likely. The client that waits is told so with the spare one; where that does not work,
// the listener is left alone for a while, or else the loop would spin.
bool ThreadedServer::no_room() {
  if (spare_) {
    spare_.reset();
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    const bool told = static_cast<bool>(socket);
    if (told) tell(socket.get(), "the server has no file descriptor left; try again later");
    socket.reset();
    spare_ = open_spare();
    if (told && spare_) return true;
  }
  if (!spare_) spare_ = open_spare();
  paused_ = watch(EPOLL_CTL_MOD, listener_.get(), 0, about_listener);
  return false;
}

// An answer to a client that nobody listens to. Its socket is new: there is room for this.
void ThreadedServer::tell(int socket, std::string_view why) const {
  const std::string text = problem_answer(503, why, common_.clock->wall());
  [[maybe_unused]] const ssize_t sent = ::send(socket, text.data(), text.size(), MSG_NOSIGNAL);
}

void ThreadedServer::begin(UniqueFd socket) {
  const int descriptor = socket.get();
  const Caller peer = peer_of(descriptor);
  const Lock lock(mutex_);
  const std::size_t count = running_.size();
  if (count >= std::size_t{common_.limits.connections} + heard_beyond_limit)
    return tell(descriptor, "the server has too many connections; try again later");
  const auto is_peers = [&](const Connection& one) { return one.peer().uid == peer.uid; };
  const auto of_user =
      std::ranges::count_if(running_, [&](const auto& one) { return is_peers(*one.second.connection); });
  // Those that clients keep open for later make room.
  if (peer.uid != 0 && std::cmp_greater_equal(of_user, common_.limits.connections_of_user) &&
      !end_kept(is_peers))
    return tell(descriptor, "this user has too many connections; try again later");
  const std::uint64_t id = next_id_++;
  // Edge-triggered and for nothing but the end (EPOLLHUP comes unasked): data wakes only the connection's
  // thread. A client that shut down its sending side alone is not that.
  if (!watch(EPOLL_CTL_ADD, descriptor, EPOLLET, id))
    return tell(descriptor, "the server has no memory left");
  const bool refused =
      count >= common_.limits.connections && !end_kept([](const Connection& /*one*/) { return true; });
  try {
    Record& record = running_[id];
    record.connection = std::make_unique<Connection>(std::move(socket), peer, refused, common_);
    record.thread = std::thread([this, id, connection = record.connection.get()] {
      connection->serve();
      over(id);
    });
  } catch (const std::exception&) {
    tell(descriptor, "the server has no thread or memory left; try again later");
    running_.erase(id);
  }
}

// One of them, under the mutex; false: all are at work.
bool ThreadedServer::end_kept(const std::function<bool(const Connection&)>& may_end) {
  return std::ranges::any_of(running_, [&](auto& one) {
    return may_end(*one.second.connection) && one.second.connection->end_if_kept();
  });
}

void ThreadedServer::over(std::uint64_t id) {
  {
    const Lock lock(mutex_);
    finished_.insert(running_.extract(id));
    changed_.notify_all();
  }
  signal(wake_);
}

void ThreadedServer::client_gone(std::uint64_t id) {
  Connection* connection = nullptr;
  {
    const Lock lock(mutex_);
    const auto found = running_.find(id);
    if (found == running_.end()) return;
    connection = found->second.connection.get();
  }
  connection->client_gone();  // only this thread destroys connections
}

void ThreadedServer::join_finished() {
  Records finished;
  {
    const Lock lock(mutex_);
    finished.swap(finished_);
  }
  for (auto& [id, record] : finished) record.thread.join();
}

// Who has connected before the drain began is heard; who comes later finds nobody.
void ThreadedServer::stop_accepting() {
  if (!listener_) return;
  for (unsigned count = 0; count < common_.limits.connections && accept_one(); ++count) {
  }
  listener_.reset();
  paused_ = false;
  const Lock lock(mutex_);
  accepting_ = false;
  changed_.notify_all();
}

bool ThreadedServer::drain(const Context& context) {
  common_.draining = true;
  signal(common_.drain_event);
  signal(wake_);
  Lock lock(mutex_);
  return changed_
      .wait(
          context, lock, [this] { return !accepting_ && running_.empty(); }, "wait for the last requests")
      .has_value();
}

unsigned ThreadedServer::connections() const {
  const Lock lock(mutex_);
  return static_cast<unsigned>(running_.size());
}

}  // namespace

Result<std::string> IncomingRequest::read_all(const Context& context, std::size_t most) {
  const Error too_long{
      .code = Code::resource_exhausted,
      .message = "the body of the request is longer than " + std::to_string(most) + " bytes"};
  // Said before the body is asked for, where the length is known.
  const std::string_view length = header("content-length");
  std::uint64_t announced = 0;
  std::from_chars(length.begin(), length.end(), announced);
  if (announced > most) return too_long;
  constexpr std::size_t piece_bytes = std::size_t{64} << 10U;
  std::string all;
  for (;;) {
    DVDI_TRY(const std::string piece, read(context, piece_bytes));
    if (piece.empty()) return all;
    if (piece.size() > most - all.size()) return too_long;
    all += piece;
  }
}

Result<std::unique_ptr<Server>> Server::start(UniqueFd listening, Handler handler, const ServerLimits& limits,
                                              const Clock& clock) {
  auto server = std::make_unique<ThreadedServer>(std::move(listening));
  DVDI_CHECK(server->open(std::move(handler), limits, clock));
  return server;
}

}  // namespace dvdi::http
