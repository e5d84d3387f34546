#include "linux/process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <thread>

#include "base/text.h"

namespace dvdi {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

// A child that waits until the destructor kills it.
class Waiting {
 public:
  Waiting() : pid_(::fork()) {
    if (pid_ == 0) {
      for (;;) ::pause();
    }
  }
  ~Waiting() {
    if (pid_ > 0) reap();
  }
  pid_t pid() const { return pid_; }
  void become_zombie() const {
    ::kill(pid_, SIGKILL);
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
  }
  void reap() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_;
};

TEST(Process, BootIdIsAUuid) {
  const auto boot = boot_id();
  ASSERT_TRUE(boot);
  EXPECT_EQ(boot->size(), 36U);
}

TEST(Process, OneThatRunsIsFoundAndOneThatEndedIsNot) {
  Waiting child;
  const auto identity = identify_process(child.pid());
  ASSERT_TRUE(identity);
  EXPECT_GT(identity->start_ticks, 0U);
  EXPECT_TRUE(process_runs(*identity).value());
  child.become_zombie();
  EXPECT_FALSE(process_runs(*identity).value());
  EXPECT_EQ(identify_process(child.pid()).error().code, Code::not_found);
  child.reap();
  EXPECT_FALSE(process_runs(*identity).value());
  EXPECT_EQ(identify_process(identity->pid).error().code, Code::not_found);
}

TEST(Process, TheSameNumberAtAnotherTimeOrBootIsAnotherProcess) {
  auto identity = identify_process(::getpid());
  ASSERT_TRUE(identity);
  EXPECT_TRUE(process_runs(*identity).value());
  ProcessIdentity earlier = *identity;
  earlier.start_ticks -= 1;
  EXPECT_FALSE(process_runs(earlier).value());
  ProcessIdentity other_boot = *identity;
  other_boot.boot_id = "00000000-0000-0000-0000-000000000000";
  EXPECT_FALSE(process_runs(other_boot).value());
  EXPECT_EQ(
      process_runs(ProcessIdentity{.pid = 0, .start_ticks = 1, .boot_id = identity->boot_id}).error().code,
      Code::invalid_argument);
}

TEST(Process, AProgramNameWithParenthesesDoesNotMislead) {
  std::array<char, 17> name{") Z 1 (x) Z 2 3"};
  std::array<char, 17> before{};
  const int fd = ::open("/proc/self/comm", O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  const ssize_t size = ::read(fd, before.data(), before.size() - 1);
  const auto identity = identify_process(::getpid());
  ASSERT_GT(::write(fd, name.data(), 15), 0);
  const auto renamed = identify_process(::getpid());
  ASSERT_GT(::write(fd, before.data(), static_cast<std::size_t>(size)), 0);
  ::close(fd);
  ASSERT_TRUE(identity);
  ASSERT_TRUE(renamed);
  EXPECT_EQ(*identity, *renamed);
}

TEST(RunProgram, GivesExitCodeAndOutputOfBothStreams) {
  const auto result = run_program(Context(), {"sh", "-c", "echo out; echo err >&2; exit 3"});
  ASSERT_TRUE(result) << result.error().text();
  EXPECT_EQ(result->exit_code, 3);
  EXPECT_EQ(result->output, "out\nerr\n");
}

TEST(RunProgram, ASignalIs128More) {
  EXPECT_EQ(run_program(Context(), {"sh", "-c", "kill -TERM $$"})->exit_code, 128 + SIGTERM);
}

TEST(RunProgram, OutputIsBoundedAndTheProgramEndsAllTheSame) {
  const auto result = run_program(Context(), {"head", "-c", "1000000", "/dev/zero"});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->exit_code, 0);
  EXPECT_EQ(result->output.size(), 65536U);
}

TEST(RunProgram, FixedEnvironmentNoInputNoDescriptors) {
  ::setenv("DVDI_TEST_SECRET", "1", 1);
  const int inherited = ::open("/dev/null", O_RDONLY);  // on purpose without O_CLOEXEC
  const auto result = run_program(Context(), {"sh", "-c", "env; cat; ls /proc/self/fd | tr '\\n' ' '"});
  ::close(inherited);
  ::unsetenv("DVDI_TEST_SECRET");
  ASSERT_TRUE(result);
  EXPECT_THAT(result->output, Not(HasSubstr("DVDI_TEST_SECRET")));
  EXPECT_THAT(result->output, EndsWith("\n0 1 2 3 "));  // 3 is ls's own, for the folder
}

TEST(RunProgram, AProgramThatIsNotThereIsNamed) {
  const auto result = run_program(Context(), {"dvdi-no-such-program"});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::not_found);
  EXPECT_THAT(result.error().message, HasSubstr("dvdi-no-such-program"));
  EXPECT_EQ(run_program(Context(), {"../bin/sh"}).error().code, Code::not_found);
  EXPECT_EQ(run_program(Context(), {}).error().code, Code::internal);
}

TEST(RunProgram, IsKilledWithItsChildrenAtTheDeadline) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  // The grandchild opens the write end by its path in /proc: end of file on ours shows that it is gone.
  const std::string path = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(ends[1]);
  const auto result =
      run_program(Context().with_timeout(std::chrono::milliseconds(300)),
                  {"sh", "-c", "(exec sleep 1000) >" + path + " & echo x >" + path + "; wait"});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::deadline_exceeded);
  EXPECT_EQ(result.error().outcome, Outcome::unknown);
  ::close(ends[1]);
  std::string got;
  for (char c = 0; ::read(ends[0], &c, 1) == 1;) got += c;
  ::close(ends[0]);
  EXPECT_EQ(got, "x\n");
}

TEST(RunProgram, ACancellationEndsItAtOnce) {
  std::stop_source source;
  std::jthread canceller([&] { source.request_stop(); });
  EXPECT_EQ(run_program(Context().with_stop(source.get_token()), {"sleep", "1000"}).error().code,
            Code::cancelled);
}

TEST(RunProgram, AChildThatIsLeftRunningDoesNotHoldItsEndUp) {
  const auto result = run_program(Context(), {"sh", "-c", "sleep 1000 & echo $!"});
  ASSERT_TRUE(result);
  pid_t left = 0;
  const std::string_view number = trim(result->output);
  std::from_chars(number.data(), number.data() + number.size(), left);
  ASSERT_GT(left, 1);
  EXPECT_EQ(::kill(left, SIGKILL), 0);
}

}  // namespace
}  // namespace dvdi
