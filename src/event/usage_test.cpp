#include "event/usage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <numeric>
#include <random>

namespace dvdi {
namespace {

using Kind = UsageInterval::Kind;

class FakeClock final : public Clock {
 public:
  BootTime boot() const override { return boot_now; }
  WallTime wall() const override { return wall_now; }
  void advance(Duration by) {
    boot_now += by;
    wall_now += by;
  }
  BootTime boot_now{std::chrono::hours(1)};
  WallTime wall_now{std::chrono::days(20000) + std::chrono::hours(20)};
};

class UsageTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/dvdi-usage-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    auto opened = Ledger::open(context(), folder_ + "/state.db");
    ASSERT_TRUE(opened) << opened.error().text();
    ledger_ = std::move(*opened);
  }
  void TearDown() override {
    ledger_.reset();
    std::filesystem::remove_all(folder_);
  }
  Context context() const { return Context(clock_); }
  void write(const std::function<Status(Transaction&)>& work) {
    const auto written = ledger_->write(context(), "test", work);
    ASSERT_TRUE(written) << written.error().text();
  }
  std::vector<UsageRow> report(const UsageQuery& query) {
    auto rows = usage_report(context(), *ledger_, query);
    EXPECT_TRUE(rows) << rows.error().text();
    return rows.value_or(std::vector<UsageRow>());
  }

  FakeClock clock_;
  std::string folder_;
  std::unique_ptr<Ledger> ledger_;
  const VolumeKey volume_{"local", "a"};
  const ContainerKey container_{"run", "c"};
};

TEST_F(UsageTest, ThreeFiguresApartAndGibHoursWhereTheSizeIsKnown) {
  constexpr std::uint64_t two_gib = std::uint64_t{2} << 30U;
  write([&](Transaction& tx) -> Status {
    DVDI_CHECK(tx.open_usage({.kind = Kind::provisioned, .volume = volume_, .size_bytes = two_gib}));
    DVDI_CHECK(tx.open_usage({.kind = Kind::mounted, .volume = volume_, .size_bytes = two_gib}));
    return tx.open_usage({.kind = Kind::referenced, .volume = volume_, .container = container_});
  });
  clock_.advance(std::chrono::hours(1));
  write([&](Transaction& tx) { return tx.close_usage(Kind::referenced, volume_, container_); });
  clock_.advance(std::chrono::hours(1));
  write([&](Transaction& tx) { return tx.close_usage(Kind::mounted, volume_); });
  clock_.advance(std::chrono::hours(2));  // provisioned stays open
  const auto rows = report({.by = "volume"});
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].group, "local/a");
  EXPECT_DOUBLE_EQ(rows[0].referenced_seconds, 3600);
  EXPECT_DOUBLE_EQ(rows[0].mounted_seconds, 7200);
  EXPECT_DOUBLE_EQ(rows[0].provisioned_seconds, 4 * 3600);
  EXPECT_DOUBLE_EQ(rows[0].referenced_gib_hours, 0);
  EXPECT_DOUBLE_EQ(rows[0].mounted_gib_hours, 4);
  EXPECT_DOUBLE_EQ(rows[0].provisioned_gib_hours, 8);
  EXPECT_EQ(rows[0].mounts, 1U);
}

TEST_F(UsageTest, AReportIsCutAtBothEndsAndDaysAtMidnight) {
  const WallTime start = clock_.wall_now;  // 20:00
  write([&](Transaction& tx) { return tx.open_usage({.kind = Kind::mounted, .volume = volume_}); });
  clock_.advance(std::chrono::hours(6));
  write([&](Transaction& tx) { return tx.close_usage(Kind::mounted, volume_); });
  const auto days = report({.by = "day"});
  ASSERT_EQ(days.size(), 2U);
  EXPECT_DOUBLE_EQ(days[0].mounted_seconds, 4 * 3600);
  EXPECT_DOUBLE_EQ(days[1].mounted_seconds, 2 * 3600);
  const auto part = report({.since = start + std::chrono::hours(1), .until = start + std::chrono::hours(3)});
  ASSERT_EQ(part.size(), 1U);
  EXPECT_DOUBLE_EQ(part[0].mounted_seconds, 2 * 3600);
  EXPECT_EQ(part[0].mounts, 0U);
  EXPECT_TRUE(report({.since = start + std::chrono::hours(7)}).empty());
}

TEST_F(UsageTest, AnUnknownGroupIsAnError) {
  const auto rows = usage_report(context(), *ledger_, {.by = "colour"});
  ASSERT_FALSE(rows);
  EXPECT_EQ(rows.error().code, Code::invalid_argument);
}

TEST_F(UsageTest, SumsAreTheSameWhicheverWayOneGroups) {
  std::mt19937 random(7);
  const auto pick = [&](const char* prefix, unsigned n) { return prefix + std::to_string(random() % n); };
  for (int i = 0; i < 200; ++i) {
    const UsageInterval interval{.kind = static_cast<Kind>(random() % 3),
                                 .volume = {pick("d", 3), pick("v", 9) + std::to_string(i)},
                                 .container = {"run", pick("c", 20)},
                                 .attribution = {.role = pick("r", 3)},
                                 .size_bytes = random() % (std::uint64_t{1} << 31U)};
    write([&](Transaction& tx) { return tx.open_usage(interval); });
    clock_.advance(std::chrono::nanoseconds(random()) * 60);
    if (i % 3 != 0) {
      write([&](Transaction& tx) {
        return tx.close_usage(interval.kind, interval.volume, interval.container);
      });
    }
  }
  const auto total = [&](const std::string& by) {
    const auto rows = report({.by = by});
    return std::accumulate(rows.begin(), rows.end(), UsageRow{}, [](UsageRow sum, const UsageRow& row) {
      sum.referenced_seconds += row.referenced_seconds;
      sum.mounted_seconds += row.mounted_seconds;
      sum.provisioned_gib_hours += row.provisioned_gib_hours;
      sum.mounts += row.mounts;
      return sum;
    });
  };
  const UsageRow reference = total("volume");
  EXPECT_GT(reference.mounted_seconds, 0);
  for (const char* by : {"driver", "owner", "framework", "role", "principal", "user", "container", "day"}) {
    const UsageRow sum = total(by);
    EXPECT_NEAR(sum.referenced_seconds, reference.referenced_seconds, 1e-3) << by;
    EXPECT_NEAR(sum.mounted_seconds, reference.mounted_seconds, 1e-3) << by;
    EXPECT_NEAR(sum.provisioned_gib_hours, reference.provisioned_gib_hours, 1e-6) << by;
    EXPECT_EQ(sum.mounts, reference.mounts) << by;
  }
}

}  // namespace
}  // namespace dvdi
