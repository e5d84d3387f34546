#include "daemon/usage_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dvdi::wire {
namespace {

using testing::HasSubstr;

PriceList prices() {
  PriceList list{.currency = "EUR"};
  PriceRule& rule = list.rules.emplace_back();
  rule.driver = "rex*";
  rule.type = "gp3";
  rule.prices[0] = 120'000'000;
  rule.prices[6] = 0;
  list.rules.emplace_back().prices[3] = 7;
  return list;
}

TEST(UsageWire, AQueryIsTheSameAfterARoundTrip) {
  const UsageQuery query{
      .by = {"role", "label:a,b"}, .since = WallTime(std::chrono::hours(5)), .prices = prices()};
  const auto read = usage_query_of(json::value(to_json(query)));
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_EQ(json::serialize(to_json(*read)), json::serialize(to_json(query)));
  EXPECT_EQ(read->by, query.by);
  EXPECT_EQ(read->since, query.since);
  EXPECT_FALSE(read->until);
  EXPECT_EQ(read->prices->rules[0].driver, "rex*");
  EXPECT_EQ(read->prices->rules[0].volume, std::nullopt);
  EXPECT_EQ(read->prices->rules[0].prices, query.prices->rules[0].prices);
  const auto nothing = usage_query_of(*json::parse("{}", "test"));
  ASSERT_TRUE(nothing);
  EXPECT_THAT(nothing->by, testing::ElementsAre("volume"));
}

TEST(UsageWire, AWrongQueryIsNamedByItsMember) {
  const std::map<std::string, std::string> wrong = {
      {"[]", "object"},
      {R"({"bye": []})", "bye"},
      {R"({"by": "role"})", "by must be"},
      {R"({"by": [1]})", "by must be"},
      {R"({"since": 5})", "since"},
      {R"({"since": "yesterday"})", "since"},
      {R"({"prices": []})", "prices"},
      {R"({"prices": {"rules": []}})", "prices.currency"},
      {R"({"prices": {"currency": "=1", "rules": []}})", "prices.currency"},
      {R"({"prices": {"currency": "EUR"}})", "prices.rules"},
      {R"({"prices": {"currency": "EUR", "rules": [{}, {"per_mount": 0.5}]}})", "prices.rules[1].per_mount"},
      {R"({"prices": {"currency": "EUR", "rules": [{"per_mount": "-1"}]}})", "prices.rules[0].per_mount"},
      {R"({"prices": {"currency": "EUR", "rules": [{"drivers": "x"}]}})", "prices.rules[0].drivers"},
      {R"({"prices": {"currency": "EUR", "rules": [{"driver": 5}]}})", "prices.rules[0].driver"},
  };
  for (const auto& [text, named] : wrong) {
    const auto read = usage_query_of(*json::parse(text, "test"));
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().code, Code::invalid_argument);
    EXPECT_THAT(read.error().message, HasSubstr(named));
  }
  std::string many = R"({"prices": {"currency": "EUR", "rules": [{})";
  for (std::size_t i = 0; i < max_price_rules; ++i) many += ",{}";
  EXPECT_FALSE(usage_query_of(*json::parse(many + "]}}", "test")));
}

TEST(UsageWire, AReportIsTheSameAfterARoundTripHoweverLarge) {
  UsageReport report{.by = {"role", "day"}, .currency = "EUR"};
  for (unsigned i = 0; i < 2000; ++i) {
    UsageRow& row = report.rows.emplace_back();
    row.group = {"r" + std::to_string(i), "2026-11-22"};
    row.sum.referenced = {.nanoseconds = i, .nano_gib_hours = ~Wide{0}, .cost = 1};
    row.sum.mounted = {.nanoseconds = ~Wide{0} - i, .nano_gib_hours = 5, .cost = ~Wide{0} / 4};
    row.sum.mounts = i;
    row.sum.mounts_cost = i;
  }
  report.total = report.rows.back().sum;
  std::string text;
  unsigned pieces = 0;
  const auto write = [&](const UsageReport& one) {
    text.clear();
    pieces = 0;
    EXPECT_TRUE(write_report(one, {.by = one.by}, [&](std::string_view piece) -> Status {
      text += piece;
      ++pieces;
      return {};
    }));
    return text;
  };
  const std::string written = write(report);
  EXPECT_GT(pieces, 5U);  // never all of it in memory
  const auto read = usage_report_of(*json::parse(written, "test"));
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_EQ(read->rows.at(1999).group, report.rows.at(1999).group);
  EXPECT_EQ(write(*read), written);
  EXPECT_FALSE(usage_report_of(*json::parse(R"({"by":["role"],"rows":[{}],"total":{}})", "test")));
  EXPECT_FALSE(usage_report_of(*json::parse("{}", "test")));
}

}  // namespace
}  // namespace dvdi::wire
