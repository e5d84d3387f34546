// Work that can block in the kernel for ever (mount, umount, stat on a dead network file system) runs in a
// helper process that can be killed and abandoned, so that the thread which waits for it has a deadline.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"
#include "linux/fd.h"

namespace dvdi {

// A function that a helper runs: plain function, no state of the caller but `request`. It runs in a process
// forked from this program before it had threads, with no descriptor of the engine's open.
using HelperFunction = Result<std::string> (*)(std::string_view request);

// Thread-safe.
class HelperPool {
 public:
  struct Limits {
    unsigned idle = 2;       // helpers kept for reuse
    unsigned running = 512;  // at once, stuck ones included; beyond it calls wait for a free one
  };

  // Forks the ancestor of all helpers; call it before the program has threads or locks at work (dvdid first
  // thing, a command before it opens the engine).
  static Result<std::unique_ptr<HelperPool>> start(Limits limits);
  static Result<std::unique_ptr<HelperPool>> start() { return start(Limits{}); }
  ~HelperPool();  // kills every helper; does not wait for one that is stuck in the kernel
  HelperPool(const HelperPool&) = delete;
  HelperPool& operator=(const HelperPool&) = delete;

  // Runs `function` in a helper. At the end of the context the helper is killed and abandoned and the result
  // is deadline_exceeded or cancelled with Outcome::unknown: the call may still take effect.
  //
  // `key` says what the work touches (a volume: DRIVER/NAME), "" nothing in particular. While a helper that
  // was killed in work of a key has not gone, that key is fenced: further work of it fails at once,
  // unavailable and not sent, saying what hangs and for how long. So one dead server holds one helper, not
  // all of them.
  Result<std::string> run(const Context& context, std::string_view what, HelperFunction function,
                          std::string_view request, std::string_view key = {});

  // A helper that was killed and has not gone yet: it is stuck in the kernel.
  struct Stuck {
    std::string key;
    std::string what;
    pid_t pid = 0;
    BootTime since;  // when it began, by the clock of the context it ran under
  };
  std::vector<Stuck> stuck_helpers() const;
  unsigned stuck() const;  // how many
  struct Counts {
    unsigned idle = 0, busy = 0;
    unsigned stuck = 0;   // of those that were killed: without those that die just now
    unsigned fenced = 0;  // different keys of them
  };
  Counts counts() const;  // waits for nothing
  // The one that fences `key`, if there is one. Waits some milliseconds where it was killed just now: most go
  // at once.
  std::optional<Stuck> fenced(const Context& context, std::string_view key) const;

 private:
  struct State;
  explicit HelperPool(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace dvdi
