// Manager, what is done for nobody in particular: other boots, remainders of crashes, debts.

#include <fmt/format.h>

#include <algorithm>

#include "base/sync.h"
#include "volume/books.h"
#include "volume/manager_state.h"
#include "volume/state.h"

namespace dvdi::volume {

namespace {

constexpr std::string_view restarted = "the machine was restarted";

Status forget_boot(Transaction& transaction, const std::string& trace_id) {
  const std::string& now = transaction.now().boot_id;
  DVDI_TRY(const auto references, transaction.references());
  for (const ReferenceRow& reference : references) {
    if (reference.since.boot_id == now) continue;
    DVDI_TRY(const auto container, transaction.container(reference.container));
    DVDI_CHECK(unrefer(transaction, container.value_or(ContainerRow{.key = reference.container}), reference,
                       trace_id, std::string(restarted)));
  }
  DVDI_TRY(const auto staged, transaction.staged());
  for (const StagedRow& row : staged) {
    if (row.since.boot_id != now) DVDI_CHECK(transaction.erase_staged(row.container, row.position));
  }
  DVDI_TRY(auto mounts, transaction.mounts());
  for (MountRow& row : mounts) {
    if (row.since.boot_id == now) continue;
    DVDI_CHECK(transition(transaction, row, MountState::absent,
                          {.reason = std::string(restarted), .lost = true, .trace_id = trace_id}));
  }
  DVDI_TRY(const auto debts, transaction.debts());
  for (const DebtRow& debt : debts) {
    if (debt.since.boot_id != now) DVDI_CHECK(settle_debt(transaction, debt.volume, trace_id, false));
  }
  DVDI_TRY(const auto foreigns, transaction.foreigns());
  for (const ForeignRow& foreign : foreigns) {
    if (foreign.since.boot_id != now) DVDI_CHECK(clear_foreign(transaction, foreign, trace_id));
  }
  DVDI_TRY(auto containers, transaction.containers());
  for (ContainerRow& row : containers) {
    if (row.since.boot_id == now || row.state == ContainerState::ended) continue;
    DVDI_CHECK(change_container(transaction, row, ContainerState::ended, trace_id, std::string(restarted)));
  }
  DVDI_TRY(auto volumes, transaction.volumes());
  for (VolumeRow& row : volumes) {
    if (row.since.boot_id == now) continue;
    // It existed all the time, but of the time between nothing is known here: billed up to what was last
    // seen, and from now on.
    DVDI_CHECK(end_provisioned(transaction, row));
    row.since = transaction.now();
    DVDI_CHECK(transaction.put(row));
  }
  return {};
}

}  // namespace

Status Manager::forget_other_boots(const Context& context) {
  bool anything = false;
  const std::string& now = state_->parts.ledger.boot_id();
  DVDI_CHECK(state_->read(context, "look for rows of another boot", [&](Reader& reader) -> Status {
    DVDI_TRY(anything, reader.has_rows_of_other_boots(now));
    return {};
  }));
  if (!anything) return {};
  return state_->write(context, "end what belonged to another boot", [&](Transaction& transaction) {
    return forget_boot(transaction, context.trace_id());
  });
}

std::vector<std::string> Manager::settle(const Context& context) {
  const auto due = this->due(context);
  if (!due) return {"what is not settled could not be read: " + due.error().text()};

  Mutex mutex;
  std::vector<std::string> said;
  const auto say = [&](std::string sentence) {
    if (sentence.empty()) return;
    const Lock lock(mutex);
    said.push_back(std::move(sentence));
  };
  if (due->books) {
    if (const auto tidied = tidy_books(context); !tidied) say(tidied.error().text());
  }
  // A few at a time: what is owed to one driver that hangs does not keep the others waiting for long.
  constexpr std::size_t at_once = 16;
  std::size_t next = 0;
  std::vector<std::function<void()>> workers(std::min(at_once, due->volumes.size()), [&] {
    for (;;) {
      VolumeKey volume;
      {
        const Lock lock(mutex);
        if (next >= due->volumes.size() || context.cancelled() || context.remaining() == Duration::zero()) {
          return;
        }
        volume = due->volumes[next++];
      }
      auto settled = settle_volume(context, volume);
      say(settled ? std::move(settled->sentence)
                  : fmt::format("{}: {}", volume.text(), settled.error().text()));
    }
  });
  run_parallel(std::move(workers));
  return said;
}

}  // namespace dvdi::volume
