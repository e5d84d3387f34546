// The ledger of a node: who uses which volume, what is mounted, what is owed, what happened. A SQLite
// database in WAL mode, every commit synced. Several processes may have it open.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/context.h"
#include "base/histogram.h"
#include "store/event_log.h"
#include "store/figures.h"
#include "store/types.h"
#include "store/usage_interval.h"

namespace dvdi {

class Connection;

// One of several parts of a read, from 0 on.
struct ReadPart {
  unsigned number = 0, of = 1;
};

// What the next event follows.
struct LastEvent {
  std::int64_t sequence = 0;  // the highest number that there ever was
  std::string hash;
  std::int64_t total_bytes = 0;
};

// Reads of one consistent state.
class Reader {
 public:
  explicit Reader(Connection& connection) : connection_(&connection) {}

  Result<std::optional<ContainerRow>> container(const ContainerKey& key);
  Result<std::vector<ContainerRow>> containers();
  Result<std::vector<ContainerRow>> live_containers();  // that have not ended
  Result<std::vector<ContainerRow>> live_containers_of(const std::string& owner);
  Result<std::set<std::string>> live_ids();  // of live_containers()
  // Of those that live: those that are being cleaned up or are watched, and all of one owner.
  Result<std::vector<ContainerRow>> containers_to_look_after(const std::string& owner);
  // The ids of containers nested in it, at whatever depth, that have not ended.
  Result<std::vector<std::string>> live_children(const ContainerKey& parent);
  // When one ended: in another boot than `boot_id`, else the one that ended first in this.
  Result<std::optional<Moment>> oldest_end(const std::string& boot_id);
  Result<std::optional<MountRow>> mount(const VolumeKey& volume);
  Result<std::vector<MountRow>> mounts();
  // Those whose state changed at that time of this boot or later.
  Result<std::vector<MountRow>> mounts_since(const Moment& moment);
  Result<std::vector<MountRow>> unreferenced_mounts();  // that no container refers to
  Result<std::vector<ReferenceRow>> references();
  Result<std::vector<ReferenceRow>> references_to(const VolumeKey& volume);
  Result<std::optional<ReferenceRow>> reference(const ContainerKey& container, const VolumeKey& volume);
  // One of another container to the volume that has it exclusively, or, where `exclusive` access is asked
  // for, whatever one.
  Result<std::optional<ReferenceRow>> reference_in_the_way(const ContainerKey& container,
                                                           const VolumeKey& volume, bool exclusive);
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
  Result<std::optional<SinkRow>> sink(const std::string& name);
  Result<std::vector<SinkRow>> sinks();
  Result<std::optional<DriverRow>> driver(const std::string& name);
  Result<std::vector<DriverRow>> drivers();
  Result<bool> has_volumes_of(const std::string& driver);  // known or mounted ones
  // Is there a row of another boot than that, which forgetting it would change?
  Result<bool> has_rows_of_other_boots(const std::string& boot_id);
  // A fact of the whole ledger; "" where it is not there.
  Result<std::string> meta(const std::string& name);
  // Oldest first; beyond the first no more than `most_bytes` of bodies.
  Result<std::vector<StoredEvent>> events(std::uint64_t after, std::size_t limit,
                                          std::size_t most_bytes = SIZE_MAX);
  // All of that type that are there: reads all events.
  Result<std::vector<StoredEvent>> events_of_type(std::string_view type);
  // The oldest event that is there, the newest, and how large all of them are; nullopt where there is none.
  struct EventSpan {
    std::uint64_t first = 0, last = 0;
    std::uint64_t bytes = 0;
  };
  Result<std::optional<EventSpan>> event_span();
  // The first event that was written at `since` or later; 0: none. Wall clocks may jump: those before it are
  // all older, those after it perhaps, too.
  Result<std::uint64_t> first_event_since(WallTime since);
  // The last event that goes when the oldest are taken away until at most `bytes` are left; 0: none needs to.
  Result<std::uint64_t> last_event_beyond(std::uint64_t bytes);
  // The number and hash of the newest event; 0 and the genesis hash if there is none.
  Result<std::pair<std::uint64_t, std::string>> head();
  // What the next event follows. Never a number again: events that somebody removed from the end leave a gap
  // that the next one shows.
  Result<LastEvent> last_event();
  // The highest number that an event ever had, also if it was removed.
  Result<std::uint64_t> highest_event();
  // Counts and sums of the whole ledger, in a few statements that read no big table.
  Result<LedgerFigures> figures(const Moment& now);
  // Intervals that overlap [since, until) or begin in it, in no order; of all or of one of several parts,
  // which have each interval once. `visit` returns false to stop, and so does `look`, which is called now and
  // then with how many more were read, also of those that are not visited.
  Status usage(const Moment& now, WallTime since, WallTime until, const UsageColumns& columns,
               const std::function<bool(const UsageRecord&)>& visit,
               const std::function<bool(std::uint64_t)>& look = {}, ReadPart part = {});
  // How many closed ones there are, of any time, and perhaps some more: to show how far a report is.
  Result<std::uint64_t> usage_intervals();
  Result<bool> has_usage_before(WallTime time);  // closed intervals that ended before that

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
  Status add(const ContainerRow& row);  // one that is not there: internal, if it is
  Status erase(const ContainerKey& key);
  // Those that ended in another boot than that moment's, or before it.
  Status erase_containers_ended_before(const Moment& moment);
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
  Status put(const SinkRow& row);
  Status put(const DriverRow& row);
  Status put_meta(const std::string& name, const std::string& value);

