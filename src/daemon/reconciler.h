// What happens without a caller: debts are paid, remainders of crashes settled, containers whose processes
// have ended cleaned up, lost mounts noticed. One thread that sleeps until there is something to do, and
// workers for what may take long.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"
#include "daemon/workers.h"
#include "isolator/isolator.h"
#include "store/ledger.h"
#include "volume/manager.h"

namespace dvdi {

// Thread-safe.
class Reconciler {
 public:
  struct Parts {  // all outlive the reconciler; the functions are called from several threads
    volume::Manager& volumes;
    Ledger& ledger;
    const Clock& clock;
    // The chain's, with all that a cleanup by a caller does.
    std::function<Result<std::vector<isolator::Owed>>(const Context&, const ContainerKey&)> cleanup;
    // Before a volume is settled: an error, and nothing is done, while a mount of ours still shows it for a
    // container that has ended.
    std::function<Status(const Context&, const VolumeKey&)> let_go = {};
    // Takes away what ended containers left behind on this machine: once after the start, and while there are
    // staged mounts of theirs. What was done or could not be done, one sentence each.
    std::function<std::vector<std::string>(const Context&)> tidy = {};
    // What a person should know, one sentence each.
    std::function<void(std::string)> say;
  };
  struct Limits {
    Workers::Limits workers = {};
    // Between two looks at the ledger, however often it is woken.
    Duration pace = std::chrono::milliseconds(50);
    // The servers behind FUSE and network mounts are asked so often, while there are such mounts.
    Duration probe_every = std::chrono::seconds(1);
    // A process that cannot be watched (no descriptors left) is looked at so often instead.
    Duration look_again = std::chrono::seconds(5);
  };

  explicit Reconciler(Parts parts) : Reconciler(std::move(parts), Limits{}) {}
  Reconciler(Parts parts, Limits limits);
  ~Reconciler();  // as stop() with no time left

  Status start();
  // Something changed that it may have to do with: a container was prepared or could not be, isolated, or
  // ended.
  // Cheap: it looks at the ledger soon after, once for many calls.
  void wake();
  // Begins nothing more, lets what is running end until the context does, and then cancels it.
  void stop(const Context& context);

  struct Now {
    std::size_t running = 0;       // pieces of work
    std::size_t watched = 0;       // processes
    std::uint64_t looks = 0;       // at the ledger, since it was started
    std::optional<BootTime> next;  // when it wakes by itself; absent: not without a cause
  };
  Now now() const;
  // Until it has seen everything up to the last wake() and nothing is running: for tests.
  Status wait_until_quiet(const Context& context) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dvdi
