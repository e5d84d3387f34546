#include "event/sink_carrier.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "base/random.h"
#include "base/time_text.h"

namespace dvdi {

namespace {

constexpr Duration between_saves = std::chrono::seconds(1);  // of the cursor, while it moves
constexpr Duration last_save = std::chrono::seconds(5);
constexpr Duration longest_retry_after = std::chrono::hours(1);

Duration jitter(Duration most) {
  const auto half = static_cast<std::uint64_t>(most.count()) / 2;
  return Duration(static_cast<std::int64_t>(half + random_u64() % (half + 1)));
}

}  // namespace

Result<SinkRow> row_of(Reader& reader, const SinkSettings& settings) {
  DVDI_TRY(auto row, reader.sink(settings.name));
  if (row) return *std::move(row);
  SinkRow fresh{.name = settings.name};
  if (settings.from_now) {
    DVDI_TRY(fresh.cursor, reader.highest_event());
  }
  return fresh;
}

SinkCarrier::SinkCarrier(SinkSettings settings, std::unique_ptr<Sink> sink, SinkRow row, Parts parts)
    : settings_(std::move(settings)), sink_(std::move(sink)), parts_(std::move(parts)), row_(std::move(row)) {
  shown_.name = settings_.name;
  shown_.type = type_of(settings_);
  shown_.where = sink_->where();
  show(row_.paused ? "paused" : "idle");
}

Status SinkCarrier::start() {
  try {
    thread_ = std::thread([self = shared_from_this()] { self->run(); });
  } catch (const std::system_error& error) {
    return Error{.code = Code::resource_exhausted,
                 .message = fmt::format("start the thread of sink {}: {}", settings_.name, error.what())};
  }
  return {};
}

void SinkCarrier::ask_to_stop() { ending_.request_stop(); }

void SinkCarrier::wait_ended(const Context& context) {
  if (!thread_.joinable()) return;
  Lock lock(mutex_);
  static_cast<void>(changed_.wait(context, lock, [&] { return ended_; }, "wait for a sink"));
}

void SinkCarrier::cancel() { cancel_.request_stop(); }

void SinkCarrier::finish() {
  if (!thread_.joinable()) return;
  {
    const Lock lock(mutex_);
    abandoned_ = delivering_;
    if (abandoned_) return thread_.detach();
  }
  thread_.join();
}

SinkStatus SinkCarrier::status() const {
  const Lock lock(mutex_);
  return shown_;
}

bool SinkCarrier::ending() const { return ending_.stop_requested(); }

// With books_ held, or before there is a thread.
void SinkCarrier::show(std::string_view state) {
  const Lock lock(mutex_);
  if (!state.empty()) shown_.state = state;
  shown_.cursor = row_.cursor;
  shown_.replay_until = row_.replay_until;
  shown_.undelivered = row_.undelivered;
  shown_.paused = row_.paused;
}

SinkCarrier::Controls SinkCarrier::controls() {
  const Lock books(books_);
  const Lock lock(mutex_);
  return {.row = row_, .replays = replays_, .changes = changes_};
}

// The row as it is to be written: retention may have moved it past what it took away.
Result<SinkRow> SinkCarrier::current(Reader& reader) const {
  SinkRow row = row_;
  DVDI_TRY(const auto stored, reader.sink(settings_.name));
  if (stored) {
    row.undelivered = stored->undelivered;
    row.cursor = std::max(row.cursor, stored->cursor);
  }
  if (row.cursor >= row.replay_until) row.replay_until = 0;
  return row;
}

Status SinkCarrier::change(const Context& context, std::string_view what, const ChangeSink& work) {
  const Lock books(books_);
  SinkRow row = row_;
  DVDI_CHECK(parts_.ledger.write(context, what, [&](Transaction& transaction) -> Status {
    DVDI_TRY(row, current(transaction));
    DVDI_CHECK(work(transaction, row));
    return transaction.put(row);
  }));
  const bool other_cursor = row.cursor != row_.cursor;
  row_ = row;
  if (other_cursor) {
    ++replays_;
    delivered_ = false;
  }
  moved_ = false;
  show({});
  {
    const Lock lock(mutex_);
    ++changes_;
  }
  changed_.notify_all();
  return {};
}

Status SinkCarrier::save(const Context& context) {
  const Lock books(books_);
  if (!moved_) return {};
  saved_ = parts_.clock.boot();
  SinkRow row = row_;
  DVDI_CHECK(parts_.ledger.write(context, "note how far a sink is", [&](Transaction& transaction) -> Status {
    DVDI_TRY(row, current(transaction));
    // What was dropped is told once; with something delivered after it, it begins anew.
    if (delivered_ && row_.cursor >= row.undelivered) row.undelivered = 0;
    return transaction.put(row);
  }));
  row_ = row;
  moved_ = delivered_ = false;
  show({});
  return {};
}

void SinkCarrier::run() {
  const Context waits = Context(parts_.clock, random_uuid()).with_stop(ending_.get_token());
  while (step(waits)) continue;
  const Lock lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

bool SinkCarrier::step(const Context& waits) {
  if (ending()) {
    const auto saved = save(waits.detached(last_save));
    if (!saved)
      parts_.say(fmt::format("sink {}: how far it is could not be written, it gets the last events again: {}",
                             settings_.name, saved.error().text()));
    return false;
  }
  // Before the controls: a change that is not in them has yet to be written, and that ends the wait.
  const std::uint64_t seen = parts_.ledger.written();
  const Controls now = controls();
  if (now.row.paused) {
    if (const auto saved = save(waits); !saved) {
      failed(waits, saved.error(), now.changes);
      return true;
    }
    {
      const Lock books(books_);
      show("paused");
    }
    Lock lock(mutex_);
    static_cast<void>(changed_.wait(waits, lock, [&] { return changes_ != now.changes; }, "wait"));
    return true;
  }
  std::vector<StoredEvent> batch;
  const auto read = parts_.ledger.read(waits, "read events for a sink", [&](Reader& reader) -> Status {
    DVDI_TRY(batch, reader.events(now.row.cursor, settings_.batch_events, settings_.batch_bytes));
    return {};
  });
  if (!read) {
    failed(waits, read.error(), now.changes);
    return true;
  }
  if (!batch.empty()) return deliver(waits, now, batch);
  if (const auto saved = save(waits); !saved) {
    failed(waits, saved.error(), now.changes);
    return true;
  }
  succeeded();
  {
    const Lock books(books_);
    show("idle");
  }
  // The cursor that was written just now is a write that it does not wait for, and looks once more.
  static_cast<void>(parts_.ledger.wait_written(waits, seen));
  return true;
}

bool SinkCarrier::deliver(const Context& waits, const Controls& now, const std::vector<StoredEvent>& batch) {
  {
    const Lock books(books_);
    if (replays_ != now.replays) return true;
    show("delivering");
    const Lock lock(mutex_);
    if (ending()) return true;  // stop() waits for no delivery that it has not seen
    delivering_ = true;
  }
  if (const std::pair again(now.replays, now.row.replay_until); told_again_ != again) {
    sink_->sent_again_until(now.row.replay_until);
    told_again_ = again;
  }
  const Status done = sink_->deliver(
      Context(parts_.clock, waits.trace_id()).with_stop(cancel_.get_token()).with_timeout(settings_.timeout),
      batch);
  {
    const Lock lock(mutex_);
    delivering_ = false;
    if (abandoned_) return false;  // nothing else may be there any more
  }
  if (!done) {
    if (!cancel_.stop_requested()) failed(waits, done.error(), now.changes, sink_->retry_after());
    return true;
  }
  succeeded();
  bool due = false;
  {
    const Lock books(books_);
    // After a replay that was asked for meanwhile, it begins where that says.
    if (replays_ == now.replays) row_.cursor = batch.back().sequence;
    moved_ = delivered_ = true;
    due = parts_.clock.boot() - saved_ >= between_saves;
    show({});
    const Lock lock(mutex_);
    shown_.delivered_total += batch.size();
  }
  if (due) {
    if (const auto saved = save(waits); !saved) failed(waits, saved.error(), now.changes);
  }
  return true;
}

void SinkCarrier::failed(const Context& waits, const Error& error, std::uint64_t changes,
                         std::optional<Duration> retry_after) {
  if (ending()) return;
  if (failures_ == 0) {
    failing_since_ = parts_.clock.boot();
    parts_.say(fmt::format("sink {} ({}) takes no events, they are kept and it is tried again: {}",
                           settings_.name, sink_->where(), error.text()));
  }
  const double factor = static_cast<double>(std::uint64_t{1} << std::min(failures_, 40U));
  ++failures_;
  const double most = std::min(static_cast<double>(settings_.backoff.count()) * factor,
                               static_cast<double>(settings_.backoff_cap.count()));
  Duration wait = jitter(Duration(static_cast<std::int64_t>(most)));
  if (retry_after) wait = std::max(wait, std::min(*retry_after, longest_retry_after));
  {
    const Lock books(books_);
    show("waiting");
  }
  Lock lock(mutex_);
  ++shown_.failures_total;
  shown_.last_error = error.text();
  shown_.last_error_time = parts_.clock.wall();
  shown_.next_try = parts_.clock.wall() + wait;
  static_cast<void>(
      changed_.wait(waits.with_timeout(wait), lock, [&] { return changes_ != changes; }, "wait"));
  shown_.next_try.reset();
}

void SinkCarrier::succeeded() {
  if (failures_ == 0) return;
  const auto down = std::chrono::duration<double>(parts_.clock.boot() - failing_since_).count();
  parts_.say(fmt::format("sink {} ({}) takes events again, after {} and {} failures", settings_.name,
                         sink_->where(), human_duration(down), failures_));
  failures_ = 0;
}

}  // namespace dvdi
