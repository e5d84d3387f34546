#include "event/nats_connection.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <nats/nats.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>
#include <thread>

#include "base/random.h"
#include "base/sync.h"
#include "base/text.h"
#include "event/secret_file.h"
#include "linux/wait.h"

namespace dvdi {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration longest_connect = seconds(10);  // to one server, with its handshakes
constexpr int write_deadline_ms = 10'000;
constexpr std::size_t longest_reply = std::size_t{128} << 20U;
// Connects that a server, or the resolver, has left hanging. Each holds a thread until that ends.
constexpr int most_hanging = 16;
std::atomic<int> hanging = 0;

struct FreeOptions {
  void operator()(natsOptions* options) const { natsOptions_Destroy(options); }
};
struct FreeMessage {
  void operator()(natsMsg* message) const { natsMsg_Destroy(message); }
};
using Options = std::unique_ptr<natsOptions, FreeOptions>;
using Message = std::unique_ptr<natsMsg, FreeMessage>;

// What libnats says of the connection's socket. Its callbacks come from within calls of ours, on the thread
// that makes them: with no pings of its own it has no thread that uses a connection.
struct Socket {
  int fd = -1;
  bool wants_write = false;
};

natsStatus attached(void** user, void* loop, natsConnection* /*connection*/, natsSock fd) {
  auto* const socket = static_cast<Socket*>(loop);
  *user = socket;
  socket->fd = fd;
  // libnats does not set it.
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return NATS_SYS_ERROR;
  // So that a server whose machine is gone is found out while half of a TLS record is awaited, the one place
  // where libnats 3.4 still waits without a deadline.
  const int on = 1;
  const int idle = 20;
  const int interval = 5;
  const int probes = 4;
  static_cast<void>(::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
  static_cast<void>(::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle));
  static_cast<void>(::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval));
  static_cast<void>(::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes));
  return NATS_OK;
}
natsStatus reads(void* /*user*/, bool /*add*/) { return NATS_OK; }
natsStatus writes(void* user, bool add) {
  static_cast<Socket*>(user)->wants_write = add;
  return NATS_OK;
}
natsStatus detached(void* user) {
  static_cast<Socket*>(user)->fd = -1;
  return NATS_OK;
}
// Without one libnats prints to standard error.
void ignore_error(natsConnection* /*connection*/, natsSubscription* /*of*/, natsStatus /*why*/,
                  void* /*closure*/) {}

// The name that the server's certificate must have.
std::string host_of(std::string_view url) {
  url.remove_prefix(std::min(url.find("://") + 3, url.size()));
  url = url.substr(0, url.find('/'));
  if (url.starts_with('[')) return std::string(url.substr(1, std::max<std::size_t>(url.find(']'), 1) - 1));
  return std::string(url.substr(0, url.rfind(':')));
}

struct Credentials {
  std::string password, token;
  // A server may repeat in an error what it was sent.
  std::string without_secrets(std::string text) const {
    for (const std::string* const secret : {&password, &token}) {
      if (secret->empty()) continue;
      for (auto at = text.find(*secret); at != std::string::npos; at = text.find(*secret))
        text.replace(at, secret->size(), "***");
    }
    return text;
  }
};

Result<Credentials> read_credentials(const NatsSinkSettings& settings) {
  Credentials credentials;
  if (!settings.user.empty()) {
    DVDI_TRY(credentials.password, read_secret_file(settings.password_file, "password_file"));
  }
  if (!settings.token_file.empty()) {
    DVDI_TRY(credentials.token, read_secret_file(settings.token_file, "token_file"));
  }
  if (!settings.credentials_file.empty())
    DVDI_CHECK(check_secret_file(settings.credentials_file, "credentials_file"));
  if (!settings.tls.key_file.empty()) DVDI_CHECK(check_secret_file(settings.tls.key_file, "key_file"));
  return credentials;
}

// What libnats says of the last call that failed on this thread.
std::string said(natsStatus status, const Credentials& credentials) {
  const char* const more = nats_GetLastError(nullptr);
  std::string text = natsStatus_GetText(status);
  if (more != nullptr && *more != '\0' && text != more) text += fmt::format(" ({})", more);
  return printable(credentials.without_secrets(std::move(text)), 400);
}

// Sets options one after another; the first that fails is what it says.
class Setter {
 public:
  void operator()(const char* what, natsStatus now) {
    if (status_ != NATS_OK || now == NATS_OK) return;
    status_ = now;
    what_ = what;
  }
  natsStatus status() const { return status_; }
  const char* what() const { return what_; }

