#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>

#include "base/time_text.h"
#include "cli/commands.h"
#include "cli/fake_api_test.h"
#include "cli/progress.h"
#include "linux/fd.h"

namespace dvdi::cli {
namespace {

constexpr Wide second = 1'000'000'000;
constexpr Wide unit = 1'000'000'000'000;

class UsageCommandTest : public testing::Test {
 protected:
  std::string written(Format format, const UsageCommand& command) {
    const UniqueFd file(::memfd_create("output", MFD_CLOEXEC));
    Output out(file.get());
    Screen screen{.out = out, .format = format, .width = {}};
    const auto done = usage(context_, api_, command, screen);
    EXPECT_TRUE(done) << done.error().text();
    EXPECT_TRUE(out.flush());
    std::array<char, 8192> text{};
    const ssize_t count = ::pread(file.get(), text.data(), text.size(), 0);
    return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(0, count))};
  }

  void SetUp() override {
    UsageSum some;
    some.referenced.nanoseconds = 3661 * second;
    some.mounted.nanoseconds = 7200 * second + second / 2;
    some.provisioned.nanoseconds = 172800 * second;
    some.referenced.nano_gib_hours = second * 3 / 2;
    some.provisioned.nano_gib_hours = 48 * second + 1;
    some.mounts = 2;
    scene_.usage = {.by = {"principal"}, .rows = {{{"rc/v"}, some}, {{""}, {}}}, .total = some};
  }
  void with_prices() {
    scene_.usage.currency = "EUR";
    UsageSum& sum = scene_.usage.rows.at(0).sum;
    sum.referenced.cost = unit * 3 / 2;
    sum.mounted.cost = 1;
    sum.mounts_cost = unit * 2;
    scene_.usage.total = sum;
  }

  Scene scene_;
  FakeApi api_{scene_};
  Context context_;
};

TEST_F(UsageCommandTest, ATableKeepsTheFiguresApart) {
  EXPECT_EQ(written(Format::table, {.by = {"principal"}, .since = *parse_time("2026-11-01")}),
            "PRINCIPAL  REFERENCED  MOUNTED  PROVISIONED  MOUNTS  REF GIB-H  MNT GIB-H  PROV GIB-H\n"
            "rc/v            1h 1m       2h           2d       2       1.50          -       48.00\n"
            "-                  0s       0s           0s       0          -          -           -\n"
            "TOTAL           1h 1m       2h           2d       2       1.50          -       48.00\n");
  EXPECT_THAT(scene_.query.by, testing::ElementsAre("principal"));
  EXPECT_EQ(scene_.query.since, *parse_time("2026-11-01"));
}

TEST_F(UsageCommandTest, MoneyIsShownToItsLastDigit) {
  with_prices();
  const std::string text =
      written(Format::table, {.by = {"principal"}, .prices = PriceList{.currency = "EUR"}});
  EXPECT_THAT(text, testing::HasSubstr("        COST EUR\n"));
  EXPECT_THAT(text, testing::HasSubstr("  3.500000000001\n"));
  EXPECT_THAT(text, testing::HasSubstr("            0.00\n"));
  EXPECT_EQ(scene_.query.prices->currency, "EUR");
}

TEST_F(UsageCommandTest, JsonIsExact) {
  with_prices();
  scene_.usage.rows.pop_back();
  EXPECT_EQ(
      written(Format::json, {.by = {"principal"}, .since = *parse_time("2026-11-01")}),
      R"({"by":["principal"],"since":"2026-11-01T00:00:00.000000Z","until":null,"currency":"EUR","rows":[)"
      R"({"group":{"principal":"rc/v"},"referenced_seconds":"3661","mounted_seconds":"7200.5",)"
      R"("provisioned_seconds":"172800","referenced_gib_hours":"1.5","mounted_gib_hours":"0",)"
      R"("provisioned_gib_hours":"48.000000001","mounts":2,"referenced_cost":"1.5",)"
      R"("mounted_cost":"0.000000000001","provisioned_cost":"0","mounts_cost":"2","cost":"3.500000000001"}],)"
      R"("total":{"referenced_seconds":"3661","mounted_seconds":"7200.5",)"
      R"("provisioned_seconds":"172800","referenced_gib_hours":"1.5","mounted_gib_hours":"0",)"
      R"("provisioned_gib_hours":"48.000000001","mounts":2,"referenced_cost":"1.5",)"
      R"("mounted_cost":"0.000000000001","provisioned_cost":"0","mounts_cost":"2","cost":"3.500000000001"}})"
      "\n");
}

TEST_F(UsageCommandTest, CsvHasAColumnAKeyAndNoFormulas) {
  scene_.usage.by = {"role", "label:=team"};
  scene_.usage.rows = {{{"=1+1", "a,\"b\""}, {}}};
  EXPECT_EQ(written(Format::csv, {.by = {"role", "label:=team"}}),
            "role,label:=team,referenced_seconds,mounted_seconds,provisioned_seconds,referenced_gib_hours,"
            "mounted_gib_hours,provisioned_gib_hours,mounts\r\n"
            "'=1+1,\"a,\"\"b\"\"\",0,0,0,0,0,0,0\r\n");
  scene_.usage.by = {"role"};
  scene_.usage.rows = {{{"web"}, {}}};
  with_prices();
  EXPECT_EQ(
      written(Format::csv, {.by = {"role"}}),
      "role,referenced_seconds,mounted_seconds,provisioned_seconds,referenced_gib_hours,mounted_gib_hours,"
      "provisioned_gib_hours,mounts,referenced_cost,mounted_cost,provisioned_cost,mounts_cost,cost,"
      "currency\r\n"
      "web,0,0,0,0,0,0,0,1.5,0.000000000001,0,2,3.500000000001,EUR\r\n");
}

TEST(ProgressLine, SaysWhatIsKnown) {
  EXPECT_EQ(Progress::line("adding up", 0, 0, 3), "adding up, 3 s");
  EXPECT_EQ(Progress::line("adding up", 1, 3, 2), "adding up, 33 %, 2 s");
  EXPECT_EQ(Progress::line("adding up", 7, 3, 2), "adding up, 100 %, 2 s");
}

}  // namespace
}  // namespace dvdi::cli
