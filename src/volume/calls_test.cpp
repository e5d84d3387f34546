// Bulkheads: deadlines and bounds of the calls to each driver, and what is counted of them.
#include "volume/calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "volume/fake_driver.h"

namespace dvdi::volume {
namespace {

using driver::Operation;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

// Repeats what it was given in its answer, as some plugins do.
class Parrot final : public driver::Driver {
 public:
  const std::string& name() const override { return name_; }
  Status create(const Context&, const std::string&, const driver::Options& options) override {
    Error error{.code = Code::driver_error, .message = "bad options:", .outcome = Outcome::refused};
    for (const auto& [key, value] : options) error.message += " " + key + "=" + value;
    return error;
  }
  Status remove(const Context&, const std::string&) override { return {}; }
  Result<driver::VolumeInfo> get(const Context&, const std::string&) override { return driver::VolumeInfo{}; }
  Result<std::vector<driver::VolumeInfo>> list(const Context&) override {
    return std::vector<driver::VolumeInfo>{};
  }
  Result<std::string> path(const Context&, const std::string&) override { return std::string(); }
  Result<std::string> mount(const Context&, const std::string&, const std::string&) override {
    return std::string();
  }
  Status unmount(const Context&, const std::string&, const std::string&) override { return {}; }
  Result<driver::Capabilities> capabilities(const Context&) override { return driver::Capabilities{}; }
  bool may_be_plain_directory(const std::string&) const override { return false; }

 private:
  const std::string name_ = "parrot";
};

class TestCatalog final : public driver::Catalog {
 public:
  void add(std::shared_ptr<driver::Driver> driver) { drivers_[driver->name()] = std::move(driver); }
  Result<std::shared_ptr<driver::Driver>> find(const Context&, const std::string& name) override {
    const auto found = drivers_.find(name);
    if (found != drivers_.end()) return found->second;
    return Error{.code = Code::not_found, .message = "there is no driver " + name};
  }
  std::vector<std::string> names() override { return {}; }

 private:
  std::map<std::string, std::shared_ptr<driver::Driver>> drivers_;
};

class CallsTest : public testing::Test {
 protected:
  std::shared_ptr<FakeDriver> add(const std::string& name) {
    auto driver = std::make_shared<FakeDriver>(name, "/nonexistent", clock, kill);
    catalog.add(driver);
    return driver;
  }
  Context context() const { return Context(clock); }
  DriverStatus status(const std::string& driver) {
    for (DriverStatus& one : calls.drivers({driver})) {
      if (one.name == driver) return std::move(one);
    }
    return {};
  }
  // As the name says; each look takes a lock that the others need, too.
  void wait_until(const std::function<bool()>& so) {
    const Context limit = Context().with_timeout(std::chrono::minutes(1));
    while (!so()) {
      if (!limit.check("wait")) FAIL() << "it never came to that";
      std::this_thread::yield();
    }
  }

  KillSwitch kill;
  JumpingClock clock{kill};
  TestCatalog catalog;
  Policy policy;
  Calls calls{catalog, policy};
};

TEST_F(CallsTest, TwoHundredHungCallsKeepNoOtherDriverWaitingAndAreBounded) {
  constexpr unsigned all = 200, at_once = 64, waiting = 100;
  policy.calls_per_driver = 2;
  policy.by_driver["hung"].calls_at_once = at_once;
  policy.by_driver["hung"].calls_waiting = waiting;
  const auto hung = add("hung");
  const auto other = add("other");
  Mutex mutex;
  std::vector<Error> errors;
  std::atomic<unsigned> well = 0, ended = 0;
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < all; ++i) {
      const VolumeKey volume{"hung", "v" + std::to_string(i)};
      hung->hold(Operation::create, volume.name);
      threads.emplace_back([&, volume] {
        if (auto created = calls.create(context(), volume, {})) {
          ++well;
        } else {
          const Lock lock(mutex);
          errors.push_back(std::move(created).error());
        }
        ++ended;
      });
    }
    hung->wait_until_held(at_once);
    wait_until([&] { return ended == all - at_once - waiting && status("hung").waiting == waiting; });
    EXPECT_EQ(status("hung").running, at_once);
    EXPECT_EQ(well, 0U);
    for (int i = 0; i < 50; ++i) {
      const auto created = calls.create(context(), {"other", "v"}, {});
      EXPECT_TRUE(created) << created.error().text();
    }
    EXPECT_EQ(status("other").calls, 50U);
    hung->let_go();
  }
  EXPECT_EQ(well, at_once + waiting);
  EXPECT_EQ(hung->most_at_once(), at_once);
  ASSERT_THAT(errors, SizeIs(all - at_once - waiting));
  for (const Error& error : errors) {
    EXPECT_EQ(error.code, Code::resource_exhausted);
    EXPECT_EQ(error.outcome, Outcome::not_sent);
    EXPECT_EQ(error.operation, "create");
    EXPECT_THAT(error.message, HasSubstr("driver hung has 64 calls running and 100 waiting"));
  }
  EXPECT_EQ(status("hung").running, 0U);
  EXPECT_EQ(status("hung").waiting, 0U);
  EXPECT_EQ(status("hung").calls, all);
  EXPECT_EQ(status("hung").errors, all - at_once - waiting);
  EXPECT_EQ(status("hung").turned_away, all - at_once - waiting);
  EXPECT_EQ(status("hung").timeouts, 0U);
}

