#include "event/compare.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "event/retention.h"

namespace dvdi {
namespace {

using testing::HasSubstr;

class CompareTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/dvdi-compare-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    auto opened = Ledger::open(Context(), folder_ + "/state.db");
    ASSERT_TRUE(opened) << opened.error().text();
    ledger_ = std::move(*opened);
    write([](Transaction& tx) -> Status {
      for (int i = 0; i < 20; ++i) {
        DVDI_CHECK(
            tx.record(Event{.type = "dvdi.test", .subject = "test/x", .reason = std::string(100, 'x')}));
      }
      return {};
    });
  }
  void TearDown() override {
    ledger_.reset();
    std::filesystem::remove_all(folder_);
  }
  void write(const std::function<Status(Transaction&)>& work) {
    const auto written = ledger_->write(Context(), "test", work);
    ASSERT_TRUE(written) << written.error().text();
  }
  void confirmed(std::uint64_t cursor) {
    write([&](Transaction& tx) { return tx.put(SinkRow{.name = "s", .cursor = cursor}); });
  }
  // What a sink that has events `first` to `last` says.
  SinkHead has(std::uint64_t first, std::uint64_t last) {
    SinkHead head{.sequence = last, .first = first, .count = last - first + 1};
    EXPECT_TRUE(ledger_->read(Context(), "test", [&](Reader& reader) -> Status {
      DVDI_TRY(const auto found, reader.events(last - 1, 1));
      head.hash = found.at(0).hash;
      return {};
    }));
    return head;
  }
  Result<Compared> compare(const SinkHead& head, bool rotates = false) {
    Result<Compared> compared;
    const auto read = ledger_->read(Context(), "test", [&](Reader& reader) -> Status {
      DVDI_TRY(const auto before, confirmed_by(reader, "s"));
      compared = compare_with_sink(reader, "s", before, head, rotates);
      return {};
    });
    EXPECT_TRUE(read) << read.error().text();
    return compared;
  }
  void expect_differs(const SinkHead& head, const std::string& text) {
    const auto compared = compare(head);
    ASSERT_FALSE(compared) << text;
    EXPECT_EQ(compared.error().code, Code::corrupted);
    EXPECT_THAT(compared.error().message, HasSubstr(text));
  }
  void expect_same(const SinkHead& head) {
    const auto compared = compare(head);
    ASSERT_TRUE(compared) << compared.error().text();
    EXPECT_TRUE(compared->same);
    EXPECT_EQ(compared->not_told, "");
  }

  std::string folder_;
  std::unique_ptr<Ledger> ledger_;
};

TEST_F(CompareTest, ASinkThatHasThemAllOrIsBehindIsTheSame) {
  expect_same(has(1, 20));
  confirmed(7);
  expect_same(has(1, 7));
  expect_same(has(1, 9));  // more than is noted: the cursor is written now and then
  expect_same(has(5, 9));  // one that began later
}

TEST_F(CompareTest, AnotherHashIsARewrittenChain) {
  SinkHead head = has(1, 20);
  head.hash = std::string(64, 'a');
  expect_differs(head, "event 20 is another one here than in sink s");
}

TEST_F(CompareTest, MoreThanIsHereMeansThatSomeWereRemovedHere) {
  SinkHead head = has(1, 20);
  head.sequence = 25;
  expect_differs(head, "has event 25, and here the newest is number 20");
}

TEST_F(CompareTest, LessThanWasConfirmedMeansThatSomeWereRemovedThere) {
  confirmed(10);
  expect_differs(has(1, 9), "is number 9, and it had confirmed 10");
  expect_differs({}, "had confirmed 10");
  // A file that was rotated has nothing yet.
  const auto rotated = compare({}, true);
  ASSERT_TRUE(rotated);
  EXPECT_FALSE(rotated->same);
  EXPECT_THAT(rotated->not_told, HasSubstr("begun anew"));
}

TEST_F(CompareTest, OneThatGotNothingYetCannotBeCompared) {
  const auto compared = compare({});
  ASSERT_TRUE(compared);
  EXPECT_FALSE(compared->same);
  EXPECT_THAT(compared->not_told, HasSubstr("no event of this node yet"));
}

TEST_F(CompareTest, GapsThatWereNotDroppedAreDifferences) {
  SinkHead head = has(1, 20);
  head.count = 18;
  expect_differs(head, "has 18 of the 20 events");
  head.count = 21;
  expect_differs(head, "more than there are numbers");
  head.first = 0;
  const auto compared = compare(head);
  ASSERT_TRUE(compared);
  EXPECT_TRUE(compared->same);
  EXPECT_THAT(compared->not_told, HasSubstr("does not say"));
}

TEST_F(CompareTest, WhatWasDroppedIsNoDifference) {
  confirmed(4);
  const Retention hard{.events_age = Duration::zero(), .events_bytes = 0, .events_hard_bytes = 5000};
  const auto done = retain(Context(), *ledger_, hard, {"s"});
  ASSERT_TRUE(done) << done.error().text();
  ASSERT_EQ(done->dropped.size(), 1U);
  const std::uint64_t gone = done->events;
  // It had 1 to 4, and gets the rest after the gap, with the record of it.
  SinkHead head = has(gone + 1, 20);
  head.first = 1;
  head.count = 4 + (20 - gone);
  expect_same(head);
  --head.count;
  // The first of them is not kept here any more: who knows.
  const auto compared = compare(head);
  ASSERT_TRUE(compared) << compared.error().text();
  EXPECT_THAT(compared->not_told, HasSubstr("not known any more"));
}

TEST_F(CompareTest, OneThatIsBehindWhatIsKeptIsComparedByTheEventAfterIt) {
  const SinkHead at_cut = has(1, 20);
  write([](Transaction& tx) { return tx.record(Event{.type = "dvdi.test", .subject = "test/x"}); });
  confirmed(20);
  const SinkHead long_ago = has(1, 10);
  write([](Transaction& tx) { return tx.erase_events(20); });
  expect_same(at_cut);
  confirmed(10);
  const auto compared = compare(long_ago);
  ASSERT_TRUE(compared);
  EXPECT_FALSE(compared->same);
  EXPECT_THAT(compared->not_told, HasSubstr("not kept here any more"));
}

}  // namespace
}  // namespace dvdi
