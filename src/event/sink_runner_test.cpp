#include "event/sink_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "event/file_sink.h"
#include "event/sink_test_support.h"

namespace dvdi {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// What a test tells a sink, and what came: outlives the sinks.
struct Place {
  Mutex mutex;
  Condition changed;
  std::vector<std::uint64_t> got;  // numbers, in the order in which they came
  std::vector<std::size_t> batches;
  std::vector<std::uint64_t> again;
  bool broken = false;  // takes nothing
  bool hangs = false;   // until it is cancelled
  bool stuck = false;   // also then
  std::optional<Duration> retry_after;
  std::uint64_t tries = 0;
  unsigned held = 0;  // deliveries that hang just now
  std::uint64_t made = 0;

  void set(const std::function<void()>& work) {
    {
      const Lock lock(mutex);
      work();
    }
    changed.notify_all();
  }
  // Until it holds; false after a minute.
  bool wait(const std::function<bool()>& holds) {
    Lock lock(mutex);
    return changed.wait(Context().with_timeout(std::chrono::minutes(1)), lock, holds, "wait").has_value();
  }
  std::vector<std::uint64_t> numbers() {
    const Lock lock(mutex);
    return got;
  }
};

class FakeSink final : public Sink {
 public:
  explicit FakeSink(std::shared_ptr<Place> place) : place_(std::move(place)) {}

  Status deliver(const Context& context, const std::vector<StoredEvent>& batch) override {
    Place& place = *place_;
    Lock lock(place.mutex);
    ++place.tries;
    place.changed.notify_all();
    ++place.held;
    if (place.stuck) {
      static_cast<void>(place.changed.wait(Context(), lock, [&] { return !place.stuck; }, "be stuck"));
      --place.held;
      return Error{.code = Code::io, .message = "it was stuck"};
    }
    const auto waited = place.changed.wait(context, lock, [&] { return !place.hangs; }, "hang");
    --place.held;
    if (!waited) return waited;
    if (place.broken) return Error{.code = Code::unavailable, .message = "nobody is there"};
    place.batches.push_back(batch.size());
    for (const StoredEvent& one : batch) place.got.push_back(one.sequence);
    place.changed.notify_all();
    return {};
  }
  void sent_again_until(std::uint64_t sequence) override {
    const Lock lock(place_->mutex);
    place_->again.push_back(sequence);
  }
  std::optional<Duration> retry_after() const override {
    const Lock lock(place_->mutex);
    return place_->retry_after;
  }
  Result<SinkHead> head(const Context&, const std::string& node) override {
    return SinkHead{.sequence = 7, .hash = node, .count = 3};
  }
  Status test(const Context&) override { return Error{.code = Code::unavailable, .message = "tested"}; }
  std::string where() const override { return "a fake place"; }

