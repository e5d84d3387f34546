#include "event/retention.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/fake_clock_test.h"
#include "base/json.h"
#include "store/usage_test_support.h"

namespace dvdi {
namespace {

using std::chrono::hours;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class RetentionTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/dvdi-retention-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    auto opened = Ledger::open(context(), folder_ + "/state.db");
    ASSERT_TRUE(opened) << opened.error().text();
    ledger_ = std::move(*opened);
  }
  void TearDown() override {
    ledger_.reset();
    std::filesystem::remove_all(folder_);
  }
  Context context() const { return Context(clock_, "trace"); }
  void write(const std::function<Status(Transaction&)>& work) {
    const auto written = ledger_->write(context(), "test", work);
    ASSERT_TRUE(written) << written.error().text();
  }
  void record(unsigned count, std::size_t bytes = 10) {
    write([&](Transaction& tx) -> Status {
      for (unsigned i = 0; i < count; ++i) {
        Event event{.type = "dvdi.test", .subject = "test/x"};
        event.reason = std::string(bytes, 'x');
        DVDI_CHECK(tx.record(event));
      }
      return {};
    });
  }
  void sink(const std::string& name, std::uint64_t cursor) {
    write([&](Transaction& tx) { return tx.put(SinkRow{.name = name, .cursor = cursor}); });
  }
  SinkRow sink(const std::string& name) {
    std::optional<SinkRow> row;
    EXPECT_TRUE(ledger_->read(context(), "test", [&](Reader& reader) -> Status {
      DVDI_TRY(row, reader.sink(name));
      return {};
    }));
    return row.value_or(SinkRow{});
  }
  std::vector<StoredEvent> events() {
    std::vector<StoredEvent> all;
    EXPECT_TRUE(ledger_->read(context(), "test", [&](Reader& reader) -> Status {
      DVDI_TRY(all, reader.events(0, 1'000'000));
      return {};
    }));
    return all;
  }
  static Status verify(const std::vector<StoredEvent>& all) {
    EventVerifier verifier;
    for (const StoredEvent& event : all) DVDI_CHECK(verifier.next(event));
    return verifier.finish();
  }
  Retained retain_now(const std::vector<std::string>& sinks = {}) {
    auto done = retain(context(), *ledger_, retention_, sinks);
    EXPECT_TRUE(done) << done.error().text();
    EXPECT_TRUE(verify(events()));
    return done.value_or(Retained{});
  }
  // The `data` of the events of that type.
  std::vector<std::string> data_of(std::string_view type) {
    std::vector<std::string> found;
    for (const StoredEvent& event : events()) {
      const auto body = json::parse(event.body, "event");
      if (json::text_or_empty(*body, "type") == type)
        found.push_back(json::serialize(*json::find(*body, "data")));
    }
    return found;
  }

  FakeClock clock_;
  Retention retention_{.events_age = Duration::zero(),
                       .events_bytes = 0,
                       .events_hard_bytes = 0,
                       .usage_age = Duration::zero()};
  std::string folder_;
  std::unique_ptr<Ledger> ledger_;
};

