// Mounts that are lost: they vanish from the kernel's table, or the server behind them is gone. Noticing it,
// and taking away what is left of them.

#include <fmt/format.h>

#include <algorithm>

#include "base/failpoint.h"
#include "base/sync.h"
#include "linux/mount_table.h"
#include "volume/books.h"
#include "volume/manager_state.h"
#include "volume/work.h"

namespace dvdi::volume {

namespace {

using Pending = MountRow::Pending;

// Servers that do not answer keep a thread and a helper for `probe_patience`.
constexpr std::size_t probes_at_once = 32;

v1::MountIdentity expected_of(const MountRow& row) {
  v1::MountIdentity identity;
  identity.set_mount_id(row.identity->mount_id);
  identity.set_major(row.identity->major);
  identity.set_minor(row.identity->minor);
  identity.set_root(row.identity->root);
  identity.set_source(row.identity->source);
  identity.set_fs_type(row.identity->fs_type);
  identity.set_mount_point(row.mounted_at());
  return identity;
}

bool is_lost(const MountRow& row) { return row.state == MountState::unknown && row.pending == Pending::lost; }

bool is_served(const MountRow& row) { return row.identity && has_server(row.identity->fs_type); }

bool same_mount(const MountRow& a, const MountRow& b) {
  return a.mount_id == b.mount_id && a.state == b.state && a.pending == b.pending && a.identity == b.identity;
}

// Two tries, so that one answer that is late once loses nothing.
Result<ServerLook> look_twice(const Context& context, HelperPool& helpers, const MountRow& row,
                              Duration patience) {
  const v1::MountIdentity identity = expected_of(row);
  const std::string key = row.volume.text();
  DVDI_TRY(const ServerLook first,
           look_at_server(context.with_timeout(patience / 2), helpers, identity, key));
  if (first.state != ServerState::silent && first.state != ServerState::failing) return first;
  DVDI_TRY(ServerLook second, look_at_server(context.with_timeout(patience / 2), helpers, identity, key));
  if (first.state == ServerState::silent && second.state == ServerState::silent) return first;
  return second;
}

}  // namespace

std::string why_lost(const ServerLook& look) {
  switch (look.state) {
    case ServerState::gone:
      return "its server is gone: " + look.text;
    case ServerState::failing:
      return "its server fails: " + look.text;
    case ServerState::silent:
      return "its server does not answer: " + look.text;
    case ServerState::replaced:
    case ServerState::answers:
      break;
  }
  return std::string(vanished);
}

Result<ServerLook> Work::look(const MountRow& row) {
  if (!is_served(row)) return ServerLook();
  return look_at_server(context_.with_timeout(policy_.use_patience), parts_.helpers, expected_of(row),
                        volume_.text());
}

Result<Claim> Work::verify(const std::string& path, bool plain_directory, const MountTable* before) {
  DVDI_TRY(const auto table, mounts_.now());
  DVDI_TRY(Claim claim,
           verify_claim(context_, parts_.helpers, *table, volume_, path, plain_directory, before));
  MountRow row;
  row.mount_point = claim.mount_point;
  row.folder = claim.folder;
  row.identity = claim.identity;
  DVDI_TRY(const ServerLook server, look(row));
  if (server.state == ServerState::answers) return claim;
  const bool broken = server.state == ServerState::gone || server.state == ServerState::replaced;
  return Error{.code = broken ? Code::driver_violation : Code::unavailable,
               .message = fmt::format("the driver said that it mounted the volume at {}, but {}",
                                      claim.mount_point, why_lost(server)),
               .driver = volume_.driver,
               .volume = volume_.name,
               .operation = "mount",
               .hint = "see the driver's log, and whether the server of the volume runs",
               .outcome = Outcome::unknown};
}

Status Work::lose(MountRow& row, const std::string& why) {
  row.pending = Pending::lost;
  row.note = why;
  Cause because = cause(why);
  because.lost = true;
  DVDI_CHECK(move(row, MountState::unknown, because));
  calls_.mount_lost(volume_.driver);
  return {};
}

ServerLook Work::take_away_if_gone(const MountRow& row) {
  if (!is_served(row)) return {};
  // The driver's answer may have taken all the time that there was: then a little more.
  const Duration least = std::min<Duration>(std::chrono::seconds(1), policy_.use_patience);
  const Context bounded = context_.detached(std::clamp(context_.remaining(), least, policy_.use_patience));
  std::optional<ForeignRow> foreign;
  const auto read = parts_.ledger.read(bounded, "look for a foreign holder", [&](Reader& reader) -> Status {
    DVDI_TRY(foreign, reader.foreign(volume_));
    return {};
  });
  if (!read) return {.state = ServerState::failing, .text = read.error().text()};
  // It was there before our first Mount: it is not ours to take away.
  if (foreign && foreign->mount_point == row.mounted_at()) return {};
  const std::string what = "detach " + volume_.text();
  failpoint("volume.detach.before", what);
  auto look = detach_if_gone(bounded, parts_.helpers, expected_of(row), volume_.text());
  failpoint("volume.detach.after", what);
  if (!look) return {.state = ServerState::failing, .text = look.error().text()};
  return *look;
}

Result<bool> Work::note(const MountRow& seen, const std::string& why) {
  DVDI_TRY(auto now, row());
  if (!now || !same_mount(*now, seen)) return false;
  DVDI_CHECK(lose(*now, why));
  return true;
}

Result<bool> Work::find_again(const MountRow& seen) {
  DVDI_TRY(auto now, row());
  if (!now || !same_mount(*now, seen)) return false;
  DVDI_TRY(const auto table, mounts_.now());
  if (!shows(*table, *now)) return false;
  bool referenced = false;
  DVDI_CHECK(parts_.ledger.write(
      context_.detached(time_to_record), fmt::format("record that {} is mounted again", volume_.text()),
      [&](Transaction& transaction) -> Status {
        DVDI_TRY(const auto references, transaction.references_to(volume_));
        referenced = !references.empty();
        if (!referenced) return {};  // settling takes it away
        MountRow copy = *now;
        DVDI_CHECK(transition(transaction, copy, MountState::mounted, cause(std::string(found_again))));
        return settle_debt(transaction, volume_, context_.trace_id(), true);
      }));
  return referenced;
}

Result<Compared> Manager::note_vanished(const Context& context) {
  State& state = *state_;
  const Lock comparing(state.comparing);
  std::optional<State::Comparison> last = std::exchange(state.compared, {});
  const Moment begun = state.parts.ledger.now(context.clock());
  DVDI_TRY(const auto unchanged, state.mounts.now());
  const bool again = last && last->table == unchanged;
  std::vector<MountRow> rows;
  DVDI_CHECK(state.read(context, "look for mounts that vanished", [&](Reader& reader) -> Status {
    // What was as it is with this same table needs no second look. A transaction may have had its time before
    // the last comparison and its end after it.
    Moment since = begun;
    if (again) since.boot = last->begun.boot - 2 * time_to_record;
    DVDI_TRY(rows, again ? reader.mounts_since(since) : reader.mounts());
    return {};
  }));
  DVDI_TRY(const auto before, state.mounts.now());
  Compared compared{.served = again && last->served};
  bool all = true;
  for (const MountRow& row : rows) {
    if (!row.identity) continue;
    compared.served = compared.served || is_served(row);
    const bool there = shows(*before, row);
    const bool went = row.state == MountState::mounted && !there;
    // Those with a server have to answer first, which probe() looks at.
    const bool came_back = is_lost(row) && there && !is_served(row);
    if (!went && !came_back) continue;
    DVDI_TRY(const auto lock, state.parts.volume_locks.try_acquire(lock_name(row.volume)));
    if (!lock) {
      all = false;
      continue;
    }
    Work one(state.parts, state.policy, state.calls, state.mounts, context, row.volume);
    if (came_back) {
      DVDI_CHECK(one.find_again(row));
      continue;
    }
    // Somebody may have been at work on it between the two readings.
    DVDI_TRY(const auto now, state.mounts.now());
    if (shows(*now, row)) continue;
    DVDI_TRY(const bool noted, one.note(row, std::string(vanished)));
    if (noted) compared.lost.push_back(row.volume);
  }
  if (all && before == unchanged)
    state.compared = {.table = before, .begun = begun, .served = compared.served};
  return compared;
}

Result<Probed> Manager::probe(const Context& context) {
  State& state = *state_;
  std::vector<MountRow> rows;
  DVDI_CHECK(state.read(context, "look for mounts with a server", [&](Reader& reader) -> Status {
    DVDI_TRY(rows, reader.mounts());
    return {};
  }));
  std::erase_if(rows, [](const MountRow& row) {
    return !is_served(row) || (row.state != MountState::mounted && !is_lost(row));
  });
  Probed probed;
  if (rows.empty()) return probed;
  DVDI_TRY(const auto table, state.mounts.now());
  // One that is not there has no server to ask; note_vanished() sees it.
  std::erase_if(rows, [&](const MountRow& row) { return !shows(*table, row); });
  probed.anything = !rows.empty();
  // Those that are lost may be silent, and take long: the others first.
  std::ranges::stable_partition(rows, [](const MountRow& row) { return row.state == MountState::mounted; });

  Mutex mutex;
  std::size_t next = 0;
  std::optional<Error> failed;
  const auto look = [&](const MountRow& row) -> Result<ServerLook> {
    DVDI_TRY(const auto held, state.parts.volume_locks.try_acquire(probe_lock_name(row.volume)));
    if (!held) return Error{.code = Code::unavailable, .message = "its driver unmounts it"};
    return look_twice(context, state.parts.helpers, row, state.policy.probe_patience);
  };
  const auto probe_one = [&](const MountRow& row) -> Status {
    const auto server = look(row);
    if (!server) return {};  // no verdict: it is unmounted, no helper was free, or the context ended
    const bool answers = server->state == ServerState::answers;
    if (server->state == ServerState::replaced || answers == (row.state == MountState::mounted)) return {};
    DVDI_TRY(const auto held, state.parts.volume_locks.try_acquire(lock_name(row.volume)));
    if (!held) return {};  // whoever is at work on it sees for himself
    Work one(state.parts, state.policy, state.calls, state.mounts, context, row.volume);
    DVDI_TRY(const bool noted, answers ? one.find_again(row) : one.note(row, why_lost(*server)));
    if (!noted) return {};
    const Lock lock(mutex);
    (answers ? probed.found : probed.lost).push_back(row.volume);
    return {};
  };
  run_parallel(std::vector<std::function<void()>>(std::min(probes_at_once, rows.size()), [&] {
    for (;;) {
      const MountRow* row = nullptr;
      {
        const Lock lock(mutex);
        if (next >= rows.size() || !context.check("probe")) return;
        row = &rows[next++];
      }
      if (auto done = probe_one(*row); !done) {
        const Lock lock(mutex);
        failed = std::move(done).error();
      }
    }
  }));
  if (failed) return *failed;
  return probed;
}

std::map<std::string, std::string> Manager::fenced(const Context& context) const {
  std::map<std::string, std::string> all;
  const BootTime now = context.clock().boot();
  for (const HelperPool::Stuck& one : state_->parts.helpers.stuck_helpers()) {
    if (one.key.empty()) continue;
    all[one.key] = fmt::format("since {}: helper process {}, which was to {}, is stuck in the kernel",
                               rfc3339(context.clock().wall() - (now - one.since)), one.pid, one.what);
  }
  return all;
}

}  // namespace dvdi::volume
