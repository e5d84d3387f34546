#include "linux/file_lock.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/text.h"

namespace dvdi {
namespace {

using std::chrono::milliseconds;

class KeyedLocksTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/dvdi-locks-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    ours_ = open();
    theirs_ = open();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<KeyedLocks> open() const {
    auto opened = KeyedLocks::open(folder_ + "/locks");
    EXPECT_TRUE(opened) << opened.error().text();
    return opened ? *std::move(opened) : nullptr;
  }

  std::string folder_;
  // To the kernel the second is another process's: an open file description of its own.
  std::unique_ptr<KeyedLocks> ours_, theirs_;
};

// How often a thread of this process went to sleep.
long sleeps_of(pid_t thread) {
  std::ifstream status("/proc/self/task/" + std::to_string(thread) + "/status");
  for (std::string line; std::getline(status, line);) {
    constexpr std::string_view name = "voluntary_ctxt_switches:";
    if (line.starts_with(name))
      return parse_number<long>(trim(std::string_view(line).substr(name.size()))).value();
  }
  return -1;
}

char state_of(pid_t thread) {
  std::ifstream stat("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string text;
  std::getline(stat, text);
  return text.at(text.rfind(')') + 2);
}

TEST_F(KeyedLocksTest, OneHolderAKeyAndKeysApart) {
  const auto held = ours_->acquire(Context(), "a", "test");
  ASSERT_TRUE(held);
  const auto again = ours_->try_acquire("a");
  ASSERT_TRUE(again);
  EXPECT_FALSE(*again);
  const auto other_process = theirs_->try_acquire("a");
  ASSERT_TRUE(other_process);
  EXPECT_FALSE(*other_process);
  EXPECT_TRUE(ours_->acquire(Context(), "b", "test"));
  const auto late = ours_->acquire(Context().with_timeout(milliseconds(1)), "a", "test");
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::deadline_exceeded);
}

TEST_F(KeyedLocksTest, OfThisProcessTheyKeepItsThreadsApartOnly) {
  const auto locks = KeyedLocks::of_this_process();
  {
    const auto held = locks->acquire(Context(), "a", "test");
    ASSERT_TRUE(held);
    EXPECT_FALSE(locks->try_acquire("a").value());
    EXPECT_TRUE(locks->try_acquire("b").value());
    EXPECT_TRUE(ours_->try_acquire("a").value());
    EXPECT_TRUE(KeyedLocks::of_this_process()->try_acquire("a").value());
    EXPECT_EQ(locks->acquire(Context().with_timeout(milliseconds(1)), "a", "test").error().code,
              Code::deadline_exceeded);
  }
  EXPECT_TRUE(locks->try_acquire("a").value());
}

TEST_F(KeyedLocksTest, WhoWaitsForOneKeyIsNotWokenForAnother) {
  std::optional<KeyedLocks::Held> held;
  held.emplace(*ours_->acquire(Context(), "a", "test"));
  std::atomic<pid_t> waiter = 0;
  std::jthread thread([&] {
    waiter = ::gettid();
    EXPECT_TRUE(ours_->acquire(Context(), "a", "test"));
  });
  while (waiter == 0) std::this_thread::yield();
  while (state_of(waiter) != 'S') std::this_thread::yield();
  const long before = sleeps_of(waiter);
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(ours_->acquire(Context(), "b", "test"));
  EXPECT_EQ(sleeps_of(waiter), before);
  held.reset();
}

// One is woken, finds that another process was faster, and gives up: the next one must not sleep on.
TEST_F(KeyedLocksTest, WhoIsWokenForNothingWakesTheNext) {
  for (int faster = 0; faster < 5;) {
    std::optional<KeyedLocks::Held> held;
    held.emplace(*ours_->acquire(Context(), "a", "test"));
    const auto wait = [&](std::atomic<pid_t>& id, const Context& context) {
      id = ::gettid();
      static_cast<void>(ours_->acquire(context, "a", "test"));
    };
    std::atomic<pid_t> first_id = 0, second_id = 0;
    std::jthread first([&] { wait(first_id, Context().with_timeout(milliseconds(100))); });
    while (first_id == 0 || state_of(first_id) != 'S') std::this_thread::yield();
    std::jthread second([&] { wait(second_id, Context()); });
    while (second_id == 0 || state_of(second_id) != 'S') std::this_thread::yield();
    held.reset();
    const auto theirs = theirs_->try_acquire("a");
    ASSERT_TRUE(theirs);
    if (*theirs) ++faster;
    first.join();  // its time is over
  }
}

// Of many waiters one is woken at a time, some give up, and those of another process come in between: none is
// forgotten.
TEST_F(KeyedLocksTest, NoWaiterIsForgotten) {
  constexpr unsigned threads = 8, rounds = 100;
  std::atomic<unsigned> inside = 0, done = 0;
  {
    std::vector<std::jthread> all;
    for (unsigned i = 0; i < 2 * threads; ++i) {
      all.emplace_back([&, i] {
        KeyedLocks& locks = i < threads ? *ours_ : *theirs_;
        for (unsigned round = 0; round < rounds; ++round) {
          const bool patient = (round + i) % 3 != 0;
          const auto held = locks.acquire(
              patient ? Context() : Context().with_timeout(std::chrono::microseconds(100)), "a", "test");
          EXPECT_TRUE(held || !patient);
          if (!held) continue;
          EXPECT_EQ(++inside, 1U);
          ++done;
          std::this_thread::yield();
          --inside;
        }
      });
    }
  }
  EXPECT_GE(done, threads * rounds);
  EXPECT_TRUE(ours_->try_acquire("a").value());
}

}  // namespace
}  // namespace dvdi
