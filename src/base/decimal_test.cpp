#include "base/decimal.h"

#include <gtest/gtest.h>

namespace dvdi {
namespace {

TEST(DecimalText, IsExactAndHasNoZerosThatSayNothing) {
  EXPECT_EQ(decimal_text(0, 12), "0");
  EXPECT_EQ(decimal_text(0, 12, 2), "0.00");
  EXPECT_EQ(decimal_text(1, 12), "0.000000000001");
  EXPECT_EQ(decimal_text(1'500'000'000'000, 12, 2), "1.50");
  EXPECT_EQ(decimal_text(1'000'000'000'000, 12), "1");
  EXPECT_EQ(decimal_text(1'234'500'000'000, 12, 2), "1.2345");
  EXPECT_EQ(decimal_text(42, 0), "42");
  EXPECT_EQ(decimal_text(~Wide{0}, 0), "340282366920938463463374607431768211455");
  EXPECT_EQ(decimal_text(~Wide{0}, 12), "340282366920938463463374607.431768211455");
}

TEST(ParseDecimal, ReadsWhatDecimalTextWritesAndNothingElse) {
  const auto money = [](std::string_view text) { return parse_decimal(text, 12, 12); };
  EXPECT_EQ(money("0"), Wide{0});
  EXPECT_EQ(money("0.00012"), Wide{120'000'000});
  EXPECT_EQ(money("0.000000000001"), Wide{1});
  EXPECT_EQ(money("999999999999.999999999999"), Wide{1'000'000'000'000} * 1'000'000'000'000 - 1);
  EXPECT_EQ(money("7"), Wide{7'000'000'000'000});
  EXPECT_EQ(parse_decimal("340282366920938463463374607431768211455", 0, 39), ~Wide{0});
  EXPECT_FALSE(parse_decimal("340282366920938463463374607431768211456", 0, 39));
  for (const char* wrong : {"", ".", "1.", ".5", "-1", "+1", "1e3", " 1", "1 ", "1,5", "1.2.3", "0x10", "nan",
                            "1000000000000", "0.0000000000001", "\xd9\xa1"}) {
    EXPECT_FALSE(money(wrong)) << wrong;
  }
  EXPECT_FALSE(parse_decimal("1.0", 0, 12));
}

}  // namespace
}  // namespace dvdi
