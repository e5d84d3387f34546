// Manager, the end of a container: its references go, and what nobody else uses is unmounted.

#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "base/planted_bug.h"
#include "base/sync.h"
#include "volume/books.h"
#include "volume/manager_state.h"
#include "volume/work.h"

namespace dvdi::volume {

Result<std::vector<Owed>> Manager::release(const Context& context, const ContainerKey& key,
                                           const std::string& keep_mounted) {
  return state_->release(context, key, keep_mounted, std::nullopt, {});
}

Result<std::vector<Owed>> Manager::abandon(const Context& context, const ContainerKey& key,
                                           const std::string& keep_mounted, const std::string& why) {
  return state_->release(context, key, keep_mounted, why, "the prepare failed");
}

Status Manager::State::let_go(Transaction& transaction, const VolumeKey& volume,
                              const std::string& keep_mounted, const std::string& trace_id,
                              std::vector<TakeDown>& to_take_down, std::vector<Owed>& owed) const {
  DVDI_TRY(auto row, transaction.mount(volume));
  if (!row) return {};
  const auto owe_it = [&](const std::string& why) -> Status {
    DVDI_CHECK(owe(transaction, *row, why, policy, trace_id, false));
    owed.push_back({volume.driver, volume.name, why});
    return {};
  };
  switch (row->state) {
    case MountState::mounted:
      if (keep_mounted.empty()) {
        to_take_down.push_back({volume, row->mount_id});
        return transition(transaction, *row, MountState::unmounting, {.trace_id = trace_id});
      }
      row->pending = MountRow::Pending::refused;
      DVDI_CHECK(transition(transaction, *row, MountState::unknown,
                            {.reason = "not unmounted: " + keep_mounted, .trace_id = trace_id}));
      return owe_it(keep_mounted);
    case MountState::mounting:
      // Whoever was at it is gone, or could not write: what became of it is settled later.
      row->pending = MountRow::Pending::mount;
      DVDI_CHECK(transition(transaction, *row, MountState::unknown, nobody_at_work(trace_id)));
      return owe_it("the outcome of its Mount is not known");
    case MountState::unknown: {
      // Nobody knows whose mount it is: it stays until somebody says so.
      if (row->pending == MountRow::Pending::found) return {};
      if (row->pending == MountRow::Pending::lost && keep_mounted.empty()) {
        to_take_down.push_back({volume, row->mount_id});
        return transition(transaction, *row, MountState::unmounting,
                          {.reason = "take the lost mount away", .trace_id = trace_id});
      }
      DVDI_TRY(const auto debt, transaction.debt(volume));
      return debt ? Status() : owe_it("the outcome of the last call is not known");
    }
    case MountState::unmounting:
    case MountState::absent:
      break;
  }
  return {};
}

Result<std::vector<Owed>> Manager::State::release(const Context& context, const ContainerKey& key,
                                                  const std::string& keep_mounted,
                                                  const std::optional<std::string>& failed_with,
                                                  const std::string& reason) {
  std::vector<TakeDown> to_take_down;
  std::vector<Owed> owed;
  const auto end = [&](Transaction& transaction) -> Status {
    DVDI_TRY(auto container, transaction.container(key));
    if (!container || container->state == ContainerState::ended) return {};
    if (failed_with)
      return forget_failed_container(transaction, *container, context.trace_id(), *failed_with);
    return change_container(transaction, *container, ContainerState::ended, context.trace_id(), reason);
  };

  DVDI_CHECK(
      write(context, fmt::format("end container {}", key.text()), [&](Transaction& transaction) -> Status {
        to_take_down.clear();
        owed.clear();
        DVDI_TRY(auto container, transaction.container(key));
        if (!container || container->state == ContainerState::ended) return {};
        DVDI_TRY(const auto references, transaction.references_of(key));
        for (const ReferenceRow& reference : references) {
          DVDI_CHECK(unrefer(transaction, *container, reference, context.trace_id(), reason));
          DVDI_TRY(const bool others, transaction.is_referenced(reference.volume));
          if (others && planted_bug != 3) continue;
          DVDI_CHECK(
              let_go(transaction, reference.volume, keep_mounted, context.trace_id(), to_take_down, owed));
        }
        if (to_take_down.empty()) return end(transaction);
        return change_container(transaction, *container, ContainerState::cleaning, context.trace_id(),
                                reason);
      }));

  // The container has ended with the last of its volumes.
  std::atomic<std::size_t> left = to_take_down.size();
  std::atomic<bool> unrecorded = false;
  std::vector<Result<std::optional<std::string>>> results(to_take_down.size());
  std::vector<std::function<void()>> work;
  work.reserve(to_take_down.size());
  for (std::size_t i = 0; i < to_take_down.size(); ++i) {
    work.emplace_back([&, i] {
      const auto& [volume, mount_id] = to_take_down[i];
      // An intent that is recorded is carried out, also when the caller has gone away: its deadline counts,
      // its cancellation does not.
      const Context bounded = context.detached(std::min<Duration>(
          context.remaining(), policy.deadline(volume.driver, driver::Operation::unmount) + time_to_record));
      bool counted = false;
      const auto with = [&](Transaction& transaction) -> Status {
        if (!counted) {
          counted = true;
          if (left.fetch_sub(1) > 1) return {};
        }
        return left.load() == 0 ? end(transaction) : Status();
      };
      auto lock = parts.volume_locks.acquire(
          bounded, lock_name(volume),
          fmt::format("wait for the call that is running for volume {}", volume.text()));
      if (lock) {
        Work one(parts, policy, calls, mounts, bounded, volume);
        results[i] = one.take_down(mount_id, with);
        if (results[i]) return;
      } else {
        results[i] = fail(std::move(lock).error());
      }
      if (!write(context.detached(time_to_record), "end a container", with)) unrecorded = true;
    });
  }
  run_parallel(std::move(work));
  // Nobody else would end it: whoever asked must ask again.
  if (unrecorded) {
    DVDI_CHECK(write(context.detached(time_to_record), fmt::format("end container {}", key.text()), end));
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    const VolumeKey& volume = to_take_down[i].volume;
    if (!results[i]) {
      owed.push_back({volume.driver, volume.name, results[i].error().text()});
    } else if (*results[i]) {
      owed.push_back({volume.driver, volume.name, **results[i]});
    }
  }
  return owed;
}

}  // namespace dvdi::volume
