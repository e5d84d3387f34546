#include "volume/manager.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <set>

#include "base/planted_bug.h"
#include "base/sync.h"
#include "volume/books.h"
#include "volume/manager_state.h"
#include "volume/work.h"

namespace dvdi::volume {

namespace {

Error about(const VolumeKey& volume, std::string_view operation, Error error) {
  if (error.driver.empty()) error.driver = volume.driver;
  if (error.volume.empty()) error.volume = volume.name;
  if (error.operation.empty()) error.operation = operation;
  return error;
}

}  // namespace

Error cleaned_up_already(const ContainerKey& key) {
  return Error{.code = Code::failed_precondition,
               .message = fmt::format("container {} was cleaned up already", key.text()),
               .hint = "a prepare that arrives after its cleanup is refused for an hour: use another id"};
}

Manager::Manager(Parts parts, Policy policy) : state_(std::make_unique<State>(parts, std::move(policy))) {}
Manager::~Manager() = default;

bool Manager::State::had_secrets(const Context& context, const VolumeKey& volume) {
  bool had_some = false;
  const auto done =
      read(context.detached(time_to_record), "look for secret options", [&](Reader& reader) -> Status {
        DVDI_TRY(const auto mount, reader.mount(volume));
        DVDI_TRY(const auto known, reader.volume(volume));
        had_some = (mount && mount->has_secrets) || (known && known->has_secrets);
        return {};
      });
  return had_some || !done;
}

Status Manager::State::note_driver(const Context& context, const std::string& driver,
                                   DriverState driver_state, const std::string& reason, bool found) {
  const Context after = context.detached(time_to_record);
  bool as_recorded = false;
  const auto look = [&](Reader& reader) -> Status {
    DVDI_TRY(const auto row, reader.driver(driver));
    DVDI_TRY(const bool has_volumes, reader.has_volumes_of(driver));
    as_recorded = (row ? row->state : DriverState::up) == driver_state || (!row && !found && !has_volumes);
    return {};
  };
  DVDI_CHECK(read(after, "read a driver's state", look));
  if (as_recorded) return {};
  return write(after, fmt::format("record that driver {} is {}", driver, driver_state_name(driver_state)),
               [&](Transaction& transaction) {
                 return change_driver(transaction, driver, driver_state, reason, context.trace_id());
               });
}

// The intent, in one transaction: container, references, and `mounting` for each volume without a row. With
// everything mounted already, this is all there is to do.
Status Manager::State::intend(Transaction& transaction, const Context& context, const Holder& holder,
                              const std::vector<Request>& requests, const MountTable& table,
                              const ProcessIdentity& engine, Intent& intent) {
  intent = {.ours = std::vector<std::optional<MountRow>>(requests.size()),
            .mounted = std::vector<std::optional<Mounted>>(requests.size())};
  DVDI_TRY(auto existing, transaction.container(holder.key));
  // Its references went in the transaction that made it `cleaning`: nothing of it is left but the row.
  if (existing && (!is_remembered(*existing, transaction.now()) ||
                   (holder.key.lives_until_unmount() && (existing->state == ContainerState::ended ||
                                                         existing->state == ContainerState::cleaning)))) {
    DVDI_CHECK(transaction.erase(holder.key));
    existing.reset();
  }
  if (existing) {
    if (existing->state == ContainerState::ended || existing->state == ContainerState::cleaning) {
      return cleaned_up_already(holder.key);
    }
    if (existing->digest != holder.digest) {
      return Error{.code = Code::conflict,
                   .message = fmt::format("container {} is known with another request", holder.key.text()),
                   .hint = "wait until it has ended, or use another id"};
    }
    // Whoever has its lock works on it, and nobody else does: that is the caller.
    const bool others = !holder.key.lives_until_unmount() && existing->engine != engine &&
                        process_runs(existing->engine).value_or(true);
    if (others ||
        (existing->init && process_runs(*existing->init).value_or(true) && existing->engine != engine)) {
      return Error{
          .code = Code::conflict,
          .message = fmt::format("container {} is another process's: {}", holder.key.text(),
                                 others ? fmt::format("process {} works on it", existing->engine.pid)
                                        : fmt::format("its task runs as process {}", existing->init->pid)),
          .hint = "use another id"};
    }
    intent.known = existing->state != ContainerState::preparing;
  }
  ContainerRow container = existing.value_or(ContainerRow{.key = holder.key,
                                                          .digest = holder.digest,
                                                          .attribution = holder.attribution,
                                                          .directory = holder.directory,
                                                          .directory_is_ours = holder.directory_is_ours,
                                                          .since = transaction.now()});
  if (!intent.known) {
    container.engine = engine;
    if (existing) {
      DVDI_CHECK(transaction.put(container));
    } else {
      DVDI_CHECK(change_container(transaction, container, ContainerState::preparing, context.trace_id()));
    }
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Request& request = requests[i];
    if (!intent.known) DVDI_CHECK(refer(transaction, container, request, policy, context.trace_id()));
    DVDI_TRY(auto row, transaction.mount(request.volume));
    const bool secrets = has_secrets(request.options, policy);
    if (secrets) {
      DVDI_TRY(const auto volume, transaction.volume(request.volume));
      calls.learn_secrets(request.volume, request.options,
                          (row && row->has_secrets) || (volume && volume->has_secrets));
    }
    if (row && secrets && !row->has_secrets) {
      row->has_secrets = true;
      DVDI_CHECK(transaction.put(*row));
    }
    if (!row) {
      row = new_mount(request.volume);
      row->has_secrets = secrets;
      DVDI_CHECK(transition(transaction, *row, MountState::mounting, {.trace_id = context.trace_id()}));
      intent.ours[i] = row;
    }
    // Where a server is behind it, the table alone does not tell: whoever has the volume's lock asks.
    const bool whole = row->state == MountState::mounted &&
                       (!row->identity || (shows(table, *row) && !has_server(row->identity->fs_type)));
    if (whole) intent.mounted[i] = Mounted{request.volume, row->mount_point, row->identity};
  }
  if (intent.ready() && !intent.known) {
    return change_container(transaction, container, ContainerState::prepared, context.trace_id());
  }
  return {};
}

Result<bool> Manager::State::mark_prepared_if_all_mounted(Transaction& transaction, const ContainerKey& key,
                                                          const std::vector<Request>& requests,
                                                          const std::string& trace_id,
                                                          std::vector<Mounted>& mounted) {
  mounted.clear();
  for (const Request& request : requests) {
    DVDI_TRY(const auto row, transaction.mount(request.volume));
    if (row && row->state == MountState::mounted)
      mounted.push_back({request.volume, row->mount_point, row->identity});
  }
  DVDI_TRY(auto container, transaction.container(key));
  if (!container || container->state != ContainerState::preparing)
    return true;  // it is somebody else's matter
  if (mounted.size() < requests.size()) return false;
  DVDI_CHECK(change_container(transaction, *container, ContainerState::prepared, trace_id));
  return true;
}

Result<std::vector<Mounted>> Manager::acquire(const Context& context, const Holder& holder,
                                              const std::vector<Request>& requests) {
  State& state = *state_;
  DVDI_TRY(const ProcessIdentity engine,
           holder.worker ? Result<ProcessIdentity>(*holder.worker) : state.self);
  DVDI_TRY(const auto table, state.mounts.now());
  State::Intent intent;
  DVDI_CHECK(state.write(context, fmt::format("record the intent of container {}", holder.key.text()),
                         [&](Transaction& transaction) {
                           return state.intend(transaction, context, holder, requests, *table, engine,
                                               intent);
                         }));
  // Those that can be used as they are stay: the container refers to them.
  std::vector<Result<Mounted>> results(requests.size());
  std::vector<std::size_t> to_do;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (intent.mounted[i]) {
      results[i] = *std::move(intent.mounted[i]);
    } else {
      to_do.push_back(i);
    }
  }
  bool prepared = to_do.empty() || intent.known;
  // As the books have them when the container is prepared: one may have been lost and mounted afresh while
  // another was on its way.
  std::vector<Mounted> mounted;
  const auto prepare = [&](Transaction& transaction) -> Status {
    DVDI_TRY(prepared, state.mark_prepared_if_all_mounted(transaction, holder.key, requests,
                                                          context.trace_id(), mounted));
    return {};
  };
  // The container is prepared with the last of its mounts, in the same transaction.
  std::atomic<std::size_t> left = to_do.size();
  std::vector<std::function<void()>> work;
  work.reserve(to_do.size());
  for (const std::size_t i : to_do) {
    work.emplace_back([&, i] {
      const VolumeKey& volume = requests[i].volume;
      auto lock = state.parts.volume_locks.acquire(
          context, lock_name(volume),
          fmt::format("wait for the call that is running for volume {}", volume.text()));
      if (!lock) {
        results[i] = fail(about(volume, "mount", std::move(lock).error()));
        return;
      }
      bool counted = false;
      const auto count = [&] {
        if (!counted) --left;
        counted = true;
      };
      Work one(state.parts, state.policy, state.calls, state.mounts, context, volume);
      auto result = one.bring_up(requests[i], intent.ours[i], [&](Transaction& transaction) -> Status {
        count();
        return left == 0 && !intent.known ? prepare(transaction) : Status();
      });
      if (result) count();
      results[i] = result ? std::move(result) : fail(about(volume, "mount", std::move(result).error()));
    });
  }
  run_parallel(std::move(work));

