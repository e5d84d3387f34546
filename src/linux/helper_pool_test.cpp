#include "linux/helper_pool.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <filesystem>
#include <thread>

#include "linux/helper_wire.h"
#include "linux/mount_table.h"
#include "linux/wait.h"

namespace dvdi {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

Result<std::string> echo(std::string_view request) { return std::string(request); }
Result<std::string> own_pid(std::string_view) { return std::to_string(::getpid()); }
Result<std::string> forever(std::string_view) {
  for (;;) ::pause();
}
Result<std::string> refuse(std::string_view request) {
  return Error{.code = Code::failed_precondition,
               .message = std::string(request),
               .driver = "d",
               .volume = "v",
               .operation = "unmount",
               .attempt = 3,
               .hint = "h",
               .outcome = Outcome::refused,
               .attached = {Error{.code = Code::io, .message = "inner"}}};
}
Result<std::string> too_much(std::string_view) { return std::string(helper::message_limit + 1, 'x'); }
Result<std::string> throws(std::string_view) { throw std::runtime_error("bang"); }
Result<std::string> dies(std::string_view) { ::_exit(1); }

pid_t to_pid(const std::string& text) {
  pid_t pid = 0;
  std::from_chars(text.data(), text.data() + text.size(), pid);
  return pid;
}

// Waits for the end of any process; false if it is still there after 20 s.
bool ends(pid_t pid) {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return errno == ESRCH;
  pollfd one{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
  return wait_ready(Context().with_timeout(std::chrono::seconds(20)), {&one, 1}, "the end").has_value();
}

std::unique_ptr<HelperPool> pool(HelperPool::Limits limits = {}) {
  auto started = HelperPool::start(limits);
  EXPECT_TRUE(started);
  return started ? *std::move(started) : nullptr;
}

TEST(HelperPool, RunsAFunctionInAnotherProcess) {
  const auto helpers = pool();
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "hello").value(), "hello");
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "").value(), "");
  EXPECT_NE(helpers->run(Context(), "pid", own_pid, "").value(), std::to_string(::getpid()));
  EXPECT_EQ(helpers->stuck(), 0U);
}

TEST(HelperPool, AHelperIsUsedAgain) {
  const auto helpers = pool();
  const std::string first = helpers->run(Context(), "pid", own_pid, "").value();
  EXPECT_EQ(helpers->run(Context(), "pid", own_pid, "").value(), first);
}

TEST(HelperPool, CarriesAnErrorWhole) {
  const auto helpers = pool();
  const auto result = helpers->run(Context(), "refuse", refuse, "why");
  ASSERT_FALSE(result);
  const Error& error = result.error();
  EXPECT_EQ(error.code, Code::failed_precondition);
  EXPECT_EQ(error.outcome, Outcome::refused);
  EXPECT_EQ(error.text(), refuse("why").error().text());
}

TEST(HelperPool, LimitsBothDirections) {
  const auto helpers = pool();
  const std::string most(helper::message_limit, 'a');
  EXPECT_EQ(helpers
                ->run(
                    Context(), "refuse",
                    [](std::string_view r) -> Result<std::string> { return std::to_string(r.size()); }, most)
                .value(),
            std::to_string(most.size()));
  const auto larger = helpers->run(Context(), "echo", echo, most + "a");
  EXPECT_EQ(larger.error().code, Code::resource_exhausted);
  EXPECT_EQ(larger.error().outcome, Outcome::not_sent);
  const auto answer = helpers->run(Context(), "answer", too_much, "");
  EXPECT_EQ(answer.error().code, Code::resource_exhausted);
  EXPECT_EQ(answer.error().outcome, Outcome::unknown);
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "still").value(), "still");
}

TEST(HelperPool, AnExceptionIsAnError) {
  const auto helpers = pool();
  const auto result = helpers->run(Context(), "throws", throws, "");
  EXPECT_EQ(result.error().code, Code::internal);
  EXPECT_THAT(result.error().message, HasSubstr("bang"));
}

