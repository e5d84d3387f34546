// The volume manager: one mount a volume on this node, the set of containers that refer to it, and the
// unmounts that are owed. ARCHITECTURE.md has the table of states and the reasons.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"
#include "base/histogram.h"
#include "driver/driver.h"
#include "linux/file_lock.h"
#include "linux/helper_pool.h"
#include "store/ledger.h"
#include "store/types.h"

namespace dvdi::volume {

// What differs for one driver.
struct DriverPolicy {
  std::map<driver::Operation, Duration> deadlines;
  std::optional<unsigned> calls_at_once, calls_waiting;
  std::optional<unsigned> unmount_attempts;
  std::optional<Duration> debt_backoff, debt_backoff_cap, late_answer;

  bool operator==(const DriverPolicy&) const = default;
};

// How long and how often drivers are called.
struct Policy {
  Duration mount_deadline = std::chrono::seconds(120);
  Duration unmount_deadline = std::chrono::seconds(600);
  Duration call_deadline = std::chrono::seconds(30);  // every other operation
  unsigned calls_per_driver = 64;                     // at once; beyond it calls wait
  unsigned calls_waiting = 1000;                      // of one driver; beyond it calls fail at once
  unsigned unmount_attempts = 20;                     // then the debt is parked for the operator
  Duration debt_backoff = std::chrono::seconds(1);    // before the second attempt; doubles, with jitter
  Duration debt_backoff_cap = std::chrono::minutes(5);
  // After a Mount whose outcome is not known (it timed out, or we were killed in it), the driver may still be
  // at it. So long, "there is nothing to unmount" does not end the matter.
  Duration late_answer = std::chrono::seconds(10);
  // How long a server behind a mount (FUSE, network) may take to answer a look before the mount counts as
  // lost.
  Duration probe_patience = std::chrono::seconds(1);
  // The same where a container waits for the volume: a slow answer is better than a fresh mount.
  Duration use_patience = std::chrono::seconds(10);
  // How long recover waits for the unmounts of what it dropped; what is not done by then is left to settle().
  Duration recover_wait = std::chrono::seconds(5);
  // Driver options whose name contains one of these, in whatever case, are secret: a driver that repeats such
  // a value in an error has it replaced before the error goes anywhere. What is kept of options is never kept
  // of these.
  std::vector<std::string> secret_options = {"password", "secret", "token", "key"};
  std::map<std::string, DriverPolicy> by_driver;