  std::vector<Error> errors;
  for (auto& result : results) {
    if (!result) errors.push_back(std::move(result).error());
  }
  if (errors.empty() && (to_do.empty() || intent.known)) {
    for (auto& result : results) mounted.push_back(*std::move(result));
  }
  if (errors.empty() && !prepared) {
    // The last was mounted already when its turn came: nothing was recorded of it.
    auto recorded =
        state.write(context.detached(time_to_record),
                    fmt::format("record that container {} is prepared", holder.key.text()), prepare);
    if (!recorded) errors.push_back(std::move(recorded).error());
  }
  // One that was there may have been lost while another was still on its way: then the container is not
  // prepared, and must not be told so.
  if (errors.empty() && !prepared) {
    errors.push_back(Error{.code = Code::unavailable,
                           .message = "a volume was lost while another was mounted",
                           .hint = "repeat: it is mounted afresh"});
  }
  if (errors.empty()) return mounted;

  Error first = std::move(errors.front());
  for (std::size_t i = 1; i < errors.size(); ++i) first.attached.push_back(std::move(errors[i]));
  // A container that was prepared before keeps what it has: only a prepare that fails gives everything back.
  if (intent.known) return first;
  const Context roll_back =
      context.detached(state.policy.longest(driver::Operation::unmount) + time_to_record);
  auto given_back = state.release(roll_back, holder.key, {}, first.message, "the prepare failed");
  if (!given_back) {
    first.attached.push_back(std::move(given_back).error());
  } else {
    for (const Owed& owed : *given_back) {
      first.attached.push_back(
          Error{.code = Code::driver_error,
                .message = fmt::format("the roll-back could not unmount it, which is owed: {}", owed.reason),
                .driver = owed.driver,
                .volume = owed.volume,
                .operation = "unmount",
                .hint = "it is retried; see `dvdi volume ls`"});
    }
  }
  return first;
}

