#include "volume/books.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>
#include <utility>

#include "base/random.h"
#include "volume/secret_values.h"

namespace dvdi::volume {

namespace {

using Kind = UsageInterval::Kind;

Event container_event(std::string type, const ContainerRow& row, const std::string& trace_id) {
  Event event;
  event.type = std::move(type);
  event.container = row.key;
  event.attribution = row.attribution;
  event.trace_id = trace_id;
  return event;
}

Event volume_event(std::string type, const VolumeKey& volume, const std::string& trace_id) {
  Event event;
  event.type = std::move(type);
  event.volume = volume;
  event.trace_id = trace_id;
  return event;
}

json::array uses_json(const std::vector<ReferenceRow::Use>& uses) {
  json::array out;
  for (const auto& use : uses) {
    out.push_back(
        json::object({{"container_path", use.container_path}, {"mode", use.read_only ? "ro" : "rw"}}));
  }
  return out;
}

// Exponential, capped, with up to a quarter of jitter taken off, so that many debts do not come due at once.
Duration backoff(const Policy& policy, const std::string& driver, unsigned attempts) {
  const Duration cap = policy.backoff_cap(driver);
  Duration wait = policy.backoff(driver);
  for (unsigned i = 1; i < attempts && wait < cap; ++i) wait *= 2;
  wait = std::min(wait, cap);
  return wait -
         Duration(static_cast<std::int64_t>(random_u64() % static_cast<std::uint64_t>(wait.count() / 4 + 1)));
}

}  // namespace

Status change_container(Transaction& transaction, ContainerRow& row, ContainerState to,
                        const std::string& trace_id, const std::string& reason) {
  row.state = to;
  if (to == ContainerState::ended) row.ended = transaction.now();
  DVDI_CHECK(transaction.put(row));
  return record_container(transaction, row, to, trace_id, reason);
}

Status record_container(Transaction& transaction, const ContainerRow& row, ContainerState to,
                        const std::string& trace_id, const std::string& reason) {
  Event event = container_event(fmt::format("dvdi.container.{}", container_state_name(to)), row, trace_id);
  event.reason = reason;
  if (row.init && to == ContainerState::running) event.details["pid"] = row.init->pid;
  if (to == ContainerState::ended && row.since.boot_id == transaction.now().boot_id) {
    event.duration = transaction.now().boot - row.since.boot;
  }
  return transaction.record(std::move(event));
}

Status forget_failed_container(Transaction& transaction, const ContainerRow& row, const std::string& trace_id,
                               const std::string& error) {
  DVDI_CHECK(transaction.erase(row.key));
  Event event = container_event("dvdi.container.failed", row, trace_id);
  event.error = error;
  return transaction.record(std::move(event));
}

bool is_remembered(const ContainerRow& row, const Moment& now) {
  return !row.ended || (row.ended->boot_id == now.boot_id && now.boot - row.ended->boot <= remember_ended);
}

Status forget_ended_containers(Transaction& transaction) {
  Moment before = transaction.now();
  before.boot -= remember_ended;
  return transaction.erase_containers_ended_before(before);
}

Status check_access(Transaction& transaction, const ContainerKey& container, const Request& request) {
  DVDI_TRY(const auto other, transaction.reference_in_the_way(container, request.volume, request.exclusive));
  if (!other) return {};
  return Error{.code = Code::conflict,
               .message = other->exclusive
                              ? fmt::format("container {} has it exclusively", other->container.text())
                              : fmt::format("exclusive access is asked for and container {} uses it",
                                            other->container.text()),
               .driver = request.volume.driver,
               .volume = request.volume.name,
               .operation = "use",
               .hint = "wait for that container to end: `dvdi ps`"};
}

Status add_reference(Transaction& transaction, const ContainerRow& container, const Request& request,
                     const Policy& policy, const std::string& trace_id) {
  DVDI_TRY(const auto volume, transaction.volume(request.volume));
  VolumeFacts facts = facts_of(request.options, policy);
  if (volume && volume->size_bytes) facts.size_bytes = volume->size_bytes;
  if (volume && !volume->type.empty()) facts.type = volume->type;
  DVDI_CHECK(transaction.put(ReferenceRow{.container = container.key,
                                          .volume = request.volume,
                                          .exclusive = request.exclusive,
                                          .uses = request.uses,
                                          .since = transaction.now(),
                                          .size_bytes = facts.size_bytes,
                                          .volume_type = facts.type}));
  Event event = container_event("dvdi.reference.added", container, trace_id);
  event.volume = request.volume;
  event.details["uses"] = uses_json(request.uses);
  if (request.exclusive) event.details["exclusive"] = true;
  return transaction.record(std::move(event));
}

Status unrefer(Transaction& transaction, const ContainerRow& container, const ReferenceRow& reference,
               const std::string& trace_id, const std::string& reason) {
  DVDI_CHECK(transaction.erase_reference(reference.container, reference.volume));
  DVDI_CHECK(transaction.close_usage({.kind = Kind::referenced,
                                      .volume = reference.volume,
                                      .start = reference.since,
                                      .container = reference.container,
                                      .attribution = container.attribution,
                                      .size_bytes = reference.size_bytes,
                                      .volume_type = reference.volume_type}));
  Event event = container_event("dvdi.reference.removed", container, trace_id);
  event.volume = reference.volume;
  event.reason = reason;
  event.details["uses"] = uses_json(reference.uses);
  if (reference.since.boot_id == transaction.now().boot_id) {
    event.duration = transaction.now().boot - reference.since.boot;
  }
  return transaction.record(std::move(event));
}

Status owe(Transaction& transaction, const MountRow& row, const std::string& error, const Policy& policy,
           const std::string& trace_id, bool counts) {
  DVDI_TRY(auto known, transaction.debt(row.volume));
  const bool is_new = !known || known->mount_id != row.mount_id;
  DebtRow debt =
      is_new ? DebtRow{.volume = row.volume, .mount_id = row.mount_id, .since = transaction.now()} : *known;
  if (counts) ++debt.attempts;
  debt.last_error = error;
  const Duration wait = backoff(policy, row.volume.driver, debt.attempts);
  debt.next_try = transaction.now();
  debt.next_try.boot += wait;
  debt.next_try.wall += wait;
  const bool park = !debt.parked && debt.attempts >= policy.attempts(row.volume.driver);
  debt.parked = debt.parked || park;
  DVDI_CHECK(transaction.put(debt));
  Event event = volume_event(park     ? "dvdi.debt.parked"
                             : is_new ? "dvdi.debt.recorded"
                                      : "dvdi.debt.retried",
                             row.volume, trace_id);
  event.mount_id = row.mount_id;
  event.mount_point = row.mount_point;
  event.attempt = debt.attempts;
  event.error = error;
  if (!debt.parked) event.details["next_try"] = rfc3339(debt.next_try.wall);
  return transaction.record(std::move(event));
}

Status settle_debt(Transaction& transaction, const VolumeKey& volume, const std::string& trace_id,
                   bool taken_over) {
  DVDI_TRY(const auto debt, transaction.debt(volume));
  if (!debt) return {};
  DVDI_CHECK(transaction.erase_debt(volume));
  Event event = volume_event(taken_over ? "dvdi.debt.taken_over" : "dvdi.debt.paid", volume, trace_id);
  event.mount_id = debt->mount_id;
  event.attempt = debt->attempts;
  return transaction.record(std::move(event));
}

Status resume_debt(Transaction& transaction, const VolumeKey& volume, const std::string& trace_id) {
  DVDI_TRY(auto debt, transaction.debt(volume));
  if (!debt) return {};
  Event event = volume_event("dvdi.debt.resumed", volume, trace_id);
  event.mount_id = debt->mount_id;
  event.attempt = debt->attempts;
  event.reason = debt->parked ? "by hand: it was parked" : "by hand";
  debt->parked = false;
  debt->attempts = 0;
  debt->next_try = transaction.now();
  DVDI_CHECK(transaction.put(*debt));
  return transaction.record(std::move(event));
}

Status note_foreign(Transaction& transaction, const MountRow& row, const std::string& evidence,
                    const std::string& trace_id) {
  DVDI_TRY(const auto known, transaction.foreign(row.volume));
  if (known && known->mount_point == row.mounted_at()) return {};
  DVDI_CHECK(transaction.put(ForeignRow{.volume = row.volume,
                                        .since = transaction.now(),
                                        .mount_point = row.mounted_at(),
                                        .evidence = evidence}));
  Event event = volume_event("dvdi.foreign.found", row.volume, trace_id);
  event.mount_point = row.mount_point;
  event.reason = evidence;
  return transaction.record(std::move(event));
}

Status clear_foreign(Transaction& transaction, const ForeignRow& row, const std::string& trace_id) {
  DVDI_CHECK(transaction.erase_foreign(row.volume));
  Event event = volume_event("dvdi.foreign.cleared", row.volume, trace_id);
  event.mount_point = row.mount_point;
  return transaction.record(std::move(event));
}

Status change_driver(Transaction& transaction, const std::string& driver, DriverState to,
                     const std::string& reason, const std::string& trace_id) {
  DVDI_TRY(const auto row, transaction.driver(driver));
  const DriverState from = row ? row->state : DriverState::up;
  if (from == to) return {};
  DVDI_CHECK(
      transaction.put(DriverRow{.name = driver, .state = to, .reason = reason, .since = transaction.now()}));
  Event event{.type = fmt::format("dvdi.driver.{}", driver_state_name(to)), .subject = "driver/" + driver};
  event.reason = reason;
  event.trace_id = trace_id;
  event.details["driver"] = driver;
  event.details["from"] = driver_state_name(from);
  if (row && row->since.boot_id == transaction.now().boot_id)
    event.duration = transaction.now().boot - row->since.boot;
  return transaction.record(std::move(event));
}

Status note_volume(Transaction& transaction, const VolumeKey& volume, bool created_by_us,
                   const VolumeFacts& facts, const std::string& trace_id) {
  DVDI_TRY(auto known, transaction.volume(volume));
  if (known && facts.has_secrets && !known->has_secrets) {
    known->has_secrets = true;
    return transaction.put(*known);
  }
  if (known) return {};
  DVDI_CHECK(transaction.put(VolumeRow{.volume = volume,
                                       .since = transaction.now(),
                                       .created_by_us = created_by_us,
                                       .size_bytes = facts.size_bytes,
                                       .type = facts.type,
                                       .has_secrets = facts.has_secrets}));
  Event event = volume_event(created_by_us ? "dvdi.volume.created" : "dvdi.volume.seen", volume, trace_id);
  if (facts.size_bytes) event.details["size_bytes"] = *facts.size_bytes;
  return transaction.record(std::move(event));
}

Status end_provisioned(Transaction& transaction, const VolumeRow& row) {
  return transaction.close_usage({.kind = Kind::provisioned,
                                  .volume = row.volume,
                                  .start = row.since,
                                  .size_bytes = row.size_bytes,
                                  .volume_type = row.type});
}

Status forget_volume(Transaction& transaction, const VolumeKey& volume, const std::string& trace_id) {
  DVDI_TRY(const auto known, transaction.volume(volume));
  if (known) DVDI_CHECK(end_provisioned(transaction, *known));
  DVDI_CHECK(transaction.erase_volume(volume));
  return transaction.record(volume_event("dvdi.volume.removed", volume, trace_id));
}

VolumeFacts facts_of(const driver::Options& options, const Policy& policy) {
  VolumeFacts facts{.size_bytes = size_of(options), .has_secrets = has_secrets(options, policy)};
  constexpr std::array<std::string_view, 4> names = {"type", "volumetype", "volume_type", "volume-type"};
  constexpr std::size_t longest = 255;  // what is longer is no type
  for (const std::string_view name : names) {
    for (const auto& [key, value] : options) {
      const bool named = std::ranges::equal(
          key, name, [](unsigned char a, unsigned char b) { return std::tolower(a) == b; });
      if (!named || !facts.type.empty() || value.size() > longest || policy.is_secret(key)) continue;
      facts.type = value;
    }
  }
  return facts;
}

std::optional<std::uint64_t> size_of(const driver::Options& options) {
  const auto found = options.find("size");
  if (found == options.end()) return std::nullopt;
  const std::string& text = found->second;
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (unit.ends_with("iB")) unit.remove_suffix(2);
  if (unit.empty()) unit = "G";
  constexpr std::string_view powers = "BKMGTbkmgt";
  const auto found_at = powers.find(unit);
  if (unit.size() != 1 || found_at == std::string_view::npos) return std::nullopt;
  const auto power = found_at % 5;
  const unsigned shift = 10U * static_cast<unsigned>(power);
  if (number > (std::uint64_t{1} << 62U) >> shift) return std::nullopt;
  return number << shift;
}

}  // namespace dvdi::volume
