#include "store/figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <mutex>
#include <numeric>

#include "base/fake_clock_test.h"
#include "store/ledger.h"

namespace dvdi {
namespace {

using std::chrono::minutes;
using testing::ElementsAre;
using testing::Pair;

class Figures : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/dvdi-figures-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    auto opened = Ledger::open(Context(clock_), folder_ + "/state.db");
    ASSERT_TRUE(opened) << opened.error().text();
    ledger_ = std::move(*opened);
  }
  void TearDown() override {
    ledger_.reset();
    std::filesystem::remove_all(folder_);
  }
  void write(const std::function<Status(Transaction&)>& work) {
    const Status done = ledger_->write(Context(clock_), "test", work);
    ASSERT_TRUE(done) << done.error().text();
  }
  LedgerFigures figures() {
    const auto found = ledger_->figures(Context(clock_));
    if (found) return *found;
    ADD_FAILURE() << found.error().text();
    return {};
  }

  FakeClock clock_;
  std::string folder_;
  std::unique_ptr<Ledger> ledger_;
};

TEST_F(Figures, AnEmptyLedgerHasNothing) {
  const LedgerFigures none = figures();
  EXPECT_TRUE(none.containers.empty());
  EXPECT_TRUE(none.mounts.empty());
  EXPECT_TRUE(none.by_driver.empty());
  EXPECT_EQ(none.last_event, 0U);
  EXPECT_EQ(none.event_bytes, 0U);
}

TEST_F(Figures, WhatIsThereIsCountedByDriverAndState) {
  write([&](Transaction& tx) -> Status {
    const auto container = [&](const char* owner, const char* id, ContainerState state) {
      return tx.put(ContainerRow{.key = {owner, id}, .state = state, .engine = {}, .since = tx.now()});
    };
    DVDI_CHECK(container("run", "a", ContainerState::running));
    DVDI_CHECK(container("run", "b", ContainerState::running));
    DVDI_CHECK(container("run", "c", ContainerState::ended));
    DVDI_CHECK(container("uid:7", "a", ContainerState::prepared));
    DVDI_CHECK(container("/var/lib/mesos", "a", ContainerState::cleaning));
    DVDI_CHECK(container("me", "a", ContainerState::running));
    const auto mount = [&](const char* driver, const char* name, MountState state,
                           MountRow::Pending pending) {
      return tx.put(MountRow{.volume = {driver, name},
                             .mount_id = std::string(driver) + name,
                             .state = state,
                             .pending = pending,
                             .since = tx.now()});
    };
    DVDI_CHECK(mount("x", "1", MountState::mounted, MountRow::Pending::none));
    DVDI_CHECK(mount("x", "2", MountState::unknown, MountRow::Pending::lost));
    DVDI_CHECK(mount("x", "3", MountState::unknown, MountRow::Pending::unmount));
    DVDI_CHECK(tx.put(ReferenceRow{.container = {"run", "a"}, .volume = {"x", "1"}, .since = tx.now()}));
    DVDI_CHECK(tx.put(ReferenceRow{.container = {"run", "b"}, .volume = {"x", "1"}, .since = tx.now()}));
    return tx.put(ForeignRow{.volume = {"y", "1"}, .since = tx.now()});
  });
  const LedgerFigures found = figures();
  using Kind = std::pair<std::string, std::string>;
  EXPECT_THAT(found.containers,
              ElementsAre(Pair(Kind("agent", "cleaning"), 1), Pair(Kind("other", "running"), 1),
                          Pair(Kind("run", "running"), 2), Pair(Kind("user", "prepared"), 1)));
  EXPECT_THAT(found.mounts, ElementsAre(Pair("mounted", 1), Pair("unknown", 2)));
  EXPECT_EQ(found.by_driver.at("x").references, 2U);
  EXPECT_EQ(found.by_driver.at("x").lost, 1U);
  EXPECT_EQ(found.by_driver.at("x").foreign, 0U);
  EXPECT_EQ(found.by_driver.at("y").foreign, 1U);
}

TEST_F(Figures, TheAgeOfADebtGoesByTheBootsClockAndIsThatOfTheOldest) {
  const auto owe = [&](const char* name, bool parked) {
    write([&](Transaction& tx) {
      return tx.put(DebtRow{.volume = {"x", name},
                            .mount_id = "m",
                            .since = tx.now(),
                            .last_error = "no",
                            .next_try = tx.now(),
                            .parked = parked});
    });
  };
  owe("old", true);
  clock_.boot_now += minutes(10);
  clock_.wall_now -= std::chrono::hours(24);  // somebody has set the clock
  owe("young", false);
  clock_.boot_now += minutes(5);
  const auto x = figures().by_driver.at("x");
  EXPECT_EQ(x.owed, 2U);
  EXPECT_EQ(x.parked, 1U);
  EXPECT_EQ(x.oldest_owed, Duration(minutes(15)));
}

TEST_F(Figures, EventsAreCountedInNumbersAndBytes) {
  std::uint64_t bytes = 0;
  for (int i = 0; i < 3; ++i)
    write([](Transaction& tx) { return tx.record({.type = "dvdi.test", .reason = "for the figures"}); });
  ASSERT_TRUE(ledger_->read(Context(clock_), "test", [&](Reader& reader) -> Status {
    DVDI_TRY(const auto events, reader.events(0, 10));
    for (const StoredEvent& one : events) bytes += one.body.size() + one.hash.size();
    return {};
  }));
  const LedgerFigures found = figures();
  EXPECT_EQ(found.first_event, 1U);
  EXPECT_EQ(found.last_event, 3U);
  EXPECT_EQ(found.event_bytes, bytes);
}

TEST_F(Figures, TheyDoNotWaitForAReportThatReads) {
  ASSERT_TRUE(ledger_->read(Context(clock_), "a long report", [&](Reader& reader) -> Status {
    DVDI_CHECK(reader.mounts());
    EXPECT_EQ(figures().last_event, 0U);  // while this one reads
    return {};
  }));
}

TEST_F(Figures, EachTransactionIsTimedAndOnlyThoseThatCouldNotBeWrittenAreFailures) {
  write([](Transaction&) -> Status { return {}; });
  write([](Transaction&) -> Status { return {}; });
  const auto refused = ledger_->write(Context(clock_), "test", [](Transaction&) -> Status {
    return Error{.code = Code::conflict, .message = "no"};
  });
  ASSERT_FALSE(refused);
  WriteTimes times = ledger_->write_times();
  EXPECT_EQ(times.wait.count, 2U);
  EXPECT_EQ(times.commit.count, 2U);
  ASSERT_EQ(times.commit.counts.size(), write_time_bounds().size() + 1);
  EXPECT_EQ(std::accumulate(times.commit.counts.begin(), times.commit.counts.end(), std::uint64_t{0}), 2U);
  EXPECT_EQ(times.failures, 0U);

  // Another process has the writer's lock, and does not give it back in time.
  auto other = Ledger::open(Context(clock_), folder_ + "/state.db");
  ASSERT_TRUE(other);
  const Status held = (*other)->write(Context(clock_), "hold", [&](Transaction&) -> Status {
    const auto late = ledger_->write(Context().with_timeout(std::chrono::milliseconds(1)), "test",
                                     [](Transaction&) -> Status { return {}; });
    EXPECT_FALSE(late);
    return {};
  });
  ASSERT_TRUE(held);
  times = ledger_->write_times();
  EXPECT_EQ(times.failures, 1U);
  EXPECT_EQ(times.commit.count, 2U);
}

}  // namespace
}  // namespace dvdi