 private:
  natsStatus status_ = NATS_OK;
  const char* what_ = "";
};

void set_tls(natsOptions* options, const http::Tls& tls, const std::string& url, Setter& set) {
  set("use TLS", natsOptions_SetSecure(options, true));
  // Without this libnats would take any certificate that the authority has signed, for whatever name.
  set("use TLS", natsOptions_SetExpectedHostname(options, host_of(url).c_str()));
  if (!tls.ca_file.empty())
    set("take ca_file", natsOptions_LoadCATrustedCertificates(options, tls.ca_file.c_str()));
  if (!tls.cert_file.empty()) {
    set("take cert_file and key_file",
        natsOptions_LoadCertificatesChain(options, tls.cert_file.c_str(), tls.key_file.c_str()));
  }
  if (tls.insecure_skip_verify) set("use TLS", natsOptions_SkipServerVerification(options, true));
}

Result<Options> options_of(const NatsSinkSettings& settings, const std::string& url,
                           const Credentials& credentials, Duration timeout, Socket& socket) {
  natsOptions* made = nullptr;
  Setter set;
  set("begin", natsOptions_Create(&made));
  Options options(made);
  if (options) {
    const http::Tls& tls = settings.tls;
    const auto timeout_ms = std::chrono::ceil<milliseconds>(timeout).count();
    set("take url", natsOptions_SetURL(made, url.c_str()));
    set("set name", natsOptions_SetName(made, "dvdid"));
    set("set timeout", natsOptions_SetTimeout(made, std::max<std::int64_t>(timeout_ms, 10)));
    // Connecting anew is the sink's business: only it knows what was confirmed, and what to send again.
    set("set reconnect", natsOptions_SetAllowReconnect(made, false));
    set("set servers", natsOptions_SetIgnoreDiscoveredServers(made, true));
    set("set error handler", natsOptions_SetErrorHandler(made, ignore_error, nullptr));
    // With these no thread of libnats's uses the connection.
    set("set event loop", natsOptions_SetEventLoop(made, &socket, attached, reads, writes, detached));
    set("set flushing", natsOptions_SetSendAsap(made, true));
    set("set pings", natsOptions_SetPingInterval(made, 0));
    set("set write deadline", natsOptions_SetWriteDeadline(made, write_deadline_ms));
    if (!settings.user.empty())
      set("take user", natsOptions_SetUserInfo(made, settings.user.c_str(), credentials.password.c_str()));
    if (!credentials.token.empty()) set("take token", natsOptions_SetToken(made, credentials.token.c_str()));
    if (!settings.credentials_file.empty()) {
      set("take credentials_file",
          natsOptions_SetUserCredentialsFromFiles(made, settings.credentials_file.c_str(), nullptr));
    }
    if (url.starts_with("tls://") || !tls.ca_file.empty() || !tls.cert_file.empty() ||
        tls.insecure_skip_verify) {
      set_tls(made, tls, url, set);
    }
  }
  if (set.status() != NATS_OK) {
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("connect to {}: cannot {}: {}", url, set.what(),
                                        said(set.status(), credentials))};
  }
  return options;
}

}  // namespace

struct NatsConnection::Handle {
  // First: callbacks of the connection write to it.
  Socket socket;
  natsConnection* connection = nullptr;
  natsSubscription* inbox = nullptr;
  std::string url;
  std::string replies;  // the subject that answers come to begins so
  std::uint64_t asked = 0;
  Credentials credentials;

  Handle() = default;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    // In this order: destroying a subscription of an open connection queues a message to the server, and
    // closing a connection waits half a second for what is queued.
    if (connection != nullptr) natsConnection_Close(connection);
    natsSubscription_Destroy(inbox);
    natsConnection_Destroy(connection);
  }
};

