#include "daemon/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stop_token>
#include <string>
#include <thread>

#include "http/server_test_support.h"

namespace dvdi {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

// What the client adds to the C API, against a server that is no daemon.
class ClientTest : public http::HttpServer {};

TEST_F(ClientTest, SaysForWhomAndHowLong) {
  std::string trace;
  std::string timeout;
  serve([&](const Context&, http::IncomingRequest& request, http::Answer& answer) {
    trace = request.header("Dvdi-Trace-Id");
    timeout = request.header("Dvdi-Timeout-Ms");
    std::ignore = answer.send(200, "application/json", R"({"version":"v","state_dir":"s"})");
  });
  Client client(socket_path());
  const auto health = client.health(Context(system_clock(), "trace-7"));
  ASSERT_TRUE(health) << health.error().text();
  EXPECT_EQ(health->state_dir, "s");
  EXPECT_EQ(trace, "trace-7");
  EXPECT_EQ(timeout, "");
  // All of it: the client waits longer than the daemon.
  EXPECT_TRUE(client.health(Context().with_timeout(std::chrono::minutes(60))));
  EXPECT_GT(std::stol(timeout), 3590000);
  EXPECT_EQ(trace, "");
  server_.reset();  // before what its handler uses
}

TEST_F(ClientTest, WaitsForWhatTheDaemonSaysAtTheDeadline) {
  serve([](const Context&, http::IncomingRequest& request, http::Answer& answer) {
    const auto ms = std::stol(std::string(request.header("Dvdi-Timeout-Ms")));
    const Context deadline = Context().with_timeout(std::chrono::milliseconds(ms));
    http::wait_until([&] { return deadline.remaining() == Duration::zero(); });
    std::ignore = answer.send(504, "application/problem+json",
                              R"({"code":"deadline_exceeded","message":"m","driver":"slow",)"
                              R"("attached":[{"code":"io","message":"and that"}]})");
  });
  Client client(socket_path());
  const auto answer = client.drivers(Context().with_timeout(std::chrono::milliseconds(20)));
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Code::deadline_exceeded);
  EXPECT_EQ(answer.error().driver, "slow");
  ASSERT_THAT(answer.error().attached, SizeIs(1));
  EXPECT_EQ(answer.error().attached.front().message, "and that");
}

TEST_F(ClientTest, AStopEndsACall) {
  std::atomic<bool> waits = false;
  serve([&](const Context& context, http::IncomingRequest&, http::Answer&) {
    waits = true;
    http::wait_until([&] { return context.cancelled(); });
  });
  std::stop_source stop;
  const std::jthread stopper([&] {
    http::wait_until([&] { return waits.load(); });
    stop.request_stop();
  });
  Client client(socket_path());
  const auto answer = client.drivers(Context().with_stop(stop.get_token()));
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Code::cancelled);
  EXPECT_EQ(answer.error().outcome, Outcome::unknown);
  server_.reset();  // before what its handler uses
}

TEST_F(ClientTest, KnowsADaemonThatIsAwayFromADriverThatIs) {
  Client client(socket_path());
  const auto nobody = client.drivers(Context());
  ASSERT_FALSE(nobody);
  EXPECT_TRUE(daemon_is_away(nobody.error()));
  EXPECT_EQ(nobody.error().outcome, Outcome::not_sent);
  EXPECT_THAT(nobody.error().hint, HasSubstr("is dvdid running?"));
  serve([](const Context&, http::IncomingRequest&, http::Answer& answer) {
    std::ignore = answer.start(200, "application/json");
    answer.fail();
  });
  const auto broken = client.drivers(Context());
  ASSERT_FALSE(broken);
  EXPECT_TRUE(daemon_is_away(broken.error()));
  EXPECT_EQ(broken.error().outcome, Outcome::unknown);
  server_.reset();
  serve([](const Context&, http::IncomingRequest&, http::Answer& answer) {
    std::ignore = answer.send(503, "application/problem+json",
                              R"({"code":"unavailable","message":"m","driver":"d","operation":"mount"})");
  });
  const auto driver = client.drivers(Context());
  ASSERT_FALSE(driver);
  EXPECT_EQ(driver.error().code, Code::unavailable);
  EXPECT_FALSE(daemon_is_away(driver.error()));
}

}  // namespace
}  // namespace dvdi