Status Manager::started(const Context& context, const ContainerKey& key, const ProcessIdentity& init,
                        bool watch) {
  return state_->write(
      context, fmt::format("record the process of container {}", key.text()),
      [&](Transaction& transaction) -> Status {
        DVDI_TRY(auto row, transaction.container(key));
        if (row && row->state == ContainerState::running && row->init == init) return {};
        if (!row || row->state != ContainerState::prepared) {
          return Error{
              .code = Code::failed_precondition,
              .message = fmt::format("container {} is {}: only a prepared one can be started", key.text(),
                                     row ? container_state_name(row->state) : "not known")};
        }
        row->init = init;
        row->watch = watch;
        return change_container(transaction, *row, ContainerState::running, context.trace_id());
      });
}

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

Result<std::vector<ContainerKey>> Manager::dead_containers(const Context& context, const std::string& owner) {
  std::vector<ContainerRow> containers;
  DVDI_CHECK(state_->read(context, "read the containers", [&](Reader& reader) -> Status {
    DVDI_TRY(containers, reader.live_containers_of(owner));
    return {};
  }));
  std::vector<ContainerKey> dead;
  for (const ContainerRow& row : containers) {
    // Only proof counts: a process that cannot be looked at is alive.
    if (process_runs(row.engine).value_or(true)) continue;
    if (row.init && process_runs(*row.init).value_or(true)) continue;
    dead.push_back(row.key);
  }
  return dead;
}

Status Manager::remove_volume(const Context& context, const VolumeKey& volume) {
  State& state = *state_;
  DVDI_TRY(const auto lock,
           state.parts.volume_locks.acquire(
               context, lock_name(volume),
               fmt::format("wait for the call that is running for volume {}", volume.text())));
  DVDI_CHECK(state.read(context, "read the volume", [&](Reader& reader) -> Status {
    DVDI_TRY(const auto references, reader.references_to(volume));
    DVDI_TRY(const auto row, reader.mount(volume));
    DVDI_TRY(const auto debt, reader.debt(volume));
    const std::string why = !references.empty()
                                ? fmt::format("container {} uses it", references[0].container.text())
                            : debt ? "an unmount of it is owed: " + debt->last_error
                            : row  ? fmt::format("it is {}", mount_state_name(row->state))
                                   : "";
    if (why.empty()) return {};
    return Error{.code = Code::failed_precondition,
                 .message = why,
                 .driver = volume.driver,
                 .volume = volume.name,
                 .operation = "remove",
                 .hint = "see `dvdi volume inspect`"};
  }));
  DVDI_CHECK(state.calls.remove(context, volume));
  return state.write(context.detached(time_to_record), "record that a volume was removed",
                     [&](Transaction& transaction) -> Status {
                       DVDI_TRY(const auto foreign, transaction.foreign(volume));
                       if (foreign) DVDI_CHECK(clear_foreign(transaction, *foreign, context.trace_id()));
                       return forget_volume(transaction, volume, context.trace_id());
                     });
}

Status Manager::create_volume(const Context& context, const VolumeKey& volume,
                              const driver::Options& options) {
  State& state = *state_;
  DVDI_TRY(const auto lock,
           state.parts.volume_locks.acquire(
               context, lock_name(volume),
               fmt::format("wait for the call that is running for volume {}", volume.text())));
  DVDI_CHECK(state.calls.create(context, volume, options));
  return state.write(
      context.detached(time_to_record), "record that a volume was created", [&](Transaction& transaction) {
        return note_volume(transaction, volume, true, facts_of(options, state.policy), context.trace_id());
      });
}

}  // namespace dvdi::volume
