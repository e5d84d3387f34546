#include "cli/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"

namespace dvdi::cli {
namespace {

using testing::HasSubstr;

// Columns of the terminal: "…" is three bytes and one column.
std::size_t columns(std::string_view line) {
  std::size_t count = 0;
  for (const char c : line) {
    if ((static_cast<unsigned char>(c) & 0xc0U) != 0x80U) ++count;
  }
  return count;
}

std::size_t widest_line(const std::string& text) {
  std::size_t widest = 0;
  for (const std::string_view line : split(text, '\n')) widest = std::max(widest, columns(line));
  return widest;
}

Table volumes() {
  Table table({{"DRIVER"},
               {"NAME"},
               {"STATE"},
               {"CONTAINERS", Table::Align::right},
               {"OWED"},
               {"FOREIGN"},
               {"MOUNT POINT"}});
  table.add(
      {"local", "data", "mounted", "2", "-", "-", "/var/lib/dvdi/local/mounts/0123456789abcdef/data-volume"});
  table.add({"rc", "a-much-longer-name-than-others-have", "unknown", "0", "yes", "yes", "-"});
  return table;
}

TEST(Shorten, KeepsBothEnds) {
  EXPECT_EQ(shorten("abcdef", 6), "abcdef");
  EXPECT_EQ(shorten("abcdefg", 6), "abc…fg");
  EXPECT_EQ(shorten("abcdefgh", 5), "ab…gh");
  EXPECT_EQ(shorten("abc", 1), "…");
  EXPECT_EQ(shorten("abc", 0), "");
  EXPECT_EQ(shorten("", 0), "");
}

TEST(Table, IsAsWideAsItNeedsWhenPiped) {
  const std::string text = volumes().render(std::nullopt);
  EXPECT_THAT(text, testing::StartsWith(
                        "DRIVER  NAME                                 STATE    CONTAINERS  OWED  FOREIGN  "
                        "MOUNT POINT\nlocal   data                                 mounted           2  "
                        "-     -        /var/"));
  EXPECT_THAT(text, HasSubstr("/var/lib/dvdi/local/mounts/0123456789abcdef/data-volume\n"));
  EXPECT_THAT(text,
              HasSubstr("a-much-longer-name-than-others-have  unknown           0  yes   yes      -\n"));
}

TEST(Table, FitsTheTerminal) {
  for (const std::size_t width : {40U, 80U, 120U}) {
    const std::string text = volumes().render(width);
    EXPECT_LE(widest_line(text), width) << text;
    EXPECT_THAT(text, HasSubstr("…"));
  }
}

TEST(Table, ShortensTheWidestColumnsFirst) {
  const std::string text = volumes().render(80);
  EXPECT_THAT(text, HasSubstr("DRIVER"));
  EXPECT_THAT(text, HasSubstr("mounted"));
  EXPECT_THAT(text, HasSubstr("CONTAINERS"));
  EXPECT_THAT(text, HasSubstr("a-mu"));
  EXPECT_THAT(text, HasSubstr("volume\n"));
}

TEST(Table, IsWholeWhereThereIsRoom) { EXPECT_EQ(volumes().render(200), volumes().render(std::nullopt)); }

TEST(Table, GetsWiderThanATerminalThatIsTooNarrow) {
  const std::string text = volumes().render(10);
  EXPECT_EQ(widest_line(text), 7 * 4 + 6 * 2);
}

TEST(Table, AlignsNumbersToTheRight) {
  Table table({{"N", Table::Align::right}, {"X"}});
  table.add({"5", "a"});
  table.add({"1234", "b"});
  EXPECT_EQ(table.render(std::nullopt), "   N  X\n   5  a\n1234  b\n");
}

TEST(Table, DoesNotLetNamesSteerTheTerminal) {
  Table table({{"NAME"}, {"X"}});
  table.add({"a\x1b[2J\nb", "\xc3\xa9"});
  const std::string text = table.render(std::nullopt);
  EXPECT_THAT(text, HasSubstr("a\\x1b[2J\\x0ab  \\xc3\\xa9\n"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST(Table, HasOnlyTitlesWithoutRows) {
  Table table({{"A"}, {"B"}});
  EXPECT_TRUE(table.empty());
  EXPECT_EQ(table.render(80), "A  B\n");
}

TEST(Table, EndsLinesWithoutBlanks) {
  Table table({{"A"}, {"LONG"}});
  table.add({"abc", ""});
  EXPECT_EQ(table.render(std::nullopt), "A    LONG\nabc\n");
}

}  // namespace
}  // namespace dvdi::cli
