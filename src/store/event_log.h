// Events: one for each transition, in its transaction, numbered without gaps and chained by hash.
//
// An event is a CloudEvents 1.0 JSON object. Its stored body is the exact text that the hash is over and
// contains the previous event's hash; shown to anybody it ends with one more member, "hash". So a reader cuts
// `,"hash":"…"` before the last brace and computes SHA-256 of what is left.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "store/types.h"

namespace dvdi {

// What happened. Empty members are left out of the event.
struct Event {
  std::string type;  // dvdi.mount.mounted; docs/events.md is the catalogue
  std::optional<ContainerKey> container;
  std::optional<VolumeKey> volume;
  std::string subject = {};  // KIND/NAME, where it is about neither a volume nor a container
  Attribution attribution = {};
  std::string mount_id = {};
  std::string mount_point = {};
  std::optional<Duration> duration = {};  // of the step that ended with this transition
  unsigned attempt = 0;
  std::string error = {};   // text, without secrets
  std::string reason = {};  // why, where the type alone does not say
  std::string trace_id = {};
  std::optional<Caller> peer = {};  // who asked; set by Transaction::record
  json::object details = {};        // members that only this type has
};

struct StoredEvent {
  std::uint64_t sequence = 0;
  std::string body;
  std::string hash;
  std::string json() const;  // the body with its hash: one line
};

// The body of event number `sequence`.
std::string event_body(const Event& event, std::uint64_t sequence, const std::string& node_id,
                       const std::string& previous_hash, WallTime time);

// The type of the event that says which were taken away by retention: `last` and `head` in its data are the
// number and the hash of the last one that went.
inline constexpr std::string_view events_cut_type = "dvdi.events.cut";

// Checks one event after another: sequence, chain and hash.
class EventVerifier {
 public:
  // corrupted, naming the sequence number and what is wrong: removed, changed, or out of order.
  Status next(const StoredEvent& event);
  // After the last: where the first was not number 1, is it retention that took those before it away?
  Status finish() const;
  std::uint64_t count() const { return count_; }
  std::uint64_t first() const { return first_; }
  std::uint64_t last() const { return last_; }
  const std::string& head() const { return head_; }

 private:
  void note_cut(const json::value& body);

  std::uint64_t count_ = 0, first_ = 0, last_ = 0;
  std::string head_;
  std::string said_sequence_, said_previous_, said_type_;  // by the event that is looked at
  std::string before_first_;                               // the hash that the first one follows
  std::optional<std::uint64_t> cut_at_;                    // by the newest event of a cut
  std::string cut_head_;
};

// The hash before the first event.
const std::string& genesis_hash();

}  // namespace dvdi
