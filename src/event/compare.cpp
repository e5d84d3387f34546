#include "event/compare.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"

namespace dvdi {

namespace {

Error differs(std::string message) {
  return Error{.code = Code::corrupted,
               .message = std::move(message),
               .hint = "one of both was changed: keep both as they are, and compare the events one by one"};
}

// By the records that are still here. The ranges of one sink begin where the last one ended or where it
// began.
Result<std::uint64_t> dropped_between(Reader& reader, const std::string& name, std::uint64_t first,
                                      std::uint64_t last) {
  DVDI_TRY(const auto records, reader.events_of_type("dvdi.events.dropped"));
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (const StoredEvent& record : records) {
    DVDI_TRY(const json::value body, json::parse(record.body, fmt::format("event {}", record.sequence)));
    const json::value* data = json::find(body, "data");
    if (data == nullptr || json::text_or_empty(*data, "sink") != name) continue;
    const json::value* from = json::find(*data, "first");
    const json::value* to = json::find(*data, "last");
    if (from == nullptr || to == nullptr || !from->is_int64() || !to->is_int64()) continue;
    ranges.emplace_back(std::max(first, static_cast<std::uint64_t>(from->get_int64())),
                        std::min(last, static_cast<std::uint64_t>(to->get_int64())));
  }
  std::ranges::sort(ranges);
  std::uint64_t count = 0;
  std::uint64_t counted = 0;  // up to that number
  for (const auto& [from, to] : ranges) {
    const std::uint64_t begin = std::max(from, counted + 1);
    if (begin > to) continue;
    count += to - begin + 1;
    counted = to;
  }
  return count;
}

// The hash of the event of that number by what is here; "" where it is not known.
Result<std::string> hash_of(Reader& reader, std::uint64_t sequence) {
  DVDI_TRY(const auto found, reader.events(sequence - 1, 1));
  if (!found.empty() && found.front().sequence == sequence) return found.front().hash;
  if (found.empty() || found.front().sequence != sequence + 1) return std::string();
  // Just cut away: the next one says which it follows.
  DVDI_TRY(const json::value body, json::parse(found.front().body, fmt::format("event {}", sequence + 1)));
  return std::string(json::text_or_empty(body, "previoushash"));
}

Status compare_count(Reader& reader, const std::string& name, const SinkHead& head, std::uint64_t first_here,
                     std::string& not_told) {
  if (head.first == 0) {
    not_told = "the sink does not say with which event it begins, so its number of events says nothing";
    return {};
  }
  const std::uint64_t range = head.sequence - head.first + 1;
  if (head.count == range) return {};
  if (head.count > range) {
    return differs(fmt::format("sink {} has {} events numbered {} to {}: more than there are numbers", name,
                               head.count, head.first, head.sequence));
  }
  DVDI_TRY(const std::uint64_t dropped, dropped_between(reader, name, head.first, head.sequence));
  const std::uint64_t missing = range - head.count;
  if (missing == dropped) return {};
  if (missing > dropped && head.first < first_here) {
    not_told =
        fmt::format("the sink misses {} events from {} on; whether they were dropped is not known any more",
                    missing - dropped, head.first);
    return {};
  }
  return differs(
      fmt::format("sink {} has {} of the {} events numbered {} to {}, of which {} were dropped for it", name,
                  head.count, range, head.first, head.sequence, dropped));
}

}  // namespace

Result<Confirmed> confirmed_by(Reader& reader, const std::string& name) {
  DVDI_TRY(const auto row, reader.sink(name));
  if (!row) return Confirmed{};
  return Confirmed{.sequence = std::max(row->cursor, row->replay_until), .passed_over = row->undelivered > 0};
}

Result<Compared> compare_with_sink(Reader& reader, const std::string& name, const Confirmed& confirmed,
                                   const SinkHead& head, bool rotates) {
  DVDI_TRY(const std::uint64_t highest, reader.highest_event());
  if (head.sequence > highest) {
    return differs(
        fmt::format("sink {} has event {}, and here the newest is number {}: events were removed here", name,
                    head.sequence, highest));
  }
  Compared compared{.sink = head};
  if (head.sequence == 0 && (confirmed.sequence == 0 || confirmed.passed_over || rotates)) {
    compared.not_told = confirmed.sequence == 0 ? "the sink has no event of this node yet"
                                                : "the sink has no event of this node: was it begun anew?";
    return compared;
  }
  if (head.sequence < confirmed.sequence && !confirmed.passed_over) {
    return differs(
        head.sequence == 0
            ? fmt::format("sink {} has none of the events of this node, of which it had confirmed {}", name,
                          confirmed.sequence)
            : fmt::format("the newest event that sink {} has is number {}, and it had confirmed {}", name,
                          head.sequence, confirmed.sequence));
  }
  DVDI_TRY(const std::string hash, hash_of(reader, head.sequence));
  if (hash.empty()) {
    compared.not_told =
        fmt::format("event {}, the newest that the sink has, is not kept here any more", head.sequence);
    return compared;
  }
  if (hash != head.hash) {
    return differs(fmt::format("event {} is another one here than in sink {}: {} here, {} there",
                               head.sequence, name, hash, head.hash));
  }
  compared.same = true;
  DVDI_TRY(const auto span, reader.event_span());
  DVDI_CHECK(compare_count(reader, name, head, span ? span->first : 1, compared.not_told));
  return compared;
}

}  // namespace dvdi
