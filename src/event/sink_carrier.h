// One sink's thread: reads after the cursor, delivers, moves the cursor. Part of Sinks (sink_runner.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/sync.h"
#include "event/sink.h"
#include "event/sink_runner.h"
#include "event/sink_status.h"
#include "store/ledger.h"

namespace dvdi {

// The row of a sink; one that is new begins where its settings say.
Result<SinkRow> row_of(Reader& reader, const SinkSettings& settings);

// Thread-safe. Held by its thread, too: a receiver that hangs in the kernel may outlive everything else.
class SinkCarrier : public std::enable_shared_from_this<SinkCarrier> {
 public:
  struct Parts {
    Ledger& ledger;
    const Clock& clock;
    std::function<void(std::string)> say;
  };
  SinkCarrier(SinkSettings settings, std::unique_ptr<Sink> sink, SinkRow row, Parts parts);

  Status start();
  // The end, in this order. No new batch; the one that is under way may end.
  void ask_to_stop();
  void wait_ended(const Context& context);
  void cancel();
  // Joins. A delivery that has not ended even so is left to itself.
  void finish();

  // In one transaction with what it has confirmed so far, and takes effect at once.
  Status change(const Context& context, std::string_view what, const ChangeSink& work);

  SinkStatus status() const;  // all but behind and oldest
  const SinkSettings& settings() const { return settings_; }

 private:
  struct Controls {
    SinkRow row;
    std::uint64_t replays = 0, changes = 0;  // so far
  };
  void run();
  Controls controls();
  Result<SinkRow> current(Reader& reader) const;
  // One look; false: it is to end.
  bool step(const Context& waits);
  bool deliver(const Context& waits, const Controls& now, const std::vector<StoredEvent>& batch);
  Status save(const Context& context);  // the cursor, if it has moved
  // Waits until the next try.
  void failed(const Context& waits, const Error& error, std::uint64_t changes,
              std::optional<Duration> retry_after = std::nullopt);
  void succeeded();
  void show(std::string_view state);
  bool ending() const;

  const SinkSettings settings_;
  const std::unique_ptr<Sink> sink_;  // the thread's own
  const Parts parts_;
  std::stop_source ending_;  // ends waits
  std::stop_source cancel_;  // ends a delivery

  // Held while the row is written: first of the two.
  Mutex books_;
  SinkRow row_;
  bool moved_ = false;         // the cursor, since it was written
  bool delivered_ = false;     // something, since it was written
  std::uint64_t replays_ = 0;  // changes of the cursor by change()
  BootTime saved_;

  mutable Mutex mutex_;
  Condition changed_;
  SinkStatus shown_;
  std::uint64_t changes_ = 0;
  bool delivering_ = false, abandoned_ = false, ended_ = false;

  // The thread's own.
  unsigned failures_ = 0;  // in a row
  BootTime failing_since_;
  std::optional<std::pair<std::uint64_t, std::uint64_t>> told_again_;  // replays, until

  std::thread thread_;
};

}  // namespace dvdi
