// The suite that every Sink passes. Include it in one test program and write
//
//   INSTANTIATE_TEST_SUITE_P(File, SinkConformance, testing::Values(ReceiverFactory{&make_receiver}));
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "event/sink_test_support.h"

namespace dvdi {

// The other end of a sink, with whatever it needs to live.
class Receiver {
 public:
  Receiver() = default;
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;
  virtual ~Receiver() = default;
  // A sink that delivers to it, as another process would make it.
  virtual std::unique_ptr<Sink> sink() = 0;
  // The events that it has, as it got them, repeats included. One that drops repeats by itself has none.
  virtual std::vector<std::string> received() = 0;
  virtual void break_it() = 0;  // deliveries fail from now on
  virtual void mend() = 0;
  virtual bool can_be_asked() const = 0;  // head()
  virtual std::size_t largest() const { return std::size_t{8} << 20U; }
};

// A new Receiver for each test. Code::unsupported: the test is skipped with the message as its reason.
using ReceiverFactory = std::function<Result<std::unique_ptr<Receiver>>()>;

class SinkConformance : public testing::TestWithParam<ReceiverFactory> {
 protected:
  void SetUp() override {
    auto made = GetParam()();
    if (!made && made.error().code == Code::unsupported) GTEST_SKIP() << made.error().message;
    ASSERT_TRUE(made) << made.error().text();
    receiver_ = std::move(*made);
    sink_ = receiver_->sink();
    ASSERT_TRUE(sink_);
  }
  Context context() const { return Context().with_timeout(std::chrono::minutes(1)); }
  void deliver(const std::vector<StoredEvent>& batch) {
    const auto done = sink_->deliver(context(), batch);
    ASSERT_TRUE(done) << done.error().text();
  }
  // What was received, each event once, in the order in which it came first.
  std::vector<std::string> distinct() {
    std::vector<std::string> once;
    for (std::string& one : receiver_->received()) {
      if (std::ranges::find(once, one) == once.end()) once.push_back(std::move(one));
    }
    return once;
  }

  EventMaker maker_;
  std::unique_ptr<Receiver> receiver_;
  std::unique_ptr<Sink> sink_;
};

TEST_P(SinkConformance, EachEventArrivesOnceInOrderAndByteForByte) {
  std::vector<StoredEvent> all;
  for (const std::size_t size : {1U, 3U, 50U, 1U}) {
    const auto batch = maker_.some(size);
    deliver(batch);
    all.insert(all.end(), batch.begin(), batch.end());
  }
  EXPECT_EQ(receiver_->received(), lines_of(all));
}

TEST_P(SinkConformance, AfterAFailureNothingIsMissing) {
  auto all = maker_.some(4);
  deliver(all);
  const auto batch = maker_.some(5);
  receiver_->break_it();
  const auto failed = sink_->deliver(context(), batch);
  ASSERT_FALSE(failed);
  EXPECT_FALSE(failed.error().message.empty());
  receiver_->mend();
  deliver(batch);
  all.insert(all.end(), batch.begin(), batch.end());
  EXPECT_EQ(distinct(), lines_of(all));
}

TEST_P(SinkConformance, WhatComesAgainHasTheSameBytes) {
  const auto batch = maker_.some(4);
  deliver(batch);
  sink_ = receiver_->sink();  // the process was killed before it could note the cursor
  deliver(batch);
  EXPECT_EQ(distinct(), lines_of(batch));
}

TEST_P(SinkConformance, ABatchThatPartlyArrivedBeforeACrashLeavesNoGap) {
  auto batch = maker_.some(4);
  deliver({batch[0], batch[1]});
  sink_ = receiver_->sink();
  deliver(batch);
  EXPECT_EQ(distinct(), lines_of(batch));
}

TEST_P(SinkConformance, TheLargestEventPasses) {
  const StoredEvent before = maker_.next();
  const StoredEvent large = maker_.next(receiver_->largest());
  const StoredEvent after = maker_.next();
  deliver({before});
  deliver({large});
  sink_ = receiver_->sink();
  deliver({large, after});
  EXPECT_TRUE(distinct() == lines_of({before, large, after}));  // a difference would be megabytes long
}

TEST_P(SinkConformance, ItsHeadIsWhatItHas) {
  if (!receiver_->can_be_asked()) {
    const auto head = sink_->head(context(), test_node());
    ASSERT_FALSE(head);
    EXPECT_EQ(head.error().code, Code::unsupported);
    return;
  }
  const auto head = [&](const std::string& node) {
    const auto found = receiver_->sink()->head(context(), node);
    EXPECT_TRUE(found) << found.error().text();
    return found ? *found : SinkHead{};
  };
  EXPECT_EQ(head(test_node()).sequence, 0U);
  const auto first = maker_.some(7);
  deliver(first);
  const auto second = maker_.some(3);
  deliver(second);
  EXPECT_EQ(head(test_node()).sequence, 10U);
  EXPECT_EQ(head(test_node()).hash, second.back().hash);
  EXPECT_EQ(head(test_node()).count, 10U);
  // What comes again is counted once.
  sink_->sent_again_until(10);
  deliver(second);
  EXPECT_EQ(head(test_node()).sequence, 10U);
  EXPECT_EQ(head(test_node()).count, 10U);
  EXPECT_EQ(head("another-node").count, 0U);
  // Another node that delivers to the same place is another's.
  EventMaker other("99999999-2222-4333-8444-555555555555");
  deliver(other.some(12));
  EXPECT_EQ(head(test_node()).sequence, 10U);
  EXPECT_EQ(head(test_node()).count, 10U);
  EXPECT_EQ(head("99999999-2222-4333-8444-555555555555").count, 12U);
}

TEST_P(SinkConformance, ATestDeliversNothingAndSaysWhetherItIsThere) {
  deliver(maker_.some(2));
  const auto done = sink_->test(context());
  EXPECT_TRUE(done) << done.error().text();
  EXPECT_EQ(receiver_->received().size(), 2U);
  receiver_->break_it();
  EXPECT_FALSE(receiver_->sink()->test(context()));
  receiver_->mend();
  EXPECT_TRUE(receiver_->sink()->test(context()));
}

TEST_P(SinkConformance, ACancelledDeliveryIsNoSuccess) {
  std::stop_source stop;
  stop.request_stop();
  const auto batch = maker_.some(2);
  const auto done = sink_->deliver(context().with_stop(stop.get_token()), batch);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::cancelled);
  deliver(batch);
  EXPECT_EQ(distinct(), lines_of(batch));
}

}  // namespace dvdi
