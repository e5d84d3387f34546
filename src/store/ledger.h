// The ledger of a node: who uses which volume, what is mounted, what is owed, what happened. A SQLite
// database in WAL mode, every commit synced. Several processes may have it open.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"
#include "store/event_log.h"
#include "store/types.h"

namespace dvdi {

class Connection;

// One piece of time that is billed.
struct UsageInterval {
  enum class Kind { referenced, mounted, provisioned } kind = Kind::referenced;
  VolumeKey volume;
  ContainerKey container = {};   // of a reference; empty otherwise
  Attribution attribution = {};  // of a reference (labels are not kept)
  std::optional<std::uint64_t> size_bytes = {};
  WallTime start = {};
  Duration duration = {};  // an open interval's up to now, or to what was last seen of its boot
  bool open = false;
};

// Reads of one consistent state.
class Reader {
 public:
  explicit Reader(Connection& connection) : connection_(&connection) {}

  Result<std::optional<ContainerRow>> container(const ContainerKey& key);
  Result<std::vector<ContainerRow>> containers();
  Result<std::vector<ContainerRow>> live_containers();  // that have not ended
  // When one ended: in another boot than `boot_id`, else the one that ended first in this.
  Result<std::optional<Moment>> oldest_end(const std::string& boot_id);
  Result<std::optional<MountRow>> mount(const VolumeKey& volume);
  Result<std::vector<MountRow>> mounts();
  Result<std::vector<MountRow>> unreferenced_mounts();  // that no container refers to
  Result<std::vector<ReferenceRow>> references();
  Result<std::vector<ReferenceRow>> references_to(const VolumeKey& volume);
  Result<bool> is_referenced(const VolumeKey& volume);
  Result<std::vector<ReferenceRow>> references_of(const ContainerKey& container);
  Result<std::optional<DebtRow>> debt(const VolumeKey& volume);
  Result<std::vector<DebtRow>> debts();
  Result<std::optional<ForeignRow>> foreign(const VolumeKey& volume);
  Result<std::vector<ForeignRow>> foreigns();
  Result<std::vector<StagedRow>> staged();
  Result<std::vector<StagedRow>> staged_of(const ContainerKey& container);
  // The containers that have staged mounts and have ended, are not known, or are of another boot than that.
  Result<std::vector<ContainerKey>> staged_leftovers(const std::string& boot_id);
  Result<std::optional<VolumeRow>> volume(const VolumeKey& volume);
  Result<std::vector<VolumeRow>> volumes();
  // A fact of the whole ledger; "" where it is not there.
  Result<std::string> meta(const std::string& name);
  Result<std::vector<StoredEvent>> events(std::uint64_t after, std::size_t limit);
  // The number and hash of the newest event; 0 and the genesis hash if there is none.
  Result<std::pair<std::uint64_t, std::string>> head();
  // The highest number that an event ever had, also if it was removed.
  Result<std::uint64_t> highest_event();
  // Intervals that overlap [since, until); `visit` returns false to stop.
  Status usage(const Moment& now, WallTime since, WallTime until,
               const std::function<bool(const UsageInterval&)>& visit);

 protected:
  Connection* connection_;
};

// One transaction. Rows are written whole (insert or replace). A transition writes its event here, too.
class Transaction : public Reader {
 public:
  Transaction(Connection& connection, Moment now, const std::string& node_id, std::optional<Caller> caller)
      : Reader(connection), now_(std::move(now)), node_id_(&node_id), caller_(caller) {}

  const Moment& now() const { return now_; }  // the same for everything in this transaction

  Status put(const ContainerRow& row);
  Status erase(const ContainerKey& key);
  Status put(const MountRow& row);
  Status erase_mount(const VolumeKey& volume);
  Status put(const ReferenceRow& row);
  Status erase_reference(const ContainerKey& container, const VolumeKey& volume);
  Status put(const DebtRow& row);
  Status erase_debt(const VolumeKey& volume);
  Status put(const StagedRow& row);
  Status erase_staged(const ContainerKey& container, unsigned position);
  Status put(const ForeignRow& row);
  Status erase_foreign(const VolumeKey& volume);
  Status put(const VolumeRow& row);
  Status erase_volume(const VolumeKey& volume);
  Status put_meta(const std::string& name, const std::string& value);

  Status record(const Event& event);  // names the context's caller, if it has one

  Status open_usage(const UsageInterval& interval);
  // Closes the open interval of that kind, volume and container, if there is one.
  Status close_usage(UsageInterval::Kind kind, const VolumeKey& volume, const ContainerKey& container = {});

 private:
  Moment now_;
  const std::string* node_id_;
  std::optional<Caller> caller_;
};

// Thread-safe.
class Ledger {
 public:
  // Opens or creates the database and brings its tables up to date.
  static Result<std::unique_ptr<Ledger>> open(const Context& context, const std::string& path);
  ~Ledger();
  // Is the database at `path` whole? Changes nothing. corrupted, saying what is wrong, if not.
  static Status check(const std::string& path);

  // Runs `work` in a transaction that is durable when this returns success; if `work` fails, nothing was
  // written. `what` is for messages.
  Status write(const Context& context, std::string_view what,
               const std::function<Status(Transaction&)>& work);
  Status read(const Context& context, std::string_view what, const std::function<Status(Reader&)>& work);

  // How often this process has written; wait_written returns when that is more than `seen`.
  std::uint64_t written() const;
  Status wait_written(const Context& context, std::uint64_t seen);

  const std::string& node_id() const;
  const std::string& boot_id() const;
  Moment now(const Clock& clock) const;

 private:
  struct State;
  explicit Ledger(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace dvdi
