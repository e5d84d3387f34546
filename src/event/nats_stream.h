// A stream of NATS JetStream, by the JSON calls of its server (subjects $JS.API.…).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/context.h"
#include "event/nats_connection.h"

namespace dvdi {

// A message as the stream has it.
struct NatsStored {
  std::uint64_t sequence = 0;  // the stream's own number, not the event's
  std::string payload;
};

// Not thread-safe. The connection must outlive it.
class NatsStream {
 public:
  NatsStream(NatsConnection& connection, const NatsSinkSettings& settings)
      : connection_(&connection), settings_(&settings) {}

  // Is it there, does it take our subjects, and does it keep what it takes? Makes it where the settings say
  // so.
  //   not_found            there is no such stream
  //   failed_precondition  it, or the server, is not fit for events
  Status check(const Context& context);

  // How many messages there are under a subject, which may have wildcards.
  Result<std::uint64_t> count(const Context& context, const std::string& filter);
  // The newest under it; the first from a stream's number on; the one with that number.
  Result<std::optional<NatsStored>> newest(const Context& context, const std::string& filter);
  Result<std::optional<NatsStored>> next(const Context& context, const std::string& filter,
                                         std::uint64_t from);
  Result<std::optional<NatsStored>> at(const Context& context, std::uint64_t sequence);

  // Returns when the stream has stored it, or has a message with that id already, which is then looked at:
  // its bytes must be the same.
  Status publish(const Context& context, const std::string& subject, const std::string& id,
                 std::string_view payload);

 private:
  Status create(const Context& context);
  Result<std::optional<NatsStored>> message(const Context& context, const std::string& request,
                                            std::string_view what);
  std::string named(std::string_view doing) const;

  NatsConnection* connection_;
  const NatsSinkSettings* settings_;
};

}  // namespace dvdi
