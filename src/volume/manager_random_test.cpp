// Random sequences of everything, with faults and kills (one seed, one thread: a failure replays), and many
// threads at the same time.
#include <fmt/format.h>
#include <stdlib.h>

#include <random>
#include <thread>

#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using ManagerRandom = ManagerTest;

TEST_F(ManagerRandom, EightThreadsOnThreeVolumes) {
  constexpr int threads = 8, rounds = 12;
  const std::vector<std::string> names = {"a", "b", "c"};
  std::vector<std::jthread> running;
  std::atomic<int> mounted = 0;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < rounds; ++i) {
        const std::string id = fmt::format("t{}-{}", t, i);
        std::vector<Request> requests;
        for (const auto& name : names) {
          if (random() % 2 == 0) requests.push_back(want(name));
        }
        const auto got = acquire(id, requests);
        ASSERT_TRUE(got) << got.error().text();
        for (const Mounted& one : *got) {
          EXPECT_TRUE(mounted_in_kernel(one.volume.name)) << "while " << id << " uses it";
          ++mounted;
        }
        if (random() % 4 == 0) static_cast<void>(manager->settle(context()));
        const auto owed = release(id);
        ASSERT_TRUE(owed) << owed.error().text();
        EXPECT_TRUE(owed->empty()) << owed->front().reason;
      }
    });
  }
  running.clear();
  EXPECT_GT(mounted, threads * rounds / 2);
  expect_nothing_left();
}

TEST_F(ManagerRandom, EightThreadsWithADriverThatFails) {
  const std::vector<std::string> names = {"a", "b", "c"};
  const auto any = [](std::mt19937& random) {
    return std::vector{Fault::refuse, Fault::refuse_after_effect, Fault::not_sent}[random() % 3];
  };
  std::mt19937 chooses(7);
  for (int i = 0; i < 30; ++i) {
    fake->fail(Operation::unmount, names[chooses() % 3], any(chooses));
    fake->fail(Operation::mount, names[chooses() % 3], Fault::refuse);
    for (int good = 0; good < 3; ++good) {
      fake->fail(Operation::mount, names[chooses() % 3], Fault::none);
      fake->fail(Operation::unmount, names[chooses() % 3], Fault::none);
    }
  }
  std::vector<std::jthread> running;
  for (int t = 0; t < 8; ++t) {
    running.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t + 100));
      for (int i = 0; i < 12; ++i) {
        const std::string id = fmt::format("t{}-{}", t, i);
        const auto got = acquire(id, {want(names[random() % 2]), want("c")});
        if (got) {
          for (const Mounted& one : *got) EXPECT_TRUE(mounted_in_kernel(one.volume.name)) << id;
        }
        ASSERT_TRUE(release(id));
        if (random() % 3 == 0) {
          clock.advance(std::chrono::seconds(3));
          static_cast<void>(manager->settle(context()));
        }
      }
    });
  }
  running.clear();
  expect_consistent();
  fake->behave();
  settle_all();
  expect_nothing_left();
}

// DVDI_TEST_SEED=N replays one sequence.
TEST_F(ManagerRandom, AnySequenceWithAnyFaultsEndsWithNothingLeft) {
  const char* given = ::getenv("DVDI_TEST_SEED");
  const unsigned first = given != nullptr ? static_cast<unsigned>(std::atoi(given)) : 1;
  const unsigned last = given != nullptr ? first : 60;
  const std::vector<std::string> names = {"a", "b", "c"};
  constexpr std::array faults = {Fault::refuse,        Fault::refuse,        Fault::time_out,
                                 Fault::time_out_late, Fault::time_out_done, Fault::not_sent};
  for (unsigned seed = first; seed <= last; ++seed) {
    SCOPED_TRACE(testing::Message() << "DVDI_TEST_SEED=" << seed);
    std::mt19937 random(seed);
    fake->manner = {.refuses_second_mount = random() % 2 == 0,
                    .counts_calls = false,
                    .plain_directories = false,
                    .unmounting_nothing_succeeds = random() % 2 == 0};
    std::map<std::string, std::vector<Request>> alive;  // prepared, as far as their engine lived to see
    int number = 0;
    for (int step = 0; step < 30; ++step) {
      // A driver works on one call of a volume after the other: what is late comes before the next one.
      fake->finish_late();
      if (random() % 3 == 0) {
        constexpr std::array operations = {Operation::mount, Operation::unmount, Operation::unmount,
                                           Operation::create};
        const Operation operation = operations[random() % operations.size()];
        fake->fail(operation, names[random() % 3], faults[random() % faults.size()]);
      }
      const bool one_volume = random() % 2 == 0;  // several are worked on by threads, which cannot be killed
      if (one_volume && random() % 8 == 0) kill.arm(1 + static_cast<unsigned>(random() % 12));
      std::string at_work;
      try {
        switch (random() % 6) {
          case 0:
          case 1: {
            at_work = fmt::format("s{}-{}", seed, ++number);
            std::vector<Request> requests = {want(names[random() % 3])};
            if (!one_volume && requests[0].volume.name != "c") requests.push_back(want("c"));
            if (const auto got = acquire(at_work, requests)) {
              alive[at_work] = requests;
              for (const Mounted& one : *got) {
                EXPECT_TRUE(mounted_in_kernel(one.volume.name)) << "at step " << step;
              }
            }
            break;
          }
          case 2:
          case 3:
            if (!alive.empty()) {
              kill.arm(0);  // it may have several volumes
              at_work = alive.begin()->first;
              alive.erase(alive.begin());
              EXPECT_TRUE(release(at_work));
            }
            break;
          case 4:
            kill.arm(0);  // settles with threads
            clock.advance(std::chrono::seconds(random() % 30));
            static_cast<void>(manager->settle(context()));
            break;
          default:
            break;
        }
      } catch (const Killed&) {
        bury(at_work);
        alive.erase(at_work);
        kill.arm(0);
        restart();
        static_cast<void>(recover());
      }
      kill.arm(0);
      for (const auto& [id, requests] : alive) {
        for (const Request& one : requests) {
          EXPECT_TRUE(mounted_in_kernel(one.volume.name))
              << one.volume.name << " of " << id << " at " << step;
        }
      }
      if (HasFailure()) return;
    }
    fake->finish_late();
    fake->behave();
    for (const auto& [id, requests] : alive) EXPECT_TRUE(release(id));
    settle_all();
    expect_nothing_left();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace dvdi::volume
