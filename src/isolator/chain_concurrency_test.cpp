#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <thread>

#include "isolator/chain.h"
#include "isolator/test_support.h"

namespace dvdi::isolator {
namespace {

using test::broken;
using test::ChainWorld;
using test::Script;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

// Counts how often it is asked. A call with a deadline asks three times before it begins to wait for another
// call.
class ProbeClock final : public Clock {
 public:
  BootTime boot() const override {
    ++asked_;
    asked_.notify_all();
    return system_clock().boot();
  }
  WallTime wall() const override { return system_clock().wall(); }
  void wait_until_asked(int times) const {
    for (int now = asked_.load(); now < times; now = asked_.load()) asked_.wait(now);
  }
  void forget() { asked_ = 0; }

 private:
  mutable std::atomic<int> asked_ = 0;
};

struct ChainConcurrency : testing::Test, ChainWorld {
  static constexpr auto long_enough = std::chrono::minutes(5);
  std::latch inside{1};
  std::latch go_on{1};

  // Stays in prepare until the test lets it go on.
  Script blocking() {
    return {.prepare = [this](const Context&, Preparation& preparation) -> Status {
      inside.count_down();
      go_on.wait();
      books.put(preparation.key, ContainerState::prepared, preparation.digest);
      preparation.launch.set_sandbox("the first call's");
      return {};
    }};
  }
  // Stays in prepare until its context ends.
  Script waiting() {
    return {.prepare = [this](const Context& inner, Preparation&) -> Status {
      inside.count_down();
      return pause(inner, long_enough, "mounting");
    }};
  }
};

TEST_F(ChainConcurrency, TheSamePrepareTwiceAtOnceIsOneEffectAndOneAnswer) {
  const auto one = chain({"one", blocking()});
  Result<v1::ContainerLaunchInfo> first;
  Result<v1::ContainerLaunchInfo> second;
  std::jthread runs([&] { first = prepare(*one); });
  inside.wait();
  ProbeClock clock;
  const Context patient = Context(clock).with_timeout(long_enough);
  clock.forget();
  std::jthread waits([&] { second = one->prepare(patient, key, request, folder.text(), true); });
  clock.wait_until_asked(3);
  go_on.count_down();
  runs.join();
  waits.join();
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->SerializeAsString(), first->SerializeAsString());
  EXPECT_THAT(log.lines(), ElementsAre("prepare one"));
}

TEST_F(ChainConcurrency, AWaitingRepetitionGetsTheFailureToo) {
  Script script = blocking();
  script.prepare = [this](const Context&, Preparation&) -> Status {
    inside.count_down();
    go_on.wait();
    return broken("the driver said no");
  };
  const auto one = chain({"one", script});
  Result<v1::ContainerLaunchInfo> first;
  Result<v1::ContainerLaunchInfo> second;
  std::jthread runs([&] { first = prepare(*one); });
  inside.wait();
  ProbeClock clock;
  const Context patient = Context(clock).with_timeout(long_enough);
  clock.forget();
  std::jthread waits([&] { second = one->prepare(patient, key, request, folder.text(), true); });
  clock.wait_until_asked(3);
  go_on.count_down();
  runs.join();
  waits.join();
  ASSERT_FALSE(first);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message, "the driver said no");
  EXPECT_THAT(log.lines(), ElementsAre("prepare one", "cleanup one"));
}

TEST_F(ChainConcurrency, AnotherRequestMeanwhileIsAConflictAtOnce) {
  const auto one = chain({"one", blocking()});
  std::jthread runs([&] { EXPECT_TRUE(prepare(*one)); });
  inside.wait();
  v1::ContainerRequest other;
  other.mutable_command()->set_user("nobody");
  const auto refused = one->prepare(context, key, other, folder.text(), true);
  go_on.count_down();
  runs.join();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::conflict);
  EXPECT_THAT(log.lines(), ElementsAre("prepare one"));
}

