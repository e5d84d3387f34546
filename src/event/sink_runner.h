// The sinks of this node: what the configuration names, how far each is, and, where a daemon runs them, the
// threads that carry the events away.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/sync.h"
#include "event/sink.h"
#include "event/sink_status.h"
#include "store/ledger.h"

namespace dvdi {

class SinkCarrier;

// Changes the row of a sink, in a transaction that may record what was done.
using ChangeSink = std::function<Status(Transaction&, SinkRow&)>;

// Thread-safe. Without start() nothing is delivered; the rows can be read and changed all the same.
class Sinks {
 public:
  using Factory = std::function<Result<std::unique_ptr<Sink>>(const SinkSettings&)>;

  // The ledger outlives this.
  Sinks(Ledger& ledger, std::vector<SinkSettings> settings);
  ~Sinks();  // as stop() with no time left

  // What a person should know goes to `say`, one sentence each, from several threads. invalid_argument for
  // settings that no sink can be made of.
  Status start(const Context& context, Factory make, const std::function<void(std::string)>& say);
  // A batch that is under way goes on until the context ends, and is cancelled then.
  void stop(const Context& context);

  const std::vector<SinkSettings>& settings() const { return settings_; }
  // In the order of the configuration.
  Result<std::vector<SinkStatus>> status(const Context& context);

  // Each is not_found for a sink that is not configured, and recorded as an event, with the context's caller.
  Status pause(const Context& context, const std::string& name);  // already so: nothing happens
  Status resume(const Context& context, const std::string& name);
  // Sends once more from event `from` on. failed_precondition: it is not there any more.
  Status replay(const Context& context, const std::string& name, std::uint64_t from);

  // With a connection of its own, beside deliveries. failed_precondition where start() was not called.
  Status test(const Context& context, const std::string& name);
  Result<SinkHead> head(const Context& context, const std::string& name);

 private:
  Result<const SinkSettings*> find(const std::string& name) const;
  Result<std::unique_ptr<Sink>> another(const SinkSettings& settings, std::string_view what);
  Status change(const Context& context, const std::string& name, std::string_view what,
                const ChangeSink& work);
  std::shared_ptr<SinkCarrier> carrier(const std::string& name);

  Ledger& ledger_;
  const std::vector<SinkSettings> settings_;
  Mutex mutex_;
  Factory make_;
  std::vector<std::shared_ptr<SinkCarrier>> carriers_;
};

}  // namespace dvdi
