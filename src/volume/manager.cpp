#include "volume/manager.h"

#include <fmt/format.h>

#include "volume/books.h"
#include "volume/manager_state.h"
#include "volume/work.h"

namespace dvdi::volume {

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