TEST(HelperPool, AHelperThatDiesLeavesAnUnknownOutcomeAndTheNextCallWorks) {
  const auto helpers = pool();
  const auto result = helpers->run(Context(), "dies", dies, "");
  EXPECT_EQ(result.error().code, Code::internal);
  EXPECT_EQ(result.error().outcome, Outcome::unknown);
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "next").value(), "next");
}

TEST(HelperPool, AnIdleHelperThatWasKilledIsReplaced) {
  const auto helpers = pool();
  const pid_t idle = to_pid(helpers->run(Context(), "pid", own_pid, "").value());
  ::kill(idle, SIGKILL);
  ASSERT_TRUE(ends(idle));
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "next").value(), "next");
}

TEST(HelperPool, TheDeadlineEndsACallAndItsHelper) {
  const auto helpers = pool({.idle = 1, .running = 1});
  const auto result =
      helpers->run(Context().with_timeout(std::chrono::milliseconds(30)), "wait for ever", forever, "");
  EXPECT_EQ(result.error().code, Code::deadline_exceeded);
  EXPECT_EQ(result.error().outcome, Outcome::unknown);
  EXPECT_THAT(result.error().message, HasSubstr("wait for ever"));
  // The only place is free again once the killed helper has gone.
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "next").value(), "next");
  EXPECT_EQ(helpers->stuck(), 0U);
}

TEST(HelperPool, ACancellationEndsACallAtOnce) {
  const auto helpers = pool();
  ASSERT_TRUE(helpers->run(Context(), "echo", echo, ""));
  std::stop_source source;
  std::jthread canceller([&] { source.request_stop(); });
  const auto result = helpers->run(Context().with_stop(source.get_token()), "wait", forever, "");
  EXPECT_EQ(result.error().code, Code::cancelled);
}

TEST(HelperPool, WhatNeverBeganSaysSo) {
  const auto helpers = pool({.idle = 1, .running = 1});
  EXPECT_EQ(helpers->run(Context().with_timeout(Duration::zero()), "late", echo, "").error().outcome,
            Outcome::not_sent);
  std::stop_source source;
  std::jthread occupant(
      [&] { (void)helpers->run(Context().with_stop(source.get_token()), "occupy", forever, ""); });
  // Once the only place is taken, no other call gets in before its deadline.
  for (;;) {
    const auto second =
        helpers->run(Context().with_timeout(std::chrono::milliseconds(20)), "second", echo, "x");
    if (second) continue;
    EXPECT_EQ(second.error().code, Code::deadline_exceeded);
    EXPECT_EQ(second.error().outcome, Outcome::not_sent);
    break;
  }
  source.request_stop();
}

TEST(HelperPool, ManyThreadsAtOnce) {
  const auto helpers = pool({.idle = 2, .running = 4});
  std::vector<std::jthread> threads;
  std::array<std::atomic<int>, 1> wrong{};
  for (int thread = 0; thread < 12; ++thread) {
    threads.emplace_back([&, thread] {
      for (int call = 0; call < 20; ++call) {
        const std::string text = std::to_string(thread * 1000 + call);
        if (call % 7 == 3) {
          (void)helpers->run(Context().with_timeout(std::chrono::milliseconds(1)), "wait", forever, "");
        }
        const auto result = helpers->run(Context(), "echo", echo, text);
        if (!result || *result != text) ++wrong[0];
      }
    });
  }
  threads.clear();
  EXPECT_EQ(wrong[0], 0);
}

