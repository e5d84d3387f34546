#include "driver/local/local_driver.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/sync.h"
#include "base/text.h"
#include "driver/local/mount_work.h"
#include "driver/local/volume_store.h"
#include "linux/file_lock.h"
#include "linux/holders.h"
#include "linux/mount_table.h"

namespace dvdi::driver::local {

namespace {

const std::string driver_name = "local";
constexpr std::size_t longest_name = 255;

Status check_name(const std::string& volume) {
  if (!volume.empty() && volume.size() <= longest_name && volume.find('\0') == std::string::npos) return {};
  return Error{
      .code = Code::invalid_argument,
      .message = fmt::format("the name of a volume has 1 to {} bytes, none of them zero", longest_name)};
}

Error no_such_volume() {
  return Error{.code = Code::not_found,
               .message = "there is no such volume",
               .hint = "`dvdi volume create` makes one"};
}

// A mount with the table that its texts lie in; it may be null.
class MountSeen {
 public:
  explicit MountSeen(MountTable table, const std::string& mount_point)
      : table_(std::move(table)), entry_(table_.at(mount_point)) {}
  explicit operator bool() const { return entry_ != nullptr; }
  const MountEntry& operator*() const { return *entry_; }
  const MountEntry* operator->() const { return entry_; }

 private:
  MountTable table_;
  const MountEntry* entry_;
};

Result<MountSeen> mounted_at(const std::string& mount_point) {
  DVDI_TRY(MountTable table, MountTable::read());
  return MountSeen(std::move(table), mount_point);
}

// Of the helpers' work: a volume whose helper is stuck is fenced, the others go on.
std::string key_of(const std::string& folder) { return "local/" + folder; }

// Is this mount the volume's, as far as the table can tell?
bool looks_like(const MountEntry& entry, const VolumeRecord& record) {
  const std::string folder = folder_name(record.name);
  switch (record.options.type) {
    case Type::dir:
      return entry.root.ends_with(fmt::format("/{}/data", folder));
    case Type::tmpfs:
      return entry.fs_type == "tmpfs" && entry.source == "dvdi-" + folder;
    case Type::image:
      return entry.fs_type == file_system_name(record.options.file_system) &&
             entry.source.starts_with("/dev/loop");
  }
  return false;
}

VolumeInfo describe(const VolumeRecord& record, const std::string& mount_point) {
  VolumeInfo info{.name = record.name,
                  .mount_point = mount_point,
                  .created_at = record.created_at,
                  .size_bytes = record.options.size_bytes,
                  .status = to_options(record.options)};
  if (record.options.size_bytes) {
    info.status["size_enforced"] = record.options.type == Type::dir ? "no" : "yes";
  }
  return info;
}

// Every error of the driver says who, what and which effect.
Error name_error(Operation operation, const std::string& volume, Error error) {
  error.driver = driver_name;
  error.volume = volume;
  error.operation = operation_name(operation);
  if (error.outcome == Outcome::none) {
    const bool ended = error.code == Code::deadline_exceeded || error.code == Code::cancelled;
    error.outcome = ended ? Outcome::not_sent : Outcome::refused;
  }
  return error;
}

template <class R>
R named(Operation operation, const std::string& volume, R result) {
  if (result) return result;
  return fail(name_error(operation, volume, std::move(result).error()));
}

}  // namespace

class LocalDriver::Work {
 public:
  Work(std::string directory, HelperPool& helpers) : directory_(std::move(directory)), helpers_(helpers) {}

  Status create(const Context& context, const std::string& volume, const Options& options);
  Status remove(const Context& context, const std::string& volume);
  Result<VolumeInfo> get(const Context& context, const std::string& volume);
  Result<std::vector<VolumeInfo>> list(const Context& context);
  Result<std::string> mount(const Context& context, const std::string& volume);
  Status unmount(const Context& context, const std::string& volume);