 private:
  const std::shared_ptr<Place> place_;
};

class SinksTest : public testing::Test {
 protected:
  void SetUp() override {
    settings_.name = "one";
    settings_.kind = FileSinkSettings{"/nowhere"};
    settings_.backoff = milliseconds(1);
    settings_.backoff_cap = milliseconds(20);
    auto opened = Ledger::open(context_, folder_ / "state.db");
    ASSERT_TRUE(opened) << opened.error().text();
    ledger_ = std::move(*opened);
  }
  void TearDown() override {
    place_->set([&] { place_->stuck = place_->hangs = false; });
    sinks_.reset();
  }
  void make() { sinks_ = std::make_unique<Sinks>(*ledger_, std::vector{settings_}); }
  void start() {
    make();
    const auto started = sinks_->start(
        context_,
        [this](const SinkSettings&) -> Result<std::unique_ptr<Sink>> {
          const Lock lock(place_->mutex);
          ++place_->made;
          return std::unique_ptr<Sink>(std::make_unique<FakeSink>(place_));
        },
        [this](std::string text) { place_->set([&] { said_.push_back(std::move(text)); }); });
    ASSERT_TRUE(started) << started.error().text();
  }
  void stop(Duration timeout = std::chrono::minutes(1)) { sinks_->stop(Context().with_timeout(timeout)); }
  void record(unsigned count = 1, std::size_t bytes = 0) {
    const auto written = ledger_->write(context_, "test", [&](Transaction& transaction) -> Status {
      for (unsigned i = 0; i < count; ++i) {
        Event event{.type = "dvdi.test.event"};
        event.reason = std::string(bytes, 'x');
        DVDI_CHECK(transaction.record(event));
      }
      return {};
    });
    ASSERT_TRUE(written) << written.error().text();
  }
  SinkStatus status() {
    const auto all = sinks_->status(context_);
    EXPECT_TRUE(all) << all.error().text();
    return all ? all->at(0) : SinkStatus{};
  }
  // Until the status is so: the ledger is written, or the place changes, on the way there.
  bool becomes(const std::function<bool(const SinkStatus&)>& holds) {
    for (;;) {
      if (holds(status())) return true;
      if (!pause(deadline_, milliseconds(2), "look again")) return false;
    }
  }
  bool becomes(const std::string& state) {
    return becomes([&](const SinkStatus& one) { return one.state == state; });
  }
  SinkRow row() {
    SinkRow row;
    EXPECT_TRUE(ledger_->read(context_, "test", [&](Reader& reader) -> Status {
      DVDI_TRY(const auto found, reader.sink("one"));
      row = found.value_or(SinkRow{});
      return {};
    }));
    return row;
  }
  std::vector<std::string> events_of_type(const std::string& type) {
    std::vector<std::string> found;
    EXPECT_TRUE(ledger_->read(context_, "test", [&](Reader& reader) -> Status {
      DVDI_TRY(const auto all, reader.events(0, 1000));
      for (const StoredEvent& one : all) {
        if (one.body.find("\"type\":\"" + type + "\"") != std::string::npos) found.push_back(one.body);
      }
      return {};
    }));
    return found;
  }
  std::vector<std::string> said() {
    const Lock lock(place_->mutex);
    return said_;
  }
  static std::vector<std::uint64_t> numbers(std::uint64_t from, std::uint64_t to) {
    std::vector<std::uint64_t> all;
    for (std::uint64_t i = from; i <= to; ++i) all.push_back(i);
    return all;
  }
  bool wait_got(std::size_t count) {
    return place_->wait([&] { return place_->got.size() >= count; });
  }

