#include "worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <future>

namespace dvdi_mesos {
namespace {

TEST(WorkerPool, RunsSoManyAtOnceAndRefusesWhatIsBeyondTheQueue) {
  std::promise<void> go;
  const std::shared_future<void> gone = go.get_future().share();
  std::atomic<int> at_once{0};
  std::atomic<int> most{0};
  std::promise<void> both;
  WorkerPool pool(2, 3);
  const auto job = [&] {
    const int now = ++at_once;
    if (now > most) most = now;
    if (now == 2) both.set_value();
    gone.wait();
    --at_once;
  };
  ASSERT_TRUE(pool.run(job));
  ASSERT_TRUE(pool.run(job));
  both.get_future().wait();
  std::promise<void> last;
  EXPECT_TRUE(pool.run([&] { gone.wait(); }));
  EXPECT_TRUE(pool.run([&] { gone.wait(); }));
  EXPECT_TRUE(pool.run([&] { last.set_value(); }));
  EXPECT_FALSE(pool.run([] {}));
  go.set_value();
  last.get_future().wait();
  EXPECT_EQ(most, 2);
}

TEST(WorkerPool, ALaterJobDoesNotHoldUpOneThatIsDue) {
  WorkerPool pool(1, 1);
  std::promise<void> done;
  EXPECT_TRUE(pool.run_later([] { FAIL() << "an hour has not passed"; }, std::chrono::hours(1)));
  EXPECT_TRUE(pool.run([&] { done.set_value(); }));
  done.get_future().wait();
}

TEST(WorkerPool, LaterJobsRunInTheirOrder) {
  WorkerPool pool(1, 1);
  std::vector<int> order;
  std::promise<void> done;
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
  WorkerPool pool(1, 1);
  std::promise<bool> blocked;
  pool.run([&] {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    blocked.set_value(sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGUSR1) == 1);
  });
  EXPECT_TRUE(blocked.get_future().get());
}

}  // namespace
}  // namespace dvdi_mesos
