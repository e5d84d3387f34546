#include "cli/csv.h"

#include <gtest/gtest.h>

namespace dvdi::cli {
namespace {

TEST(Csv, QuotesWhatNeedsIt) {
  EXPECT_EQ(csv_line({"a", "", "b c"}), "a,,b c\r\n");
  EXPECT_EQ(csv_line({"", ""}), ",\r\n");
  EXPECT_EQ(csv_line({"a,b", "say \"x\"", "two\nlines", " edge "}),
            "\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",\" edge \"\r\n");
  EXPECT_EQ(csv_line({"\"", "\r"}), "\"\"\"\",\"\r\"\r\n");
}

TEST(Csv, NoTextIsAFormula) {
  for (const std::string text : {"=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"}) {
    EXPECT_EQ(csv_text(text), "'" + text);
  }
  for (const std::string text : {"", "a=b", "role-1", "'", "prod/web", "1"}) EXPECT_EQ(csv_text(text), text);
}

}  // namespace
}  // namespace dvdi::cli
