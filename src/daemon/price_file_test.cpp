#include "daemon/price_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace dvdi {
namespace {

using testing::HasSubstr;

TEST(PriceFile, IsRulesInTheirOrder) {
  const auto list = parse_prices(R"(
currency = "EUR"
[[price]]
driver = "rexray"
type = "io?"
mounted_gib_hour = "0.00012"
per_mount = 2
[[price]]
referenced_hour = "0"
)",
                                 "p.toml");
  ASSERT_TRUE(list) << list.error().text();
  EXPECT_EQ(list->currency, "EUR");
  ASSERT_EQ(list->rules.size(), 2U);
  EXPECT_EQ(list->rules[0].driver, "rexray");
  EXPECT_EQ(list->rules[0].volume, std::nullopt);
  EXPECT_EQ(list->rules[0].type, "io?");
  EXPECT_EQ(list->rules[0].prices[static_cast<std::size_t>(Priced::mounted_gib_hour)], Wide{120'000'000});
  EXPECT_EQ(list->rules[0].prices[static_cast<std::size_t>(Priced::per_mount)], Wide{2'000'000'000'000});
  EXPECT_EQ(list->rules[0].prices[static_cast<std::size_t>(Priced::referenced_hour)], std::nullopt);
  EXPECT_EQ(list->rules[1].prices[static_cast<std::size_t>(Priced::referenced_hour)], Wide{0});
}

TEST(PriceFile, TheExampleIsRight) {
  const auto list = load_prices(DVDI_SOURCE_DIR "/examples/prices.toml");
  ASSERT_TRUE(list) << list.error().text();
  EXPECT_GT(list->rules.size(), 2U);
}

TEST(PriceFile, AnErrorNamesFileLineAndKey) {
  const std::string start = "currency = \"EUR\"\n[[price]]\n";
  const std::map<std::string, std::vector<std::string>> wrong = {
      {"", {"p.toml:", "currency"}},
      {"currency = \"EUR\"\n", {"p.toml:", "[[price]]"}},
      {"currency = 5\n", {"p.toml:1:", "currency"}},
      {"currency = \"=1\"\n[[price]]\nper_mount = 1\n", {"p.toml:", "currency"}},
      {"[[price]]\nper_mount = 1\n", {"p.toml:", "currency"}},
      {start, {"p.toml:2:", "at least one of", "per_mount"}},
      {start + "driver = \"x\"\n", {"p.toml:2:", "at least one of"}},
      {start + "per_mount = 0.5\n", {"p.toml:3:", "price.per_mount", "not exact"}},
      {start + "per_mount = -1\n", {"p.toml:3:", "price.per_mount", "-1"}},
      {start + "per_mount = true\n", {"p.toml:3:", "price.per_mount"}},
      {start + "\nmounted_hour = \"1,5\"\n", {"p.toml:4:", "price.mounted_hour", "1,5"}},
      {start + "mounted_hour = \"1e5\"\n", {"p.toml:3:", "price.mounted_hour"}},
      {start + "mounted_hour = \"\"\n", {"p.toml:3:", "price.mounted_hour"}},
      {start + "mounted_hour = \"0.0000000000001\"\n", {"p.toml:3:", "price.mounted_hour", "12"}},
      {start + "mounted_hour = 1000000000000\n", {"p.toml:3:", "price.mounted_hour"}},
      {start + "mounted_hours = \"1\"\nper_mount = 1\n", {"p.toml:3:", "price.mounted_hours"}},
      {start + "driver = \"\"\nper_mount = 1\n", {"p.toml:3:", "price.driver"}},
      {start + "driver = [\"a\"]\nper_mount = 1\n", {"p.toml:3:", "price.driver"}},
      {start + "driver = \"" + std::string(1001, 'x') + "\"\nper_mount = 1\n", {"p.toml:2:", "driver"}},
      {"price = 1\ncurrency = \"EUR\"\n", {"p.toml:1:", "price"}},
      {"colour = \"EUR\"\n" + start + "per_mount = 1\n", {"p.toml:1:", "colour"}},
      {start + "per_mount = \n", {"p.toml:3", "not TOML"}},
      {start + "per_mount = 1\nper_mount = 2\n", {"p.toml:", "per_mount", "exists"}},
      {"\xff\xfe", {"p.toml"}},
  };
  for (const auto& [text, named] : wrong) {
    const auto list = parse_prices(text, "p.toml");
    ASSERT_FALSE(list) << text;
    EXPECT_EQ(list.error().code, Code::invalid_argument) << text;
    for (const std::string& one : named) EXPECT_THAT(list.error().message, HasSubstr(one)) << text;
  }
  std::string many = start + "per_mount = 1\n";
  for (std::size_t i = 0; i < max_price_rules; ++i) many += "[[price]]\nper_mount = 1\n";
  EXPECT_FALSE(parse_prices(many, "p.toml"));
  EXPECT_FALSE(load_prices("/nonexistent/prices.toml"));
}

}  // namespace
}  // namespace dvdi
