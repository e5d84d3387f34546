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
#include "http/client_call.h"
#include "http/libcurl.h"
#include "http/sigpipe.h"

namespace dvdi::http {

namespace {

using Easy = std::unique_ptr<CURL, decltype(Libcurl::easy_cleanup)>;
using Multi = std::unique_ptr<CURLM, decltype(Libcurl::multi_cleanup)>;
using HeaderList = std::unique_ptr<curl_slist, decltype(Libcurl::slist_free_all)>;

// What the callbacks of one transfer share. All of them run on the calling thread.
struct Transfer {
  Transfer(const Libcurl& library, const Limits& own_limits, const OnPiece* own_on_piece)
      : curl(&library), limits(&own_limits), on_piece(own_on_piece) {}

  const Libcurl* curl;
  const Limits* limits;
  const OnPiece* on_piece;  // nullptr: the body is kept
  CURL* handle = nullptr;   // knows the status while the body comes in
  bool stopped = false;     // by on_piece
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
    if (transfer.curl->easy_getinfo(transfer.handle, CURLINFO_RESPONSE_CODE, &status) != CURLE_OK) status = 0;
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
  const std::string_view text =
      error_text.empty() ? std::string_view(transfer.curl->easy_strerror(code)) : error_text;
  if (!transfer.sending) {
    long error_number = 0;
    if (transfer.curl->easy_getinfo(easy.get(), CURLINFO_OS_ERRNO, &error_number) != CURLE_OK)
      error_number = 0;
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

// Everything that has a default which reads the user's environment or follows the server's wishes is said.
bool configure(const Easy& easy, const Endpoint& endpoint, const Request& request, const std::string& url,
               curl_slist* headers, char* error_text, Transfer& transfer) {
  bool ok = true;
  const auto set = [&](CURLoption option, auto value) {
    ok = ok && transfer.curl->easy_setopt(easy.get(), option, value) == CURLE_OK;
  };
  const auto set_text = [&](CURLoption option, const std::string& text) {
    if (!text.empty()) set(option, text.c_str());
  };
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_NOPROXY, "*");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_NETRC, long{CURL_NETRC_IGNORED});
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_QUICK_EXIT, 1L);  // do not wait for a resolver thread that hangs
  // A connection for each request: on a reused one that turns out to be dead, curl sends the request again by
  // itself, and a Mount must never be sent twice unknown to us.
  set(CURLOPT_FRESH_CONNECT, 1L);
  set(CURLOPT_FORBID_REUSE, 1L);
  const auto connect_ms = std::chrono::ceil<std::chrono::milliseconds>(transfer.limits->connect).count();
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect_ms));
  set(CURLOPT_HTTPHEADER, headers);
  set(CURLOPT_ERRORBUFFER, error_text);
  if (request.method == Method::post) {
    set(CURLOPT_POST, 1L);
    set(CURLOPT_POSTFIELDS, request.body.data());
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
  }
  if (request.method == Method::del) set(CURLOPT_CUSTOMREQUEST, "DELETE");
  set(CURLOPT_OPENSOCKETFUNCTION, &on_open_socket);
  set(CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
  set(CURLOPT_SSL_VERIFYPEER, endpoint.tls.insecure_skip_verify ? 0L : 1L);
  set(CURLOPT_SSL_VERIFYHOST, endpoint.tls.insecure_skip_verify ? 0L : 2L);
  set_text(CURLOPT_CAINFO, endpoint.tls.ca_file);
  set_text(CURLOPT_SSLCERT, endpoint.tls.cert_file);
  set_text(CURLOPT_SSLKEY, endpoint.tls.key_file);
  set(CURLOPT_WRITEFUNCTION, &on_body);
  set(CURLOPT_WRITEDATA, &transfer);
  set(CURLOPT_HEADERFUNCTION, &on_header);
  set(CURLOPT_HEADERDATA, &transfer);
  set(CURLOPT_PREREQFUNCTION, &on_ready_to_send);
  set(CURLOPT_PREREQDATA, &transfer);
  return ok;
}

