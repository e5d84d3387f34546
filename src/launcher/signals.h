// Signals on their way from dvdi run through the task's init to the task.
#pragma once

#include <signal.h>

#include <optional>

#include "base/result.h"
#include "linux/fd.h"

namespace dvdi::launcher {

// The signals of this process while it has a task. From the first moment every signal that ends a program is
// blocked: dvdi run must live to release the volumes.
class SignalScope {
 public:
  static Result<SignalScope> begin();
  ~SignalScope();  // takes what is pending: it was for a task that has ended
  SignalScope(SignalScope&& other) noexcept;
  SignalScope& operator=(SignalScope&&) = delete;
  SignalScope(const SignalScope&) = delete;
  SignalScope& operator=(const SignalScope&) = delete;

  int fd() const { return fd_.get(); }  // signalfd of the signals that are passed on
  // Reads what is pending and passes on what the terminal did not send to the task already: the task is in
  // the same foreground process group. SIGTSTP stops this process as well.
  void pass_on(int init_pidfd) const;
  // Signals other than SIGCHLD that were ignored when this began: the task ignores them, too (nohup, `&`).
  const sigset_t& ignored() const { return ignored_; }

 private:
  SignalScope() = default;
  sigset_t before_{};
  sigset_t passed_{};
  sigset_t ignored_{};
  UniqueFd fd_;
};

// Has the init deliver a signal to the task's main process. SIGKILL is one of them: the init then ends, and
// everything of the task with it.
void tell_init(int init_pidfd, int signal_number);
// The signal to deliver, where `info` is such an order.
std::optional<int> ordered_signal(const siginfo_t& info);

// In a new process: every signal blocked, every disposition the default.
void block_all_signals();
// Just before the task's program: nothing blocked, and nothing ignored but `ignored`.
void restore_signals(const sigset_t& ignored);

}  // namespace dvdi::launcher
