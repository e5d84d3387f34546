// Reader, the events.
#include <algorithm>

#include "store/codec.h"
#include "store/database.h"
#include "store/ledger.h"
#include "store/query.h"

namespace dvdi {

namespace {

StoredEvent read_event(SQLite::Statement& statement) {
  Columns columns(statement);
  StoredEvent event;
  event.sequence = static_cast<std::uint64_t>(columns.number());
  event.body = columns.text();
  event.hash = columns.text();
  return event;
}

constexpr const char* events_sql =
    "SELECT sequence, body, hash FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?";
constexpr const char* events_of_type_sql =
    "SELECT sequence, body, hash FROM events WHERE json_extract(body, '$.type') = ? ORDER BY sequence";
constexpr const char* first_event_sql =
    "SELECT sequence, total_bytes, length(CAST(body AS BLOB)) + length(hash) FROM events "
    "ORDER BY sequence LIMIT 1";
constexpr const char* last_event_sql =
    "SELECT sequence, total_bytes FROM events ORDER BY sequence DESC LIMIT 1";
constexpr const char* since_sql = "SELECT sequence FROM events WHERE wall >= ? ORDER BY sequence LIMIT 1";
constexpr const char* total_sql =
    "SELECT sequence, total_bytes FROM events WHERE sequence <= ? ORDER BY sequence DESC LIMIT 1";
constexpr const char* head_sql = "SELECT sequence, hash FROM events ORDER BY sequence DESC LIMIT 1";
// Of its own transaction, the events know the highest number; what was removed from their end, the boots.
constexpr const char* before_next_sql =
    "SELECT max(coalesce(sequence, 0), coalesce((SELECT max(last_event) FROM boots), 0)), hash, total_bytes "
    "FROM (SELECT 1) LEFT JOIN (SELECT sequence, hash, total_bytes FROM events ORDER BY sequence DESC LIMIT "
    "1)";

}  // namespace

Result<std::vector<StoredEvent>> Reader::events(std::uint64_t after, std::size_t limit,
                                                std::size_t most_bytes) {
  return guarded("read events", [&] {
    auto& statement = connection_->statement(events_sql);
    Binder{statement}(static_cast<std::int64_t>(after))(static_cast<std::int64_t>(limit));
    std::vector<StoredEvent> events;
    std::size_t bytes = 0;
    while (statement.executeStep()) {
      StoredEvent event = read_event(statement);
      bytes += event.body.size();
      if (bytes > most_bytes && !events.empty()) break;
      events.push_back(std::move(event));
    }
    return events;
  });
}

Result<std::vector<StoredEvent>> Reader::events_of_type(std::string_view type) {
  auto& statement = connection_->statement(events_of_type_sql);
  Binder{statement}(std::string(type));
  return all<StoredEvent>("read events", statement, read_event);
}

Result<std::optional<Reader::EventSpan>> Reader::event_span() {
  return guarded("look how many events there are", [&]() -> std::optional<EventSpan> {
    auto& first = connection_->statement(first_event_sql);
    if (!first.executeStep()) return std::nullopt;
    Columns oldest(first);
    EventSpan span;
    span.first = static_cast<std::uint64_t>(oldest.number());
    const std::int64_t before = oldest.number() - oldest.number();
    first.reset();
    auto& last = connection_->statement(last_event_sql);
    last.executeStep();
    Columns newest(last);
    span.last = static_cast<std::uint64_t>(newest.number());
    span.bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(0, newest.number() - before));
    last.reset();
    return span;
  });
}

Result<std::uint64_t> Reader::first_event_since(WallTime since) {
  return guarded("look for old events", [&] {
    auto& statement = connection_->statement(since_sql);
    Binder{statement}(since);
    const std::uint64_t found =
        statement.executeStep() ? static_cast<std::uint64_t>(Columns(statement).number()) : 0;
    statement.reset();
    return found;
  });
}

Result<std::uint64_t> Reader::last_event_beyond(std::uint64_t bytes) {
  DVDI_TRY(const auto span, event_span());
  if (!span || span->bytes <= bytes) return 0;
  return guarded("look for the oldest events", [&] {
    auto& statement = connection_->statement(total_sql);
    const auto total_up_to = [&](std::uint64_t sequence) {
      Binder{statement}(static_cast<std::int64_t>(sequence));
      statement.executeStep();
      Columns columns(statement);
      static_cast<void>(columns.number());
      const std::int64_t total = columns.number();
      statement.reset();
      return total;
    };
    // Totals rise with the numbers: halving finds the first event that may stay.
    const std::int64_t goes = total_up_to(span->last) - static_cast<std::int64_t>(bytes);
    std::uint64_t low = span->first;
    std::uint64_t high = span->last;
    while (low < high) {
      const std::uint64_t middle = low + (high - low) / 2;
      if (total_up_to(middle) >= goes) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  });
}

Result<std::pair<std::uint64_t, std::string>> Reader::head() {
  return guarded("read the newest event", [&] {
    auto& statement = connection_->statement(head_sql);
    std::pair<std::uint64_t, std::string> head{0, genesis_hash()};
    if (statement.executeStep()) {
      Columns columns(statement);
      head.first = static_cast<std::uint64_t>(columns.number());
      head.second = columns.text();
    }
    statement.reset();
    return head;
  });
}

Result<LastEvent> Reader::last_event() {
  return guarded("read the newest event", [&] {
    auto& statement = connection_->statement(before_next_sql);
    statement.executeStep();
    Columns columns(statement);
    LastEvent last;
    last.sequence = columns.number();
    if (columns.is_null()) {
      last.hash = genesis_hash();
    } else {
      last.hash = columns.text();
      last.total_bytes = columns.number();
    }
    statement.reset();
    return last;
  });
}

Result<std::uint64_t> Reader::highest_event() {
  DVDI_TRY(const LastEvent last, last_event());
  return static_cast<std::uint64_t>(last.sequence);
}

}  // namespace dvdi