  const Context context_;
  const Context deadline_ = Context().with_timeout(std::chrono::minutes(1));
  const TestFolder folder_;
  const std::shared_ptr<Place> place_ = std::make_shared<Place>();
  std::vector<std::string> said_;  // under the place's mutex
  SinkSettings settings_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<Sinks> sinks_;
};

TEST_F(SinksTest, WhatIsThereAndWhatComesIsDeliveredInOrder) {
  record(3);
  start();
  ASSERT_TRUE(wait_got(3));
  record(2);
  ASSERT_TRUE(wait_got(5));
  EXPECT_EQ(place_->numbers(), numbers(1, 5));
  ASSERT_TRUE(becomes("idle"));
  const SinkStatus now = status();
  EXPECT_EQ(now.cursor, 5U);
  EXPECT_EQ(now.behind, 0U);
  EXPECT_EQ(now.delivered_total, 5U);
  EXPECT_EQ(now.failures_total, 0U);
  EXPECT_EQ(now.where, "a fake place");
  EXPECT_FALSE(now.oldest);
  EXPECT_EQ(row().cursor, 5U);  // written, as it is idle
}

TEST_F(SinksTest, ABatchHasItsLimitsButALargeEventGoesAlone) {
  settings_.batch_events = 3;
  settings_.batch_bytes = 4096;
  record(7);
  record(1, 10'000);
  record(2);
  start();
  ASSERT_TRUE(wait_got(10));
  stop();
  EXPECT_EQ(place_->numbers(), numbers(1, 10));
  EXPECT_THAT(place_->batches, ElementsAre(3U, 3U, 1U, 1U, 2U));
}

TEST_F(SinksTest, ItGoesOnWhereItWas) {
  record(3);
  start();
  ASSERT_TRUE(wait_got(3));
  stop();
  EXPECT_EQ(row().cursor, 3U);
  record(2);
  start();
  ASSERT_TRUE(wait_got(5));
  EXPECT_EQ(place_->numbers(), numbers(1, 5));
}

TEST_F(SinksTest, ANewSinkMayBeginWithWhatComes) {
  settings_.from_now = true;
  record(3);
  start();
  record(1);
  ASSERT_TRUE(wait_got(1));
  EXPECT_EQ(place_->numbers(), numbers(4, 4));
  stop();
  record(1);
  start();  // it is not new any more
  ASSERT_TRUE(wait_got(2));
  EXPECT_EQ(place_->numbers(), numbers(4, 5));
}

TEST_F(SinksTest, WhatFailsIsTriedAgainAndSaidOnceWhenItBeginsAndOnceWhenItIsOver) {
  place_->broken = true;
  record(2);
  start();
  ASSERT_TRUE(place_->wait([&] { return place_->tries >= 4; }));
  ASSERT_TRUE(becomes("waiting"));
  const SinkStatus now = status();
  EXPECT_EQ(now.behind, 2U);
  EXPECT_TRUE(now.oldest);
  EXPECT_THAT(now.last_error, HasSubstr("nobody is there"));
  EXPECT_TRUE(now.last_error_time);
  EXPECT_GE(now.failures_total, 3U);
  place_->set([&] { place_->broken = false; });
  ASSERT_TRUE(wait_got(2));
  ASSERT_TRUE(becomes("idle"));
  EXPECT_EQ(place_->numbers(), numbers(1, 2));
  EXPECT_FALSE(status().next_try);
  EXPECT_THAT(said(), ElementsAre(AllOf(HasSubstr("sink one (a fake place) takes no events"),
                                        HasSubstr("nobody is there")),
                                  HasSubstr("sink one (a fake place) takes events again")));
}

TEST_F(SinksTest, ItWaitsForAsLongAsTheReceiverAsksFor) {
  place_->broken = true;
  place_->retry_after = std::chrono::hours(48);
  record();
  start();
  ASSERT_TRUE(becomes([](const SinkStatus& one) { return one.next_try.has_value(); }));
  const Duration wait = *status().next_try - system_clock().wall();
  EXPECT_GT(wait, std::chrono::minutes(50));
  EXPECT_LE(wait, std::chrono::hours(1));  // and no longer than that
}

TEST_F(SinksTest, AReplayWakesASinkThatWaitsForItsNextTry) {
  record(4);
  start();
  ASSERT_TRUE(wait_got(4));
  place_->set([&] {
    place_->broken = true;
    place_->retry_after = std::chrono::hours(1);
  });
  record();
  ASSERT_TRUE(becomes("waiting"));
  place_->set([&] { place_->broken = false; });
  const auto done = sinks_->replay(context_, "one", 2);
  ASSERT_TRUE(done) << done.error().text();
  ASSERT_TRUE(place_->wait([&] { return !place_->got.empty() && place_->got.back() == 6; }));
  EXPECT_THAT(place_->numbers(), ElementsAre(1U, 2U, 3U, 4U, 2U, 3U, 4U, 5U, 6U));
  ASSERT_TRUE(becomes("idle"));
  EXPECT_EQ(row().replay_until, 0U);
  EXPECT_EQ(row().cursor, 6U);
  EXPECT_THAT(
      events_of_type("dvdi.sink.replayed"),
      ElementsAre(AllOf(HasSubstr(R"("sink":"one")"), HasSubstr(R"("from":2)"), HasSubstr(R"("until":4)"))));
  EXPECT_THAT(place_->again, testing::Contains(4U));
}

TEST_F(SinksTest, APausedSinkGetsNothingUntilItGoesOn) {
  start();
  ASSERT_TRUE(sinks_->pause(context_.with_caller({.uid = 5, .gid = 6, .pid = 7}), "one"));
  ASSERT_TRUE(becomes("paused"));
  const std::size_t before = place_->numbers().size();
  record(3);
  stop();
  start();  // also after a restart
  ASSERT_TRUE(becomes("paused"));
  EXPECT_TRUE(row().paused);
  EXPECT_EQ(place_->numbers().size(), before);
  EXPECT_GE(status().behind, 3U);
  ASSERT_TRUE(sinks_->pause(context_, "one"));  // already so
  EXPECT_THAT(events_of_type("dvdi.sink.paused"),
              ElementsAre(HasSubstr(R"("peer":{"uid":5,"gid":6,"pid":7})")));
  ASSERT_TRUE(sinks_->resume(context_, "one"));
  ASSERT_TRUE(wait_got(5));
  EXPECT_EQ(place_->numbers(), numbers(1, 5));
  EXPECT_THAT(events_of_type("dvdi.sink.resumed"), SizeIs(1));
}

TEST_F(SinksTest, AReplayBeginsWithAnEventThatIsThereAndWasDelivered) {
  record(4);
  start();
  ASSERT_TRUE(wait_got(4));
  ASSERT_TRUE(becomes("idle"));
  const auto none = sinks_->replay(context_, "one", 0);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::invalid_argument);
  const auto later = sinks_->replay(context_, "one", 5);
  ASSERT_FALSE(later);
  EXPECT_EQ(later.error().code, Code::invalid_argument);
  EXPECT_THAT(later.error().text(), HasSubstr("it is at 4"));
  EXPECT_THAT(events_of_type("dvdi.sink.replayed"), IsEmpty());
  EXPECT_EQ(row().cursor, 4U);
}

TEST_F(SinksTest, AReplayThatComesDuringADeliveryHolds) {
  record(4);
  start();
  ASSERT_TRUE(wait_got(4));
  place_->set([&] { place_->hangs = true; });
  record();
  ASSERT_TRUE(place_->wait([&] { return place_->held == 1; }));
  ASSERT_TRUE(sinks_->replay(context_, "one", 3));
  place_->set([&] { place_->hangs = false; });
  ASSERT_TRUE(place_->wait([&] { return place_->got.back() == 6; }));
  EXPECT_THAT(place_->numbers(), ElementsAre(1U, 2U, 3U, 4U, 5U, 3U, 4U, 5U, 6U));
}

TEST_F(SinksTest, WhatWasDroppedIsForgottenWithTheNextDelivery) {
  record(2);
  start();
  ASSERT_TRUE(wait_got(2));
  ASSERT_TRUE(becomes("idle"));
  ASSERT_TRUE(ledger_->write(context_, "drop", [&](Transaction& transaction) -> Status {
    DVDI_TRY(auto row, transaction.sink("one"));
    row->undelivered = 3;
    return transaction.put(*row);
  }));
  EXPECT_EQ(row().undelivered, 3U);
  ASSERT_TRUE(sinks_->pause(context_, "one"));  // an event, too
  ASSERT_TRUE(sinks_->resume(context_, "one"));
  ASSERT_TRUE(wait_got(4));
  ASSERT_TRUE(becomes("idle"));
  EXPECT_EQ(row().undelivered, 0U);
}

TEST_F(SinksTest, WhatRetentionHasPassedOverIsNotTakenBack) {
  record(2);
  start();
  ASSERT_TRUE(wait_got(2));
  ASSERT_TRUE(becomes("idle"));
  place_->set([&] { place_->hangs = true; });
  record(3);  // 3 to 5
  ASSERT_TRUE(place_->wait([&] { return place_->held == 1; }));
  ASSERT_TRUE(ledger_->write(context_, "drop", [&](Transaction& transaction) -> Status {
    DVDI_TRY(auto row, transaction.sink("one"));
    row->undelivered = 6;
    row->cursor = 9;
    return transaction.put(*row);
  }));
  place_->set([&] { place_->hangs = false; });
  ASSERT_TRUE(wait_got(5));
  ASSERT_TRUE(becomes("idle"));
  EXPECT_EQ(row().cursor, 9U);
  EXPECT_EQ(row().undelivered, 6U);  // it has got nothing since
}

TEST_F(SinksTest, AHungDeliveryEndsWithItsTimeout) {
  settings_.timeout = milliseconds(5);
  place_->hangs = true;
  record();
  start();
  ASSERT_TRUE(place_->wait([&] { return place_->tries >= 2; }));
  EXPECT_THAT(status().last_error, HasSubstr("hang"));
}

TEST_F(SinksTest, TheEndCancelsADeliveryThatHangs) {
  place_->hangs = true;
  record();
  start();
  ASSERT_TRUE(place_->wait([&] { return place_->held == 1; }));
  stop(Duration::zero());
  EXPECT_EQ(place_->held, 0U);
  EXPECT_EQ(row().cursor, 0U);
  EXPECT_THAT(said(), IsEmpty());
}

TEST_F(SinksTest, TheEndWaitsForADeliveryThatEndsInTime) {
  place_->hangs = true;
  record();
  start();
  ASSERT_TRUE(place_->wait([&] { return place_->held == 1; }));
  std::thread release([&] {
    // Once stop() has asked: no new sink can be had from then on.
    while (sinks_->test(context_, "one").error().code != Code::failed_precondition) std::this_thread::yield();
    place_->set([&] { place_->hangs = false; });
  });
  stop();
  release.join();
  EXPECT_EQ(row().cursor, 1U);
}

TEST_F(SinksTest, ADeliveryThatCannotEvenBeCancelledDoesNotHoldUpTheEnd) {
  place_->stuck = true;
  record();
  start();
  ASSERT_TRUE(place_->wait([&] { return place_->held == 1; }));
  stop(Duration::zero());
  sinks_.reset();
  EXPECT_EQ(place_->held, 1U);
  ledger_.reset();  // nothing of it is touched any more
  place_->set([&] { place_->stuck = false; });
  ASSERT_TRUE(place_->wait([&] { return place_->held == 0; }));
}

TEST_F(SinksTest, WithoutAStartRowsCanBeReadAndChangedAndNothingElse) {
  record(4);
  start();
  ASSERT_TRUE(wait_got(4));
  stop();
  make();
  record(1);
  EXPECT_EQ(status().state, "off");
  EXPECT_EQ(status().name, "one");
  EXPECT_EQ(status().where, "/nowhere");
  EXPECT_EQ(status().cursor, 4U);
  EXPECT_EQ(status().behind, 1U);
  ASSERT_TRUE(sinks_->pause(context_, "one"));
  EXPECT_TRUE(status().paused);
  ASSERT_TRUE(sinks_->resume(context_, "one"));
  EXPECT_FALSE(status().paused);
  ASSERT_TRUE(sinks_->replay(context_, "one", 2));
  EXPECT_EQ(row().cursor, 1U);
  EXPECT_EQ(row().replay_until, 4U);
  const auto tested = sinks_->test(context_, "one");
  ASSERT_FALSE(tested);
  EXPECT_EQ(tested.error().code, Code::failed_precondition);
  EXPECT_EQ(sinks_->head(context_, "one").error().code, Code::failed_precondition);
  const auto other = sinks_->pause(context_, "two");
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Code::not_found);
  EXPECT_THAT(other.error().text(), HasSubstr("one"));
}

