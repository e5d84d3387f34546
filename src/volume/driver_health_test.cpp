#include "volume/driver_health.h"

#include <gmock/gmock.h>

namespace dvdi::volume {
namespace {

using driver::Operation;
using std::chrono::seconds;
using testing::HasSubstr;

class DriverHealthTest : public testing::Test {
 protected:
  void call(Operation operation, seconds took, std::optional<Error> error = {}, bool given_up = false) {
    health.ended({.operation = operation,
                  .took = took,
                  .deadline = seconds(60),
                  .error = error ? &*error : nullptr,
                  .given_up = given_up});
  }
  static Error error(Code code, Outcome outcome) {
    return {.code = code, .message = "it says so", .outcome = outcome};
  }

  DriverHealth health;
};

TEST_F(DriverHealthTest, AnAnswerInTimeIsUpAlsoAnError) {
  EXPECT_EQ(health.state(), DriverState::up);
  call(Operation::mount, seconds(30));
  call(Operation::mount, seconds(1), error(Code::driver_error, Outcome::refused));
  call(Operation::get, seconds(1), error(Code::driver_violation, Outcome::unknown));
  EXPECT_EQ(health.state(), DriverState::up);
  EXPECT_EQ(health.reason(), "");
}

TEST_F(DriverHealthTest, SlowIsMoreThanHalfOfTheDeadline) {
  call(Operation::mount, seconds(31));
  EXPECT_EQ(health.state(), DriverState::slow);
  EXPECT_THAT(health.reason(), HasSubstr("mount took 31.0 s of the 60 s"));
  call(Operation::get, seconds(1));
  EXPECT_EQ(health.state(), DriverState::slow) << "another operation says nothing about it";
  call(Operation::mount, seconds(1), error(Code::driver_error, Outcome::refused));
  EXPECT_EQ(health.state(), DriverState::up);
}

TEST_F(DriverHealthTest, WhoGaveUpAfterThatFoundItSlowAndBeforeKnowsNothing) {
  call(Operation::mount, seconds(5), error(Code::cancelled, Outcome::unknown), true);
  EXPECT_EQ(health.state(), DriverState::up);
  call(Operation::mount, seconds(40), error(Code::deadline_exceeded, Outcome::unknown), true);
  EXPECT_EQ(health.state(), DriverState::slow);
}

TEST_F(DriverHealthTest, NoAnswerUntilTheDeadlineIsDownUntilThatOperationIsAnswered) {
  call(Operation::mount, seconds(60), error(Code::deadline_exceeded, Outcome::unknown));
  EXPECT_EQ(health.state(), DriverState::down);
  EXPECT_THAT(health.reason(), HasSubstr("mount had no answer within 60 s"));
  call(Operation::get, seconds(1));
  EXPECT_EQ(health.state(), DriverState::down);
  call(Operation::mount, seconds(40), error(Code::cancelled, Outcome::unknown), true);
  EXPECT_EQ(health.state(), DriverState::down) << "who gives up does not know better";
  call(Operation::mount, seconds(1));
  EXPECT_EQ(health.state(), DriverState::up);
}

TEST_F(DriverHealthTest, ABrokenConnectionIsNoAnswer) {
  call(Operation::mount, seconds(1), error(Code::io, Outcome::unknown));
  EXPECT_EQ(health.state(), DriverState::down);
  EXPECT_THAT(health.reason(), HasSubstr("mount had no complete answer: it says so"));
}

TEST_F(DriverHealthTest, WhatNobodyListensToIsDownUntilAnyAnswer) {
  call(Operation::mount, seconds(1), error(Code::unavailable, Outcome::not_sent));
  EXPECT_EQ(health.state(), DriverState::down);
  EXPECT_THAT(health.reason(), HasSubstr("mount could not be sent: it says so"));
  call(Operation::get, seconds(1), error(Code::driver_error, Outcome::refused));
  EXPECT_EQ(health.state(), DriverState::up);
  // The handshake was answered, with nonsense: no volume driver is there.
  call(Operation::get, seconds(1), error(Code::driver_violation, Outcome::not_sent));
  EXPECT_EQ(health.state(), DriverState::down);
}

TEST_F(DriverHealthTest, WhatWeDidNotSendForOurOwnReasonsSaysNothing) {
  for (const Code code : {Code::invalid_argument, Code::resource_exhausted, Code::failed_precondition,
                          Code::deadline_exceeded, Code::cancelled}) {
    call(Operation::mount, seconds(59), error(code, Outcome::not_sent));
    EXPECT_EQ(health.state(), DriverState::up) << code_name(code);
  }
}

}  // namespace
}  // namespace dvdi::volume