TEST_F(RetentionTest, WithoutALimitNothingGoes) {
  record(5);
  clock_.advance(hours(24 * 10'000));
  EXPECT_EQ(retain_now().events, 0U);
  EXPECT_EQ(events().size(), 5U);
}

TEST_F(RetentionTest, WhatIsOldGoesAndTheChainSaysSo) {
  retention_.events_age = hours(10);
  record(5);
  clock_.advance(hours(6));
  record(3);
  EXPECT_EQ(retain_now().events, 0U);
  clock_.advance(hours(6));
  const std::string head = events().at(4).hash;
  EXPECT_EQ(retain_now().events, 5U);
  EXPECT_EQ(events().front().sequence, 6U);
  EXPECT_THAT(data_of(events_cut_type),
              ElementsAre(fmt::format(R"({{"reason":"age","first":1,"last":5,"head":"{}"}})", head)));
  EXPECT_EQ(retain_now().events, 0U);
  // Once more, and the newest event of a cut is the one that counts.
  clock_.advance(hours(6));
  EXPECT_EQ(retain_now().events, 3U);
  EXPECT_EQ(events().front().sequence, 9U);
}

TEST_F(RetentionTest, ThoseThatSomebodyElseTookAwayAreMissed) {
  retention_.events_age = hours(10);
  record(5);
  clock_.advance(hours(12));
  record(5);
  retain_now();
  auto all = events();
  all.erase(all.begin());
  EXPECT_THAT(verify(all).error().text(), HasSubstr("events 6 to 6 are missing at the beginning"));
  // With the event of the cut gone, too, all of it is.
  all = events();
  all.pop_back();
  EXPECT_THAT(verify(all).error().text(), HasSubstr("events 1 to 5 are missing at the beginning"));
}

TEST_F(RetentionTest, TheNewestEventAlwaysStays) {
  retention_.events_age = hours(1);
  record(3);
  clock_.advance(hours(2));
  EXPECT_EQ(retain_now().events, 2U);
  EXPECT_EQ(events().front().sequence, 3U);
}

TEST_F(RetentionTest, OfTooManyBytesTheOldestGo) {
  record(100, 1000);
  std::uint64_t bytes = 0;
  EXPECT_TRUE(ledger_->read(context(), "test", [&](Reader& reader) -> Status {
    DVDI_TRY(const auto span, reader.event_span());
    bytes = span->bytes;
    return {};
  }));
  std::uint64_t sum = 0;
  for (const StoredEvent& event : events()) sum += event.body.size() + event.hash.size();
  EXPECT_EQ(bytes, sum);
  retention_.events_bytes = bytes / 2;
  const std::uint64_t gone = retain_now().events;
  EXPECT_TRUE(gone == 50 || gone == 51) << gone << ": they are nearly of one size";
  EXPECT_EQ(events().front().sequence, gone + 1);
  EXPECT_LE(retain_now().events, 1U) << "the record of the cut takes the place of one";
}

TEST_F(RetentionTest, WhatASinkHasNotGotStaysUpToTheHardLimit) {
  retention_.events_age = hours(10);
  record(100, 1000);
  sink("slow", 20);
  sink("fast", 90);
  clock_.advance(hours(11));
  EXPECT_EQ(retain_now({"slow", "fast", "new"}).events, 0U) << "one that has no row has got nothing";
  EXPECT_EQ(retain_now({"slow", "fast"}).events, 20U);
  EXPECT_THAT(data_of("dvdi.events.dropped"), IsEmpty());
  retention_.events_hard_bytes = 40'000;
  const Retained done = retain_now({"slow", "fast"});
  EXPECT_GT(done.events, 40U);
  EXPECT_THAT(done.dropped, ElementsAre("slow"));
  const std::uint64_t first_left = events().front().sequence;
  EXPECT_EQ(sink("slow").cursor, first_left - 1);
  EXPECT_EQ(sink("slow").undelivered, 21U);
  EXPECT_EQ(sink("fast").cursor, 90U);
  EXPECT_THAT(data_of("dvdi.events.dropped"),
              ElementsAre(fmt::format(R"({{"sink":"slow","first":21,"last":{}}})", first_left - 1)));
  EXPECT_EQ(retain_now({"slow", "fast"}).events, 0U) << "there is some room now";
  // It gets nothing for longer: the next record is of all that it missed.
  record(100, 1000);
  retain_now({"slow", "fast"});
  EXPECT_EQ(sink("slow").undelivered, 21U);
  EXPECT_THAT(
      data_of("dvdi.events.dropped"),
      Contains(fmt::format(R"({{"sink":"slow","first":21,"last":{}}})", events().front().sequence - 1)));
}

TEST_F(RetentionTest, ALotGoesInPiecesUntilTheContextEnds) {
  retention_.events_age = hours(10);
  record(25'000, 1);
  clock_.advance(hours(11));
  record(1);
  std::stop_source stop;
  stop.request_stop();
  const auto none = retain(context().with_stop(stop.get_token()), *ledger_, retention_, {});
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->finished);
  EXPECT_EQ(retain_now().events, 25'000U);
  EXPECT_EQ(data_of(events_cut_type).size(), 3U);
}

TEST_F(RetentionTest, UsageThatEndedLongAgoGoesAndWhatIsOpenStays) {
  using Kind = UsageInterval::Kind;
  const UsageInterval open{.kind = Kind::mounted, .volume = {"d", "open"}};
  const UsageInterval closed{.kind = Kind::mounted, .volume = {"d", "closed"}};
  write([&](Transaction& tx) -> Status {
    DVDI_CHECK(begin_use(tx, open));
    return begin_use(tx, closed);
  });
  clock_.advance(hours(5));
  write([&](Transaction& tx) { return end_use(tx, closed); });
  retention_.usage_age = hours(10);
  clock_.advance(hours(9));
  EXPECT_EQ(retain_now().usage, 0U);
  clock_.advance(hours(2));
  EXPECT_EQ(retain_now().usage, 1U);
  EXPECT_THAT(data_of("dvdi.usage.cut").at(0), HasSubstr(R"("count":1)"));
  std::vector<std::string> left;
  EXPECT_TRUE(ledger_->read(context(), "test", [&](Reader& reader) {
    return reader.usage(ledger_->now(clock_), WallTime{}, WallTime::max(), {.volume = true},
                        [&](const UsageRecord& one) {
                          left.emplace_back(one.volume);
                          return true;
                        });
  }));
  EXPECT_THAT(left, ElementsAre("open"));
}

}  // namespace
}  // namespace dvdi
