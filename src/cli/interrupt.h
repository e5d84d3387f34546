// SIGINT, SIGTERM and SIGHUP as something to handle instead of to die of, for as long as one object lives.
#pragma once

#include <csignal>
#include <functional>
#include <thread>

#include "base/result.h"
#include "linux/fd.h"

namespace dvdi::cli {

// One at a time. A signal that is ignored when it starts (nohup) stays ignored. SIGQUIT is left alone: it
// ends dvdi at once, and the next command settles what is left. Blocks no signal and leaves the process as it
// was: no thread, the old handlers. Where it cannot be set up (no descriptor or thread is left) signals keep
// their old effect.
class Interrupt {
 public:
  // `on_signal(signal, count)` is called on a thread of its own for each signal that comes; count starts
  // at 1.
  using OnSignal = std::function<void(int signal, unsigned count)>;
  explicit Interrupt(OnSignal on_signal);
  ~Interrupt() { finish(); }
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Puts the old handlers back and ends the thread, once it has seen every signal that came. Returns the
  // first signal, 0 if there was none. May be repeated.
  int finish();

 private:
  void watch(const OnSignal& on_signal);

  UniqueFd read_end_, write_end_;
  struct sigaction old_[3] = {};
  bool installed_[3] = {};
  int first_ = 0;
  std::thread watcher_;
};

}  // namespace dvdi::cli
