#include "isolator/staged_mounts.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>

#include "base/failpoint.h"
#include "base/sha256.h"
#include "base/text.h"
#include "isolator/chain.h"
#include "isolator/staged_work.h"
#include "linux/holders.h"
#include "linux/mount_table.h"

namespace dvdi::isolator {

namespace {

// A name of a container that is safe as a path: ids may be long and hold any character.
std::string folder_of(const ContainerKey& key) { return sha256_hex(key.text()).substr(0, 32); }

std::string real_path(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  return error ? path : real.string();
}

StoredIdentity stored(const v1::MountIdentity& identity) {
  return {.mount_id = identity.mount_id(),
          .major = identity.major(),
          .minor = identity.minor(),
          .root = identity.root(),
          .source = identity.source(),
          .fs_type = identity.fs_type()};
}

bool is_mount(const MountEntry& entry, const StoredIdentity& identity) {
  return entry.id == identity.mount_id && entry.major == identity.major && entry.minor == identity.minor &&
         entry.root == identity.root && entry.source == identity.source && entry.fs_type == identity.fs_type;
}

std::string id_of(const ContainerKey& key) { return printable(key.text()); }

// What another launcher gets: it knows targets, sources and flags, and nothing of ours.
void write_launch_info(const std::vector<StagedRow>& rows, v1::ContainerLaunchInfo& launch) {
  v1::ContainerLaunchInfo foreign;
  *foreign.mutable_environment() = launch.environment();
  if (!launch.has_environment()) foreign.clear_environment();
  for (int i = 0; i < launch.mounts_size(); ++i) {
    v1::ContainerMountInfo& mount = *foreign.add_mounts();
    mount.set_target(launch.mounts(i).target());
    mount.set_source(rows[static_cast<std::size_t>(i)].path);
    mount.set_flags(MS_BIND | MS_REC);  // the source has the rest
  }
  // A container without mounts of ours keeps the namespaces that the launcher gives it: a DEBUG container
  // enters those of its parent.
  if (!rows.empty()) foreign.add_clone_namespaces(CLONE_NEWNS);
  launch = std::move(foreign);
}

}  // namespace

StagedMounts::StagedMounts(Parts parts, Options options)
    : parts_(parts), options_(std::move(options)), state_dir_(real_path(options_.state_dir)) {}

Result<std::vector<StagedRow>> StagedMounts::rows_of(const Context& context, const ContainerKey& key) {
  std::vector<StagedRow> rows;
  DVDI_CHECK(
      parts_.ledger.read(context, "read the staged mounts of a container", [&](Reader& reader) -> Status {
        DVDI_TRY(rows, reader.staged_of(key));
        return {};
      }));
  return rows;
}

bool StagedMounts::still_there(const MountTable& table, const StagedRow& row,
                               const v1::ContainerMountInfo& instruction) const {
  if (!row.identity || row.since.boot_id != parts_.ledger.boot_id()) return false;
  const MountEntry* entry = table.at(row.path);
  if (entry == nullptr || !is_mount(*entry, *row.identity)) return false;
  // The volume may have been lost and mounted afresh since: then this shows the dead one.
  return !instruction.has_identity() ||
         (instruction.identity().major() == entry->major && instruction.identity().minor() == entry->minor);
}

Status StagedMounts::make(const Context& context, const ContainerKey& key, unsigned position,
                          const v1::ContainerMountInfo& instruction, StagedRow& row) {
  const StagedPlace place{.state_dir = state_dir_, .folder = folder_of(key), .position = position};
  failpoint("staged.make.before", row.path);
  const auto answer = parts_.helpers.run(
      context.with_timeout(options_.mount_timeout),
      fmt::format("making the private mount of volume '{}'", printable(instruction.volume())), make_staged,
      encode(place, instruction), instruction.volume());
  failpoint("staged.make.after", row.path);
  if (!answer) return fail(answer.error());
  v1::MountIdentity identity;
  if (!identity.ParseFromString(*answer))
    return Error{.code = Code::internal, .message = "a helper's answer about a mount cannot be read"};
  row.identity = stored(identity);
  return {};
}

Status StagedMounts::prepare(const Context& context, Preparation& preparation) {
  if (!preparation.staged) return {};
  const ContainerKey& key = preparation.key;
  DVDI_TRY(const std::vector<StagedRow> known, rows_of(context, key));
  MountTable table;
  if (!known.empty()) {
    DVDI_TRY(table, MountTable::read());
  }
  std::vector<StagedRow> rows;
  std::vector<unsigned> missing;
  for (unsigned i = 0; i < static_cast<unsigned>(preparation.launch.mounts_size()); ++i) {
    const StagedPlace place{.state_dir = state_dir_, .folder = folder_of(key), .position = i};
    const auto row = std::ranges::find(known, i, &StagedRow::position);
    if (row != known.end() && row->path == place.path() &&
        still_there(table, *row, preparation.launch.mounts(static_cast<int>(i)))) {
      rows.push_back(*row);
      continue;
    }
    rows.push_back({.container = key, .position = i, .path = place.path()});
    missing.push_back(i);
  }
  const auto write = [&](std::string_view what) {
    return parts_.ledger.write(context, what, [&](Transaction& transaction) -> Status {
      for (const unsigned i : missing) {
        rows[i].since = transaction.now();
        DVDI_CHECK(transaction.put(rows[i]));
      }
      return {};
    });
  };
  if (!missing.empty()) {
    DVDI_CHECK(write("record what will be staged"));
    for (const unsigned i : missing)
      DVDI_CHECK(make(context, key, i, preparation.launch.mounts(static_cast<int>(i)), rows[i]));
    DVDI_CHECK(write("record what is staged"));
  }
  write_launch_info(rows, preparation.launch);
  return {};
}

// Under the container's lock. All are tried; rows whose mounts are gone go, also if others stay.
Status StagedMounts::take(const Context& context, const ContainerKey& key,
                          const std::vector<StagedRow>& rows) {
  const StagedPlace place{.state_dir = state_dir_, .folder = folder_of(key)};
  failpoint("staged.take.before", place.folder);
  auto taken = parts_.helpers.run(context.with_timeout(options_.unmount_timeout),
                                  fmt::format("taking away the private mounts of container '{}'", id_of(key)),
                                  take_staged, encode(state_dir_, place.folder));
  failpoint("staged.take.after", place.folder);
  DVDI_TRY(const MountTable table, MountTable::read());
  std::string still;  // the first that is there
  const auto gone = [&](const std::string& path) {
    const auto entries = table.beneath(path);
    if (!entries.empty() && still.empty()) still = entries.front()->mount_point;
    return entries.empty();
  };
  if (!rows.empty()) {
    DVDI_CHECK(parts_.ledger.write(context, "forget staged mounts", [&](Transaction& transaction) -> Status {
      for (const StagedRow& row : rows) {
        if (gone(row.path)) DVDI_CHECK(transaction.erase_staged(key, row.position));
      }
      return {};
    }));
  }
  static_cast<void>(gone(place.folder_path()));
  if (still.empty()) return {};  // a mount point that stayed is an empty folder
  if (taken)
    return Error{.code = Code::failed_precondition,
                 .message = fmt::format("{} is still mounted", printable(still, 4096))};
  Error error = std::move(taken).error();
  if (error.code == Code::failed_precondition) {
    error.hint = in_use_by(context, still);
    if (error.hint.empty())
      error.hint = "no process was found that uses it: perhaps one in another mount namespace";
  }
  return error;
}

Result<std::vector<Owed>> StagedMounts::cleanup(const Context& context, const ContainerKey& key,
                                                const std::vector<Failure>& /*before*/) {
  DVDI_TRY(const std::vector<StagedRow> rows, rows_of(context, key));
  const StagedPlace place{.state_dir = state_dir_, .folder = folder_of(key)};
  struct stat status{};
  if (rows.empty() && ::lstat(place.folder_path().c_str(), &status) != 0) return std::vector<Owed>();
  DVDI_CHECK(take(context, key, rows));
  return std::vector<Owed>();
}

Result<std::vector<ContainerKey>> StagedMounts::leftovers(const Context& context) {
  std::vector<ContainerKey> left;
  DVDI_CHECK(parts_.ledger.read(context, "list staged mounts", [&](Reader& reader) -> Status {
    DVDI_TRY(left, reader.staged_leftovers(parts_.ledger.boot_id()));
    return {};
  }));
  return left;
}

Result<bool> StagedMounts::take_leftover(const Context& context, const ContainerKey& key) {
  DVDI_TRY(const auto held, parts_.container_locks.try_acquire(container_lock_key(key)));
  if (!held) return false;
  // Once more, with the lock: it may have been prepared again meanwhile.
  DVDI_TRY(const auto left, leftovers(context));
  if (std::ranges::find(left, key) == left.end()) return false;
  DVDI_TRY(const std::vector<StagedRow> rows, rows_of(context, key));
  DVDI_CHECK(take(context, key, rows));
  return true;
}

Result<volume::Recovered> StagedMounts::recover(const Context& context, const RecoverRequest& request,
                                                const std::vector<Failure>& /*before*/) {
  DVDI_TRY(const std::vector<ContainerKey> left, leftovers(context));
  std::set<std::string> named(request.orphans.begin(), request.orphans.end());
  for (const auto& live : request.live) named.insert(live.id);
  volume::Recovered recovered;
  for (const ContainerKey& key : left) {
    if (key.owner != request.owner || named.contains(key.id)) continue;
    const auto taken = take_leftover(context, key);
    if (taken) continue;
    recovered.owed.push_back(
        {.driver = {},
         .volume = {},
         .reason = fmt::format("the private mounts of container '{}' could not be taken away: {}", id_of(key),
                               taken.error().text())});
  }
  return recovered;
}

std::vector<std::string> StagedMounts::settle(const Context& context) {
  std::vector<std::string> notices;
  const auto left = leftovers(context);
  if (!left) {
    notices.push_back("private mounts could not be looked for: " + left.error().text());
    return notices;
  }
  for (const ContainerKey& key : *left) {
    const auto taken = take_leftover(context, key);
    if (taken && !*taken) continue;
    notices.push_back(taken ? fmt::format("private mounts of container {} were taken away", id_of(key))
                            : fmt::format("private mounts of container {} could not be taken away: {}",
                                          id_of(key), taken.error().text()));
  }
  remove_stray_folders(context);
  return notices;
}

Status StagedMounts::let_go(const Context& context, const VolumeKey& volume) {
  DVDI_TRY(const std::vector<ContainerKey> left, leftovers(context));
  if (left.empty()) return {};
  std::optional<MountRow> mount;
  DVDI_CHECK(parts_.ledger.read(context, "read a mount", [&](Reader& reader) -> Status {
    DVDI_TRY(mount, reader.mount(volume));
    return {};
  }));
  for (const ContainerKey& key : left) {
    const auto taken = take_leftover(context, key);
    if (taken || !mount || !mount->identity) continue;
    DVDI_TRY(const std::vector<StagedRow> rows, rows_of(context, key));
    // One whose identity is not known may be of any volume.
    const bool shows = std::ranges::any_of(rows, [&](const StagedRow& row) {
      return !row.identity ||
             (row.identity->major == mount->identity->major && row.identity->minor == mount->identity->minor);
    });
    if (!shows) continue;
    Error error = taken.error();
    error.code = Code::failed_precondition;
    error.message = fmt::format("the private mounts of container '{}', which has ended, show it still: {}",
                                id_of(key), error.message);
    return error;
  }
  return {};
}

// Folders that no row knows and that hold no mount, older than an hour: of another boot, or of books that
// were lost. A mount without a row stays: its container may be alive, and its cleanup takes it.
void StagedMounts::remove_stray_folders(const Context& context) {
  const std::string staged = fmt::format("{}/{}", state_dir_, staged_folder);
  struct stat folder{};
  if (::lstat(staged.c_str(), &folder) != 0) return;
  std::set<std::string> known;
  const auto read = parts_.ledger.read(context, "list staged mounts", [&](Reader& reader) -> Status {
    DVDI_TRY(const auto rows, reader.staged());
    for (const StagedRow& row : rows) known.insert(folder_of(row.container));
    return {};
  });
  const auto table = MountTable::read();
  if (!read || !table) return;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(staged, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    struct stat status{};
    if (known.contains(name) || !table->beneath(entry->path().string()).empty() ||
        ::lstat(entry->path().c_str(), &status) != 0)
      continue;
    const auto age = context.clock().wall().time_since_epoch() - std::chrono::seconds(status.st_mtim.tv_sec);
    if (age < std::chrono::hours(1)) continue;
    static_cast<void>(parts_.helpers.run(context.with_timeout(options_.unmount_timeout),
                                         "removing an empty folder of private mounts", take_staged,
                                         encode(state_dir_, name)));
  }
}

}  // namespace dvdi::isolator
