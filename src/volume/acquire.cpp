// Manager, the volumes of a container: from the intent to all of them mounted.

#include <fmt/format.h>

#include <atomic>

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
  // First what there is: a container whose volumes are all mounted is prepared at once.
  std::vector<std::optional<MountRow>> rows(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    DVDI_TRY(rows[i], transaction.mount(requests[i].volume));
    const auto& row = rows[i];
    // Where a server is behind it, the table alone does not tell: whoever has the volume's lock asks.
    const bool whole = row && row->state == MountState::mounted &&
                       (!row->identity || (shows(table, *row) && !has_server(row->identity->fs_type)));
    if (whole) intent.mounted[i] = Mounted{requests[i].volume, row->mount_point, row->identity};
  }
  const bool becomes_prepared = intent.ready() && !intent.known;
  if (!intent.known) {
    container.engine = engine;
    container.state = becomes_prepared ? ContainerState::prepared : ContainerState::preparing;
    if (existing) {
      DVDI_CHECK(transaction.put(container));
    } else {
      DVDI_CHECK(transaction.add(container));
      DVDI_CHECK(record_container(transaction, container, ContainerState::preparing, context.trace_id()));
    }
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Request& request = requests[i];
    auto& row = rows[i];
    if (!intent.known) {
      DVDI_CHECK(check_access(transaction, container.key, request));
      std::optional<ReferenceRow> known;
      if (existing) {
        DVDI_TRY(known, transaction.reference(container.key, request.volume));
      }
      if (!known) DVDI_CHECK(add_reference(transaction, container, request, policy, context.trace_id()));
    }
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
  }
  if (!becomes_prepared) return {};
  return record_container(transaction, container, ContainerState::prepared, context.trace_id());
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

}  // namespace dvdi::volume
