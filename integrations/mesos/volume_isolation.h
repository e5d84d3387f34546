// The calls of an isolator, on JSON: everything of the module that needs no header of Mesos.
//
// No call waits: each returns at once, and its Done is called exactly once, from a thread of a pool, or from
// the caller's own before the call returns where dvdid is not needed. When the object goes, what runs is
// cancelled and what waits is dropped without a Done.
//
// Which containers have external volumes it knows from prepare and, after a restart, from the list of live
// containers and from dvdid's books. For all others dvdid is never asked.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "daemon.h"
#include "first_isolator.h"
#include "parameters.h"
#include "translation.h"
#include "worker_pool.h"

namespace dvdi_mesos {

struct Outcome {
  enum class Kind { done, failed, discarded };
  Kind kind = Kind::done;
  std::string text;              // of a failure: for a person
  bool has_launch_info = false;  // of prepare
  LaunchInfo launch_info;

  static Outcome failure(std::string text) {
    Outcome outcome;
    outcome.kind = Kind::failed;
    outcome.text = std::move(text);
    return outcome;
  }
  static Outcome discarded() {
    Outcome outcome;
    outcome.kind = Kind::discarded;
    return outcome;
  }
};

using Done = std::function<void(const Outcome&)>;

// One call; how its caller gives up.
using Call = std::shared_ptr<Cancellation>;

class VolumeIsolation {
 public:
  struct Seams {
    std::function<void(const std::string&)> warn;  // to the agent's log
    std::function<std::chrono::steady_clock::time_point()> now = [] {
      return std::chrono::steady_clock::now();
    };
    std::chrono::milliseconds first_wait{500};  // before a call is repeated; doubles
    std::chrono::milliseconds longest_wait{30 * 1000};
  };

  VolumeIsolation(Parameters parameters, AgentFlags flags, std::unique_ptr<Daemon> daemon, Seams seams);
  ~VolumeIsolation();
  VolumeIsolation(const VolumeIsolation&) = delete;
  VolumeIsolation& operator=(const VolumeIsolation&) = delete;

  // ContainerStates and ContainerIDs. Waits for a daemon that is away only if one of the containers has
  // external volumes. Else it is done at once, and dvdid hears of it later: at the latest before the first
  // prepare. What the first isolator left is told to dvdid first; its list is set aside when dvdid has it.
  Call recover(const std::vector<std::string>& states, const std::vector<std::string>& orphans,
               const Done& done);
  Call prepare(const std::string& container_id, const std::string& container_config, const Done& done);
  Call isolate(const std::string& container_id, std::int64_t pid, const Done& done);
  // Never fails: a container whose cleanup fails has no end as far as its framework can tell. Repeated until
  // dvdid has done it; after `cleanup_wait` it is done for the caller and goes on all the same. That of a
  // container which recover named, without volumes, is done once dvdid was asked for the first time.
  void cleanup(const std::string& container_id, const Done& done);

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Recovery;
  struct Cleanup;
  struct Preparing;

  Reply ask(const char* method, const std::string& path, const std::string& body, std::int64_t timeout_ms,
            const Call& call);
  Reply ask_again_where_unknown(const std::string& path, const std::string& body, std::int64_t timeout_ms,
                                const Call& call);
  std::string explain(const Reply& reply) const;
  std::int64_t left_until(Time until) const;  // in milliseconds
  std::chrono::milliseconds longer(std::chrono::milliseconds wait) const;
  std::string owner_of(const std::string& sandbox);
  bool owner_is_known();
  bool knows(const std::string& key);

  // volume_isolation_recover.cpp
  bool read_former(Recovery& recovery);
  Reply adopt_former(const std::vector<FormerMount>& former, const std::set<std::string>& live,
                     const Call& call);
  Reply recover_once(const Call& call, Time until);
  Reply tell_of_restart(const std::string& owner, const Call& call);
  void let_go_of_waiting();
  void settle_recovery(const std::set<std::string>& books);
  void recover_job(const std::shared_ptr<Recovery>& recovery);

  void prepare_job(const Preparing& preparing);
  void cleanup_later(const std::string& owner, const std::string& container_id, const Done& done);
  void cleanup_job(const std::shared_ptr<Cleanup>& cleanup);

  const Parameters parameters_;
  const AgentFlags flags_;
  const std::unique_ptr<Daemon> daemon_;
  const Seams seams_;

  std::mutex mutex_;         // of what follows, up to the pools; never held during a call, nor a Done
  bool recovering_ = false;  // one recovery at a time
  std::condition_variable recovered_;
  std::string owner_;
  std::set<std::string> known_;  // keys of containers that dvdid may have
  // What dvdid has not heard yet of the agent's restart.
  bool recovery_owed_ = false;
  std::vector<LiveContainer> live_;
  std::map<std::string, std::string> orphans_;  // their ids, by key
  std::vector<FormerMount> former_;             // what the first isolator left
  bool former_read_ = false;                    // its list is to be set aside when dvdid has it
  // Those that were cleaned up meanwhile, by key. Who waits for such a cleanup does so until dvdid has been
  // asked for the first time: it may have the container, and then lets go of its volumes first.
  struct Ended {
    std::string id;
    std::vector<Done> waiting;
  };
  std::map<std::string, Ended> ended_;
  bool asked_ = false;
  std::set<Call> running_;
  bool stopping_ = false;

  // Of their own, so that mounts that hang leave room for the end of other containers, and unmounts for
  // starts.
  WorkerPool recovers_, prepares_, isolates_, cleanups_;
};

}  // namespace dvdi_mesos