  // Those up to that number. Who does it records events_cut_type in the same transaction.
  Status erase_events(std::uint64_t up_to);
  // Up to `most` closed intervals that ended before that; how many they were.
  Result<std::uint64_t> erase_usage(WallTime before, std::size_t most);
  Status record(Event event);  // names the context's caller, if it has one

  // The use ends now. One that began in another boot ended with what was last seen of that boot.
  Status close_usage(const UsageInterval& interval);

 private:
  Moment now_;
  const std::string* node_id_;
  std::optional<Caller> caller_;
  std::optional<LastEvent> last_event_;  // once there was one
};

// How the transactions of this process went. By the machine's clock: it is about locks and the disk.
struct WriteTimes {
  Histogram wait;              // for the writer's lock, other processes included
  Histogram commit;            // until the transaction was durable
  std::uint64_t failures = 0;  // of these two; what the work itself refuses is none
};
// Of the buckets of WriteTimes: 100 us to 60 s.
const std::vector<Duration>& write_time_bounds();

// Whoever is the first to open the database reads the whole log. `a_moment`: what is opened often keeps its
// log short, by copying it into the database more often; what works for long shares the cost of that among
// more transactions.
enum class OpenFor { a_moment, long_work };

// Thread-safe.
class Ledger {
 public:
  // Opens or creates the database and brings its tables up to date.
  static Result<std::unique_ptr<Ledger>> open(const Context& context, const std::string& path,
                                              OpenFor how_long = OpenFor::long_work);
  // With a connection that may write, opened to look at it: to open one reads the whole schema.
  static Result<std::unique_ptr<Ledger>> open(const Context& context, const std::string& path,
                                              OpenFor how_long, std::unique_ptr<Connection> writer);
  ~Ledger();
  // Is the database at `path` whole? Changes nothing. corrupted, saying what is wrong, if not.
  static Status check(const std::string& path);

  // Runs `work` in a transaction that is durable when this returns success; if `work` fails, nothing was
  // written. `what` is for messages.
  Status write(const Context& context, std::string_view what,
               const std::function<Status(Transaction&)>& work);
  Status read(const Context& context, std::string_view what, const std::function<Status(Reader&)>& work);
  // A read that takes long: on a connection of its own, so that no other read waits for it. Two of them at a
  // time; one more waits.
  Status read_long(const Context& context, std::string_view what, const std::function<Status(Reader&)>& work);
  // The same in `parts` threads at the same time, each on a connection of its own: all read the same state.
  // The first error. Where the state changes all the time it may be done in one part.
  Status read_long(const Context& context, std::string_view what, unsigned parts,
                   const std::function<Status(Reader&, ReadPart)>& work);

  // How often this process has written; wait_written returns when that is more than `seen`.
  std::uint64_t written() const;
  Status wait_written(const Context& context, std::uint64_t seen);

  // By a connection of its own: whoever looks at the figures waits for no long report.
  Result<LedgerFigures> figures(const Context& context);
  WriteTimes write_times() const;
  StoreSize size() const;

  const std::string& node_id() const;
  const std::string& boot_id() const;
  Moment now(const Clock& clock) const;

 private:
  struct State;
  explicit Ledger(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace dvdi
