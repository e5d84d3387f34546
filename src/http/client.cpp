#include "http/client.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <new>
#include <stop_token>
#include <system_error>
#include <utility>

#include "base/text.h"
#include "http/sigpipe.h"
#include "http/unix_socket.h"

namespace dvdi::http {

namespace {

struct EasyCleanup {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
struct MultiCleanup {
  void operator()(CURLM* handle) const { curl_multi_cleanup(handle); }
};
struct ListCleanup {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Easy = std::unique_ptr<CURL, EasyCleanup>;
using Multi = std::unique_ptr<CURLM, MultiCleanup>;
using HeaderList = std::unique_ptr<curl_slist, ListCleanup>;

bool library_ready() {
  // Once, by whichever thread comes first; never undone, as other threads may be at work until the very end.
  static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  return ready;
}

// What the callbacks of one transfer share. All of them run on the calling thread.
struct Transfer {
  Transfer(const Limits& own_limits, const OnPiece* own_on_piece)
      : limits(&own_limits), on_piece(own_on_piece) {}

  const Limits* limits;
  const OnPiece* on_piece;  // nullptr: the body is kept
  CURL* handle = nullptr;   // knows the status while the body comes in
  bool stopped = false;     // by on_piece
  std::string unix_path;    // "": TCP
  bool sending = false;
  bool body_too_long = false;
  bool out_of_memory = false;
  bool header_too_long = false;
  std::size_t header_bytes = 0;
  std::map<std::string, std::string, std::less<>> headers;
  std::string body;
};

std::size_t on_body(char* data, std::size_t size, std::size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::size_t bytes = size * count;
  if (transfer.on_piece != nullptr) {
    long status = 0;
    if (curl_easy_getinfo(transfer.handle, CURLINFO_RESPONSE_CODE, &status) != CURLE_OK) status = 0;
    if (status >= 200 && status < 300) {
      transfer.stopped = !(*transfer.on_piece)(std::string_view(data, bytes));
      return transfer.stopped ? CURL_WRITEFUNC_ERROR : bytes;
    }
  }
  if (bytes > transfer.limits->body_bytes - transfer.body.size()) {
    transfer.body_too_long = true;
    return CURL_WRITEFUNC_ERROR;
  }
  try {
    transfer.body.append(data, bytes);
  } catch (const std::bad_alloc&) {  // must not go through libcurl, which is C
    transfer.out_of_memory = true;
    return CURL_WRITEFUNC_ERROR;
  }
  return bytes;
}

void note_header(std::string_view line, std::map<std::string, std::string, std::less<>>& headers) {
  if (line.starts_with("HTTP/")) return headers.clear();  // of another answer: the one before was a 1xx
  const auto colon = line.find(':');
  if (colon == std::string_view::npos) return;
  std::string name(line.substr(0, colon));
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  headers[std::move(name)] = trim(line.substr(colon + 1));
}

std::size_t on_header(char* data, std::size_t size, std::size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.header_bytes += size * count;
  if (transfer.header_bytes > transfer.limits->header_bytes) {
    transfer.header_too_long = true;
    return CURL_WRITEFUNC_ERROR;
  }
  try {
    note_header({data, size * count}, transfer.headers);
  } catch (const std::bad_alloc&) {
    transfer.out_of_memory = true;
    return CURL_WRITEFUNC_ERROR;
  }
  return size * count;
}

// The connection is there, the request has not been sent: from here on its effect is not known.
int on_ready_to_send(void* user, char* /*peer*/, char* /*self*/, int /*peer_port*/, int /*self_port*/) {
  static_cast<Transfer*>(user)->sending = true;
  return CURL_PREREQFUNC_OK;
}

// As curl does it, but not inherited by programs that this one starts.
curl_socket_t on_open_socket(void* /*user*/, curlsocktype /*purpose*/, curl_sockaddr* address) {
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

bool sendable(std::string_view text) {
  return std::ranges::none_of(text, [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
}

Error failure(Code code, Outcome outcome, const Endpoint& endpoint, std::string_view text) {
  return Error{.code = code,
               .message = fmt::format("{}: {}", printable(endpoint.text()), printable(text)),
               .outcome = outcome};
}

Error failure_to_connect(CURLcode code, int error_number, std::string_view details,
                         const Endpoint& endpoint) {
  if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL) {
    return failure(Code::invalid_argument, Outcome::not_sent, endpoint, details);
  }
  if (code == CURLE_OPERATION_TIMEDOUT || code == CURLE_COULDNT_RESOLVE_HOST) {
    return failure(Code::unavailable, Outcome::not_sent, endpoint,
                   fmt::format("cannot connect: {}", details));
  }
  if (code == CURLE_COULDNT_CONNECT) {
    const bool hopeless = error_number == EACCES || error_number == EPERM || error_number == EMFILE;
    const std::string text =
        error_number == 0 ? std::string(details) : std::generic_category().message(error_number);
    return failure(hopeless ? Code::io : Code::unavailable, Outcome::not_sent, endpoint,
                   fmt::format("cannot connect: {}", text));
  }
  return failure(Code::io, Outcome::not_sent, endpoint, fmt::format("cannot connect: {}", details));
}

Error failure_of_curl(CURLcode code, const Easy& easy, std::string_view error_text, const Transfer& transfer,
                      const Endpoint& endpoint) {
  const std::string_view text = error_text.empty() ? std::string_view(curl_easy_strerror(code)) : error_text;
  if (!transfer.sending) {
    long error_number = 0;
    if (curl_easy_getinfo(easy.get(), CURLINFO_OS_ERRNO, &error_number) != CURLE_OK) error_number = 0;
    return failure_to_connect(code, static_cast<int>(error_number), text, endpoint);
  }
  if (transfer.body_too_long) {
    return failure(Code::resource_exhausted, Outcome::unknown, endpoint,
                   fmt::format("the answer is longer than {} bytes", transfer.limits->body_bytes));
  }
  if (transfer.out_of_memory) {
    return failure(Code::resource_exhausted, Outcome::unknown, endpoint, "no memory for the answer");
  }
  if (transfer.header_too_long) {
    return failure(Code::resource_exhausted, Outcome::unknown, endpoint,
                   fmt::format("the answer's header is longer than {} bytes", transfer.limits->header_bytes));
  }
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:  // HTTP/0.9: whatever it was, it did not begin with HTTP/
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
      return failure(Code::corrupted, Outcome::unknown, endpoint,
                     fmt::format("the answer is not HTTP: {}", text));
    default:
      return failure(Code::io, Outcome::unknown, endpoint,
                     fmt::format("the connection broke before the answer was complete: {}", text));
  }
}

template <class Value>
void set(const Easy& easy, CURLoption option, Value value, bool& ok) {
  ok = ok && curl_easy_setopt(easy.get(), option, value) == CURLE_OK;
}

void set_text(const Easy& easy, CURLoption option, const std::string& text, bool& ok) {
  if (!text.empty()) set(easy, option, text.c_str(), ok);
}

// Everything that has a default which reads the user's environment or follows the server's wishes is said.
bool configure(const Easy& easy, const Endpoint& endpoint, const Request& request, const std::string& url,
               curl_slist* headers, char* error_text, Transfer& transfer) {
  bool ok = true;
  set(easy, CURLOPT_URL, url.c_str(), ok);
  set(easy, CURLOPT_PROTOCOLS_STR, "http,https", ok);
  set(easy, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1}, ok);
  set(easy, CURLOPT_NOSIGNAL, 1L, ok);
  set(easy, CURLOPT_NOPROXY, "*", ok);
  set(easy, CURLOPT_FOLLOWLOCATION, 0L, ok);
  set(easy, CURLOPT_NETRC, long{CURL_NETRC_IGNORED}, ok);
  set(easy, CURLOPT_PATH_AS_IS, 1L, ok);
  set(easy, CURLOPT_QUICK_EXIT, 1L, ok);  // do not wait for a resolver thread that hangs
  // A connection for each request: on a reused one that turns out to be dead, curl sends the request again by
  // itself, and a Mount must never be sent twice unknown to us.
  set(easy, CURLOPT_FRESH_CONNECT, 1L, ok);
  set(easy, CURLOPT_FORBID_REUSE, 1L, ok);
  const auto connect_ms = std::chrono::ceil<std::chrono::milliseconds>(transfer.limits->connect).count();
  set(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect_ms), ok);
  set(easy, CURLOPT_HTTPHEADER, headers, ok);
  set(easy, CURLOPT_ERRORBUFFER, error_text, ok);
  if (request.method == Method::post) {
    set(easy, CURLOPT_POST, 1L, ok);
    set(easy, CURLOPT_POSTFIELDS, request.body.data(), ok);
    set(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()), ok);
  }
  if (request.method == Method::del) set(easy, CURLOPT_CUSTOMREQUEST, "DELETE", ok);
  set_text(easy, CURLOPT_UNIX_SOCKET_PATH, transfer.unix_path, ok);
  set(easy, CURLOPT_OPENSOCKETFUNCTION, &on_open_socket, ok);
  set(easy, CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2}, ok);
  set(easy, CURLOPT_SSL_VERIFYPEER, endpoint.tls.insecure_skip_verify ? 0L : 1L, ok);
  set(easy, CURLOPT_SSL_VERIFYHOST, endpoint.tls.insecure_skip_verify ? 0L : 2L, ok);
  set_text(easy, CURLOPT_CAINFO, endpoint.tls.ca_file, ok);
  set_text(easy, CURLOPT_SSLCERT, endpoint.tls.cert_file, ok);
  set_text(easy, CURLOPT_SSLKEY, endpoint.tls.key_file, ok);
  set(easy, CURLOPT_WRITEFUNCTION, &on_body, ok);
  set(easy, CURLOPT_WRITEDATA, &transfer, ok);
  set(easy, CURLOPT_HEADERFUNCTION, &on_header, ok);
  set(easy, CURLOPT_HEADERDATA, &transfer, ok);
  set(easy, CURLOPT_PREREQFUNCTION, &on_ready_to_send, ok);
  set(easy, CURLOPT_PREREQDATA, &transfer, ok);
  return ok;
}

// Appends or gives nullptr and frees.
HeaderList header_list(const std::vector<std::string>& headers) {
  HeaderList list;
  for (const std::string& header : headers) {
    curl_slist* longer = curl_slist_append(list.get(), header.c_str());
    if (longer == nullptr) return nullptr;
    std::ignore = list.release();
    list.reset(longer);
  }
  return list;
}

// While it lives, the easy handle is part of the multi handle.
class Membership {
 public:
  Membership(CURLM* multi, CURL* easy)
      : multi_(multi), easy_(easy), joined_(curl_multi_add_handle(multi, easy) == CURLM_OK) {}
  ~Membership() {
    if (joined_) curl_multi_remove_handle(multi_, easy_);
  }
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;
  bool joined() const { return joined_; }

