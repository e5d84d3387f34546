#include "linux/process_watch.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "linux/sleeper.h"
#include "linux/waiting_child_test.h"

namespace dvdi {
namespace {

using test::WaitingChild;

bool readable(int fd) {
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&one, 1, 0) == 1;
}

ProcessIdentity identity(pid_t pid) {
  const auto found = identify_process(pid);
  EXPECT_TRUE(found);
  return found ? *found : ProcessIdentity{};
}

bool runs(ProcessWatch& watch, const ProcessIdentity& process) {
  const auto answer = watch.runs(process);
  EXPECT_TRUE(answer) << answer.error().text();
  return answer && *answer;
}

TEST(ProcessWatch, TheEndOfAProcessIsReadable) {
  auto watch = ProcessWatch::open();
  ASSERT_TRUE(watch);
  WaitingChild one;
  WaitingChild two;
  const ProcessIdentity first = identity(one.pid());
  const ProcessIdentity second = identity(two.pid());
  EXPECT_TRUE(runs(*watch, first));
  EXPECT_TRUE(runs(*watch, second));
  EXPECT_EQ(watch->size(), 2U);
  EXPECT_FALSE(readable(watch->fd()));
  one.end();
  EXPECT_TRUE(readable(watch->fd()));
  EXPECT_TRUE(runs(*watch, second));
  EXPECT_FALSE(runs(*watch, first));
  EXPECT_FALSE(readable(watch->fd()));
  EXPECT_FALSE(runs(*watch, first)) << "and it stays so";
  EXPECT_EQ(watch->size(), 1U);
}

TEST(ProcessWatch, ANumberThatIsUsedAgainIsAnotherProcess) {
  auto watch = ProcessWatch::open();
  ASSERT_TRUE(watch);
  const WaitingChild child;
  ProcessIdentity earlier = identity(child.pid());
  earlier.start_ticks -= 1;
  EXPECT_FALSE(runs(*watch, earlier));
  EXPECT_EQ(watch->size(), 0U);
}

TEST(ProcessWatch, WhatIsNotAskedForIsDropped) {
  auto watch = ProcessWatch::open();
  ASSERT_TRUE(watch);
  WaitingChild child;
  const ProcessIdentity it = identity(child.pid());
  EXPECT_TRUE(runs(*watch, it));
  watch->drop_others();
  EXPECT_EQ(watch->size(), 1U);
  watch->drop_others();
  EXPECT_EQ(watch->size(), 0U);
  child.end();
  EXPECT_FALSE(readable(watch->fd()));
}

TEST(Sleeper, EachCauseEndsTheSleepAndIsTold) {
  auto sleeper = Sleeper::open();
  ASSERT_TRUE(sleeper);
  const Clock& clock = system_clock();
  sleeper->wake();
  sleeper->wake();
  auto woken = sleeper->sleep(clock, std::nullopt, {});
  ASSERT_TRUE(woken);
  EXPECT_TRUE(woken->by_call);
  EXPECT_FALSE(woken->by_mounts);
  // Both calls are taken: only the time ends it.
  woken = sleeper->sleep(clock, clock.boot() + std::chrono::milliseconds(1), {});
  ASSERT_TRUE(woken);
  EXPECT_FALSE(woken->by_call);
  EXPECT_FALSE(woken->by_descriptor);
  // A time that has passed.
  ASSERT_TRUE(sleeper->sleep(clock, clock.boot() - std::chrono::hours(1), {}));

  WaitingChild child;
  auto watch = ProcessWatch::open();
  ASSERT_TRUE(watch);
  ASSERT_TRUE(runs(*watch, identity(child.pid())));
  std::jthread later([&] { child.end(); });
  woken = sleeper->sleep(clock, std::nullopt, {.descriptor = watch->fd()});
  ASSERT_TRUE(woken);
  EXPECT_TRUE(woken->by_descriptor);
}

TEST(Sleeper, AChangeOfTheMountTableEndsTheSleep) {
  if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
  // The namespace is this thread's own; /proc/self is the whole process's, so another process sleeps.
  const pid_t pid = ::fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    if (::unshare(CLONE_NEWNS) != 0) ::_exit(3);
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) ::_exit(4);
    auto sleeper = Sleeper::open();
    if (!sleeper) ::_exit(5);
    if (::mount("test", "/mnt", "tmpfs", 0, nullptr) != 0) ::_exit(6);
    const auto first = sleeper->sleep(system_clock(), std::nullopt, {});
    if (!first || !first->by_mounts) ::_exit(7);
    // Once for a change.
    const auto second = sleeper->sleep(system_clock(), system_clock().boot(), {});
    if (!second || second->by_mounts) ::_exit(8);
    if (::umount2("/mnt", 0) != 0) ::_exit(9);
    const auto not_asked = sleeper->sleep(system_clock(), system_clock().boot(), {.mounts = false});
    if (!not_asked || not_asked->by_mounts) ::_exit(11);
    const auto third = sleeper->sleep(system_clock(), std::nullopt, {});
    ::_exit(third && third->by_mounts ? 0 : 10);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace dvdi