TEST_F(ChainConcurrency, ARepetitionTriesAfreshWhenTheFirstCallerGaveUp) {
  std::atomic<int> calls = 0;
  const auto one = chain({"one", {.prepare = [&](const Context& inner, Preparation&) -> Status {
                            if (++calls > 1) return {};
                            inside.count_down();
                            return pause(inner, long_enough, "mounting");
                          }}});
  std::stop_source stop;
  Result<v1::ContainerLaunchInfo> first;
  Result<v1::ContainerLaunchInfo> second;
  std::jthread runs(
      [&] { first = one->prepare(context.with_stop(stop.get_token()), key, request, folder.text(), true); });
  inside.wait();
  ProbeClock clock;
  const Context patient = Context(clock).with_timeout(long_enough);
  clock.forget();
  std::jthread waits([&] { second = one->prepare(patient, key, request, folder.text(), true); });
  clock.wait_until_asked(3);
  stop.request_stop();
  runs.join();
  waits.join();
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().code, Code::cancelled);
  EXPECT_TRUE(second);
  EXPECT_THAT(log.lines(), ElementsAre("prepare one", "cleanup one", "prepare one"));
}

TEST_F(ChainConcurrency, CleanupDuringPrepareCancelsItWaitsAndCleansUp) {
  const auto one = chain({"one", waiting()});
  Result<v1::ContainerLaunchInfo> prepared;
  std::jthread runs([&] { prepared = prepare(*one); });
  inside.wait();
  const auto owed = one->cleanup(context, key);
  runs.join();
  EXPECT_TRUE(owed);
  ASSERT_FALSE(prepared);
  EXPECT_EQ(prepared.error().code, Code::cancelled);
  EXPECT_THAT(log.lines(), ElementsAre("prepare one", "cleanup one", "cleanup one"));
}

TEST_F(ChainConcurrency, APrepareThatDidNotSeeTheCancellationIsRolledBackAllTheSame) {
  const auto one = chain({"one", {.prepare = [this](const Context& inner, Preparation&) -> Status {
                            inside.count_down();
                            // Until cleanup came; and then it finishes its work as if nothing was.
                            static_cast<void>(pause(inner, long_enough, "mounting"));
                            return {};
                          }}});
  Result<v1::ContainerLaunchInfo> prepared;
  std::jthread runs([&] { prepared = prepare(*one); });
  inside.wait();
  EXPECT_TRUE(one->cleanup(context, key));
  runs.join();
  ASSERT_FALSE(prepared);
  EXPECT_EQ(prepared.error().code, Code::cancelled);
  EXPECT_THAT(log.lines(), ElementsAre("prepare one", "cleanup one", "cleanup one"));
}

TEST_F(ChainConcurrency, CleanupOfAPrepareThatHangsEndsAtItsOwnDeadline) {
  const auto one = chain({"one", blocking()});
  std::jthread runs([&] { static_cast<void>(prepare(*one)); });
  inside.wait();
  const auto owed = one->cleanup(context.with_timeout(std::chrono::milliseconds(20)), key);
  ASSERT_FALSE(owed);
  EXPECT_EQ(owed.error().code, Code::deadline_exceeded);
  go_on.count_down();
  runs.join();
  EXPECT_TRUE(one->cleanup(context, key));
}

TEST_F(ChainConcurrency, TwoCleanupsAtOnceAreOneEffectAndOneAnswer) {
  const auto one = chain(
      {"one", {.cleanup = [this](const Context&, const std::vector<Failure>&) -> Result<std::vector<Owed>> {
         inside.count_down();
         go_on.wait();
         return std::vector<Owed>{{.driver = "d", .volume = "v", .reason = "busy"}};
       }}});
  Result<std::vector<Owed>> first;
  Result<std::vector<Owed>> second;
  std::jthread runs([&] { first = one->cleanup(context, key); });
  inside.wait();
  ProbeClock clock;
  const Context patient = Context(clock).with_timeout(long_enough);
  clock.forget();
  std::jthread waits([&] { second = one->cleanup(patient, key); });
  clock.wait_until_asked(3);
  go_on.count_down();
  runs.join();
  waits.join();
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  EXPECT_THAT(*second, SizeIs(1));
  EXPECT_THAT(log.lines(), ElementsAre("cleanup one"));
}

