// Manager, an unmount that is paid by hand.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "linux/holders.h"
#include "linux/served_mount.h"
#include "volume/books.h"
#include "volume/manager_state.h"
#include "volume/work.h"

namespace dvdi::volume {

namespace {

using Pending = MountRow::Pending;

// A call that is running for the volume ends soon, or not for a long time: a person is told so.
constexpr Duration wait_for_others = std::chrono::seconds(10);

// All that the books say of one volume.
struct Books {
  std::optional<MountRow> row;
  std::optional<DebtRow> debt;
  std::optional<ForeignRow> foreign;
  std::vector<std::string> containers;
};

Status read_books(Reader& reader, const VolumeKey& volume, Books& books) {
  books = {};
  DVDI_TRY(books.row, reader.mount(volume));
  DVDI_TRY(books.debt, reader.debt(volume));
  DVDI_TRY(books.foreign, reader.foreign(volume));
  DVDI_TRY(const auto references, reader.references_to(volume));
  for (const ReferenceRow& one : references) books.containers.push_back(one.container.text());
  return {};
}

Error refused(const VolumeKey& volume, Code code, std::string message, std::string hint) {
  return Error{.code = code,
               .message = std::move(message),
               .driver = volume.driver,
               .volume = volume.name,
               .operation = "release",
               .hint = std::move(hint)};
}

Error still_used(const VolumeKey& volume, const std::vector<std::string>& containers) {
  return refused(volume, Code::failed_precondition,
                 containers.empty()
                     ? "a container began to use it"
                     : fmt::format("{} {} {} it", containers.size() == 1 ? "container" : "containers",
                                   fmt::join(containers, ", "), containers.size() == 1 ? "uses" : "use"),
                 "its end releases it: `dvdi ps`");
}

std::string_view why_unknown(Pending pending) {
  switch (pending) {
    case Pending::mount:
      return "the outcome of its Mount is not known";
    case Pending::unmount:
      return "the outcome of its Unmount is not known";
    case Pending::refused:
      return "it was not unmounted and is still whole";
    case Pending::lost:
      return "it is lost: it vanished, or the server behind it is gone";
    case Pending::found:
      return "it was found mounted, for whom is not known";
    case Pending::none:
      break;
  }
  return "what became of it is not known";
}

std::string what_it_is(const MountRow& row) {
  std::string text = fmt::format("it is {} since {}", mount_state_name(row.state), rfc3339(row.since.wall));
  if (row.state == MountState::unknown) text += fmt::format(": {}", why_unknown(row.pending));
  if (!row.note.empty()) text += fmt::format(" ({})", row.note);
  return text;
}

std::string what_is_owed(const DebtRow& debt) {
  const std::string next = debt.parked
                               ? "it is parked: not tried again by itself"
                               : fmt::format("the next try is due at {}", rfc3339(debt.next_try.wall));
  return fmt::format("its unmount is owed since {}, after {} {}; {}; the last error: {}",
                     rfc3339(debt.since.wall), debt.attempts, debt.attempts == 1 ? "attempt" : "attempts",
                     next, debt.last_error);
}

// What is known, and what will be done about it: one sentence each.
std::vector<std::string> plan(const Context& context, WatchedMountTable& mounts, const VolumeKey& volume,
                              const Books& books, const Policy& policy) {
  std::vector<std::string> steps;
  const MountRow& row = *books.row;
  const std::string& id = row.id_for_driver();
  steps.push_back(
      fmt::format("volume {} of driver {}: {}, {}{}", volume.name, volume.driver,
                  id.empty() ? "without a mount id" : "mount id " + id,
                  row.mount_point.empty() ? "mounted nobody knows where" : "mount point " + row.mount_point,
                  row.identity ? fmt::format(" ({} of {})", row.identity->fs_type, row.identity->source)
                               : std::string()));
  steps.push_back(what_it_is(row));
  if (books.debt) steps.push_back(what_is_owed(*books.debt));
  if (books.foreign) {
    steps.push_back(fmt::format("somebody else holds a mount of it at {}, which is left alone: {}",
                                books.foreign->mount_point, books.foreign->evidence));
  }
  if (!row.mount_point.empty()) {
    const auto table = mounts.now();
    if (table && !shows(**table, row)) {
      steps.emplace_back("the kernel's mount table does not show it");
    } else if (std::string busy = in_use_by(context, row.mounted_at()); !busy.empty()) {
      steps.push_back(busy);
    }
  }
  const Duration most = policy.deadline(volume.driver, driver::Operation::unmount);
  steps.push_back(fmt::format("call the driver's Unmount with {} mount id, once, for at most {} s",
                              id.empty() ? "no" : "that",
                              std::chrono::ceil<std::chrono::seconds>(most).count()));
  if (row.identity && has_server(row.identity->fs_type)) {
    steps.emplace_back("if the driver leaves the mount behind and its server is gone, detach the dead mount");
  }
  steps.emplace_back(
      "look at the kernel's mount table: if the mount is gone, nothing is owed any more; if not, it stays "
      "owed and its attempts count anew");
  return steps;
}

}  // namespace

Status Work::begin_take_down(MountRow& row, const std::string& reason,
                             const std::function<Status(Transaction&)>& with) {
  return move(row, MountState::unmounting, cause(reason), [&](Transaction& transaction) -> Status {
    DVDI_TRY(const auto references, transaction.references_to(volume_));
    if (!references.empty()) return still_used(volume_, {references.front().container.text()});
    return with ? with(transaction) : Status();
  });
}

Result<std::optional<std::string>> Work::take_down_by_hand(MountRow row, const std::optional<DebtRow>& debt) {
  if (row.state == MountState::mounting || row.state == MountState::unmounting) {
    row.pending = row.state == MountState::mounting ? Pending::mount : Pending::unmount;
    DVDI_CHECK(move(row, MountState::unknown, nobody_at_work(context_.trace_id())));
  }
  // Whether a plain directory is still used, only the driver knows. Where it refused before and refuses
  // again, the word of whoever releases it ends the matter: there is nothing to unmount.
  const bool refused_plain =
      debt && row.pending == Pending::refused && !row.mount_point.empty() && !row.identity;
  const Pending before = refused_plain ? Pending::unmount : row.pending;
  DVDI_CHECK(begin_take_down(row, "released by hand", [&](Transaction& transaction) {
    return resume_debt(transaction, volume_, context_.trace_id());
  }));
  return unmount(row, {}, before);
}

Result<Release> Manager::release_volume(const Context& context, const VolumeKey& volume, bool dry_run) {
  State& state = *state_;
  Books books;
  const auto look = [&]() -> Status {
    DVDI_CHECK(state.read(context, "read the volume",
                          [&](Reader& reader) { return read_books(reader, volume, books); }));
    if (!books.containers.empty()) return still_used(volume, books.containers);
    return {};
  };
  std::optional<KeyedLocks::Held> lock;
  if (!dry_run) {
    auto held = state.parts.volume_locks.acquire(
        context.with_timeout(wait_for_others), lock_name(volume),
        fmt::format("wait for the call that is running for volume {}", volume.text()));
    if (!held && held.error().code == Code::deadline_exceeded) {
      return refused(volume, Code::unavailable, "a call for it is running and does not end",
                     "it ends at its deadline (docs/configuration.md); see the driver's log");
    }
    if (!held) return fail(std::move(held).error());
    lock.emplace(*std::move(held));
  }
  DVDI_CHECK(look());
  Release release;
  if (!books.row) {
    release.steps.push_back(
        books.foreign ? fmt::format("nothing of ours is mounted or owed; somebody else holds a mount "
                                    "of it at {}, which is left alone: {}",
                                    books.foreign->mount_point, books.foreign->evidence)
                      : "nothing of it is mounted or owed: there is nothing to do");
    release.done = true;
    return release;
  }
  release.steps = plan(context, state.mounts, volume, books, state.policy);
  if (dry_run) return release;

  Work one(state.parts, state.policy, state.calls, state.mounts, context, volume);
  DVDI_TRY(const auto owed, one.take_down_by_hand(*books.row, books.debt));
  release.done = !owed;
  if (owed) {
    release.left = fmt::format("its unmount is still owed: {}; mend that, then release it again", *owed);
    return release;
  }
  // Whatever is there now is nobody's of us.
  Books after;
  DVDI_CHECK(state.read(context.detached(time_to_record), "read the volume",
                        [&](Reader& reader) { return read_books(reader, volume, after); }));
  if (after.foreign) {
    release.left = fmt::format("somebody else holds a mount of it at {}, which is left alone",
                               after.foreign->mount_point);
  }
  return release;
}

}  // namespace dvdi::volume