 private:
  struct Opened {
    VolumeStore& store;
    KeyedLocks& locks;
  };
  // At first use, not in the constructor: a program that only looks must not make folders.
  Result<Opened> open();
  Result<KeyedLocks::Held> lock(const Context& context, Opened& opened, const std::string& folder) const {
    return opened.locks.acquire(context, folder, "wait for another operation on the volume");
  }
  Status delete_remainder(const Context& context, const VolumeStore& store, const std::string& name) const;
  void delete_remainders(const Context& context, Opened& opened) const;
  Status unmount_once(const Context& context, const VolumeStore& store, const std::string& folder) const;
  Error explain_busy(const Context& context, const std::string& mount_point, Error error) const;

  const std::string directory_;
  HelperPool& helpers_;
  Mutex mutex_;
  std::unique_ptr<VolumeStore> store_;
  std::unique_ptr<KeyedLocks> locks_;
};

Result<LocalDriver::Work::Opened> LocalDriver::Work::open() {
  const Lock lock(mutex_);
  if (!store_) {
    DVDI_TRY(auto store, VolumeStore::open(directory_));
    DVDI_TRY(locks_, KeyedLocks::open(store->directory() + "/locks"));
    store_ = std::move(store);
  }
  return Opened{.store = *store_, .locks = *locks_};
}

Status LocalDriver::Work::create(const Context& context, const std::string& volume, const Options& options) {
  DVDI_CHECK(context.check("create"));
  DVDI_CHECK(check_name(volume));
  DVDI_TRY(const StatedOptions stated, parse_options(options));
  DVDI_TRY(Opened opened, open());
  const std::string folder = folder_name(volume);
  DVDI_TRY(const auto held, lock(context, opened, folder));
  DVDI_TRY(const auto existing, opened.store.load(volume));
  if (existing) {
    // What is not stated is no demand: `a` asks for whatever volume has that name.
    const auto different = differences(stated, existing->options);
    if (different.empty()) return {};
    return Error{
        .code = Code::already_exists,
        .message = fmt::format("the volume is there with other options: {}", fmt::join(different, "; ")),
        .hint = "ask for it with its own options or with none, or take another name"};
  }
  DVDI_TRY(const VolumeOptions complete_options, complete(stated));
  delete_remainders(context, opened);
  return opened.store.create(context, VolumeRecord{.name = volume,
                                                   .options = complete_options,
                                                   .created_at = rfc3339(context.clock().wall()),
                                                   .owner_set = false});
}

Status LocalDriver::Work::delete_remainder(const Context& context, const VolumeStore& store,
                                           const std::string& name) const {
  DVDI_CHECK(helpers_.run(context, fmt::format("delete {}/volumes/{}", store.directory(), name),
                          &local::delete_remainder, encode(store.directory(), name)));
  return {};
}

// What a killed command left. Best effort and for a short time: the next create goes on with it.
void LocalDriver::Work::delete_remainders(const Context& context, Opened& opened) const {
  const Context bounded = context.with_timeout(std::chrono::seconds(2));
  const auto remainders = opened.store.remainders();
  if (!remainders) return;
  for (const std::string& name : *remainders) {
    // Somebody who has that volume's lock is at work on it. The one that our caller holds is passed over too.
    constexpr std::size_t prefix = 5;  // ".new-", ".old-"
    const auto held = opened.locks.try_acquire(name.substr(prefix));
    if (held && *held) (void)delete_remainder(bounded, opened.store, name);
  }
}

Status LocalDriver::Work::remove(const Context& context, const std::string& volume) {
  DVDI_CHECK(context.check("remove"));
  DVDI_CHECK(check_name(volume));
  DVDI_TRY(Opened opened, open());
  const std::string folder = folder_name(volume);
  DVDI_TRY(const auto held, lock(context, opened, folder));
  DVDI_TRY(const auto record, opened.store.load(volume));
  if (!record) return no_such_volume();
  DVDI_TRY(const auto entry, mounted_at(opened.store.mount_point(folder)));
  if (entry) {
    return Error{.code = Code::failed_precondition,
                 .message = fmt::format("the volume is mounted on {}", printable(entry->mount_point, 4096)),
                 .hint = "wait until no container uses it"};
  }
  const std::string old = ".old-" + folder;
  DVDI_CHECK(delete_remainder(context, opened.store, old));  // of a volume of that name before this one
  DVDI_CHECK(opened.store.retire(volume));
  // From here on the volume is gone; its data may take a while.
  auto deleted = delete_remainder(context, opened.store, old);
  if (!deleted) {
    deleted.error().hint =
        fmt::format("the volume is gone; its data is in {}/volumes/{} until a later create",
                    opened.store.directory(), old);
    deleted.error().outcome = Outcome::unknown;
  }
  return deleted;
}

Result<VolumeInfo> LocalDriver::Work::get(const Context& context, const std::string& volume) {
  DVDI_CHECK(context.check("get"));
  DVDI_CHECK(check_name(volume));
  DVDI_TRY(const Opened opened, open());
  DVDI_TRY(const auto record, opened.store.load(volume));
  if (!record) return no_such_volume();
  DVDI_TRY(const auto entry, mounted_at(opened.store.mount_point(folder_name(volume))));
  return describe(*record, entry ? std::string(entry->mount_point) : "");
}

Result<std::vector<VolumeInfo>> LocalDriver::Work::list(const Context& context) {
  DVDI_CHECK(context.check("list"));
  DVDI_TRY(const Opened opened, open());
  std::vector<Error> damaged;
  DVDI_TRY(const auto records, opened.store.list(damaged));
  DVDI_TRY(const MountTable table, MountTable::read());
  std::vector<VolumeInfo> volumes;
  for (const VolumeRecord& record : records) {
    const std::string mount_point = opened.store.mount_point(folder_name(record.name));
    volumes.push_back(describe(record, table.at(mount_point) != nullptr ? mount_point : ""));
  }
  for (const Error& error : damaged) {
    // Shown, so that somebody sees it, and no reason to hide the others.
    volumes.push_back(VolumeInfo{.name = error.volume, .status = {{"error", error.message}}});
  }
  std::ranges::sort(volumes, {}, &VolumeInfo::name);
  return volumes;
}

Result<std::string> LocalDriver::Work::mount(const Context& context, const std::string& volume) {
  DVDI_CHECK(context.check("mount"));
  DVDI_CHECK(check_name(volume));
  DVDI_TRY(Opened opened, open());
  const std::string folder = folder_name(volume);
  DVDI_TRY(const auto held, lock(context, opened, folder));
  DVDI_TRY(auto record, opened.store.load(volume));
  if (!record) return no_such_volume();
  std::string mount_point = opened.store.mount_point(folder);
  DVDI_TRY(auto entry, mounted_at(mount_point));
  if (!entry) {
    DVDI_CHECK(helpers_.run(context, "mount the volume", &mount_volume,
                            encode(MountWork{opened.store.directory(), folder, *record}), key_of(folder)));
    if (record->options.type == Type::image && !record->owner_set) {
      record->owner_set = true;
      if (auto updated = opened.store.update(*record); !updated) {
        if (auto undone = unmount_once(context, opened.store, folder); !undone) {
          updated.error().attached.push_back(std::move(undone).error());
          updated.error().outcome = Outcome::unknown;
        }
        return fail(std::move(updated).error());
      }
    }
    DVDI_TRY(entry, mounted_at(mount_point));
  }
  if (!entry || !looks_like(*entry, *record)) {
    return Error{
        .code = Code::failed_precondition,
        .message = entry ? fmt::format("{} on {} is not this volume", printable(entry->source), mount_point)
                         : fmt::format("the mount on {} went away", mount_point),
        .hint = "somebody else mounts or unmounts there"};
  }
  return mount_point;
}

Error LocalDriver::Work::explain_busy(const Context& context, const std::string& mount_point,
                                      Error error) const {
  error.hint = in_use_by(context, mount_point);
  if (error.hint.empty()) {
    error.hint = "no process was found that uses it: perhaps one in another mount namespace";
  }
  return error;
}

Status LocalDriver::Work::unmount_once(const Context& context, const VolumeStore& store,
                                       const std::string& folder) const {
  auto done = helpers_.run(context, "unmount the volume", &unmount_volume, encode(store.directory(), folder),
                           key_of(folder));
  if (done) return {};
  if (done.error().code != Code::failed_precondition) return fail(std::move(done).error());
  return explain_busy(context, store.mount_point(folder), std::move(done).error());
}

Status LocalDriver::Work::unmount(const Context& context, const std::string& volume) {
  DVDI_CHECK(context.check("unmount"));
  DVDI_CHECK(check_name(volume));
  DVDI_TRY(Opened opened, open());
  const std::string folder = folder_name(volume);
  DVDI_TRY(const auto held, lock(context, opened, folder));
  const std::string mount_point = opened.store.mount_point(folder);
  // More than once where a mount that was given up as stuck came through after another had been made.
  constexpr int most_layers = 8;
  for (int layer = 0; layer < most_layers; ++layer) {
    DVDI_TRY(const auto entry, mounted_at(mount_point));
    if (!entry) {
      if (layer > 0) return {};
      // Whoever was killed before the volume was mounted, or right after it was unmounted, left DIR/mnt's own
      // mount behind.
      DVDI_TRY(const auto mounts, mounted_at(opened.store.directory() + "/mnt"));
      if (mounts) DVDI_CHECK(helpers_.run(context, "tidy up", &tidy, opened.store.directory()));
      // Without a mount the record says whether there is such a volume. With one it does not matter: a
      // damaged record must not keep a volume mounted.
      DVDI_TRY(const auto record, opened.store.load(volume));
      return record ? Status() : Status(no_such_volume());
    }
    DVDI_CHECK(unmount_once(context, opened.store, folder));
  }
  return Error{.code = Code::failed_precondition,
               .message = fmt::format("{} is still mounted after {} unmounts", mount_point, most_layers),
               .hint = "somebody else mounts there"};
}

LocalDriver::LocalDriver(std::string directory, HelperPool& helpers)
    : work_(std::make_unique<Work>(std::move(directory), helpers)) {}
LocalDriver::~LocalDriver() = default;

const std::string& LocalDriver::name() const { return driver_name; }

Status LocalDriver::create(const Context& context, const std::string& volume, const Options& options) {
  return named(Operation::create, volume, work_->create(context, volume, options));
}

Status LocalDriver::remove(const Context& context, const std::string& volume) {
  return named(Operation::remove, volume, work_->remove(context, volume));
}

Result<VolumeInfo> LocalDriver::get(const Context& context, const std::string& volume) {
  return named(Operation::get, volume, work_->get(context, volume));
}

Result<std::vector<VolumeInfo>> LocalDriver::list(const Context& context) {
  return named(Operation::list, "", work_->list(context));
}

Result<std::string> LocalDriver::path(const Context& context, const std::string& volume) {
  auto info = named(Operation::path, volume, work_->get(context, volume));
  if (!info) return fail(std::move(info).error());
  return info->mount_point;
}

Result<std::string> LocalDriver::mount(const Context& context, const std::string& volume,
                                       const std::string& /*mount_id*/) {
  return named(Operation::mount, volume, work_->mount(context, volume));
}

Status LocalDriver::unmount(const Context& context, const std::string& volume,
                            const std::string& /*mount_id*/) {
  return named(Operation::unmount, volume, work_->unmount(context, volume));
}

Result<Capabilities> LocalDriver::capabilities(const Context& context) {
  if (auto ended = context.check("capabilities"); !ended) {
    return fail(name_error(Operation::capabilities, "", std::move(ended).error()));
  }
  return Capabilities{.global = false};
}

bool LocalDriver::may_be_plain_directory(const std::string& /*volume*/) const { return false; }

}  // namespace dvdi::driver::local
