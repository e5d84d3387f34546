// For tests: a child process that waits until it is ended.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <functional>

#include "linux/process.h"

namespace dvdi::test {

class WaitingChild {
 public:
  // `work` is done in the child first; once this returns it is done, and ready() says whether it succeeded.
  explicit WaitingChild(const std::function<bool()>& work = [] { return true; }) {
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      const char answer = work() ? 'y' : 'n';
      static_cast<void>(!::write(pipe[1], &answer, 1));
      for (;;) ::pause();
    }
    ::close(pipe[1]);
    char answer = 'n';
    static_cast<void>(!::read(pipe[0], &answer, 1));
    ::close(pipe[0]);
    ready_ = answer == 'y';
  }
  ~WaitingChild() { end(); }
  WaitingChild(const WaitingChild&) = delete;
  WaitingChild& operator=(const WaitingChild&) = delete;

  bool ready() const { return ready_; }
  pid_t pid() const { return pid_; }
  ProcessIdentity identity() const {
    const auto found = identify_process(pid_);
    EXPECT_TRUE(found);
    return found ? *found : ProcessIdentity{};
  }
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  bool ready_ = false;
};

}  // namespace dvdi::test