TEST_F(SinksTest, TestsAndHeadsHaveASinkOfTheirOwn) {
  start();
  EXPECT_THAT(sinks_->test(context_, "one").error().message, HasSubstr("tested"));
  const auto head = sinks_->head(context_, "one");
  ASSERT_TRUE(head);
  EXPECT_EQ(head->hash, ledger_->node_id());
  const Lock lock(place_->mutex);
  EXPECT_EQ(place_->made, 3U);
}

TEST_F(SinksTest, SettingsThatCannotBeDoNotStart) {
  settings_.name = "a b";
  make();
  const auto started = sinks_->start(context_, nullptr, nullptr);
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, Code::invalid_argument);
}

TEST_F(SinksTest, AFileGetsAllOfIt) {
  const std::string path = folder_ / "events";
  settings_.kind = FileSinkSettings{path};
  settings_.batch_events = 7;
  make();
  ASSERT_TRUE(sinks_->start(
      context_,
      [&](const SinkSettings&) -> Result<std::unique_ptr<Sink>> {
        return std::unique_ptr<Sink>(std::make_unique<FileSink>(FileSinkSettings{path}));
      },
      [](const std::string&) {}));
  record(50);
  ASSERT_TRUE(becomes([](const SinkStatus& one) { return one.cursor == 50; }));
  stop();
  EXPECT_THAT(lines_in(path), SizeIs(50));
}

}  // namespace
}  // namespace dvdi
