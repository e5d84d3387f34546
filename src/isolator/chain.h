// Runs the isolators of a container in one order with one error contract (ARCHITECTURE.md, "The isolator
// chain").
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/sync.h"
#include "isolator/isolator.h"
#include "linux/file_lock.h"

namespace dvdi::isolator {

// What the chain asks of the node's books, so that it also knows containers that another process, or this one
// before it was restarted, prepared. Thread-safe.
class Books {
 public:
  virtual ~Books() = default;
  virtual Result<std::optional<ContainerRow>> find(const Context& context, const ContainerKey& key) = 0;
  // Ids of the containers nested in `key`, at any depth (PARENT.CHILD), that have not ended.
  virtual Result<std::vector<std::string>> children(const Context& context, const ContainerKey& key) = 0;
};

// The container's key in Parts::container_locks.
std::string container_lock_key(const ContainerKey& key);

// SHA-256 of the request, the same for the same request in every build and process.
std::string digest_of(const v1::ContainerRequest& request);
// The same for a container that lives until its unmount: asked for with other driver options it is the same.
std::string digest_of_volumes(const v1::ContainerRequest& request);

// Thread-safe. Calls for one container are brought into one line, within this process and, by a lock on the
// container, between processes; calls for different containers run at the same time.
class Chain {
 public:
  struct Parts {  // all outlive the chain
    KeyedLocks& container_locks;
    Books& books;
    // For the whole roll-back of a failed prepare, which a cancelled caller does not stop: an unmount's
    // deadline and some more.
    Duration roll_back_timeout = std::chrono::minutes(11);
  };

  // invalid_argument as of in_order().
  static Result<std::unique_ptr<Chain>> build(std::vector<std::unique_ptr<Isolator>> isolators, Parts parts);
  ~Chain();
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  std::vector<std::string_view> order() const;  // names, in the order of prepare

  // All isolators, or the error of the first that failed with every error of the roll-back attached. Repeated
  // with the same request it gives the same answer without a new effect, also while the first call runs, but
  // that a mount that has vanished is made afresh; only where that one's caller gave up (cancelled, deadline)
  // does a repetition that waits for it try afresh. conflict: the container is known with another request, or
  // to be launched by somebody else. failed_precondition: it, or its parent, is cleaned up.
  Result<v1::ContainerLaunchInfo> prepare(const Context& context, const ContainerKey& key,
                                          const v1::ContainerRequest& request, const std::string& directory,
                                          bool directory_is_ours,
                                          const std::optional<ProcessIdentity>& worker = {},
                                          bool staged = false);

  // In the order of prepare; the first error stops it.
  Status isolate(const Context& context, const ContainerKey& key, pid_t pid, bool watch = false);

  // A prepare that runs is cancelled and waited for first. Every isolator is invoked. Success once the books
  // no longer have the container: an unmount that is owed then, or an isolator that failed (an Owed without
  // driver and volume), is in the answer. failed_precondition, and nothing was done: containers nested in it
  // are still there.
  Result<std::vector<Owed>> cleanup(const Context& context, const ContainerKey& key);

  // Every isolator is invoked; the first error with the others attached. One at a time for an owner.
  Result<volume::Recovered> recover(const Context& context, const RecoverRequest& request);

 private:
  struct PrepareCall;
  struct CleanupCall;
  struct Entry;

  Chain(std::vector<std::unique_ptr<Isolator>> isolators, Parts parts);

  Result<v1::ContainerLaunchInfo> run_prepare(const Context& context, Preparation& preparation,
                                              PrepareCall& call);
  Status run_isolators(const Context& context, Preparation& preparation, const PrepareCall& call,
                       std::size_t& invoked);
  void roll_back(const Context& context, const ContainerKey& key, std::size_t invoked, Error& error);
  Result<std::vector<Owed>> run_cleanup(const Context& context, const ContainerKey& key);
  Status wait_for_quiet(const Context& context, Lock& lock, const ContainerKey& key, std::string_view what);
  Status no_children(const Context& context, const ContainerKey& key);
  std::vector<std::string> children_in_memory(const ContainerKey& key) const;  // with the lock held
  bool ancestor_is_cleaned_up(const ContainerKey& key) const;                  // with the lock held
  void clean_up_dead(const Context& context, const std::string& owner, volume::Recovered& all);
  void forget_if_idle(const ContainerKey& key);  // with the lock held
  Entry* find(const ContainerKey& key);          // with the lock held

  const std::vector<std::unique_ptr<Isolator>> isolators_;
  const Parts parts_;
  mutable Mutex mutex_;
  Condition changed_;
  std::map<ContainerKey, Entry> containers_;  // those that a call works on
  std::set<std::string> recovering_;          // owners
};

}  // namespace dvdi::isolator
