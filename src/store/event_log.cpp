#include "store/event_log.h"

#include <fmt/format.h>

#include <array>
#include <boost/json/monotonic_resource.hpp>

#include "base/sha256.h"

namespace dvdi {

namespace {

void put(json::object& to, std::string_view name, const std::string& text) {
  if (!text.empty()) to[name] = text;
}

json::object data_of(const Event& event, const boost::json::storage_ptr& memory) {
  json::object data(memory);
  if (event.container) {
    data["owner"] = event.container->owner;
    data["container"] = event.container->id;
  }
  put(data, "framework", event.attribution.framework);
  put(data, "role", event.attribution.role);
  put(data, "principal", event.attribution.principal);
  put(data, "task_id", event.attribution.task_id);
  put(data, "task_name", event.attribution.task_name);
  put(data, "user", event.attribution.user);
  if (!event.attribution.labels.empty()) {
    json::object labels(memory);
    for (const auto& [key, text] : event.attribution.labels) labels[key] = text;
    data["labels"] = std::move(labels);
  }
  if (event.volume) {
    data["driver"] = event.volume->driver;
    data["volume"] = event.volume->name;
  }
  put(data, "mount_id", event.mount_id);
  put(data, "mount_point", event.mount_point);
  if (event.duration) data["duration_ms"] = static_cast<double>(event.duration->count()) / 1e6;
  if (event.attempt > 0) data["attempt"] = event.attempt;
  put(data, "error", event.error);
  put(data, "reason", event.reason);
  if (event.peer) {
    data["peer"] =
        json::object({{"uid", event.peer->uid}, {"gid", event.peer->gid}, {"pid", event.peer->pid}}, memory);
  }
  for (const auto& member : event.details) data[member.key()] = member.value();
  return data;
}

std::string subject_of(const Event& event) {
  if (event.volume) return "volume/" + event.volume->text();
  if (event.container) return "container/" + event.container->text();
  return event.subject;
}

}  // namespace

std::string StoredEvent::json() const {
  return fmt::format("{},\"hash\":\"{}\"}}", std::string_view(body).substr(0, body.size() - 1), hash);
}

const std::string& genesis_hash() {
  static const std::string hash(64, '0');
  return hash;
}

std::string event_body(const Event& event, std::uint64_t sequence, const std::string& node_id,
                       const std::string& previous_hash, WallTime time) {
  // All of it is freed at once, and most events need no more than this.
  std::array<unsigned char, 4096> space{};
  boost::json::monotonic_resource memory(space.data(), space.size());
  json::object body(&memory);
  body["specversion"] = "1.0";
  body["id"] = fmt::format("{}-{}", node_id, sequence);
  body["source"] = "/dvdi/node/" + node_id;
  body["type"] = event.type;
  put(body, "subject", subject_of(event));
  body["time"] = rfc3339(time);
  body["datacontenttype"] = "application/json";
  // The CloudEvents extension "sequence": a text whose order is the order of the events.
  body["sequence"] = fmt::format("{:020}", sequence);
  put(body, "traceid", event.trace_id);
  body["previoushash"] = previous_hash;
  body["data"] = data_of(event, body.storage());
  return json::serialize(body);
}

Status EventVerifier::next(const StoredEvent& event) {
  const auto broken = [&](std::string what) {
    return Error{.code = Code::corrupted,
                 .message = fmt::format("event {}: {}", event.sequence, what),
                 .hint = "compare with a sink outside this node"};
  };
  if (count_ > 0 && event.sequence != last_ + 1) {
    return broken(
        fmt::format("the one before it has number {}: {} missing", last_, event.sequence - last_ - 1));
  }
  if (sha256_hex(event.body) != event.hash)
    return broken("it was changed: its hash is not the hash of its bytes");
  const std::array members = {json::TextMember{"sequence", &said_sequence_},
                              json::TextMember{"previoushash", &said_previous_},
                              json::TextMember{"type", &said_type_}};
  if (auto read = json::read_texts(event.body, members, "its body"); !read)
    return broken(read.error().message);
  if (said_sequence_ != fmt::format("{:020}", event.sequence))
    return broken("it is out of order: it says it is number " + said_sequence_);
  const std::string_view previous = said_previous_;
  if (count_ > 0 && previous != head_)
    return broken("it does not follow the one before it: the chain is broken");
  if (event.sequence == 1 && previous != genesis_hash())
    return broken("the first event must follow no other");
  if (count_ == 0) {
    first_ = event.sequence;
    before_first_ = previous;
  }
  if (said_type_ == events_cut_type) {
    DVDI_TRY(const json::value body, json::parse(event.body, fmt::format("event {}", event.sequence)));
    note_cut(body);
  }
  last_ = event.sequence;
  head_ = event.hash;
  ++count_;
  return {};
}

void EventVerifier::note_cut(const json::value& body) {
  const json::value* data = json::find(body, "data");
  const json::value* last = data == nullptr ? nullptr : json::find(*data, "last");
  if (last == nullptr || !last->is_int64() || last->get_int64() < 0) return;
  cut_at_ = static_cast<std::uint64_t>(last->get_int64());
  cut_head_ = json::text_or_empty(*data, "head");
}

Status EventVerifier::finish() const {
  if (count_ == 0 || first_ == 1) return {};
  if (cut_at_ == first_ - 1 && cut_head_ == before_first_) return {};
  const std::uint64_t missing = cut_at_.value_or(0) + 1;
  return Error{
      .code = Code::corrupted,
      .message =
          missing < first_
              ? fmt::format("events {} to {} are missing at the beginning", missing, first_ - 1)
              : fmt::format("the first event is number {}, which does not follow what retention took away",
                            first_),
      .hint = "somebody removed the oldest events: compare with a sink outside this node"};
}

}  // namespace dvdi