  // What holds for the calls to that driver: its own values, else those above.
  Duration deadline(const std::string& driver, driver::Operation operation) const;
  unsigned at_once(const std::string& driver) const;
  unsigned waiting(const std::string& driver) const;
  unsigned attempts(const std::string& driver) const;
  Duration backoff(const std::string& driver) const;
  Duration backoff_cap(const std::string& driver) const;
  Duration late_answer_of(const std::string& driver) const;
  bool is_secret(std::string_view option) const;
  // The longest that any driver may take for one call of that operation.
  Duration longest(driver::Operation operation) const;
};

// One volume that a container wants.
struct Request {
  VolumeKey volume;
  driver::Options options;
  bool explicit_create = false;  // must exist: not created on demand
  bool exclusive = false;
  std::vector<ReferenceRow::Use>
      uses;  // all places of this container where it appears; none: on the host only
};

// The container that asks. Written to the ledger in the transaction of its references.
struct Holder {
  ContainerKey key;
  std::string digest;  // of the whole request: a repetition with another digest is a conflict
  Attribution attribution;
  std::string directory;
  bool directory_is_ours = false;
  // The process that works on it until its task's init is known: the client's, where a daemon does it for one
  // that launches itself. Absent: this process.
  std::optional<ProcessIdentity> worker = {};
};

// A volume that is mounted for a container.
struct Mounted {
  VolumeKey volume;
  std::string mount_point;
  std::optional<StoredIdentity> identity;  // absent for a plain directory
};

struct Owed {
  std::string driver;
  std::string volume;
  std::string reason;
};

// A container that its owner says is alive, as of Mesos' recover. What it refers to counts only where the
// ledger does not know it (any more).
struct LiveContainer {
  std::string id;
  pid_t init = 0;  // 0: not known
  std::string directory;
  Attribution attribution;
  std::vector<Request> volumes;
};

struct RecoverRequest {
  std::string owner;
  bool complete = true;  // the lists name every container of that owner
  std::vector<LiveContainer> live;
  std::vector<std::string> orphans;  // ids that the owner will clean up later
};

struct Recovered {
  // An unknown orphan that stays: there is no proof that it is dead, or nothing may be dropped now.
  struct Kept {
    std::string id;
    std::string reason;
  };
  // A volume of a live container that the ledger did not know and that is not certainly mounted. The
  // container refers to it all the same, so that nobody takes it away.
  struct Missing {
    std::string id;
    std::string driver, volume;
    std::string reason;
  };
  std::vector<std::string> dropped;  // ids of containers that were proved dead and released
  std::vector<Kept> kept;
  std::vector<Missing> missing;
  // Proved dead, with something that only a cleanup by the whole chain takes away (staged mounts): children
  // before their parents. The chain does it and counts them as dropped or kept.
  std::vector<std::string> to_clean_up;
  std::vector<Owed> owed;
};

// How the books that were lost with a damaged ledger come back.
struct Rebuilt {
  bool finished = true;  // nothing to do (any more): the ledger is no rebuilt one, or it is long since
  std::vector<VolumeKey> found;  // mounts that were written down by this call, as `unknown`, pending `found`
  std::vector<std::string> unanswered;  // drivers that have not listed their volumes yet, each with its error
};

// A mount that somebody before dvdi made on this node and left, as his own books have it.
struct LeftBehind {
  VolumeKey volume;
  std::string mount_point;
  std::string mount_id;  // the ID that he gave to Mount; "": none
};

// What was made of it.
struct Adopted {
  enum class What {
    found,   // it is there, and written down as `unknown`, pending `found`
    known,   // the books have a mount of the volume already: nothing changed
    absent,  // nothing is mounted there, or another volume: nothing changed
  };
  VolumeKey volume;
  std::string mount_point;
  What what;
  std::string reason;  // why it is not `found`
};

// What becomes of a volume that is released by hand, or would become of it.
struct Release {
  std::vector<std::string> steps;  // one sentence each, in order
  bool done = false;               // nothing of it is mounted or owed any more
  std::string left;                // why not, if it is not done
};

// The mounts of the books, held against the kernel's table.
struct Compared {
  std::vector<VolumeKey> lost;
  bool served = false;  // there are some with a server behind them: probe() asks those
};

// What a look at the mounts with a server behind them told.
struct Probed {
  bool anything = false;         // there are such mounts: look again in about a second
  std::vector<VolumeKey> lost;   // since the last look
  std::vector<VolumeKey> found;  // were lost, and answer again
};

// How the calls to one driver went since this manager was made.
struct DriverStatus {
  std::string name;
  unsigned running = 0;           // calls at this moment
  unsigned waiting = 0;           // calls that wait for a free place
  unsigned calls_at_once = 0;     // the limit on `running`
  unsigned calls_waiting = 0;     // the limit on `waiting`
  std::uint64_t calls = 0;        // that have ended, in whatever way
  std::uint64_t errors = 0;       // of `calls`: those that failed, in whatever way
  std::uint64_t timeouts = 0;     // of `errors`: those that ended at their deadline
  std::uint64_t turned_away = 0;  // of `errors`: those beyond `calls_waiting`
  std::uint64_t mounts_lost = 0;  // mounts of its volumes that were lost, each loss counted
  std::string last_error;         // "" if there was none
  std::optional<WallTime> last_error_time;
  // What is recorded of it, also by those before this process.
  DriverState state = DriverState::up;
  std::string state_reason;             // "" where it is up
  std::optional<WallTime> state_since;  // absent: always up, as far as is known
};

// The lock of a container (in the same file as those of volumes), held by the chain while it prepares,
// isolates or cleans up.
inline std::string container_lock_name(const ContainerKey& key) { return "container " + key.text(); }

// How long the calls of one operation that ended in one way took: for metrics.
struct CallTimes {
  std::string driver, operation;
  std::string outcome;  // ok, refused, not_sent, timed_out, cancelled, failed
  Histogram times;      // with call_time_bounds()
};
// Of the buckets of CallTimes: 1 ms to 600 s.
const std::vector<Duration>& call_time_bounds();

// What there is to do for nobody in particular, and when there will be more.
struct Due {
  std::vector<VolumeKey> volumes;  // for settle_volume(); the one that waits longest is first
  bool books = false;              // for tidy_books()
  bool staged = false;             // staged mounts were left behind: for the isolator that made them
  // The next thing is due then, if nothing happens before.
  std::optional<BootTime> next;
};

// What settle_volume() did.
struct Settled {
  bool busy = false;     // nothing: somebody is at work on the volume
  std::string sentence;  // "" if there was nothing to do
};

// What the isolator chain needs. Thread-safe. Calls for one container must come one at a time (the chain sees
// to it).
class Holdings {
 public:
  virtual ~Holdings() = default;

