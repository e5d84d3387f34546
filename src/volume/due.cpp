// Manager, what is done for nobody in particular, in pieces: what is due, and the work on one volume.

#include <fmt/format.h>

#include <algorithm>

#include "volume/books.h"
#include "volume/manager_state.h"
#include "volume/work.h"

namespace dvdi::volume {

namespace {

// The kernel's table, read once it is needed: most looks need it not.
class LateTable {
 public:
  explicit LateTable(WatchedMountTable& mounts) : mounts_(mounts) {}
  // True only with proof.
  bool lacks(const MountRow& row) { return row.identity && read() && !shows(***table_, row); }
  bool lacks(const std::string& mount_point) { return read() && (**table_)->at(mount_point) == nullptr; }

 private:
  bool read() {
    if (!table_) table_.emplace(mounts_.now());
    return table_->has_value();
  }
  WatchedMountTable& mounts_;
  std::optional<Result<std::shared_ptr<const MountTable>>> table_;
};

struct Waiting {
  BootTime since;
  VolumeKey volume;
  auto operator<=>(const Waiting&) const = default;
};

void sooner(std::optional<BootTime>& next, BootTime then) { next = next ? std::min(*next, then) : then; }

Status look_at_mounts(Reader& reader, LateTable& table, const Moment& now, Duration to_begin, Due& due) {
  DVDI_TRY(const auto mounts, reader.unreferenced_mounts());
  std::vector<Waiting> waiting;
  for (const MountRow& row : mounts) {
    DVDI_TRY(const auto debt, reader.debt(row.volume));
    BootTime since = row.since.boot;
    if (row.state == MountState::unknown) {
      if (row.pending == MountRow::Pending::found || (debt && debt->parked)) {
        // Only looked at: if it is gone, it is forgotten.
        if (!table.lacks(row)) continue;
      } else if (debt) {
        since = debt->next_try.boot;
        if (since > now.boot) {
          sooner(due.next, since);
          continue;
        }
      }
    }
    const bool intended = row.state == MountState::mounting || row.state == MountState::unmounting;
    if (intended && row.since.boot_id == now.boot_id && now.boot - since < to_begin) {
      sooner(due.next, since + to_begin);
      continue;
    }
    waiting.push_back({since, row.volume});
  }
  std::ranges::sort(waiting);
  for (Waiting& one : waiting) due.volumes.push_back(std::move(one.volume));
  return {};
}

}  // namespace

Result<Due> Manager::due(const Context& context, Duration to_begin) {
  State& state = *state_;
  Due due;
  LateTable table(state_->mounts);
  DVDI_CHECK(state.read(context, "look for what is not settled", [&](Reader& reader) -> Status {
    due = {};
    const Moment now = state.parts.ledger.now(context.clock());
    DVDI_CHECK(look_at_mounts(reader, table, now, to_begin, due));
    DVDI_TRY(const auto foreigns, reader.foreigns());
    due.books =
        std::ranges::any_of(foreigns, [&](const ForeignRow& row) { return table.lacks(row.mount_point); });
    DVDI_TRY(const auto left, reader.staged_leftovers(now.boot_id));
    due.staged = !left.empty();
    DVDI_TRY(const auto ended, reader.oldest_end(now.boot_id));
    constexpr Duration stays = remember_ended + forget_together;
    if (ended && (ended->boot_id != now.boot_id || now.boot - ended->boot > stays)) {
      due.books = true;
    } else if (ended) {
      sooner(due.next, ended->boot + stays + std::chrono::milliseconds(1));
    }
    return {};
  }));
  return due;
}

Status Manager::tidy_books(const Context& context) {
  LateTable table(state_->mounts);
  return state_->write(context, "tidy the books", [&](Transaction& transaction) -> Status {
    DVDI_TRY(const auto foreigns, transaction.foreigns());
    for (const ForeignRow& row : foreigns) {
      if (table.lacks(row.mount_point)) DVDI_CHECK(clear_foreign(transaction, row, context.trace_id()));
    }
    return forget_ended_containers(transaction);
  });
}

Result<Settled> Manager::settle_volume(const Context& context, const VolumeKey& volume) {
  State& state = *state_;
  DVDI_TRY(const auto lock, state.parts.volume_locks.try_acquire(lock_name(volume)));
  if (!lock) return Settled{.busy = true};
  Work one(state.parts, state.policy, state.calls, state.mounts, context, volume);
  DVDI_TRY(std::string sentence, one.settle_unreferenced());
  return Settled{.sentence = std::move(sentence)};
}

Status Manager::end_interrupted_unmounts(const Context& context) {
  State& state = *state_;
  std::vector<ContainerRow> containers;
  DVDI_CHECK(state.read(context, "look for interrupted unmounts", [&](Reader& reader) -> Status {
    DVDI_TRY(containers, reader.live_containers_of(ContainerKey::until_unmount));
    return {};
  }));
  for (const ContainerRow& one : containers) {
    if (one.state != ContainerState::cleaning) continue;
    DVDI_TRY(const auto lock, state.parts.volume_locks.try_acquire(container_lock_name(one.key)));
    if (!lock) continue;
    DVDI_CHECK(state.write(context, "end an interrupted unmount", [&](Transaction& transaction) -> Status {
      DVDI_TRY(auto row, transaction.container(one.key));
      if (!row || row->state != ContainerState::cleaning) return {};
      return change_container(transaction, *row, ContainerState::ended, context.trace_id(),
                              "its unmount was interrupted");
    }));
  }
  return {};
}

const Policy& Manager::policy() const { return state_->policy; }

std::vector<DriverStatus> Manager::drivers(const std::vector<std::string>& names) {
  return state_->calls.drivers(names);
}

std::vector<CallTimes> Manager::call_times() { return state_->calls.times(); }

Result<std::vector<driver::VolumeInfo>> Manager::list_volumes(const Context& context,
                                                              const std::string& driver) {
  return state_->calls.list(context, driver);
}

Result<driver::VolumeInfo> Manager::look_up_volume(const Context& context, const VolumeKey& volume) {
  return state_->calls.get(context, volume, {});
}

}  // namespace dvdi::volume
