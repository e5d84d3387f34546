#include "event/usage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <map>

#include "base/fake_clock_test.h"
#include "event/money_test.h"
#include "store/usage_test_support.h"

namespace dvdi {
namespace {

using Kind = UsageInterval::Kind;
using std::chrono::hours;
using testing::ElementsAre;

constexpr Wide second = 1'000'000'000;

// A ledger in a folder of its own, and a clock that a test sets.
class Books {
 public:
  Books() {
    std::string pattern = "/tmp/dvdi-usage-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    auto opened = Ledger::open(context(), folder_ + "/state.db");
    if (!opened) throw std::runtime_error(opened.error().text());
    ledger = *std::move(opened);
  }
  ~Books() {
    ledger.reset();
    std::filesystem::remove_all(folder_);
  }
  Books(const Books&) = delete;
  Books& operator=(const Books&) = delete;

  Context context() const { return Context(clock); }
  void write(const std::function<Status(Transaction&)>& work) {
    const auto written = ledger->write(context(), "test", work);
    if (!written) throw std::runtime_error(written.error().text());
  }
  void open(const UsageInterval& interval) {
    write([&](Transaction& tx) { return begin_use(tx, interval); });
  }
  void close(const UsageInterval& interval) {
    write([&](Transaction& tx) { return end_use(tx, interval); });
  }
  UsageReport report(const UsageQuery& query) {
    auto report = usage_report(context(), *ledger, query);
    if (!report) throw std::runtime_error(report.error().text());
    return *std::move(report);
  }

  FakeClock clock = [] {
    FakeClock in_the_evening;
    in_the_evening.wall_now += hours(20);
    return in_the_evening;
  }();
  std::unique_ptr<Ledger> ledger;