namespace {

// What went wrong with one server.
Error refused(natsStatus status, const std::string& url, const Credentials& credentials) {
  Error error{.code = Code::unavailable,
              .message = fmt::format("connect to {}: {}", url, said(status, credentials)),
              .outcome = Outcome::not_sent};
  switch (status) {
    case NATS_CONNECTION_AUTH_FAILED:
      error.code = Code::permission_denied;
      error.hint = "the files that the sink names hold what the server wants? They are read at each connect";
      break;
    case NATS_SECURE_CONNECTION_REQUIRED:
      error.code = Code::failed_precondition;
      error.hint = "the server wants TLS: tls:// in url";
      break;
    case NATS_SECURE_CONNECTION_WANTED:
      error.code = Code::failed_precondition;
      error.hint = "the server has no TLS, and the sink is told to use it";
      break;
    case NATS_SSL_ERROR:
      error.code = Code::io;
      error.hint =
          "ca_file, and the name in url, must fit the server's certificate; a server may want cert_file";
      break;
    default:
      break;
  }
  return error;
}

}  // namespace

Result<std::unique_ptr<NatsConnection>> NatsConnection::open(const Context& context,
                                                             const NatsSinkSettings& settings) {
  std::optional<Error> failed;
  for (const std::string_view one : split(settings.url, ',')) {
    const std::string url(trim(one));
    // In a thread, which this one leaves behind where it does not come back: looking up a name and the
    // handshake of TLS end with no deadline in libnats 3.4. Shared, because the thread may outlive this call.
    struct Attempt {
      Mutex mutex;
      Condition changed;
      bool done = false, left = false;
      Result<std::unique_ptr<Handle>> result;
    };
    if (hanging.load() >= most_hanging) {
      return Error{.code = Code::unavailable,
                   .message = fmt::format("connect to {}: {} earlier attempts still hang, in looking up a "
                                          "name or in a server's handshake",
                                          url, most_hanging),
                   .outcome = Outcome::not_sent};
    }
    const auto attempt = std::make_shared<Attempt>();
    DVDI_TRY(const Credentials credentials, read_credentials(settings));
    const Context bounded = context.with_timeout(longest_connect);
    DVDI_CHECK(bounded.check("connect to " + url));
    std::thread thread([attempt, settings, url, credentials, timeout = bounded.remaining()] {
      auto result = [&]() -> Result<std::unique_ptr<Handle>> {
        auto handle = std::make_unique<Handle>();
        handle->url = url;
        handle->credentials = credentials;
        handle->replies = fmt::format("_INBOX.{}.", random_uuid());
        DVDI_TRY(const Options options, options_of(settings, url, credentials, timeout, handle->socket));
        natsStatus status = natsConnection_Connect(&handle->connection, options.get());
        if (status == NATS_OK) {
          status = natsConnection_SubscribeSync(&handle->inbox, handle->connection,
                                                (handle->replies + "*").c_str());
        }
        if (status != NATS_OK) return refused(status, url, credentials);
        return handle;
      }();
      const Lock lock(attempt->mutex);
      attempt->result = std::move(result);
      attempt->done = true;
      if (attempt->left) hanging.fetch_sub(1);
      attempt->changed.notify_all();
    });
    Lock lock(attempt->mutex);
    const Status ended =
        attempt->changed.wait(bounded, lock, [&] { return attempt->done; }, "connect to " + url);
    if (!attempt->done) {
      attempt->left = true;
      hanging.fetch_add(1);
      lock.unlock();
      thread.detach();
      DVDI_CHECK(context.check("connect to " + url));
      failed = ended.error();
      continue;
    }
    lock.unlock();
    thread.join();
    if (attempt->result)
      return std::unique_ptr<NatsConnection>(new NatsConnection(std::move(*attempt->result)));
    Error error = attempt->result.error();
    if (failed) error.attached.push_back(*std::move(failed));
    failed = std::move(error);
  }
  return *failed;  // a text split has at least one piece
}

NatsConnection::NatsConnection(std::unique_ptr<Handle> handle) : handle_(std::move(handle)) {}
NatsConnection::~NatsConnection() = default;

std::uint64_t NatsConnection::max_payload() const {
  const std::int64_t most = natsConnection_GetMaxPayload(handle_->connection);
  return most > 0 ? static_cast<std::uint64_t>(most) : std::numeric_limits<std::uint64_t>::max();
}

std::size_t NatsConnection::size_of(const NatsHeaders& headers) {
  if (headers.empty()) return 0;
  std::size_t size = std::string_view("NATS/1.0\r\n\r\n").size();
  for (const auto& [name, value] : headers)
    size += name.size() + value.size() + std::string_view(": \r\n").size();
  return size;
}

