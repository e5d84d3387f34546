#include "event/prices.h"

#include <gtest/gtest.h>

#include <random>

#include "event/money_test.h"

namespace dvdi {
namespace {

using std::chrono::hours;

std::array<std::optional<Wide>, price_names.size()> only(Priced priced, Wide price) {
  std::array<std::optional<Wide>, price_names.size()> prices{};
  prices[static_cast<std::size_t>(priced)] = price;
  return prices;
}

TEST(Prices, AreDecimalsOfTwelveDigitsOnEitherSide) {
  EXPECT_EQ(*parse_price("0.00012"), Wide{120'000'000});
  EXPECT_EQ(*parse_price("999999999999.999999999999"), unit * unit - 1);
  for (const char* wrong : {"", "-1", "1e-3", "0.0000000000001", "1000000000000", "1,50", "free"}) {
    const auto price = parse_price(wrong);
    ASSERT_FALSE(price) << wrong;
    EXPECT_EQ(price.error().code, Code::invalid_argument);
  }
}

TEST(Prices, ACurrencyIsAName) {
  for (const char* good : {"EUR", "US-Dollar", "credits", "CHF 2026"})
    EXPECT_TRUE(check_currency(good)) << good;
  for (const char* wrong : {"", "=1", "\"", "EUR\n", "1", "a currency with a long name", "€"}) {
    EXPECT_FALSE(check_currency(wrong)) << wrong;
  }
}

TEST(Prices, TheFirstRuleThatMatchesAndHasThePriceCounts) {
  PriceList list{.currency = "EUR"};
  list.rules.push_back({.driver = "rexray", .type = "io*", .prices = only(Priced::mounted_gib_hour, 5)});
  list.rules.push_back({.driver = "rexray", .prices = only(Priced::mounted_gib_hour, 4)});
  list.rules.push_back({.volume = "scratch-*", .prices = only(Priced::per_mount, 0)});
  list.rules.push_back({.prices = only(Priced::per_mount, 3)});
  list.rules.push_back({.prices = only(Priced::mounted_gib_hour, 2)});
  const auto gib_hour = static_cast<std::size_t>(Priced::mounted_gib_hour);
  const auto mount = static_cast<std::size_t>(Priced::per_mount);
  EXPECT_EQ(prices_of(list, "rexray", "a", "io2")[gib_hour], Wide{5});
  EXPECT_EQ(prices_of(list, "rexray", "a", "gp3")[gib_hour], Wide{4});
  EXPECT_EQ(prices_of(list, "local", "a", "io2")[gib_hour], Wide{2});
  EXPECT_EQ(prices_of(list, "rexray", "a", "io2")[mount], Wide{3});
  EXPECT_EQ(prices_of(list, "rexray", "scratch-1", "io2")[mount], Wide{0});
  EXPECT_EQ(prices_of(list, "rexray", "a", "io2")[static_cast<std::size_t>(Priced::mounted_hour)], Wide{0});
}

TEST(Cost, IsExact) {
  EXPECT_EQ(*cost_up_to(hours(1), gib, unit, 0), unit);
  EXPECT_EQ(*cost_up_to(hours(10), 100 * gib, 120'000'000, 0), Wide{120'000'000} * 1000);
  EXPECT_EQ(*cost_up_to(hours(2), 0, unit, 7), Wide{14});
  EXPECT_EQ(*cost_up_to(hours(1), gib / 2, 1, 0), Wide{1});      // half a unit is one
  EXPECT_EQ(*cost_up_to(hours(1), gib / 2 - 1, 1, 0), Wide{0});  // and less is none
  EXPECT_EQ(*cost_up_to(Duration(0), gib, unit, unit), Wide{0});
}

TEST(Cost, OfAnythingThatCanBeAskedForIsRightOrRefused) {
  // By numbers that need more than 128 bits on the way.
  const Wide highest = unit * unit - 1;
  EXPECT_EQ(*cost_up_to(hours(8), std::uint64_t{1} << 40U, highest, 0), highest * 1024 * 8);
  EXPECT_EQ(*cost_up_to(hours(24 * 365 * 100), 0, 0, highest), highest * 24 * 365 * 100);
  EXPECT_FALSE(cost_up_to(Duration::max(), std::uint64_t{1} << 62U, highest, highest));
}

TEST(Cost, IsTheSameByShortAndByLongNumbers) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 1000; ++i) {
    // So long that the price of one GiB goes by the long numbers and the same price of a volume by the
    // short.
    const std::uint64_t time = (std::uint64_t{1} << 55U) | (random() >> 9U);
    const Wide price = (std::uint64_t{1} << 39U) | (random() >> 25U);
    const Duration length(static_cast<std::int64_t>(time));
    const auto by_gib = cost_up_to(length, gib, price, 0);
    const auto by_volume = cost_up_to(length, 0, 0, price);
    ASSERT_TRUE(by_gib && by_volume);
    EXPECT_EQ(*by_gib, *by_volume);
    EXPECT_EQ(*by_gib, (price * time + 1'800'000'000'000) / 3'600'000'000'000);
  }
}

}  // namespace
}  // namespace dvdi