  // Refers the container to all volumes and mounts those that are not mounted: all, or the first error with
  // every error of the roll-back attached and no reference left (unmounts may then be owed). In the order of
  // `requests`, which name each volume once. A repetition with the same digest answers the same without
  // calling a driver. conflict: the container is known with another digest, or exclusive access is taken (the
  // holder is named). failed_precondition: the container was cleaned up less than an hour ago.
  virtual Result<std::vector<Mounted>> acquire(const Context& context, const Holder& holder,
                                               const std::vector<Request>& requests) = 0;

  // The container's init process, recorded durably before anything of the task runs.
  // `watch`: a daemon cleans the container up when that process has ended.
  virtual Status started(const Context& context, const ContainerKey& key, const ProcessIdentity& init,
                         bool watch) = 0;

  // Ends the container: its references go, volumes that nobody else refers to are unmounted. An error means
  // that the references are still there (the ledger could not be written); an unmount that failed is owed and
  // reported instead. With `keep_mounted`, nothing is unmounted and every unmount is owed at once, for that
  // reason: somebody still uses the mount points. An unknown container succeeds.
  virtual Result<std::vector<Owed>> release(const Context& context, const ContainerKey& key,
                                            const std::string& keep_mounted) = 0;

  // As release, for a container whose prepare failed for the reason `why`: it is not remembered, and may be
  // prepared again.
  virtual Result<std::vector<Owed>> abandon(const Context& context, const ContainerKey& key,
                                            const std::string& keep_mounted, const std::string& /*why*/) {
    return release(context, key, keep_mounted);
  }

  // Live containers that the ledger does not know come back with their references. Containers of
  // `request.owner` that are neither live nor orphans are released with proof that they are dead: nobody
  // works on them, their init is gone if they had one, and no other process's mount table holds their mounts.
  // Without `may_unmount`, or where the list is not complete, nothing is dropped. Calls no driver but to
  // unmount, and does not wait long for that.
  virtual Result<Recovered> recover(const Context& context, const RecoverRequest& request,
                                    bool may_unmount) = 0;
};

// Thread-safe.
class Manager final : public Holdings {
 public:
  struct Parts {  // all outlive the manager
    Ledger& ledger;
    driver::Catalog& drivers;
    KeyedLocks& volume_locks;
    HelperPool& helpers;
  };
  Manager(Parts parts, Policy policy);
  ~Manager() override;

  Result<std::vector<Mounted>> acquire(const Context& context, const Holder& holder,
                                       const std::vector<Request>& requests) override;
  Status started(const Context& context, const ContainerKey& key, const ProcessIdentity& init,
                 bool watch) override;
  Result<std::vector<Owed>> release(const Context& context, const ContainerKey& key,
                                    const std::string& keep_mounted) override;
  Result<std::vector<Owed>> abandon(const Context& context, const ContainerKey& key,
                                    const std::string& keep_mounted, const std::string& why) override;
  Result<Recovered> recover(const Context& context, const RecoverRequest& request, bool may_unmount) override;

