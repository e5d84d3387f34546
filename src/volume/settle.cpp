// Work, second half: taking a volume down, and settling what nobody refers to.

#include <fmt/format.h>

#include "base/planted_bug.h"
#include "linux/holders.h"
#include "linux/mount_holders.h"
#include "volume/books.h"
#include "volume/manager_state.h"
#include "volume/work.h"

namespace dvdi::volume {

namespace {

using Pending = MountRow::Pending;

}  // namespace

Result<std::optional<std::string>> Work::take_down(const std::string& mount_id,
                                                   const std::function<Status(Transaction&)>& with) {
  DVDI_TRY(auto found, row());
  if (found && found->mount_id == mount_id && found->state == MountState::unmounting) {
    return unmount(*found, with, Pending::none);
  }
  // Somebody who had the lock before us did it, or took the mount over.
  std::optional<std::string> owed;
  DVDI_CHECK(parts_.ledger.write(context_.detached(time_to_record), "record the end of a use",
                                 [&](Transaction& transaction) -> Status {
                                   DVDI_TRY(const auto debt, transaction.debt(volume_));
                                   if (debt && debt->mount_id == mount_id) owed = debt->last_error;
                                   return with(transaction);
                                 }));
  return owed;
}

Status Work::unmount_unprobed(const MountRow& row) {
  // Whoever probes it has done so soon. One that does not come back would not make it busier than it is.
  const Duration long_enough = policy_.probe_patience + std::chrono::seconds(1);
  Result<KeyedLocks::Held> unprobed =
      parts_.volume_locks.acquire(context_.with_timeout(long_enough), probe_lock_name(volume_),
                                  fmt::format("wait for the probe of volume {}", volume_.text()));
  return calls_.unmount(context_, volume_, row.id_for_driver());
}

Result<std::optional<std::string>> Work::unmount(MountRow row,
                                                 const std::function<Status(Transaction&)>& with,
                                                 Pending before) {
  // A plain directory is in no table: it is there until the driver says that it is done with us.
  const bool plain_and_whole =
      !row.mount_point.empty() && !row.identity && (before == Pending::none || before == Pending::refused);
  bool whereabouts_known = true;
  if (row.pending == Pending::found) {
    DVDI_TRY(auto held, keep_if_held(row, with));
    if (held) return held;
  }
  if (row.mount_point.empty()) {
    // A Mount whose answer we never got: where would it be?
    // Only a mount that is there counts: whatever else the driver says (`/`, for one) is no place of ours.
    const auto path = calls_.path(context_, volume_);
    whereabouts_known = path.has_value() || path.error().outcome == Outcome::refused;
    if (path) {
      const auto now = mounts_.now();
      const auto claim = now ? verify_claim(context_, parts_.helpers, **now, volume_, *path, false)
                             : Result<Claim>(fail(now.error()));
      if (claim) {
        row.mount_point = claim->mount_point;
        row.folder = claim->folder;
        row.identity = claim->identity;
      }
    }
  }
  const auto table_before = mounts_.now();
  const bool was_there = !table_before || shows(**table_before, row);
  const Clock& clock = context_.clock();
  const BootTime start = clock.boot();
  const auto answer = unmount_unprobed(row);
  Cause why = cause();
  why.duration = clock.boot() - start;
  if (!answer) why.error = answer.error().text();
  const auto table = mounts_.now();
  bool there = plain_and_whole || !table || shows(**table, row);
  Pending if_there = Pending::refused;
  if (there) {
    const ServerLook rest = take_away_if_gone(row);
    if (rest.state == ServerState::gone || rest.state == ServerState::replaced) {
      const auto after = mounts_.now();  // the table decides, here too
      there = !after || shows(**after, row);
      if (!there) why.reason = "its server is gone: the dead mount was taken away";
    } else if (rest.state != ServerState::answers) {
      if_there = Pending::lost;
      row.note = why_lost(rest);
    }
  }

  const auto gone = [&](const std::string& foreign) -> Result<std::optional<std::string>> {
    DVDI_CHECK(move(row, MountState::absent, why, [&](Transaction& transaction) -> Status {
      if (!foreign.empty()) DVDI_CHECK(note_foreign(transaction, row, foreign, context_.trace_id()));
      DVDI_CHECK(settle_debt(transaction, volume_, context_.trace_id(), false));
      return with ? with(transaction) : Status();
    }));
    return std::optional<std::string>();
  };
  const auto owed = [&](Pending pending, const std::string& reason) -> Result<std::optional<std::string>> {
    row.pending = pending;
    DVDI_CHECK(move(row, MountState::unknown, why, [&](Transaction& transaction) -> Status {
      DVDI_CHECK(owe(transaction, row, reason, policy_, context_.trace_id()));
      return with ? with(transaction) : Status();
    }));
    return std::optional<std::string>(reason);
  };

  // What we gave up waiting for may be done only now: nothing that it would undo is believed until then.
  const bool expected =
      row.unanswered && clock.boot() - *row.unanswered < policy_.late_answer_of(volume_.driver);
  const bool mount_may_come = expected && before == Pending::mount;
  if (expected && before == Pending::unmount) if_there = Pending::unmount;
  if (answer) {
    // Many drivers say yes where nothing is mounted.
    if (mount_may_come && !was_there) {
      return owed(Pending::mount, "the driver may still be at the Mount that it has not answered");
    }
    if (there && if_there == Pending::lost) {
      return owed(Pending::lost, "the driver says that it is unmounted, and it is still there: " + row.note);
    }
    // The driver is done with us. What is still there is somebody else's: recorded, shown, not touched again.
    return gone(there && row.identity ? "it is still mounted after our successful Unmount" : "");
  }
  switch (answer.error().outcome) {
    case Outcome::refused:
      if (plain_and_whole) {
        // A driver that has lost its books refuses, too: it does not say any more that the volume is mounted.
        const auto path = calls_.path(context_, volume_);
        there = path ? !path->empty() : path.error().outcome != Outcome::refused;
      }
      if (there) {
        // A driver that says busy seldom says who; one that does gives a hint.
        if (Error refusal = answer.error(); refusal.hint.empty()) {
          refusal.hint = in_use_by(context_, row.mounted_at());
          why.error = refusal.text();
        }
        if (planted_bug == 2) return gone({});
        if (if_there == Pending::unmount)
          return owed(if_there,
                      "the driver may still be at the Unmount that it has not answered: " + why.error);
        return owed(if_there, why.error);
      }
      // Where nobody could say where it would be, that the table shows nothing there proves nothing.
      if (!whereabouts_known) {
        return owed(before == Pending::mount ? Pending::mount : Pending::unmount, why.error);
      }
      if (mount_may_come) {
        return owed(Pending::mount,
                    "the driver may still be at the Mount that it has not answered: " + why.error);
      }
      if (why.reason.empty()) why.reason = "nothing of it is mounted: the driver's error is no matter";
      return gone({});
    case Outcome::not_sent:
      return owed(before == Pending::mount ? Pending::mount : there ? if_there : Pending::unmount, why.error);
    case Outcome::none:
    case Outcome::unknown:
      break;
  }
  why.unanswered = true;
  return owed(Pending::unmount, why.error);
}

// The driver is not called again by itself. But a mount that is gone, however that came, is not owed any
// more.
Result<std::string> Work::settle_parked(MountRow row) {
  DVDI_TRY(const auto table, mounts_.now());
  if (!row.identity || shows(*table, row)) return std::string();
  DVDI_CHECK(
      move(row, MountState::absent, cause("it is not mounted any more"), [&](Transaction& transaction) {
        return settle_debt(transaction, volume_, context_.trace_id(), false);
      }));
  return fmt::format("{}: its parked unmount is not owed any more: it is not mounted", volume_.text());
}

// Whose it is, nobody knows any more: it is never unmounted from here. But one that is gone is gone.
Result<std::string> Work::settle_found(MountRow row) {
  DVDI_TRY(const auto table, mounts_.now());
  if (!row.identity || shows(*table, row)) return std::string();
  DVDI_CHECK(move(row, MountState::absent, cause("the mount that was found is gone")));
  return fmt::format("{}: the mount that was found is gone", volume_.text());
}

// A mount from before these books may have users that the books do not know: it is unmounted only
// with proof that it has none.
Result<std::optional<std::string>> Work::keep_if_held(MountRow row,
                                                      const std::function<Status(Transaction&)>& with) {
  if (!row.identity) return std::optional<std::string>();
  const MountedTree tree{.major = row.identity->major,
                         .minor = row.identity->minor,
                         .root = row.identity->root,
                         .mount_point = row.mounted_at()};
  const auto holders = find_mount_holders(context_.detached(std::chrono::seconds(30)), {tree});
  if (holders && holders->front().pid == 0) return std::optional<std::string>();
  std::string why = "not unmounted, as it may be in use since before dvdi knew of it: " +
                    (holders ? holders->front().text() : holders.error().text());
  row.pending = Pending::found;
  row.note = why;
  DVDI_CHECK(move(row, MountState::unknown, cause(why), with));
  return std::optional(std::move(why));
}

Result<std::string> Work::settle_unreferenced() {
  std::optional<MountRow> found;
  std::optional<DebtRow> debt;
  bool referenced = false;
  DVDI_CHECK(parts_.ledger.read(context_, "read the mount", [&](Reader& reader) -> Status {
    DVDI_TRY(found, reader.mount(volume_));
    DVDI_TRY(debt, reader.debt(volume_));
    DVDI_TRY(const auto references, reader.references_to(volume_));
    referenced = !references.empty();
    return {};
  }));
  if (referenced || !found) return std::string();
  MountRow row = *found;
  std::string found_as;
  switch (row.state) {
    case MountState::mounting:
      found_as = "a Mount whose end was not recorded";
      row.pending = Pending::mount;
      DVDI_CHECK(move(row, MountState::unknown, nobody_at_work(context_.trace_id())));
      break;
    case MountState::unmounting:
      found_as = "an Unmount whose end was not recorded";
      if (row.pending != Pending::found) row.pending = Pending::unmount;
      DVDI_CHECK(move(row, MountState::unknown, nobody_at_work(context_.trace_id())));
      if (row.pending == Pending::found) return std::string();
      break;
    case MountState::mounted:
      found_as = "a mount that nobody refers to";
      break;
    case MountState::unknown:
    case MountState::absent:
      if (row.pending == Pending::found) return settle_found(row);
      if (debt && debt->parked) return settle_parked(row);
      if (debt && debt->next_try.boot > context_.clock().boot()) return std::string();
      found_as = row.pending == Pending::lost && !debt ? "a mount that was lost" : "an unmount that was owed";
      break;
  }
  const Pending before = row.pending;
  if (auto begun = begin_take_down(row, "settling " + found_as); !begun) {
    if (begun.error().code == Code::failed_precondition) return std::string();
    return fail(std::move(begun).error());
  }
  DVDI_TRY(const auto owed, unmount(row, {}, before));
  return owed ? fmt::format("{}: {}: still owed: {}", volume_.text(), found_as, *owed)
              : fmt::format("{}: {}: settled, nothing is mounted", volume_.text(), found_as);
}

}  // namespace dvdi::volume