 private:
  std::string folder_;
};

// One number for all that adds up.
std::vector<Wide> numbers(const UsageSum& sum) {
  std::vector<Wide> out;
  for (const UsageFigure* one : {&sum.referenced, &sum.mounted, &sum.provisioned}) {
    out.insert(out.end(), {one->nanoseconds, one->nano_gib_hours, one->cost});
  }
  out.insert(out.end(), {Wide{sum.mounts}, sum.mounts_cost, sum.cost()});
  return out;
}

std::vector<Wide> plus(std::vector<Wide> some, const std::vector<Wide>& others) {
  some.resize(std::max(some.size(), others.size()));
  for (std::size_t i = 0; i < others.size(); ++i) some[i] += others[i];
  return some;
}

std::vector<Wide> sum_of_rows(const UsageReport& report) {
  std::vector<Wide> sum;
  for (const UsageRow& row : report.rows) sum = plus(std::move(sum), numbers(row.sum));
  return plus(std::move(sum), numbers({}));
}

std::vector<std::vector<std::string>> groups(const UsageReport& report) {
  std::vector<std::vector<std::string>> out;
  for (const UsageRow& row : report.rows) out.push_back(row.group);
  return out;
}

PriceList prices() {
  PriceList list{.currency = "EUR"};
  PriceRule& fast = list.rules.emplace_back();
  fast.type = "fast";
  fast.prices[static_cast<std::size_t>(Priced::referenced_gib_hour)] = 333'333'333'333;
  fast.prices[static_cast<std::size_t>(Priced::mounted_hour)] = 7;
  PriceRule& rest = list.rules.emplace_back();
  rest.prices = {120'000'001, 17, 5'000'000'003, 1, 999'999'999'999, 3, 20'000'000'000};
  return list;
}

class UsageTest : public testing::Test {
 protected:
  Books books_;
  FakeClock& clock_ = books_.clock;
  const VolumeKey volume_{"local", "a"};
  const ContainerKey container_{"run", "c"};
};

TEST_F(UsageTest, ThreeFiguresApartAndGibHoursWhereTheSizeIsKnown) {
  const UsageInterval mounted{.kind = Kind::mounted, .volume = volume_, .size_bytes = 2 * gib};
  const UsageInterval referenced{.volume = volume_, .container = container_};
  books_.open({.kind = Kind::provisioned, .volume = volume_, .size_bytes = 2 * gib});
  books_.open(mounted);
  books_.open(referenced);
  clock_.advance(hours(1));
  books_.close(referenced);
  clock_.advance(hours(1));
  books_.close(mounted);
  clock_.advance(hours(2));  // provisioned stays open
  const auto report = books_.report({});
  EXPECT_THAT(groups(report), ElementsAre(ElementsAre("local/a")));
  const UsageSum& sum = report.rows.at(0).sum;
  EXPECT_EQ(sum.referenced.nanoseconds, 3600 * second);
  EXPECT_EQ(sum.mounted.nanoseconds, 7200 * second);
  EXPECT_EQ(sum.provisioned.nanoseconds, 4 * 3600 * second);
  EXPECT_EQ(sum.referenced.nano_gib_hours, Wide{0});
  EXPECT_EQ(sum.mounted.nano_gib_hours, 4 * second);
  EXPECT_EQ(sum.provisioned.nano_gib_hours, 8 * second);
  EXPECT_EQ(sum.mounts, 1U);
  EXPECT_EQ(sum.cost(), Wide{0});
  EXPECT_EQ(numbers(report.total), numbers(sum));
}

TEST_F(UsageTest, AReportIsCutAtBothEndsAndTimeAtItsBorders) {
  const WallTime start = clock_.wall_now;  // 20:00
  const UsageInterval mounted{.kind = Kind::mounted, .volume = volume_};
  books_.open(mounted);
  clock_.advance(hours(6) - std::chrono::minutes(30));
  books_.close(mounted);
  const auto days = books_.report({.by = {"day"}});
  EXPECT_THAT(groups(days), ElementsAre(ElementsAre("2024-10-04"), ElementsAre("2024-10-05")));
  EXPECT_EQ(days.rows.at(0).sum.mounted.nanoseconds, 4 * 3600 * second);
  EXPECT_EQ(days.rows.at(1).sum.mounted.nanoseconds, 5400 * second);
  EXPECT_EQ(days.rows.at(0).sum.mounts, 1U);
  EXPECT_EQ(days.rows.at(1).sum.mounts, 0U);
  const auto by_hour = books_.report({.by = {"hour", "day"}});
  ASSERT_EQ(by_hour.rows.size(), 6U);
  EXPECT_THAT(by_hour.rows.front().group, ElementsAre("2024-10-04T20:00:00Z", "2024-10-04"));
  EXPECT_THAT(by_hour.rows.back().group, ElementsAre("2024-10-05T01:00:00Z", "2024-10-05"));
  EXPECT_EQ(by_hour.rows.back().sum.mounted.nanoseconds, 1800 * second);
  const auto part = books_.report({.since = start + hours(1), .until = start + hours(3)});
  EXPECT_EQ(part.total.mounted.nanoseconds, 2 * 3600 * second);
  EXPECT_EQ(part.total.mounts, 0U);
  EXPECT_TRUE(books_.report({.since = start + hours(7)}).rows.empty());
}

TEST_F(UsageTest, ByEverythingThatThereIs) {
  UsageInterval referenced{.volume = volume_, .container = container_, .volume_type = "gp3"};
  referenced.attribution = {.framework = "f", .role = "r", .principal = "p", .user = "u"};
  referenced.attribution.labels = {{"team", "a"}, {"cost center", "7,\"1\""}};
  books_.open(referenced);
  clock_.advance(hours(1));
  const auto group = [&](const std::vector<std::string>& by) {
    return books_.report({.by = by}).rows.at(0).group;
  };
  EXPECT_THAT(group({"volume", "driver", "type", "owner", "framework", "role", "principal", "user"}),
              ElementsAre("local/a", "local", "gp3", "run", "f", "r", "p", "u"));
  EXPECT_THAT(group({"container", "label:team", "label:cost center", "label:other", "day", "hour"}),
              ElementsAre("run/c", "a", "7,\"1\"", "", "2024-10-04", "2024-10-04T20:00:00Z"));
  books_.open({.kind = Kind::mounted, .volume = volume_});
  clock_.advance(hours(1));
  EXPECT_THAT(groups(books_.report({.by = {"container", "label:team"}})),
              ElementsAre(ElementsAre("", ""), ElementsAre("run/c", "a")));
}

TEST_F(UsageTest, WhatCannotBeGroupedByIsAnErrorThatSaysWhatCan) {
  using List = std::vector<std::string>;
  for (const List& by :
       {List{"colour"}, List{}, List{"role", "role"}, List{"label:"}, List{""}, List{"Volume"},
        List{"volume", "driver", "type", "owner", "framework", "role", "principal", "user", "day"}}) {
    const auto report = usage_report(books_.context(), *books_.ledger, {.by = by});
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, Code::invalid_argument);
    EXPECT_THAT(report.error().hint, testing::HasSubstr("label:KEY"));
  }
}

TEST_F(UsageTest, MoreGroupsThanFitAreAnErrorNotAllTheMemory) {
  for (int i = 0; i < 4; ++i) books_.open({.kind = Kind::mounted, .volume = {"local", std::to_string(i)}});
  clock_.advance(hours(1));
  const auto ask = [&](std::size_t most) {
    return usage_report(books_.context(), *books_.ledger, {.by = {"volume"}, .most_groups = most});
  };
  EXPECT_TRUE(ask(4));
  const auto refused = ask(3);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::resource_exhausted);
  EXPECT_THAT(refused.error().hint, testing::HasSubstr("coarser"));
}

TEST_F(UsageTest, CostsArePricesTimesUsage) {
  PriceList list{.currency = "EUR"};
  PriceRule& rule = list.rules.emplace_back();
  rule.prices[static_cast<std::size_t>(Priced::referenced_hour)] = unit / 10;
  rule.prices[static_cast<std::size_t>(Priced::mounted_gib_hour)] = unit / 100;
  rule.prices[static_cast<std::size_t>(Priced::per_mount)] = unit;
  books_.open({.volume = volume_, .container = container_, .size_bytes = 10 * gib});
  books_.open({.kind = Kind::mounted, .volume = volume_, .size_bytes = 10 * gib});
  clock_.advance(hours(3));
  const auto report = books_.report({.prices = list});
  EXPECT_EQ(report.currency, "EUR");
  EXPECT_EQ(report.total.referenced.cost, unit * 3 / 10);
  EXPECT_EQ(report.total.mounted.cost, unit * 3 / 10);
  EXPECT_EQ(report.total.provisioned.cost, Wide{0});
  EXPECT_EQ(report.total.mounts_cost, unit);
  EXPECT_EQ(report.total.cost(), unit * 16 / 10);
}

TEST_F(UsageTest, CostsThatNoNumberHoldsAreAnError) {
  PriceList list{.currency = "EUR"};
  list.rules.emplace_back().prices[static_cast<std::size_t>(Priced::mounted_gib_hour)] = unit * unit - 1;
  for (int i = 0; i < 2; ++i) {
    books_.open({.kind = Kind::mounted,
                 .volume = {"local", std::to_string(i)},
                 .size_bytes = std::uint64_t{1} << 62U});
  }
  clock_.advance(hours(20'000));
  EXPECT_TRUE(usage_report(books_.context(), *books_.ledger, {.prices = list}));
  clock_.advance(hours(30'000));  // each by itself still fits
  const auto report = usage_report(books_.context(), *books_.ledger, {.prices = list});
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Code::invalid_argument);
}

TEST_F(UsageTest, ASetClockChangesNoBill) {
  const auto bill = [](const std::vector<Duration>& jumps) {
    Books books;
    std::size_t at = 0;
    const auto pass = [&](Duration time) {
      books.clock.advance(time);
      books.clock.wall_now += jumps[at++ % jumps.size()];
    };
    for (int i = 0; i < 6; ++i) {
      UsageInterval referenced{
          .volume = {"local", "v"}, .container = {"run", std::to_string(i)}, .size_bytes = 3 * gib};
      referenced.attribution.role = i % 2 == 0 ? "even" : "odd";
      const UsageInterval mounted{.kind = Kind::mounted, .volume = {"local", "v"}, .size_bytes = 3 * gib};
      books.open(referenced);
      pass(std::chrono::minutes(7));
      books.open(mounted);
      pass(std::chrono::minutes(61 * i));
      books.close(mounted);
      if (i < 4) books.close(referenced);  // the others go on
      pass(std::chrono::seconds(5));
    }
    std::map<std::string, std::vector<Wide>> bills;
    for (const UsageRow& row : books.report({.by = {"role"}, .prices = prices()}).rows) {
      bills[row.group.at(0)] = numbers(row.sum);
    }
    return bills;
  };
  const auto undisturbed = bill({Duration(0)});
  EXPECT_EQ(undisturbed.size(), 3U);  // "" is that of the mounts
  EXPECT_EQ(bill({-hours(5)}), undisturbed);
  EXPECT_EQ(bill({hours(1000), -hours(3000), hours(1)}), undisturbed);
  EXPECT_EQ(bill({-hours(24 * 365 * 4)}), undisturbed);  // to before 1970
}

TEST_F(UsageTest, ACancelledReportEnds) {
  std::stop_source stop;
  stop.request_stop();
  const auto report = usage_report(books_.context().with_stop(stop.get_token()), *books_.ledger, {});
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Code::cancelled);
}

// A history that nobody thought of: intervals of every kind, closed or open, with and without size.
struct History {
  Books books;
  std::vector<WallTime> moments;

  History() {
    const auto small = [](int most) { return *rc::gen::inRange(0, most); };
    const auto word = [&](const char* prefix, int most) {
      const int number = small(most);
      return number == 0 ? std::string() : prefix + std::to_string(number);
    };
    std::vector<UsageInterval> open;
    const int steps = small(40);
    for (int i = 0; i < steps; ++i) {
      if (!open.empty() && small(3) == 0) {
        const auto at = open.begin() + small(static_cast<int>(open.size()));
        books.close(*at);
        open.erase(at);
      } else {
        UsageInterval interval{.kind = static_cast<Kind>(small(3)),
                               .volume = {word("d", 3), "v" + std::to_string(i)}};
        interval.volume_type = small(2) == 0 ? "fast" : "";
        if (small(4) != 0) interval.size_bytes = *rc::gen::inRange<std::uint64_t>(0, std::uint64_t{1} << 45U);
        if (interval.kind == Kind::referenced) {
          interval.container = {"run", "c" + std::to_string(small(5))};
          interval.attribution = {.framework = word("f", 2),
                                  .role = word("r", 3),
                                  .principal = word("p", 3),
                                  .user = word("u", 2)};
          if (small(2) == 0) interval.attribution.labels = {{"team", word("t", 3)}};
        }
        books.open(interval);
        open.push_back(interval);
      }
      moments.push_back(books.clock.wall_now);
      books.clock.advance(Duration(*rc::gen::inRange<std::int64_t>(0, std::int64_t{1} << 47U)));
      if (small(8) == 0) books.clock.wall_now -= hours(small(200));
    }
  }
};

RC_GTEST_PROP(UsageProperty, SumsAreTheSameWhicheverWayOneGroups, ()) {
  History history;
  const auto whole = history.books.report({.by = {"driver"}, .prices = prices()});
  RC_ASSERT(sum_of_rows(whole) == numbers(whole.total));
  using List = std::vector<std::string>;
  for (const List& by :
       {List{"volume"}, List{"type"}, List{"owner"}, List{"framework"}, List{"role"}, List{"principal"},
        List{"user"}, List{"container"}, List{"label:team"}, List{"day"}, List{"hour"}, List{"role", "day"},
        List{"hour", "volume", "label:team", "type"}, List{"day", "hour"}}) {
    const auto report = history.books.report({.by = by, .prices = prices()});
    RC_ASSERT(numbers(report.total) == numbers(whole.total));
    RC_ASSERT(sum_of_rows(report) == numbers(whole.total));
    RC_ASSERT(std::ranges::is_sorted(groups(report)));
  }
}

RC_GTEST_PROP(UsageProperty, SeveralThreadsReadTheSameAsOne, ()) {
  History history;
  for (const std::vector<std::string>& by :
       {std::vector<std::string>{"volume"}, {"role", "day"}, {"label:team", "container"}}) {
    const auto one = history.books.report({.by = by, .prices = prices()});
    const auto several = history.books.report({.by = by, .prices = prices(), .intervals_a_thread = 1});
    RC_ASSERT(groups(several) == groups(one));
    for (std::size_t i = 0; i < one.rows.size(); ++i) {
      RC_ASSERT(numbers(several.rows[i].sum) == numbers(one.rows[i].sum));
    }
    RC_ASSERT(numbers(several.total) == numbers(one.total));
  }
}

RC_GTEST_PROP(UsageProperty, ReportsThatFollowOneAnotherAddUpToTheWhole, ()) {
  History history;
  std::vector<WallTime> cuts = *rc::gen::container<std::vector<WallTime>>(
      rc::gen::map(rc::gen::inRange<std::int64_t>(0, std::int64_t{1} << 52U),
                   [&](std::int64_t after) { return WallTime(std::chrono::days(19995)) + Duration(after); }));
  // Where an interval begins is where a mistake would be.
  for (const WallTime moment : history.moments) {
    if (*rc::gen::inRange(0, 4) == 0) cuts.push_back(moment);
  }
  std::ranges::sort(cuts);
  const std::vector<std::string> by = {"role", "day"};
  const auto whole = history.books.report({.by = by, .prices = prices()});
  std::map<std::vector<std::string>, std::vector<Wide>> sums, expected;
  for (const UsageRow& row : whole.rows) expected[row.group] = numbers(row.sum);
  std::optional<WallTime> since;
  for (std::size_t i = 0; i <= cuts.size(); ++i) {
    const auto until = i < cuts.size() ? std::optional(cuts[i]) : std::nullopt;
    const auto piece = history.books.report({.by = by, .since = since, .until = until, .prices = prices()});
    for (const UsageRow& row : piece.rows)
      sums[row.group] = plus(std::move(sums[row.group]), numbers(row.sum));
    since = until;
  }
  RC_ASSERT(sums == expected);
}

}  // namespace
}  // namespace dvdi
