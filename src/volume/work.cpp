#include "volume/work.h"

#include <fmt/format.h>

#include "volume/books.h"
#include "volume/manager_state.h"

namespace dvdi::volume {

Result<std::optional<MountRow>> Work::row() {
  std::optional<MountRow> found;
  DVDI_CHECK(
      parts_.ledger.read(context_.detached(time_to_record), "read the mount", [&](Reader& reader) -> Status {
        DVDI_TRY(found, reader.mount(volume_));
        return {};
      }));
  return found;
}

Status Work::move(MountRow& row, MountState to, const Cause& cause,
                  const std::function<Status(Transaction&)>& with) {
  const MountRow before = row;
  auto written =
      parts_.ledger.write(context_.detached(time_to_record),
                          fmt::format("record that {} is {}", volume_.text(), mount_state_name(to)),
                          [&](Transaction& transaction) -> Status {
                            row = before;
                            DVDI_CHECK(transition(transaction, row, to, cause));
                            if (with) DVDI_CHECK(with(transaction));
                            return {};
                          });
  if (!written) row = before;
  return written;
}

Result<Mounted> Work::bring_up(const Request& request, const std::optional<MountRow>& ours,
                               const std::function<Status(Transaction&)>& with) {
  DVDI_TRY(auto found, row());
  if (!found) return fresh(request, with);
  switch (found->state) {
    case MountState::mounted: {
      DVDI_TRY(const auto table, mounts_.now());
      if (!found->identity || shows(*table, *found)) {
        DVDI_TRY(const ServerLook server, look(*found));
        if (server.state == ServerState::answers) return mounted(*found);
        DVDI_CHECK(lose(*found, why_lost(server)));
        return replace(*found, request, with, "take the lost mount away before mounting afresh");
      }
      DVDI_CHECK(lose(*found, std::string(vanished)));
      break;
    }
    case MountState::mounting:
      // The very row, not only its id: somebody who had the lock before us may have called the driver with
      // that id and died.
      if (ours && found->mount_id == ours->mount_id && found->since.boot == ours->since.boot)
        return mount_first(*found, request, with);
      found->pending = MountRow::Pending::mount;
      DVDI_CHECK(move(*found, MountState::unknown, nobody_at_work(context_.trace_id())));
      break;
    case MountState::unmounting:
      found->pending = MountRow::Pending::unmount;
      DVDI_CHECK(move(*found, MountState::unknown, nobody_at_work(context_.trace_id())));
      break;
    case MountState::unknown:
    case MountState::absent:
      break;
  }
  return settle_for_use(*found, request, with);
}

Result<Mounted> Work::fresh(const Request& request, const std::function<Status(Transaction&)>& with) {
  MountRow row;
  DVDI_CHECK(parts_.ledger.write(
      context_.detached(time_to_record), fmt::format("record that {} is mounting", volume_.text()),
      [&](Transaction& transaction) -> Status {
        // Since we looked, a container may have come and written its intent, which takes no lock. It cannot
        // have acted on it, which takes the lock that we hold: ours replaces it, with an id of its own, so
        // that it cannot take our Mount for the first attempt that it has still to make.
        DVDI_TRY(auto found, transaction.mount(volume_));
        if (found && found->state == MountState::mounting) {
          DVDI_CHECK(transition(transaction, *found, MountState::absent,
                                cause("never sent: another container mounts it already")));
        }
        row = new_mount(volume_);
        row.has_secrets = (found && found->has_secrets) || has_secrets(request.options, policy_);
        return transition(transaction, row, MountState::mounting, cause());
      }));
  return mount_first(row, request, with);
}

Status Work::ensure_created(const Request& request) {
  if (!request.explicit_create) {
    auto created = calls_.create(context_, volume_, request.options);
    if (created) return created;
    // Some drivers refuse to create what exists. Only an answer is worth a second question, and a driver that
    // says itself that the options are wrong (invalid_argument), or are not those of the volume that is there
    // (already_exists, conflict), is right.
    const Code code = created.error().code;
    if (created.error().outcome != Outcome::refused || code == Code::conflict ||
        code == Code::already_exists || code == Code::invalid_argument) {
      return created;
    }
    if (calls_.get(context_, volume_, request.options)) return {};
    return created;
  }
  auto found = calls_.get(context_, volume_, request.options);
  if (found) return {};
  Error error = std::move(found).error();
  error.hint =
      "the request says that the volume must exist (dvdi.explicit-create): create it first, `dvdi volume "
      "create`";
  return error;
}

Result<Mounted> Work::mount_first(MountRow row, const Request& request,
                                  const std::function<Status(Transaction&)>& with) {
  const auto failed = [&](Error error, MountState to, Duration took) -> Result<Mounted> {
    error.attempt = 1;
    Cause why = cause();
    why.error = error.text();
    why.attempt = 1;
    why.duration = took;
    why.unanswered = error.outcome == Outcome::unknown;
    row.pending = MountRow::Pending::mount;
    if (auto recorded = move(row, to, why); !recorded) error.attached.push_back(std::move(recorded).error());
    return error;
  };
  const Clock& clock = context_.clock();
  const BootTime start = clock.boot();
  if (auto created = ensure_created(request); !created) {
    return failed(std::move(created).error(), MountState::absent, clock.boot() - start);
  }
  auto before = mounts_.now();
  if (!before) return failed(std::move(before).error(), MountState::absent, clock.boot() - start);
  auto path = calls_.mount(context_, volume_, row.mount_id, request.options);
  const Duration took = clock.boot() - start;
  if (!path) {
    // Definite only with a complete answer, or if it was never sent: then there is nothing to unmount.
    const bool known = path.error().outcome != Outcome::unknown;
    return failed(std::move(path).error(), known ? MountState::absent : MountState::unknown, took);
  }
  const bool plain = calls_.may_be_plain_directory(context_, volume_);
  auto claim = verify(*path, plain, before->get());
  if (!claim) {
    auto result = failed(std::move(claim).error(), MountState::unknown, took);
    // The driver counts us as a user of whatever it did: give that back at once.
    context_ = context_.detached(policy_.deadline(volume_.driver, driver::Operation::unmount));
    auto given_back = move(row, MountState::unmounting, cause("what the driver claimed is not true"));
    if (given_back) {
      auto owed = unmount(row, {}, MountRow::Pending::none);
      if (!owed) result.error().attached.push_back(std::move(owed).error());
    } else {
      result.error().attached.push_back(std::move(given_back).error());
    }
    return result;
  }
  std::string foreign;
  if (claim->identity) {
    const MountEntry* entry = (*before)->containing(claim->mount_point);
    if (entry != nullptr && identity_of(*entry) == *claim->identity)
      foreign = "it was mounted before our first Mount";
  }
  Cause why = cause();
  why.attempt = 1;
  why.duration = took;
  return record_mounted(row, *claim, request, why, foreign, with);
}

Result<Mounted> Work::record_mounted(MountRow row, const Claim& claim, const Request& request,
                                     const Cause& why, const std::string& foreign,
                                     const std::function<Status(Transaction&)>& with) {
  row.mount_point = claim.mount_point;
  row.folder = claim.folder;
  row.identity = claim.identity;
  DVDI_CHECK(parts_.ledger.write(
      context_.detached(time_to_record), fmt::format("record that {} is mounted", volume_.text()),
      [&](Transaction& transaction) -> Status {
        MountRow copy = row;
        VolumeFacts facts = facts_of(request.options, policy_);
        facts.has_secrets = facts.has_secrets || row.has_secrets;
        DVDI_CHECK(note_volume(transaction, volume_, false, facts, context_.trace_id()));
        DVDI_CHECK(transition(transaction, copy, MountState::mounted, why));
        DVDI_CHECK(settle_debt(transaction, volume_, context_.trace_id(), true));
        if (!foreign.empty()) DVDI_CHECK(note_foreign(transaction, copy, foreign, context_.trace_id()));
        return with(transaction);
      }));
  return mounted(row);
}

std::optional<Claim> Work::find_mount(const MountRow& row) {
  std::vector<std::string> places;
  if (!row.mount_point.empty()) places.push_back(row.mount_point);
  if (auto path = calls_.path(context_, volume_); path && !path->empty()) places.push_back(*path);
  if (places.empty()) {
    if (auto info = calls_.get(context_, volume_, {}); info && !info->mount_point.empty()) {
      places.push_back(info->mount_point);
    }
  }
  for (const std::string& place : places) {
    // A directory is no proof of a mount: only the table counts here.
    if (auto claim = verify(place, false)) return *claim;
  }
  return std::nullopt;
}

// The row's own mount, if the table shows it and whoever serves it answers.
std::optional<Claim> Work::whole(const MountRow& row) {
  // A plain directory: only the driver knows, and it answered that it did nothing.
  if (!row.mount_point.empty() && !row.identity)
    return Claim{.mount_point = row.mount_point, .folder = {}, .identity = {}};
  const auto table = mounts_.now();
  if (!table || !shows(**table, row)) return std::nullopt;
  const auto server = look(row);
  if (!server || server->state != ServerState::answers) return std::nullopt;
  return Claim{.mount_point = row.mount_point,
               .folder = row.folder,
               .identity = identity_of(*(*table)->containing(row.mount_point))};
}

Result<Mounted> Work::settle_for_use(MountRow row, const Request& request,
                                     const std::function<Status(Transaction&)>& with) {
  if (row.pending == MountRow::Pending::mount || row.pending == MountRow::Pending::none) {
    if (const auto claim = find_mount(row)) {
      return record_mounted(row, *claim, request, cause("adopted: the earlier Mount had taken effect"), {},
                            with);
    }
    return mount_again(row, request, with);
  }
  const bool lost = row.pending == MountRow::Pending::lost;
  if (lost || row.pending == MountRow::Pending::refused) {
    if (const auto claim = whole(row)) {
      return record_mounted(row, *claim, request,
                            cause(std::string(lost ? found_again : "taken over: its unmount had failed")), {},
                            with);
    }
  }
  if (row.pending == MountRow::Pending::found) {
    if (const auto claim = whole(row)) {
      return record_mounted(row, *claim, request, cause("taken over: it was found mounted"), {}, with);
    }
    const auto table = mounts_.now();
    if (table && !shows(**table, row)) {
      DVDI_CHECK(move(row, MountState::absent, cause("the mount that was found is gone")));
      return fresh(request, with);
    }
  }
  return replace(row, request, with,
                 lost ? "take the lost mount away before mounting afresh"
                      : "finish the earlier unmount before mounting afresh");
}

// An unmount that is under way is finished first, never turned back: the driver may still be at it.
Result<Mounted> Work::replace(MountRow row, const Request& request,
                              const std::function<Status(Transaction&)>& with, std::string_view why) {
  DVDI_CHECK(move(row, MountState::unmounting, cause(std::string(why))));
  DVDI_TRY(const auto owed, unmount(row, {}, MountRow::Pending::unmount));
  if (!owed) return fresh(request, with);
  DVDI_TRY(auto now, this->row());
  if (now && now->state == MountState::unknown && now->pending == MountRow::Pending::refused) {
    if (const auto claim = whole(*now)) {
      return record_mounted(*now, *claim, request, cause("taken over: its unmount had failed"), {}, with);
    }
  }
  return Error{.code = Code::unavailable,
               .message = fmt::format("an earlier unmount must end first, and does not: {}", *owed),
               .driver = volume_.driver,
               .volume = volume_.name,
               .operation = "mount",
               .hint = "see `dvdi volume inspect`, and the driver's log"};
}

Result<Mounted> Work::mount_again(MountRow row, const Request& request,
                                  const std::function<Status(Transaction&)>& with) {
  const auto failed = [&](Error error, Duration took) -> Result<Mounted> {
    error.attempt = 2;
    Cause why = cause();
    why.error = error.text();
    why.attempt = 2;
    why.duration = took;
    why.unanswered = error.outcome == Outcome::unknown;
    row.pending = MountRow::Pending::mount;
    if (auto recorded = move(row, MountState::unknown, why); !recorded) {
      error.attached.push_back(std::move(recorded).error());
    }
    return error;
  };
  DVDI_CHECK(move(row, MountState::mounting, cause("again, with the same mount id: it is not mounted")));
  const BootTime start = context_.clock().boot();
  if (auto created = ensure_created(request); !created) {
    return failed(std::move(created).error(), context_.clock().boot() - start);
  }
  auto path = calls_.mount(context_, volume_, row.mount_id, request.options);
  const Duration took = context_.clock().boot() - start;
  if (path) {
    const bool plain = calls_.may_be_plain_directory(context_, volume_);
    auto claim = verify(*path, plain);
    if (!claim) return failed(std::move(claim).error(), took);
    Cause why = cause();
    why.attempt = 2;
    why.duration = took;
    return record_mounted(row, *claim, request, why, {}, with);
  }
  const bool answered = path.error().outcome == Outcome::refused;
  auto result = failed(std::move(path).error(), took);
  if (!answered || row.state != MountState::unknown) return result;
  // It answered, so it is not at it any more: either the first Mount took effect meanwhile, or its books are
  // not ours.
  if (const auto claim = find_mount(row)) {
    return record_mounted(row, *claim, request, cause("adopted: the earlier Mount had taken effect"), {},
                          with);
  }
  DVDI_CHECK(move(row, MountState::unmounting, cause("begin anew: the driver refuses a second Mount")));
  DVDI_TRY(const auto owed, unmount(row, {}, MountRow::Pending::unmount));
  if (!owed) return fresh(request, with);
  return result;
}

}  // namespace dvdi::volume
