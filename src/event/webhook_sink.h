// Events as the body of a POST: a JSON array, CloudEvents' batched content mode. docs/sinks.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "event/sink.h"

namespace dvdi {

class WebhookSink final : public Sink {
 public:
  explicit WebhookSink(WebhookSinkSettings settings);

  Status deliver(const Context& context, const std::vector<StoredEvent>& batch) override;
  std::optional<Duration> retry_after() const override { return retry_after_; }
  Result<SinkHead> head(const Context& context, const std::string& node_id) override;
  // Sends an empty array, signed as events are.
  Status test(const Context& context) override;
  std::string where() const override { return where_; }

 private:
  Status post(const Context& context, std::string body, std::vector<std::string> headers);

  const WebhookSinkSettings settings_;
  const std::string where_;
  http::Endpoint endpoint_;
  std::string target_;  // path and query
  std::optional<Duration> retry_after_;
};

// HMAC-SHA256 over "SECONDS.BODY", as the header has it: t=SECONDS,v1=HEX.
std::string webhook_signature(std::string_view key, std::int64_t seconds, std::string_view body);

// Retry-After: seconds, or a date as HTTP writes it. nullopt: neither.
std::optional<Duration> read_retry_after(std::string_view text, WallTime now);

}  // namespace dvdi
