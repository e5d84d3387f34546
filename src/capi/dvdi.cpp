// The C API: each function is a thin layer over http::Connections that lets no exception out.
#include "dvdi/dvdi.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include "base/context.h"
#include "base/error_json.h"
#include "base/text.h"
#include "capi/errors.h"
#include "http/client.h"

namespace {

using std::chrono::milliseconds;

constexpr std::string_view default_socket = "/run/dvdi/dvdid.sock";
constexpr std::size_t default_max_answer = std::size_t{64} << 20U;
// Of one client: calls that run at the same time each need one.
constexpr std::size_t most_idle_connections = 64;
constexpr std::size_t max_trace_id = 64;  // as the daemon has it
// Longer waits are cut to this, as the clock counts nanoseconds in 64 bits.
constexpr std::int64_t longest_ms = milliseconds(std::chrono::years(10)).count();

}  // namespace

struct dvdi_client {
  explicit dvdi_client(std::string path) : socket(std::move(path)) {}

  std::string socket;
  std::string trace_id = {};
  std::int64_t patience_ms = 0;
  std::size_t max_answer = default_max_answer;
  mutable dvdi::http::Connections connections{most_idle_connections};
};

struct dvdi_cancellation {
  std::stop_source source;
};

struct dvdi_answer {
  dvdi_code code = DVDI_OK;
  int status = 0;
  dvdi_outcome outcome = DVDI_OUTCOME_NONE;
  unsigned attempt = 0;
  std::string body = {};
  std::string text = {};
  std::string message = {};
  std::string driver = {};
  std::string volume = {};
  std::string operation = {};
  std::string hint = {};
};

namespace {

using dvdi::Code;
using dvdi::Error;
using dvdi::Outcome;
namespace http = dvdi::http;
namespace json = dvdi::json;

// What is answered where an answer cannot be made. The texts are short enough to need no memory of their own.
dvdi_answer* no_memory() {
  static dvdi_answer answer{.code = DVDI_RESOURCE_EXHAUSTED,
                            .outcome = DVDI_OUTCOME_UNKNOWN,
                            .text = "no memory",
                            .message = "no memory"};
  return &answer;
}
dvdi_answer* exception() {
  static dvdi_answer answer{.code = DVDI_INTERNAL,
                            .outcome = DVDI_OUTCOME_UNKNOWN,
                            .text = "a bug of dvdi",
                            .message = "a bug of dvdi"};
  return &answer;
}

dvdi_answer failed(Error error, int status = 0, std::string body = {}) {
  return {.code = to_c(error.code),
          .status = status,
          .outcome = to_c(error.outcome),
          .attempt = error.attempt,
          .body = std::move(body),
          .text = error.text(),
          .message = std::move(error.message),
          .driver = std::move(error.driver),
          .volume = std::move(error.volume),
          .operation = std::move(error.operation),
          .hint = std::move(error.hint)};
}

dvdi_answer refused(std::string message) {
  return failed(
      {.code = Code::invalid_argument, .message = std::move(message), .outcome = Outcome::not_sent});
}

std::optional<http::Method> method_of(std::string_view name) {
  if (name == "GET") return http::Method::get;
  if (name == "POST") return http::Method::post;
  if (name == "DELETE") return http::Method::del;
  return std::nullopt;
}

// The daemon ends at a deadline by itself, with an error that says more than ours would, and so is given less
// time than we have.
std::int64_t deadline_of_daemon(const dvdi_client& client, std::int64_t timeout_ms) {
  if (client.patience_ms > 0) return timeout_ms;
  return std::max<std::int64_t>(1, timeout_ms - std::min<std::int64_t>(timeout_ms / 10, 1000));
}

dvdi_answer answer_of(const dvdi_client& client, dvdi::Result<http::Response> response) {
  if (!response) {
    Error& error = response.error();
    if (error.code == Code::unavailable || (error.code == Code::io && error.outcome == Outcome::unknown)) {
      return failed(dvdi::daemon_away(fmt::format("the daemon at {} is not there, or went away: {}",
                                                  dvdi::printable(client.socket), error.message),
                                      error.outcome));
    }
    return failed(std::move(error));
  }
  const int status = static_cast<int>(response->status);
  if (status >= 200 && status < 300) return {.status = status, .body = std::move(response->body)};
  const auto problem = json::parse(response->body, "the daemon's answer");
  if (!problem || !problem->is_object() || json::text_or_empty(*problem, "code").empty()) {
    return failed({.code = Code::corrupted,
                   .message = fmt::format("{}: HTTP status {} with '{}'", dvdi::printable(client.socket),
                                          status, dvdi::printable(response->body)),
                   .hint = "is another program listening there?",
                   .outcome = Outcome::unknown},
                  status);
  }
  return failed(json::error_of(*problem), status, std::move(response->body));
}

dvdi_answer call(const dvdi_client* client, const char* method_name, const char* path, const char* body,
                 std::size_t body_size, std::int64_t timeout_ms, const dvdi_cancellation* cancellation) {
  if (client == nullptr) return refused("dvdi_call: the client is NULL");
  if (method_name == nullptr || path == nullptr) return refused("dvdi_call: method and path are needed");
  if (body == nullptr && body_size > 0) return refused("dvdi_call: a body that is NULL has no size");
  if (client->socket.empty()) return refused("dvdi_call: the path of the daemon's socket is empty");
  const auto method = method_of(method_name);
  if (!method) {
    return refused(
        fmt::format("dvdi_call: the method is GET, POST or DELETE, not '{}'", dvdi::printable(method_name)));
  }
  if (body_size > 0 && *method != http::Method::post) return refused("dvdi_call: only a POST has a body");

  http::Request request{.method = *method, .path = path};
  if (body_size > 0) request.body.assign(body, body_size);
  if (*method == http::Method::post) request.headers.emplace_back("Content-Type: application/json");
  if (!client->trace_id.empty()) request.headers.push_back("Dvdi-Trace-Id: " + client->trace_id);
  dvdi::Context context;
  if (timeout_ms > 0) {
    timeout_ms = std::min(timeout_ms, longest_ms);
    request.headers.push_back(fmt::format("Dvdi-Timeout-Ms: {}", deadline_of_daemon(*client, timeout_ms)));
    context = context.with_timeout(milliseconds(timeout_ms + client->patience_ms));
  }
  if (cancellation != nullptr) context = context.with_stop(cancellation->source.get_token());
  return answer_of(*client, client->connections.send(context, {.unix_socket = client->socket}, request,
                                                     {.body_bytes = client->max_answer}));
}

const char* text_of(const dvdi_answer* answer, std::string dvdi_answer::* member) {
  return answer == nullptr ? "" : (answer->*member).c_str();
}

}  // namespace

