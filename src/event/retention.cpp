#include "event/retention.h"

#include <fmt/format.h>

#include <algorithm>

namespace dvdi {

namespace {

constexpr std::uint64_t events_in_a_transaction = 10'000;
constexpr std::size_t intervals_in_a_transaction = 10'000;

// What is to go now.
struct Cut {
  std::uint64_t first = 0, last = 0;
  std::string reason;
};

// The last event that a rule lets go; 0: none.
Result<std::uint64_t> too_old(Reader& reader, const Retention& retention, WallTime now,
                              const Reader::EventSpan& span) {
  if (retention.events_age == Duration::zero()) return 0;
  DVDI_TRY(const std::uint64_t young, reader.first_event_since(now - retention.events_age));
  return young == 0 ? span.last : young - 1;
}

Result<Cut> find_cut(Reader& reader, const Retention& retention, WallTime now,
                     const std::vector<std::string>& sinks) {
  DVDI_TRY(const auto span, reader.event_span());
  if (!span) return Cut{};
  DVDI_TRY(const std::uint64_t by_age, too_old(reader, retention, now, *span));
  std::uint64_t by_size = 0;
  if (retention.events_bytes > 0) {
    DVDI_TRY(by_size, reader.last_event_beyond(retention.events_bytes));
  }
  std::uint64_t delivered = span->last;
  for (const std::string& name : sinks) {
    DVDI_TRY(const auto sink, reader.sink(name));
    delivered = std::min(delivered, sink ? sink->cursor : 0);
  }
  Cut cut{.first = span->first, .reason = by_age >= by_size ? "age" : "size"};
  cut.last = std::min(std::max(by_age, by_size), delivered);
  if (retention.events_hard_bytes > 0 && span->bytes > retention.events_hard_bytes) {
    // Some room, so that it is not done again at once: each time is another record for a sink that is behind.
    DVDI_TRY(const std::uint64_t hard,
             reader.last_event_beyond(retention.events_hard_bytes - retention.events_hard_bytes / 10));
    if (hard > cut.last) cut = {.first = span->first, .last = hard, .reason = "hard size"};
  }
  cut.last = std::min(cut.last, span->last - 1);
  return cut;
}

Status pass_over(Transaction& transaction, const std::vector<std::string>& names, const Cut& cut,
                 const std::string& trace_id, std::vector<std::string>& dropped) {
  for (const std::string& name : names) {
    DVDI_TRY(const auto known, transaction.sink(name));
    SinkRow sink = known.value_or(SinkRow{.name = name});
    if (sink.cursor >= cut.last) continue;
    if (sink.undelivered == 0) sink.undelivered = std::max(sink.cursor + 1, cut.first);
    sink.cursor = cut.last;
    DVDI_CHECK(transaction.put(sink));
    Event event{.type = "dvdi.events.dropped", .subject = "sink/" + name};
    event.trace_id = trace_id;
    event.details = {{"sink", name}, {"first", sink.undelivered}, {"last", cut.last}};
    DVDI_CHECK(transaction.record(event));
    if (std::ranges::find(dropped, name) == dropped.end()) dropped.push_back(name);
  }
  return {};
}

Status take_away(Transaction& transaction, const Cut& cut, const std::string& trace_id) {
  DVDI_TRY(const auto last, transaction.events(cut.last - 1, 1));
  if (last.empty() || last.front().sequence != cut.last) {
    return Error{
        .code = Code::corrupted,
        .message = fmt::format("event {} is missing, so those before it are not taken away", cut.last),
        .hint = "see `dvdi events verify`"};
  }
  Event event{.type = std::string(events_cut_type), .subject = "events"};
  event.reason = cut.reason;
  event.trace_id = trace_id;
  event.details = {{"first", cut.first}, {"last", cut.last}, {"head", last.front().hash}};
  DVDI_CHECK(transaction.record(event));
  return transaction.erase_events(cut.last);
}

Result<bool> cut_events(const Context& context, Ledger& ledger, const Retention& retention,
                        const std::vector<std::string>& sinks, Retained& retained) {
  Cut cut;
  const WallTime now = context.clock().wall();
  DVDI_CHECK(ledger.read(context, "look for old events", [&](Reader& reader) -> Status {
    DVDI_TRY(cut, find_cut(reader, retention, now, sinks));
    return {};
  }));
  if (cut.last < cut.first || cut.last == 0) return false;
  bool more = false;
  if (cut.last - cut.first + 1 > events_in_a_transaction) {
    cut.last = cut.first + events_in_a_transaction - 1;
    more = true;
  }
  DVDI_CHECK(ledger.write(context, "take old events away", [&](Transaction& transaction) -> Status {
    DVDI_CHECK(pass_over(transaction, sinks, cut, context.trace_id(), retained.dropped));
    return take_away(transaction, cut, context.trace_id());
  }));
  retained.events += cut.last - cut.first + 1;
  return more;
}

Result<bool> cut_usage(const Context& context, Ledger& ledger, const Retention& retention,
                       Retained& retained) {
  if (retention.usage_age == Duration::zero()) return false;
  const WallTime before = context.clock().wall() - retention.usage_age;
  bool any = false;
  DVDI_CHECK(ledger.read(context, "look for old usage", [&](Reader& reader) -> Status {
    DVDI_TRY(any, reader.has_usage_before(before));
    return {};
  }));
  if (!any) return false;
  std::uint64_t gone = 0;
  DVDI_CHECK(ledger.write(context, "take old usage away", [&](Transaction& transaction) -> Status {
    DVDI_TRY(gone, transaction.erase_usage(before, intervals_in_a_transaction));
    if (gone == 0) return {};
    Event event{.type = "dvdi.usage.cut", .subject = "usage"};
    event.trace_id = context.trace_id();
    event.details = {{"count", gone}, {"before", rfc3339(before)}};
    return transaction.record(event);
  }));
  retained.usage += gone;
  return gone == intervals_in_a_transaction;
}

}  // namespace

Result<Retained> retain(const Context& context, Ledger& ledger, const Retention& retention,
                        const std::vector<std::string>& sinks) {
  Retained retained;
  bool events = true;
  bool usage = true;
  while (events || usage) {
    if (context.cancelled() || context.remaining() == Duration::zero()) {
      retained.finished = false;
      return retained;
    }
    if (events) {
      DVDI_TRY(events, cut_events(context, ledger, retention, sinks, retained));
    }
    if (usage) {
      DVDI_TRY(usage, cut_usage(context, ledger, retention, retained));
    }
  }
  return retained;
}

}  // namespace dvdi
