#include "event/webhook_sink.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "base/text.h"
#include "event/event_line.h"
#include "event/secret_file.h"

namespace dvdi {

namespace {

constexpr std::size_t most_answer_bytes = std::size_t{64} << 10U;  // it is not needed, only shown
constexpr std::size_t shortest_key = 16;
constexpr std::size_t longest_key = 4096;

// As it is now, so that it can be changed at any time.
Result<std::string> read_key(const std::string& path) {
  DVDI_TRY(std::string key, read_secret_file(path, "secret_file"));
  if (key.size() >= shortest_key && key.size() <= longest_key) return key;
  return Error{
      .code = Code::invalid_argument,
      .message = fmt::format("secret_file {} must have {} to {} bytes", path, shortest_key, longest_key)};
}

// http://host:port, and the rest.
std::pair<std::string, std::string> split_url(const std::string& url) {
  const auto host = url.find("://") + 3;
  const auto end = std::min(url.find_first_of("/?", host), url.size());
  std::string target = url.substr(end);
  if (!target.starts_with('/')) target.insert(0, "/");
  return {url.substr(0, end), target};
}

}  // namespace

std::string webhook_signature(std::string_view key, std::int64_t seconds, std::string_view body) {
  const std::string text = fmt::format("{}.{}", seconds, body);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  // Fails only without memory; the empty signature is refused by whoever checks it.
  if (::HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
             reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(),
             &size) == nullptr)
    size = 0;
  std::string out = fmt::format("t={},v1=", seconds);
  for (unsigned i = 0; i < size; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

std::optional<Duration> read_retry_after(std::string_view text, WallTime now) {
  text = trim(text);
  if (const auto seconds = parse_number<std::uint32_t>(text)) return std::chrono::seconds(*seconds);
  std::tm date{};
  const std::string copy(text);
  const char* rest = ::strptime(copy.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date);
  if (rest == nullptr || *rest != '\0') return std::nullopt;
  const auto when = WallTime(std::chrono::seconds(::timegm(&date)));
  return std::max(when - now, Duration::zero());
}

WebhookSink::WebhookSink(WebhookSinkSettings settings)
    : settings_(std::move(settings)), where_(where_of({.name = {}, .kind = settings_})) {
  std::tie(endpoint_.url, target_) = split_url(settings_.url);
  endpoint_.tls = settings_.tls;
}

Status WebhookSink::post(const Context& context, std::string body, std::vector<std::string> headers) {
  retry_after_.reset();
  headers.emplace_back("Content-Type: application/cloudevents-batch+json; charset=utf-8");
  headers.emplace_back("User-Agent: dvdid");
  if (!settings_.secret_file.empty()) {
    DVDI_TRY(const std::string key, read_key(settings_.secret_file));
    const auto now =
        std::chrono::duration_cast<std::chrono::seconds>(context.clock().wall().time_since_epoch());
    headers.push_back("Dvdi-Signature: " + webhook_signature(key, now.count(), body));
  }
  const http::Request request{
      .method = http::Method::post, .path = target_, .headers = std::move(headers), .body = std::move(body)};
  DVDI_TRY(const http::Response answer,
           http::send(context, endpoint_, request, {.body_bytes = most_answer_bytes}));
  if (answer.status >= 200 && answer.status < 300) return {};
  const auto header = [&](std::string_view name) {
    const auto found = answer.headers.find(name);
    return found == answer.headers.end() ? std::string() : found->second;
  };
  if (const std::string after = header("retry-after"); !after.empty())
    retry_after_ = read_retry_after(after, context.clock().wall());
  if (answer.status >= 300 && answer.status < 400) {
    const std::string to = header("location");
    return Error{
        .code = Code::failed_precondition,
        .message = fmt::format("{} answered {}: it is somewhere else{}", where_, answer.status,
                               to.empty() ? "" : ", at " + printable(to.substr(0, to.find_first_of("?#")))),
        .hint = "redirects are not followed: configure the new url",
        .outcome = Outcome::refused};
  }
  const bool later = answer.status == 429 || answer.status >= 500;
  return Error{
      .code = later ? Code::unavailable : Code::failed_precondition,
      .message = fmt::format("{} answered {}{}", where_, answer.status,
                             answer.body.empty() ? "" : ": " + printable(answer.body)),
      .hint = later ? "" : "it refuses the request itself; the events are kept, and it is tried again",
      .outcome = Outcome::refused};
}

Status WebhookSink::deliver(const Context& context, const std::vector<StoredEvent>& batch) {
  std::string body = "[";
  for (const StoredEvent& event : batch) {
    if (body.size() > 1) body += ',';
    body += event.json();
  }
  body += ']';
  return post(context, std::move(body),
              {"Dvdi-Node: " + node_of(batch.front()), fmt::format("Dvdi-First: {}", batch.front().sequence),
               fmt::format("Dvdi-Last: {}", batch.back().sequence)});
}

Status WebhookSink::test(const Context& context) { return post(context, "[]", {"Dvdi-Test: true"}); }

Result<SinkHead> WebhookSink::head(const Context& /*context*/, const std::string& /*node_id*/) {
  return Error{.code = Code::unsupported,
               .message = fmt::format("{} cannot be asked what it has: a webhook only takes events", where_),
               .hint = "a file or a nats sink can"};
}

}  // namespace dvdi