const char* dvdi_version(void) { return DVDI_VERSION; }

const char* dvdi_code_name(dvdi_code code) {
  if (code == DVDI_OK) return "ok";
  const Code ours = dvdi::from_c(code);
  // The names are literals, so they end with a NUL.
  return to_c(ours) == code ? dvdi::code_name(ours).data() : "unknown";
}

dvdi_client* dvdi_client_new(const char* socket) {
  try {
    std::string path;
    if (socket != nullptr) {
      path = socket;
    } else {
      // Not in a program that has more rights than its user: there the environment is the user's.
      const char* environment = ::secure_getenv("DVDI_SOCKET");
      path = environment == nullptr || *environment == '\0' ? default_socket : environment;
    }
    return std::make_unique<dvdi_client>(std::move(path)).release();
  } catch (...) {
    return nullptr;
  }
}

void dvdi_client_free(dvdi_client* client) { const std::unique_ptr<dvdi_client> owned(client); }

dvdi_code dvdi_client_set_trace_id(dvdi_client* client, const char* trace_id) {
  const std::string_view id = trace_id == nullptr ? std::string_view() : std::string_view(trace_id);
  const bool sendable = id.size() <= max_trace_id && std::ranges::all_of(id, [](char c) {
                          return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                                 c == '.' || c == '_' || c == '-';
                        });
  if (client == nullptr || !sendable) return DVDI_INVALID_ARGUMENT;
  try {
    client->trace_id = id;
    return DVDI_OK;
  } catch (...) {
    return DVDI_RESOURCE_EXHAUSTED;
  }
}

void dvdi_client_set_limits(dvdi_client* client, int64_t patience_ms, size_t max_answer_bytes) {
  if (client == nullptr) return;
  client->patience_ms = std::clamp<std::int64_t>(patience_ms, 0, longest_ms);
  client->max_answer = max_answer_bytes == 0 ? default_max_answer : max_answer_bytes;
}

dvdi_cancellation* dvdi_cancellation_new(void) {
  try {
    return std::make_unique<dvdi_cancellation>().release();
  } catch (...) {
    return nullptr;
  }
}

void dvdi_cancel(dvdi_cancellation* cancellation) {
  if (cancellation != nullptr) cancellation->source.request_stop();
}

void dvdi_cancellation_free(dvdi_cancellation* cancellation) {
  const std::unique_ptr<dvdi_cancellation> owned(cancellation);
}

dvdi_answer* dvdi_call(dvdi_client* client, const char* method, const char* path, const char* body,
                       size_t body_size, int64_t timeout_ms, dvdi_cancellation* cancellation) {
  try {
    // Before the call: what was done must not get lost for the lack of memory to say so.
    auto answer = std::make_unique<dvdi_answer>();
    *answer = call(client, method, path, body, body_size, timeout_ms, cancellation);
    return answer.release();
  } catch (const std::bad_alloc&) {
    return no_memory();
  } catch (...) {
    return exception();
  }
}

void dvdi_answer_free(dvdi_answer* answer) {
  if (answer == no_memory() || answer == exception()) return;
  const std::unique_ptr<dvdi_answer> owned(answer);
}

dvdi_code dvdi_answer_code(const dvdi_answer* answer) {
  return answer == nullptr ? DVDI_INVALID_ARGUMENT : answer->code;
}
int dvdi_answer_status(const dvdi_answer* answer) { return answer == nullptr ? 0 : answer->status; }
const char* dvdi_answer_body(const dvdi_answer* answer, size_t* size) {
  if (size != nullptr) *size = answer == nullptr ? 0 : answer->body.size();
  return text_of(answer, &dvdi_answer::body);
}
const char* dvdi_answer_text(const dvdi_answer* answer) { return text_of(answer, &dvdi_answer::text); }
const char* dvdi_answer_message(const dvdi_answer* answer) { return text_of(answer, &dvdi_answer::message); }
const char* dvdi_answer_driver(const dvdi_answer* answer) { return text_of(answer, &dvdi_answer::driver); }
const char* dvdi_answer_volume(const dvdi_answer* answer) { return text_of(answer, &dvdi_answer::volume); }
const char* dvdi_answer_operation(const dvdi_answer* answer) {
  return text_of(answer, &dvdi_answer::operation);
}
unsigned dvdi_answer_attempt(const dvdi_answer* answer) { return answer == nullptr ? 0 : answer->attempt; }
const char* dvdi_answer_hint(const dvdi_answer* answer) { return text_of(answer, &dvdi_answer::hint); }
dvdi_outcome dvdi_answer_outcome(const dvdi_answer* answer) {
  return answer == nullptr ? DVDI_OUTCOME_NONE : answer->outcome;
}