TEST_F(CallsTest, WaitingForAPlaceCountsAgainstTheDeadlineOfTheOperation) {
  policy.calls_per_driver = 1;
  const auto slow = add("slow");
  slow->hold(Operation::create, "first");
  std::jthread first([&] { EXPECT_TRUE(calls.create(context(), {"slow", "first"}, {})); });
  slow->wait_until_held();
  Status second;
  {
    std::jthread thread([&] { second = calls.create(context(), {"slow", "second"}, {}); });
    wait_until([&] { return status("slow").waiting == 1; });
    clock.advance(policy.call_deadline);
  }
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::deadline_exceeded);
  EXPECT_EQ(second.error().outcome, Outcome::not_sent);
  EXPECT_EQ(slow->calls(Operation::create, "second"), 0U);
  EXPECT_EQ(status("slow").waiting, 0U);
  EXPECT_EQ(status("slow").timeouts, 1U);
  slow->let_go();
}

TEST_F(CallsTest, ADriverMayHaveADeadlineOfItsOwnForEachOperation) {
  const auto a = add("a");
  const auto b = add("b");
  policy.by_driver["a"].deadlines = {{Operation::create, seconds(3)}, {Operation::unmount, seconds(4)}};
  // The fake lets the time pass at once.
  const auto took = [&](const std::shared_ptr<FakeDriver>& driver, Operation operation) {
    driver->fail(operation, "v", Fault::time_out);
    const BootTime start = clock.boot();
    const VolumeKey volume{driver->name(), "v"};
    const bool well = operation == Operation::create    ? calls.create(context(), volume, {}).has_value()
                      : operation == Operation::unmount ? calls.unmount(context(), volume, "id").has_value()
                                                        : calls.get(context(), volume, {}).has_value();
    EXPECT_FALSE(well);
    return std::chrono::floor<seconds>(clock.boot() - start);
  };
  EXPECT_EQ(took(a, Operation::create), seconds(3));
  EXPECT_EQ(took(a, Operation::unmount), seconds(4));
  EXPECT_EQ(took(a, Operation::get), seconds(30));
  EXPECT_EQ(took(b, Operation::create), seconds(30));
  EXPECT_EQ(took(b, Operation::unmount), seconds(600));
  EXPECT_EQ(policy.longest(Operation::unmount), seconds(600));
  policy.by_driver["a"].deadlines[Operation::unmount] = seconds(900);
  EXPECT_EQ(policy.longest(Operation::unmount), seconds(900));
}