 private:
  CURLM* multi_;
  CURL* easy_;
  bool joined_;
};

Error internal_failure(const Transfer& transfer, const Endpoint& endpoint, std::string_view text) {
  return failure(Code::internal, transfer.sending ? Outcome::unknown : Outcome::not_sent, endpoint, text);
}

// Runs the transfer to its end or the context's.
Result<CURLcode> run(const Context& context, CURLM* multi, const Transfer& transfer,
                     const Endpoint& endpoint) {
  // The context's clock says when the deadline has come, so no wait is longer than a slice of it.
  constexpr auto slice = std::chrono::seconds(1);
  const std::stop_callback wake(context.stop(), [multi] { curl_multi_wakeup(multi); });
  for (;;) {
    if (auto ended = context.check(printable(endpoint.text())); !ended) {
      Error error = std::move(ended).error();
      error.outcome = transfer.sending ? Outcome::unknown : Outcome::not_sent;
      if (transfer.sending) error.message += "; the request had been sent, the answer was not complete";
      return error;
    }
    int running = 0;
    if (curl_multi_perform(multi, &running) != CURLM_OK) {
      return internal_failure(transfer, endpoint, "libcurl: curl_multi_perform failed");
    }
    int left = 0;
    if (const CURLMsg* message = curl_multi_info_read(multi, &left);
        message != nullptr && message->msg == CURLMSG_DONE) {
      return message->data.result;
    }
    if (running == 0)
      return internal_failure(transfer, endpoint, "libcurl: the transfer ended without a result");
    const Duration wait = std::min<Duration>(slice, context.remaining());
    const auto wait_ms = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
    if (curl_multi_poll(multi, nullptr, 0, static_cast<int>(wait_ms), nullptr) != CURLM_OK) {
      return internal_failure(transfer, endpoint, "libcurl: curl_multi_poll failed");
    }
  }
}

Status check_request(const Endpoint& endpoint, const Request& request) {
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
  DVDI_CHECK(check_request(endpoint, request));
  if (auto ended = context.check(printable(endpoint.text())); !ended) {
    Error error = std::move(ended).error();
    error.outcome = Outcome::not_sent;
    return error;
  }
  Transfer transfer(limits, on_piece);
  if (!library_ready()) return internal_failure(transfer, endpoint, "libcurl cannot be initialised");
  const SigpipeBlock no_sigpipe;

  std::vector<std::string> headers = request.headers;
  headers.emplace_back("Expect:");  // no "100-continue"
  std::string url = endpoint.url + request.path;
  SocketPath socket;  // lives as long as curl may connect
  if (!endpoint.unix_socket.empty()) {
    DVDI_TRY(socket, SocketPath::open(endpoint.unix_socket));
    transfer.unix_path = socket.short_path();
    url = "http://localhost" + request.path;
  }
  // Declared in the order in which they need each other: the multi handle goes last.
  const HeaderList list = header_list(headers);
  const Multi multi(curl_multi_init());
  const Easy easy(curl_easy_init());
  std::array<char, CURL_ERROR_SIZE> error_text{};
  if (!list || !multi || !easy ||
      !configure(easy, endpoint, request, url, list.get(), error_text.data(), transfer)) {
    return internal_failure(transfer, endpoint, "libcurl refuses the request's settings");
  }
  transfer.handle = easy.get();
  const Membership membership(multi.get(), easy.get());
  if (!membership.joined()) return internal_failure(transfer, endpoint, "libcurl refuses the request");

  DVDI_TRY(const CURLcode code, run(context, multi.get(), transfer, endpoint));
  if (code != CURLE_OK && !transfer.stopped)
    return failure_of_curl(code, easy, error_text.data(), transfer, endpoint);
  Response response;
  if (curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &response.status) != CURLE_OK) {
    return internal_failure(transfer, endpoint, "libcurl does not know the answer's status");
  }
  response.body = std::move(transfer.body);
  response.headers = std::move(transfer.headers);
  return response;
}

}  // namespace

std::string Endpoint::text() const { return unix_socket.empty() ? url : "unix://" + unix_socket; }

Result<Response> send(const Context& context, const Endpoint& endpoint, const Request& request,
                      const Limits& limits) {
  return call(context, endpoint, request, limits, nullptr);
}

Result<Response> stream(const Context& context, const Endpoint& endpoint, const Request& request,
                        const Limits& limits, const OnPiece& on_piece) {
  return call(context, endpoint, request, limits, &on_piece);
}

}  // namespace dvdi::http