// nullptr: no memory.
HeaderList header_list(const Libcurl& curl, const std::vector<std::string>& headers) {
  HeaderList list(nullptr, curl.slist_free_all);
  for (const std::string& header : headers) {
    curl_slist* longer = curl.slist_append(list.get(), header.c_str());
    if (longer == nullptr) return {nullptr, curl.slist_free_all};
    std::ignore = list.release();
    list.reset(longer);
  }
  return list;
}

// While it lives, the easy handle is part of the multi handle.
class Membership {
 public:
  Membership(const Libcurl& curl, CURLM* multi, CURL* easy)
      : curl_(curl), multi_(multi), easy_(easy), joined_(curl.multi_add_handle(multi, easy) == CURLM_OK) {}
  ~Membership() {
    if (joined_) curl_.multi_remove_handle(multi_, easy_);
  }
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;
  bool joined() const { return joined_; }

 private:
  const Libcurl& curl_;
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
  const Libcurl& curl = *transfer.curl;
  // The context's clock says when the deadline has come, so no wait is longer than a slice of it.
  constexpr auto slice = std::chrono::seconds(1);
  const std::stop_callback wake(context.stop(), [&] { curl.multi_wakeup(multi); });
  for (;;) {
    if (auto ended = context.check(printable(endpoint.text())); !ended)
      return ended_call(std::move(ended).error(), transfer.sending);
    int running = 0;
    if (curl.multi_perform(multi, &running) != CURLM_OK) {
      return internal_failure(transfer, endpoint, "libcurl: curl_multi_perform failed");
    }
    int left = 0;
    if (const CURLMsg* message = curl.multi_info_read(multi, &left);
        message != nullptr && message->msg == CURLMSG_DONE) {
      return message->data.result;
    }
    if (running == 0)
      return internal_failure(transfer, endpoint, "libcurl: the transfer ended without a result");
    const Duration wait = std::min<Duration>(slice, context.remaining());
    const auto wait_ms = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
    if (curl.multi_poll(multi, nullptr, 0, static_cast<int>(wait_ms), nullptr) != CURLM_OK) {
      return internal_failure(transfer, endpoint, "libcurl: curl_multi_poll failed");
    }
  }
}

}  // namespace

Result<Response> call_over_tcp(const Context& context, const Endpoint& endpoint, const Request& request,
                               const Limits& limits, const OnPiece* on_piece) {
  DVDI_TRY(const Libcurl* const curl, libcurl());
  Transfer transfer(*curl, limits, on_piece);
  const SigpipeBlock no_sigpipe;

  std::vector<std::string> headers = request.headers;
  headers.emplace_back("Expect:");  // no "100-continue"
  const std::string url = endpoint.url + request.path;
  // Declared in the order in which they need each other: the multi handle goes last.
  const HeaderList list = header_list(*curl, headers);
  const Multi multi(curl->multi_init(), curl->multi_cleanup);
  const Easy easy(curl->easy_init(), curl->easy_cleanup);
  std::array<char, CURL_ERROR_SIZE> error_text{};
  if (!list || !multi || !easy ||
      !configure(easy, endpoint, request, url, list.get(), error_text.data(), transfer)) {
    return internal_failure(transfer, endpoint, "libcurl refuses the request's settings");
  }
  transfer.handle = easy.get();
  const Membership membership(*curl, multi.get(), easy.get());
  if (!membership.joined()) return internal_failure(transfer, endpoint, "libcurl refuses the request");

  DVDI_TRY(const CURLcode code, run(context, multi.get(), transfer, endpoint));
  if (code != CURLE_OK && !transfer.stopped)
    return failure_of_curl(code, easy, error_text.data(), transfer, endpoint);
  Response response;
  if (curl->easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &response.status) != CURLE_OK) {
    return internal_failure(transfer, endpoint, "libcurl does not know the answer's status");
  }
  response.body = std::move(transfer.body);
  response.headers = std::move(transfer.headers);
  return response;
}

}  // namespace dvdi::http