TEST_F(CallsTest, CallsAreCountedByOperationAndOutcome) {
  const auto fake = add("fake");
  ASSERT_TRUE(calls.create(context(), {"fake", "v"}, {}));
  fake->fail(Operation::create, "v", Fault::refuse);
  fake->fail(Operation::create, "v", Fault::not_sent);
  fake->fail(Operation::create, "v", Fault::time_out);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(calls.create(context(), {"fake", "v"}, {}));
  ASSERT_TRUE(calls.list(context(), "fake"));

  const DriverStatus now = status("fake");
  EXPECT_EQ(now.calls, 5U);
  EXPECT_EQ(now.errors, 3U);
  EXPECT_EQ(now.timeouts, 1U);
  EXPECT_THAT(now.last_error, HasSubstr("no answer"));
  ASSERT_TRUE(now.last_error_time);

  std::map<std::string, CallTimes> by_name;
  for (CallTimes& one : calls.times()) {
    EXPECT_EQ(one.driver, "fake");
    ASSERT_THAT(one.times.counts, SizeIs(call_time_bounds().size() + 1));
    EXPECT_EQ(std::accumulate(one.times.counts.begin(), one.times.counts.end(), std::uint64_t{0}),
              one.times.count);
    by_name[one.operation + " " + one.outcome] = std::move(one);
  }
  ASSERT_THAT(by_name, SizeIs(5));
  EXPECT_EQ(by_name.at("create ok").times.count, 1U);
  EXPECT_EQ(by_name.at("create refused").times.count, 1U);
  EXPECT_EQ(by_name.at("create not_sent").times.count, 1U);
  EXPECT_EQ(by_name.at("list ok").times.count, 1U);
  const CallTimes& late = by_name.at("create timed_out");
  EXPECT_GE(late.times.sum, seconds(30));
  // Longer than 30 s, by as little as the test took.
  std::size_t bucket = 0;
  while (late.times.counts[bucket] == 0) ++bucket;
  EXPECT_EQ(call_time_bounds()[bucket], seconds(60));
}

TEST_F(CallsTest, TheBoundOfABucketBelongsToIt) {
  CallStatistics statistics;
  for (const Duration took :
       {Duration::zero(), Duration(milliseconds(1)), Duration(milliseconds(1)) + Duration(1),
        Duration(seconds(600)), Duration(seconds(601))}) {
    statistics.ended(Operation::get, took, nullptr, false, {});
  }
  std::vector<CallTimes> times;
  statistics.append_times("d", times);
  ASSERT_THAT(times, SizeIs(1));
  EXPECT_EQ(times[0].times.counts.front(), 2U);
  EXPECT_EQ(times[0].times.counts[1], 1U);
  EXPECT_EQ(times[0].times.counts[times[0].times.counts.size() - 2], 1U);
  EXPECT_EQ(times[0].times.counts.back(), 1U);
}

TEST_F(CallsTest, TheLastErrorHasNoSecret) {
  catalog.add(std::make_shared<Parrot>());
  EXPECT_FALSE(calls.create(context(), {"parrot", "v"}, {{"password", "hunter2"}, {"size", "5G"}}));
  EXPECT_THAT(status("parrot").last_error, HasSubstr("size=5G"));
  EXPECT_THAT(status("parrot").last_error, HasSubstr("<secret>"));
  EXPECT_THAT(status("parrot").last_error, Not(HasSubstr("hunter2")));
}

// Names come from requests: they must not add up.
TEST_F(CallsTest, DriversThatAreNotThereLeaveNothingBehind) {
  add("fake");
  for (int i = 0; i < 100; ++i) {
    const auto created = calls.create(context(), {"no" + std::to_string(i), "v"}, {});
    ASSERT_FALSE(created);
    EXPECT_EQ(created.error().code, Code::not_found);
    EXPECT_EQ(created.error().outcome, Outcome::not_sent);
  }
  ASSERT_TRUE(calls.create(context(), {"fake", "v"}, {}));
  const auto all = calls.drivers({});
  ASSERT_THAT(all, SizeIs(1));
  EXPECT_EQ(all[0].name, "fake");
  EXPECT_THAT(calls.times(), SizeIs(1));
}

TEST_F(CallsTest, DriversThatWereNotCalledAreShownToo) {
  policy.by_driver["b"].calls_at_once = 7;
  const auto all = calls.drivers({"b", "a"});
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].name, "a");
  EXPECT_EQ(all[0].calls_at_once, policy.calls_per_driver);
  EXPECT_EQ(all[1].calls_at_once, 7U);
  EXPECT_EQ(all[1].calls_waiting, policy.calls_waiting);
}

}  // namespace
}  // namespace dvdi::volume