  // Rows of another boot end: mounts, references, containers, debts. First thing of an engine.
  Status forget_other_boots(const Context& context);
  // After a damaged ledger was replaced (store/damage.h): asks each driver that has not answered yet for its
  // volumes and writes down those that are mounted. Calls drivers only to ask, at the same time, each until
  // the context ends. To be repeated until it is finished: a driver may come up later.
  Result<Rebuilt> rebuild(const Context& context);
  // Mounts of a predecessor, which `from` names, for containers that recover will name, or for nobody. In the
  // order of `mounts`. No driver is called. An error where it cannot be seen whether one is there; to be
  // repeated: what is known by then stays.
  Result<std::vector<Adopted>> adopt(const Context& context, const std::string& from,
                                     const std::vector<LeftBehind>& mounts);
  // Containers of `owner` whose processes are gone: the engine that worked on them, and the task's init if
  // there is one.
  Result<std::vector<ContainerKey>> dead_containers(const Context& context, const std::string& owner);
  // Transitional rows that nobody refers to and nobody is at work on, debts that are due, and foreign holders
  // that have gone. Volumes at the same time, each until the context ends. One sentence for each thing that
  // was done or could not be done.
  std::vector<std::string> settle(const Context& context);
  // The same in pieces, for a reconciler: what is due now, and the work on one of those volumes. It is safe
  // to settle a volume that is not due (any more). An intent is due `to_begin` after it was recorded: until
  // then whoever recorded it may still be on his way to the volume's lock.
  Result<Due> due(const Context& context, Duration to_begin = Duration::zero());
  Result<Settled> settle_volume(const Context& context, const VolumeKey& volume);
  // Ends the `cleaning` containers that live until their unmount and that nobody works on. What they had is
  // settled with the volumes; a cleanup would take it from a container that was prepared meanwhile.
  Status end_interrupted_unmounts(const Context& context);
  // Foreign holders that have gone, and ended containers that were remembered long enough.
  Status tidy_books(const Context& context);
  const Policy& policy() const;

  // Mounts that the kernel's table does not show any more become lost, those that it shows again mounted. To
  // be called when the table has changed. Volumes that somebody is at work on are left to him.
  Result<Compared> note_vanished(const Context& context);
  // Asks the server behind each mount that has one, in helpers, at most for `probe_patience` each; one that
  // is gone, fails or does not answer makes the mount lost, one that answers again makes it mounted.
  Result<Probed> probe(const Context& context);
  // Why volumes are fenced, by VolumeKey::text(): a helper that touched one is stuck in the kernel.
  std::map<std::string, std::string> fenced(const Context& context) const;

  // failed_precondition while it is in use, mounted, or an unmount is owed.
  Status remove_volume(const Context& context, const VolumeKey& volume);
  Status create_volume(const Context& context, const VolumeKey& volume, const driver::Options& options);
  // Pays the owed or parked unmount of a volume by hand, or takes away a mount that nobody refers to; with
  // `dry_run` only says what it would do. failed_precondition while a container refers to the volume.
  Result<Release> release_volume(const Context& context, const VolumeKey& volume, bool dry_run);
  // Of the drivers that are named, and of all others that were called.
  std::vector<DriverStatus> drivers(const std::vector<std::string>& names);
  // Of all drivers that were called.
  std::vector<CallTimes> call_times();
  // Calls of a driver within its bounds, for whoever looks at volumes.
  Result<std::vector<driver::VolumeInfo>> list_volumes(const Context& context, const std::string& driver);
  Result<driver::VolumeInfo> look_up_volume(const Context& context, const VolumeKey& volume);

 private:
  friend class Recovery;
  struct State;
  std::unique_ptr<State> state_;
};

// failed_precondition: the answer to a prepare that comes after the cleanup of the same container.
Error cleaned_up_already(const ContainerKey& key);

}  // namespace dvdi::volume
