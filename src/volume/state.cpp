#include "volume/state.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/random.h"

namespace dvdi::volume {

namespace {

using enum MountState;

struct Allowed {
  MountState from;
  MountState to;
};

constexpr std::array allowed = {
    Allowed{absent, mounting},    Allowed{absent, unknown},  //
    Allowed{mounting, mounted},   Allowed{mounting, absent},    Allowed{mounting, unknown},
    Allowed{mounted, unmounting}, Allowed{mounted, unknown},    Allowed{mounted, absent},
    Allowed{unmounting, absent},  Allowed{unmounting, unknown},  //
    Allowed{unknown, mounted},    Allowed{unknown, unmounting}, Allowed{unknown, mounting},
    Allowed{unknown, absent},
};

std::string event_type(MountState from, MountState to, const Cause& cause) {
  if (cause.lost && (to == absent || to == unknown)) return "dvdi.mount.lost";
  if (to != absent) return fmt::format("dvdi.mount.{}", mount_state_name(to));
  if (from == mounting) return "dvdi.mount.failed";
  return "dvdi.mount.unmounted";
}

}  // namespace

Status check_transition(MountState from, MountState to) {
  if (std::ranges::any_of(allowed, [&](const Allowed& one) { return one.from == from && one.to == to; }))
    return {};
  return Error{.code = Code::internal,
               .message = fmt::format("a mount must not go from {} to {}", mount_state_name(from),
                                      mount_state_name(to))};
}

Cause nobody_at_work(const std::string& trace_id) {
  return {.reason = "found without anybody at work on it", .unanswered = true, .trace_id = trace_id};
}

MountRow new_mount(const VolumeKey& volume) {
  MountRow row;
  row.volume = volume;
  row.mount_id = random_uuid();
  row.state = absent;
  return row;
}

Status transition(Transaction& transaction, MountRow& row, MountState to, const Cause& cause) {
  const MountState from = row.state;
  DVDI_CHECK(check_transition(from, to));
  // The caller's copy may be stale: T1 and T3 are written without the volume's lock.
  DVDI_TRY(const auto current, transaction.mount(row.volume));
  if ((current ? current->state : absent) != from || (current && current->mount_id != row.mount_id)) {
    return Error{.code = Code::internal,
                 .message = fmt::format("a mount that is {} was to go from {} to {}",
                                        mount_state_name(current ? current->state : absent),
                                        mount_state_name(from), mount_state_name(to)),
                 .driver = row.volume.driver,
                 .volume = row.volume.name};
  }
  if (from == mounted) {
    DVDI_CHECK(transaction.close_usage({.kind = UsageInterval::Kind::mounted,
                                        .volume = row.volume,
                                        .start = current->since,
                                        .size_bytes = current->size_bytes,
                                        .volume_type = current->volume_type}));
  }
  const bool settled = to == mounted || to == mounting || row.since.boot_id != transaction.now().boot_id;
  if (settled) row.unanswered.reset();
  if (cause.unanswered) row.unanswered = transaction.now().boot;
  row.state = to;
  row.since = transaction.now();
  // The note stays while an unmount is tried: if it fails, it is still why.
  const auto pending = row.pending;
  if (to == mounted || to == mounting ||
      (to == unknown && pending != MountRow::Pending::lost && pending != MountRow::Pending::found)) {
    row.note.clear();
  }
  // A mount from before these books stays one, whoever takes it over: it may have users that the
  // books do not know.
  const bool found = pending == MountRow::Pending::found && (to == mounted || to == unmounting);
  if (to != unknown && !found) row.pending = MountRow::Pending::none;
  if (to == mounted) {
    row.mounted_since = transaction.now();
    DVDI_TRY(const auto volume, transaction.volume(row.volume));
    row.size_bytes = volume ? volume->size_bytes : std::nullopt;
    row.volume_type = volume ? volume->type : std::string();
  }
  if (to == absent) {
    DVDI_CHECK(transaction.erase_mount(row.volume));
  } else {
    DVDI_CHECK(transaction.put(row));
  }
  Event event;
  event.type = event_type(from, to, cause);
  event.volume = row.volume;
  event.mount_id = row.mount_id;
  event.mount_point = row.mount_point;
  event.duration = cause.duration;
  event.attempt = cause.attempt;
  event.error = cause.error;
  event.reason = cause.reason;
  event.trace_id = cause.trace_id;
  event.details["from"] = mount_state_name(from);
  if (event.type == "dvdi.mount.lost") event.details["to"] = mount_state_name(to);
  return transaction.record(std::move(event));
}

}  // namespace dvdi::volume
