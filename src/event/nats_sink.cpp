#include "event/nats_sink.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/json.h"
#include "base/text.h"
#include "event/event_line.h"
#include "event/nats_connection.h"
#include "event/nats_stream.h"

namespace dvdi {

namespace {

// What guarantees the order: one event is on the way at a time, and the next goes only when the stream has
// confirmed it. With several on the way, one that is refused or lost (a limit of the stream, a cluster that
// changes its leader) would come again after those behind it; what NATS has against that compares with the
// last message of the whole stream (Nats-Expected-Last-Msg-Id) or of one exact subject, and many nodes share
// a stream, and an event's subject has its type.
//
// What guarantees that none comes twice: the id, within the stream's duplicate window; and beyond it, after
// each connect, a look at what the stream has of the node last.
class NatsSink final : public Sink {
 public:
  explicit NatsSink(const NatsSinkSettings& settings) : settings_(settings) {}

  Status deliver(const Context& context, const std::vector<StoredEvent>& batch) override {
    return dropping(deliver_connected(context, batch));
  }
  void sent_again_until(std::uint64_t sequence) override { again_until_ = sequence; }
  Result<SinkHead> head(const Context& context, const std::string& node_id) override {
    return dropping(head_connected(context, node_id));
  }
  Status test(const Context& context) override {
    connection_.reset();  // what is in the files now is what is to be tested
    return dropping(connect(context));
  }
  std::string where() const override {
    SinkSettings settings;
    settings.kind = settings_;
    return where_of(settings);
  }

 private:
  // What the stream had of one node when it was looked at.
  struct Had {
    std::string node;
    std::uint64_t first = 0, last = 0, count = 0;  // of events; count: of messages
    std::string last_hash;
    bool gapless() const { return last >= first && first > 0 && count == last - first + 1; }
  };

  // After a failure the next call begins with a connection of its own: answers may be under way on this one.
  template <class R>
  R dropping(R result) {
    if (!result) connection_.reset();
    return result;
  }
  std::string subject_of(std::string_view node) const {
    return fmt::format("{}.{}", settings_.subject, node);
  }

  Status connect(const Context& context);
  Result<Had> look(const Context& context, const std::string& node);
  Status deliver_connected(const Context& context, const std::vector<StoredEvent>& batch);
  Result<SinkHead> head_connected(const Context& context, const std::string& node_id);
  Result<SinkHead> count_all(const Context& context, const std::string& node_id);

  const NatsSinkSettings settings_;
  std::unique_ptr<NatsConnection> connection_;
  std::optional<NatsStream> stream_;  // of the connection
  std::optional<Had> had_;            // since the connection was made
  std::uint64_t again_until_ = 0;
};

// One word of a subject, or several with dots between them.
bool fit_for_subject(std::string_view text, bool dots) {
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || (dots && c == '.');
  });
}

Error strange(std::string message) { return Error{.code = Code::corrupted, .message = std::move(message)}; }

Status NatsSink::connect(const Context& context) {
  if (connection_ && connection_->alive()) return {};
  connection_.reset();
  had_.reset();
  DVDI_TRY(connection_, NatsConnection::open(context, settings_));
  stream_.emplace(*connection_, settings_);
  return stream_->check(context);
}

Result<NatsSink::Had> NatsSink::look(const Context& context, const std::string& node) {
  Had had{.node = node, .last_hash = {}};
  const std::string filter = subject_of(node) + ".>";
  DVDI_TRY(const auto newest, stream_->newest(context, filter));
  if (!newest) return had;
  DVDI_TRY(const auto first, stream_->next(context, filter, 1));
  DVDI_TRY(had.count, stream_->count(context, filter));
  const auto newest_line = read_event_line(newest->payload);
  const auto first_line = first ? read_event_line(first->payload) : std::nullopt;
  // Others may write there too; then nothing is concluded from what there is.
  if (!newest_line || newest_line->node != node || !first_line || first_line->node != node) return had;
  had.first = first_line->sequence;
  had.last = newest_line->sequence;
  had.last_hash = newest_line->hash;
  return had;
}

Status NatsSink::deliver_connected(const Context& context, const std::vector<StoredEvent>& batch) {
  const std::string node = node_of(batch.front());
  if (!fit_for_subject(node, false))
    return strange(fmt::format("event {} names no node", batch.front().sequence));
  DVDI_CHECK(connect(context));
  if (!had_ || had_->node != node) {
    DVDI_TRY(had_, look(context, node));
  }
  // What the stream has already is not sent: up to its last event, if that is one of these (the same hash, so
  // all before it are the same too), and if it has all from the batch's first. But what a person asked for
  // again is.
  std::uint64_t has = 0;
  if (had_->gapless() && had_->first <= batch.front().sequence) {
    const auto last = std::ranges::find(batch, had_->last, &StoredEvent::sequence);
    if (last != batch.end() && last->hash == had_->last_hash) has = had_->last;
  }
  for (const StoredEvent& event : batch) {
    if (event.sequence <= has && event.sequence > again_until_) continue;
    const std::string_view type = attribute_of(event, "type");
    if (!fit_for_subject(type, true)) return strange(fmt::format("event {} has no type", event.sequence));
    DVDI_CHECK(stream_->publish(context, fmt::format("{}.{}", subject_of(node), type),
                                fmt::format("{}-{}", node, event.sequence), event.json()));
  }
  return {};
}

Result<SinkHead> NatsSink::head_connected(const Context& context, const std::string& node_id) {
  if (!fit_for_subject(node_id, false))
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("'{}' is no node", printable(node_id))};
  DVDI_CHECK(connect(context));
  DVDI_TRY(const Had had, look(context, node_id));
  if (had.count == 0) return SinkHead();
  if (had.gapless())
    return SinkHead{.sequence = had.last, .hash = had.last_hash, .first = had.first, .count = had.count};
  return count_all(context, node_id);
}

// One by one, for a stream that has events twice or not in order (after a replay), or lacks some.
Result<SinkHead> NatsSink::count_all(const Context& context, const std::string& node_id) {
  SinkHead head;
  std::vector<std::uint64_t> sequences;
  std::uint64_t from = 1;
  for (;;) {
    DVDI_TRY(const auto message, stream_->next(context, subject_of(node_id) + ".>", from));
    if (!message) break;
    from = message->sequence + 1;
    const auto line = read_event_line(message->payload);
    if (!line || line->node != node_id) continue;  // somebody else's, who may write there too
    sequences.push_back(line->sequence);
    if (line->sequence < head.sequence) continue;
    head.sequence = line->sequence;
    head.hash = line->hash;
  }
  std::ranges::sort(sequences);
  const auto twice = std::ranges::unique(sequences);
  sequences.erase(twice.begin(), twice.end());
  head.count = sequences.size();
  head.first = sequences.empty() ? 0 : sequences.front();
  return head;
}

}  // namespace

Result<std::unique_ptr<Sink>> make_nats_sink(const NatsSinkSettings& settings) {
  return std::make_unique<NatsSink>(settings);
}

}  // namespace dvdi
