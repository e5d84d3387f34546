#include "base/time_text.h"

#include <gtest/gtest.h>

namespace dvdi {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

TEST(ParseDuration, TakesNumbersWithUnits) {
  EXPECT_EQ(parse_duration("90s"), seconds(90));
  EXPECT_EQ(parse_duration("15m"), minutes(15));
  EXPECT_EQ(parse_duration("24h"), hours(24));
  EXPECT_EQ(parse_duration("7d"), hours(7 * 24));
  EXPECT_EQ(parse_duration("2w"), hours(14 * 24));
  EXPECT_EQ(parse_duration("1h30m5s"), hours(1) + minutes(30) + seconds(5));
  EXPECT_EQ(parse_duration("0s"), seconds(0));
  EXPECT_EQ(parse_duration("1m500ms"), seconds(60) + std::chrono::milliseconds(500));
}

TEST(ParseDuration, RefusesWhatIsNone) {
  for (const auto* text : {"", "h", "15", "1h30", "-5m", "+5m", "5 m", "5x", "1.5h", "0x5s",
                           "101w101d99999999999999h", "99999999999999999999s", "36501d", "36500d1s"}) {
    EXPECT_FALSE(parse_duration(text)) << text;
  }
  EXPECT_TRUE(parse_duration("36500d"));
}

TEST(ParseTime, UnderstandsRfc3339AndDates) {
  const auto expected = parse_time("2026-11-22T10:00:00.500000Z");
  ASSERT_TRUE(expected);
  EXPECT_EQ(rfc3339(*expected), "2026-11-22T10:00:00.500000Z");
  EXPECT_EQ(parse_time("2026-11-22T12:30:00.5+02:30"), expected);
  EXPECT_EQ(parse_time("2026-11-22t05:00:00.5-05:00"), expected);
  EXPECT_EQ(parse_time("2026-11-22 10:00:00.500000000z"), expected);
  EXPECT_EQ(rfc3339(*parse_time("2026-11-22")), "2026-11-22T00:00:00.000000Z");
  EXPECT_EQ(rfc3339(*parse_time("2024-02-29")), "2024-02-29T00:00:00.000000Z");
  EXPECT_EQ(rfc3339(*parse_time("2016-12-31T23:59:60Z")), "2017-01-01T00:00:00.000000Z");
}

TEST(ParseTime, RefusesWhatIsNone) {
  for (const auto* text :
       {"", "2026", "2026-11", "2026-13-01", "2026-02-29", "2026-11-22T", "2026-11-22T10:00Z",
        "2026-11-22T24:00:00Z", "2026-11-22T10:00:00", "2026-11-22T10:00:00.Z", "2026-11-22T10:00:00+0100",
        "2026-11-22T10:00:00Zx", "2026-11-22T10:60:00Z", "1969-12-31", "2262-01-01", "22-11-2026",
        "yesterday", "2026-1a-01"}) {
    EXPECT_FALSE(parse_time(text)) << text;
  }
}

TEST(HumanDuration, HasTheTwoLargestUnits) {
  EXPECT_EQ(human_duration(0), "0s");
  EXPECT_EQ(human_duration(-1), "0s");
  EXPECT_EQ(human_duration(0.01), "<0.1s");
  EXPECT_EQ(human_duration(0.44), "0.4s");
  EXPECT_EQ(human_duration(45), "45s");
  EXPECT_EQ(human_duration(59.96), "1m");
  EXPECT_EQ(human_duration(61), "1m 1s");
  EXPECT_EQ(human_duration(3600), "1h");
  EXPECT_EQ(human_duration(3599.7), "1h");
  EXPECT_EQ(human_duration(3 * 3600 + 12 * 60 + 59), "3h 12m");
  EXPECT_EQ(human_duration(2 * 86400 + 4 * 3600), "2d 4h");
}

TEST(HumanBytes, CountsInPowersOf1024) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.0 KiB");
  EXPECT_EQ(human_bytes(10ULL << 20), "10.0 MiB");
  EXPECT_EQ(human_bytes((1ULL << 30) - 1), "1.0 GiB");
  EXPECT_EQ(human_bytes(~0ULL), "16.0 EiB");
}

}  // namespace
}  // namespace dvdi
