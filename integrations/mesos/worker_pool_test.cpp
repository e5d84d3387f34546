#include "worker_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <future>
#include <mutex>

namespace dvdi_mesos {
namespace {

TEST(WorkerPool, RunsSoManyAtOnceAndRefusesWhatIsBeyondTheQueue) {
  std::promise<void> go;
  const std::shared_future<void> gone = go.get_future().share();
  std::mutex mutex;
  int at_once = 0;
  int most = 0;
  std::promise<void> both;
  std::promise<void> last;
  WorkerPool pool(2, 3);  // last, here and below: its threads use what the test has
  const auto job = [&] {
    {
      const std::lock_guard lock(mutex);
      most = std::max(most, ++at_once);
      if (at_once == 2) both.set_value();
    }
    gone.wait();
    const std::lock_guard lock(mutex);
    --at_once;
  };
  ASSERT_TRUE(pool.run(job));
  ASSERT_TRUE(pool.run(job));
  both.get_future().wait();
  EXPECT_TRUE(pool.run([&] { gone.wait(); }));
  EXPECT_TRUE(pool.run([&] { gone.wait(); }));
  EXPECT_TRUE(pool.run([&] { last.set_value(); }));
  EXPECT_FALSE(pool.run([] {}));
  go.set_value();
  last.get_future().wait();
  const std::lock_guard lock(mutex);
  EXPECT_EQ(most, 2);
}

TEST(WorkerPool, ALaterJobDoesNotHoldUpOneThatIsDue) {
  std::promise<void> done;
  WorkerPool pool(1, 1);
  EXPECT_TRUE(pool.run_later([] { FAIL() << "an hour has not passed"; }, std::chrono::hours(1)));
  EXPECT_TRUE(pool.run([&] { done.set_value(); }));
  done.get_future().wait();
}

TEST(WorkerPool, LaterJobsRunInTheirOrder) {
  std::vector<int> order;
  std::promise<void> done;
  WorkerPool pool(1, 1);
  pool.run_later(
      [&] {
        order.push_back(2);
        done.set_value();
      },
      std::chrono::milliseconds(20));
  pool.run_later([&] { order.push_back(1); }, std::chrono::milliseconds(1));
  done.get_future().wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(WorkerPool, StopDropsWhatWaitsAndTakesNoMore) {
  WorkerPool pool(1, 1);
  const auto held = std::make_shared<int>(1);
  pool.run_later([held] { FAIL(); }, std::chrono::hours(1));
  EXPECT_EQ(held.use_count(), 2);
  pool.stop();
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_FALSE(pool.run([] {}));
  EXPECT_FALSE(pool.run_later([] {}, std::chrono::milliseconds(0)));
}

TEST(WorkerPool, ItsThreadsTakeNoSignals) {
  std::promise<bool> blocked;
  WorkerPool pool(1, 1);
  pool.run([&] {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    blocked.set_value(sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGUSR1) == 1);
  });
  EXPECT_TRUE(blocked.get_future().get());
}

}  // namespace
}  // namespace dvdi_mesos