TEST_F(ChainConcurrency, NoChildIsPreparedAndNothingIsIsolatedWhileTheContainerIsCleanedUp) {
  const auto one = chain(
      {"one", {.cleanup = [this](const Context&, const std::vector<Failure>&) -> Result<std::vector<Owed>> {
         inside.count_down();
         go_on.wait();
         return std::vector<Owed>();
       }}});
  std::jthread runs([&] { EXPECT_TRUE(one->cleanup(context, key)); });
  inside.wait();
  const auto child = one->prepare(context, {.owner = "run", .id = "c.a.b"}, request, folder.text(), true);
  const auto isolated = one->isolate(context, key, 1);
  go_on.count_down();
  runs.join();
  ASSERT_FALSE(child);
  EXPECT_EQ(child.error().code, Code::failed_precondition);
  ASSERT_FALSE(isolated);
  EXPECT_EQ(isolated.error().code, Code::failed_precondition);
  EXPECT_THAT(log.lines(), ElementsAre("cleanup one"));
}

// Before the books know it.
TEST_F(ChainConcurrency, AParentIsNotCleanedUpWhileAChildIsPrepared) {
  const auto one = chain({"one", blocking()});
  const ContainerKey child{.owner = "run", .id = "c.child"};
  std::jthread runs([&] { EXPECT_TRUE(one->prepare(context, child, request, folder.text(), true)); });
  inside.wait();
  const auto refused = one->cleanup(context, key);
  const auto neighbour = one->cleanup(context, {.owner = "run", .id = "c.ch"});
  const auto stranger = one->cleanup(context, {.owner = "other", .id = "c"});
  go_on.count_down();
  runs.join();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::failed_precondition);
  EXPECT_THAT(refused.error().message, HasSubstr("'c.child'"));
  EXPECT_TRUE(neighbour);
  EXPECT_TRUE(stranger);
  EXPECT_THAT(log.lines(), ElementsAre("prepare one", "cleanup one", "cleanup one"));
}

TEST_F(ChainConcurrency, ACleanupThatIsRefusedCancelsNoPrepare) {
  const auto one = chain({"one", blocking()});
  Result<v1::ContainerLaunchInfo> first;
  std::jthread runs([&] { first = prepare(*one); });
  inside.wait();
  books.set_children({"c.x"});
  const auto refused = one->cleanup(context, key);
  go_on.count_down();
  runs.join();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::failed_precondition);
  EXPECT_THAT(refused.error().message, HasSubstr("'c.x'"));
  EXPECT_TRUE(first) << first.error().text();
  EXPECT_THAT(log.lines(), ElementsAre("prepare one"));
}

TEST_F(ChainConcurrency, DifferentContainersAreWorkedOnAtTheSameTime) {
  std::latch both{2};
  const auto one = chain({"one", {.prepare = [&](const Context&, Preparation&) -> Status {
                            both.arrive_and_wait();  // never passes if one waits for the other
                            return {};
                          }}});
  std::jthread other(
      [&] { EXPECT_TRUE(one->prepare(context, {.owner = "run", .id = "d"}, request, folder.text(), true)); });
  EXPECT_TRUE(prepare(*one));
}

TEST_F(ChainConcurrency, OneOwnerIsRecoveredOnceAtATime) {
  std::atomic<int> now = 0;
  std::atomic<int> most = 0;
  const auto one = chain({"one", {.recover = [&](const auto&) -> Status {
                            most = std::max(most.load(), ++now);
                            std::this_thread::yield();
                            --now;
                            return {};
                          }}});
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i)
      threads.emplace_back([&] {
        for (int j = 0; j < 50; ++j) EXPECT_TRUE(one->recover(context, {.owner = "run"}));
      });
  }
  EXPECT_EQ(most, 1);
  EXPECT_THAT(log.lines(), SizeIs(400));
}

}  // namespace
}  // namespace dvdi::isolator