TEST(HelperPool, HelpersHaveNoDescriptorOfTheProgramAndIgnoreSignalsOfTheTerminal) {
  const UniqueFd inherited(::open("/etc/passwd", O_RDONLY));  // on purpose without O_CLOEXEC
  const auto helpers = pool();
  const auto files = helpers->run(
      Context(), "descriptors",
      [](std::string_view) -> Result<std::string> {
        std::string all;
        for (const auto& one : std::filesystem::directory_iterator("/proc/self/fd")) {
          std::error_code gone;
          all += std::filesystem::read_symlink(one.path(), gone).string() + "\n";
        }
        return all;
      },
      "");
  EXPECT_THAT(files.value(), Not(HasSubstr("passwd")));
  EXPECT_THAT(files.value(), Not(HasSubstr("pidfd")));
  EXPECT_THAT(files.value(), HasSubstr("/dev/null"));
  const auto survived = helpers->run(
      Context(), "signals",
      [](std::string_view) -> Result<std::string> {
        for (const int one : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::raise(one);
        return std::to_string(::getsid(0));
      },
      "");
  ASSERT_TRUE(survived) << survived.error().text();
  EXPECT_NE(*survived, std::to_string(::getsid(0)));
}

TEST(HelperPool, TheDestructorEndsAllHelpers) {
  auto helpers = pool();
  const pid_t idle = to_pid(helpers->run(Context(), "pid", own_pid, "").value());
  helpers.reset();
  EXPECT_TRUE(ends(idle));
}

TEST(HelperPool, WithoutTheAncestorCallsFailAndSaySo) {
  const auto helpers = pool({.idle = 0, .running = 8});
  const pid_t ancestor =
      to_pid(helpers
                 ->run(
                     Context(), "parent",
                     [](std::string_view) -> Result<std::string> { return std::to_string(::getppid()); }, "")
                 .value());
  ::kill(ancestor, SIGKILL);
  ASSERT_TRUE(ends(ancestor));
  const auto result = helpers->run(Context(), "echo", echo, "");
  EXPECT_EQ(result.error().code, Code::unavailable);
  EXPECT_EQ(result.error().outcome, Outcome::not_sent);
}

TEST(HelperPool, AKilledProgramLeavesNoHelperBehind) {
  std::array<int, 2> ends_of_pipe{};
  ASSERT_EQ(::pipe2(ends_of_pipe.data(), O_CLOEXEC), 0);
  const pid_t program = ::fork();
  if (program == 0) {
    auto started = HelperPool::start();
    if (!started) ::_exit(1);
    const auto idle = (*started)->run(Context(), "pid", own_pid, "");
    const auto ancestor = (*started)->run(
        Context(), "parent",
        [](std::string_view) -> Result<std::string> { return std::to_string(::getppid()); }, "");
    std::jthread busy([&] {
      // Busy, not idle, when the program is killed. It writes before it waits.
      (void)(*started)->run(Context(), "busy", forever, "");
    });
    const std::string text = idle.value_or("0") + " " + ancestor.value_or("0") + "\n";
    [[maybe_unused]] const ssize_t put = ::write(ends_of_pipe[1], text.data(), text.size());
    for (;;) ::pause();
  }
  ::close(ends_of_pipe[1]);
  std::string text;
  for (char c = 0; ::read(ends_of_pipe[0], &c, 1) == 1 && c != '\n';) text += c;
  ::close(ends_of_pipe[0]);
  const pid_t helper = to_pid(text);
  const pid_t ancestor = to_pid(text.substr(text.find(' ') + 1));
  ASSERT_GT(helper, 1);
  ASSERT_GT(ancestor, 1);
  EXPECT_EQ(::kill(helper, 0), 0);
  ::kill(program, SIGKILL);
  ::waitpid(program, nullptr, 0);
  EXPECT_TRUE(ends(ancestor));
  EXPECT_TRUE(ends(helper));
}

TEST(HelperWire, RefusesWhatItDidNotWrite) {
  for (const std::string& bytes :
       {std::string(), std::string("x"), std::string(8, '\1'), std::string(100, '\0'),
        helper::encode(std::string("a")) + "b", helper::encode(refuse("a")) + "b"}) {
    if (bytes == std::string(100, '\0')) continue;
    EXPECT_EQ(helper::decode(bytes).error().code, Code::internal);
  }
  const std::string good = helper::encode(refuse("a"));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(helper::decode(std::string_view(good).substr(0, size)).error().code, Code::internal);
  }
}

}  // namespace
}  // namespace dvdi
