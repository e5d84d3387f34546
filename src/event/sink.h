// A place outside of the ledger that events are carried to: a file, a web server, a message broker.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/context.h"
#include "http/client.h"
#include "store/event_log.h"

namespace dvdi {

// JSON lines, appended. Opened again when the path shows another file (rotation).
struct FileSinkSettings {
  std::string path;  // absolute
  bool operator==(const FileSinkSettings&) const = default;
};

// POST of a JSON array, CloudEvents' batched content mode.
struct WebhookSinkSettings {
  std::string url;  // http:// or https://
  http::Tls tls;
  std::string secret_file;  // the key of the signature header; "": not signed
  bool operator==(const WebhookSinkSettings&) const = default;
};

// Published to a stream of NATS JetStream.
struct NatsSinkSettings {
  std::string url = "nats://127.0.0.1:4222";  // several with commas
  std::string stream = "dvdi";
  std::string subject = "dvdi";  // an event's is SUBJECT.NODE.TYPE
  bool create_stream = false;    // where there is none with that name
  http::Tls tls;
  std::string credentials_file;     // of a user with a JWT
  std::string user, password_file;  // or of one with a password
  std::string token_file;           // or a token
  bool operator==(const NatsSinkSettings&) const = default;
};

struct SinkSettings {
  std::string name;  // letters, digits, `-`, `_`
  std::variant<FileSinkSettings, WebhookSinkSettings, NatsSinkSettings> kind;
  unsigned batch_events = 500;
  std::size_t batch_bytes = std::size_t{1} << 20U;
  Duration timeout = std::chrono::seconds(30);  // of one batch
  Duration backoff = std::chrono::seconds(1);   // after a failure; doubles, with jitter
  Duration backoff_cap = std::chrono::minutes(5);
  bool from_now = false;  // a new sink gets what comes, not what is there already
  bool operator==(const SinkSettings&) const = default;
};

inline constexpr std::size_t most_sinks = 64;
inline constexpr std::size_t longest_sink_name = 64;

// `file`, `webhook`, `nats`.
std::string_view type_of(const SinkSettings& settings);
// For a person: without user, password and query of a URL.
std::string where_of(const SinkSettings& settings);
// invalid_argument: settings that cannot be. Looks at nothing outside.
Status check_settings(const SinkSettings& settings);

// The newest event that a sink has of one node, and how many it has of it.
struct SinkHead {
  std::uint64_t sequence = 0;  // 0: none
  std::string hash;
  std::uint64_t first = 0;  // the oldest that it has; 0: not known
  std::uint64_t count = 0;  // different events
};

// Not thread-safe: one thread delivers. Nothing here retries, but for what one call needs by itself.
class Sink {
 public:
  virtual ~Sink() = default;

  // Events of one node, oldest first, at least one. On success the receiver has all of them durably, as far
  // as it can say so. After a failure it may have any of them: they come again, with the same ids. The
  // failure says in `retry_after` when the receiver wants to be asked again, if it said so.
  virtual Status deliver(const Context& context, const std::vector<StoredEvent>& batch) = 0;
  virtual std::optional<Duration> retry_after() const { return std::nullopt; }

  // Events up to that number were asked for again by a person: they are sent although the receiver may have
  // them. Called before deliver() when it changes; 0: none.
  virtual void sent_again_until(std::uint64_t /*sequence*/) {}

  // What the receiver itself says that it has, if it keeps what it has in a form that can be asked: the file
  // and the stream. unsupported for a webhook.
  virtual Result<SinkHead> head(const Context& context, const std::string& node_id) = 0;

  // Is it there, and would it take events? Delivers none.
  virtual Status test(const Context& context) = 0;

  // Where it goes, for a person: where_of() its settings.
  virtual std::string where() const = 0;
};

std::vector<std::string> sink_names(const std::vector<SinkSettings>& sinks);

// Connects to nobody yet. invalid_argument: settings that cannot be.
Result<std::unique_ptr<Sink>> make_sink(const SinkSettings& settings);

}  // namespace dvdi
