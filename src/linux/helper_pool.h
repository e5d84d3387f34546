// Work that can block in the kernel for ever (mount, umount, stat on a dead network file system) runs in a
// helper process that can be killed and abandoned, so that the thread which waits for it has a deadline.
#pragma once

#include <memory>
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

  // Forks the ancestor of all helpers; call it before the program has threads or locks (first thing in
  // main()).
  static Result<std::unique_ptr<HelperPool>> start(Limits limits);
  static Result<std::unique_ptr<HelperPool>> start() { return start(Limits{}); }
  ~HelperPool();  // kills every helper; does not wait for one that is stuck in the kernel
  HelperPool(const HelperPool&) = delete;
  HelperPool& operator=(const HelperPool&) = delete;

  // Runs `function` in a helper. At the end of the context the helper is killed and abandoned and the result
  // is deadline_exceeded or cancelled with Outcome::unknown: the call may still take effect.
  Result<std::string> run(const Context& context, std::string_view what, HelperFunction function,
                          std::string_view request);

  // Helpers that were killed and have not gone yet: each is stuck in the kernel.
  unsigned stuck() const;

 private:
  struct State;
  explicit HelperPool(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace dvdi