Error NatsConnection::lost(std::string_view what) const {
  const char* more = nullptr;
  const natsStatus status = natsConnection_GetLastError(handle_->connection, &more);
  const bool denied = status == NATS_NOT_PERMITTED;
  const std::string text =
      status == NATS_OK || more == nullptr || *more == '\0' ? "it ended the connection" : more;
  return Error{.code = denied ? Code::permission_denied : Code::unavailable,
               .message = fmt::format("{}: the server {} says: {}", what, handle_->url,
                                      printable(handle_->credentials.without_secrets(text), 400)),
               .hint = denied ? "docs/sinks-nats.md says what the user of a sink must be allowed" : "",
               .outcome = denied ? Outcome::refused : Outcome::unknown};
}

// Sends what is to be sent, waits, takes what comes.
Status NatsConnection::turn(const Context& context, std::string_view what) {
  natsConnection* const connection = handle_->connection;
  if (handle_->socket.wants_write) natsConnection_ProcessWriteEvent(connection);
  if (natsConnection_IsClosed(connection) || handle_->socket.fd < 0) return lost(what);
  pollfd one{.fd = handle_->socket.fd, .events = POLLIN, .revents = 0};
  if (handle_->socket.wants_write) one.events |= POLLOUT;
  DVDI_CHECK(wait_ready(context, std::span(&one, 1), what));
  if ((one.revents & ~POLLOUT) != 0) natsConnection_ProcessReadEvent(connection);
  const char* more = nullptr;
  if (natsConnection_IsClosed(connection) ||
      natsConnection_GetLastError(connection, &more) == NATS_NOT_PERMITTED) {
    return lost(what);
  }
  return {};
}

bool NatsConnection::alive() {
  for (;;) {
    if (natsConnection_IsClosed(handle_->connection) || handle_->socket.fd < 0) return false;
    if (handle_->socket.wants_write) natsConnection_ProcessWriteEvent(handle_->connection);
    pollfd one{.fd = handle_->socket.fd, .events = POLLIN, .revents = 0};
    if (::poll(&one, 1, 0) != 1) return !natsConnection_IsClosed(handle_->connection);
    natsConnection_ProcessReadEvent(handle_->connection);
  }
}

Result<NatsReply> NatsConnection::request(const Context& context, const std::string& subject,
                                          const NatsHeaders& headers, std::string_view payload,
                                          std::string_view what) {
  DVDI_CHECK(context.check(what));
  const std::string reply_to = handle_->replies + std::to_string(++handle_->asked);
  if (payload.size() > std::numeric_limits<int>::max())
    return Error{.code = Code::resource_exhausted, .message = fmt::format("{}: too large", what)};
  natsMsg* made = nullptr;
  natsStatus status = natsMsg_Create(&made, subject.c_str(), reply_to.c_str(), payload.data(),
                                     static_cast<int>(payload.size()));
  const Message message(made);
  for (const auto& [name, value] : headers) {
    if (status == NATS_OK) status = natsMsgHeader_Set(made, name.c_str(), value.c_str());
  }
  if (status == NATS_OK) status = natsConnection_PublishMsg(handle_->connection, made);
  if (status != NATS_OK) {
    return Error{.code = Code::unavailable,
                 .message = fmt::format("{}: cannot send to {}: {}", what, handle_->url,
                                        said(status, handle_->credentials)),
                 .outcome = Outcome::unknown};
  }
  for (;;) {
    natsMsg* got = nullptr;
    // Taken from what turn() has read; 0: does not wait.
    status = natsSubscription_NextMsg(&got, handle_->inbox, 0);
    // Of this request: there is never another under way, as none follows one that has failed.
    if (status == NATS_NO_RESPONDERS) return NatsReply{.payload = {}, .nobody = true};
    if (status == NATS_OK) {
      const Message reply(got);
      if (reply_to != natsMsg_GetSubject(got)) continue;
      NatsReply result;
      const auto size = static_cast<std::size_t>(std::max(natsMsg_GetDataLength(got), 0));
      if (size > longest_reply)
        return Error{.code = Code::resource_exhausted,
                     .message = fmt::format("{}: the answer is too large", what)};
      if (size > 0) result.payload.assign(natsMsg_GetData(got), size);
      return result;
    }
    auto turned = turn(context, what);
    if (!turned) {
      Error error = std::move(turned).error();
      if (error.outcome == Outcome::none) {
        error.outcome = Outcome::unknown;
        error.message = fmt::format("{} ({}): no answer", error.message, handle_->url);
      }
      return error;
    }
  }
}

}  // namespace dvdi
