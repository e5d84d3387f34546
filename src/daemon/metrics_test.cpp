#include "daemon/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "daemon/metrics_server.h"
#include "http/client.h"
#include "linux/process.h"

namespace dvdi {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

TEST(Metrics, ALabelIsEscapedAndADriverShowsItsZeros) {
  MetricsInput input;
  input.version = "a\\b\"c\nd";
  input.drivers.push_back({.name = "nfs", .calls = 7, .mounts_lost = 2});
  input.ledger.by_driver["other"].owed = 3;
  input.ledger.by_driver["other"].oldest_owed = milliseconds(1500);
  const std::string text = metrics_text(input);
  EXPECT_THAT(text, HasSubstr("dvdi_build_info{version=\"a\\\\b\\\"c\\nd\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_unmounts_owed{driver=\"nfs\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_unmounts_owed{driver=\"other\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_unmounts_owed_oldest_age_seconds{driver=\"other\"} 1.5\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_driver_calls_total{driver=\"nfs\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_mount_losses_total{driver=\"nfs\"} 2\n"));
}

TEST(Metrics, BucketsAddUp) {
  MetricsInput input;
  for (const Duration took : {Duration(milliseconds(3)), Duration(milliseconds(200)), Duration(seconds(100))})
    input.writes.commit.add(write_time_bounds(), took);
  const std::string text = metrics_text(input);
  const auto bucket = [&](const std::string& le, int count) {
    EXPECT_THAT(text, HasSubstr("dvdi_ledger_commit_seconds_bucket{le=\"" + le + "\"} " +
                                std::to_string(count) + "\n"));
  };
  bucket("0.002", 0);
  bucket("0.005", 1);
  bucket("0.1", 1);
  bucket("0.25", 2);
  bucket("60", 2);
  bucket("+Inf", 3);
  EXPECT_THAT(text, HasSubstr("dvdi_ledger_commit_seconds_sum 100.203\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_ledger_commit_seconds_count 3\n"));
  // One that never was has its buckets, too.
  EXPECT_THAT(text, HasSubstr("dvdi_ledger_write_wait_seconds_bucket{le=\"+Inf\"} 0\n"));
}

TEST(Metrics, ADriverHasOneState) {
  MetricsInput input;
  input.ledger.drivers.push_back({.name = "nfs", .state = DriverState::slow, .reason = {}, .since = {}});
  const std::string text = metrics_text(input);
  EXPECT_THAT(text, HasSubstr("dvdi_driver_state{driver=\"nfs\",state=\"up\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_driver_state{driver=\"nfs\",state=\"slow\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_driver_state{driver=\"nfs\",state=\"down\"} 0\n"));
}

TEST(Metrics, ASinkThatWaitsAfterAFailureIsNotUp) {
  MetricsInput input;
  input.now = WallTime(seconds(1000));
  input.sinks.push_back({.name = "log",
                         .state = "waiting",
                         .behind = 12,
                         .oldest = WallTime(seconds(900)),
                         .delivered_total = 5,
                         .failures_total = 3});
  input.sinks.push_back({.name = "hook", .state = "paused", .paused = true});
  const std::string text = metrics_text(input);
  EXPECT_THAT(text, HasSubstr("dvdi_sink_up{sink=\"log\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_sink_up{sink=\"hook\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_sink_paused{sink=\"hook\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_sink_behind_events{sink=\"log\"} 12\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_sink_oldest_undelivered_age_seconds{sink=\"log\"} 100\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_sink_oldest_undelivered_age_seconds{sink=\"hook\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_sink_delivered_events_total{sink=\"log\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_sink_failures_total{sink=\"log\"} 3\n"));
}

// A family is described once, and its samples follow at once.
TEST(Metrics, EachFamilyIsOneBlock) {
  std::istringstream lines(metrics_text({}));
  std::string family;
  std::set<std::string> seen;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# HELP ")) {
      family = line.substr(7, line.find(' ', 7) - 7);
      EXPECT_TRUE(seen.insert(family).second) << line;
      EXPECT_TRUE(line.ends_with(".")) << line;
    } else if (line.starts_with("# TYPE ")) {
      EXPECT_TRUE(line.starts_with("# TYPE " + family + " ")) << line;
    } else {
      EXPECT_TRUE(line.starts_with(family)) << line;
    }
  }
}

TEST(Metrics, ThisProcessHasItsFigures) {
  const ProcessFigures figures = process_figures();
  EXPECT_GT(figures.cpu_seconds, 0);
  EXPECT_GT(figures.resident_bytes, std::uint64_t{1} << 20U);
  EXPECT_GT(figures.virtual_bytes, figures.resident_bytes);
  EXPECT_GE(figures.open_descriptors, 3U);
  EXPECT_GE(figures.most_descriptors, figures.open_descriptors);
  EXPECT_GE(figures.threads, 1U);
  const std::chrono::duration<double> now = system_clock().wall().time_since_epoch();
  EXPECT_LT(figures.start_seconds, now.count());
  EXPECT_GT(figures.start_seconds, now.count() - 3600);
  EXPECT_EQ(process_figures().start_seconds, figures.start_seconds);
}

class SilentAnswer final : public http::Answer {
 public:
  Status send(int /*status*/, std::string_view /*type*/, std::string_view /*body*/) override { return {}; }
  Status start(int /*status*/, std::string_view /*type*/) override { return {}; }
  Status write(const Context& /*context*/, std::string_view /*piece*/) override { return {}; }
  void fail() override {}
  bool started() const override { return false; }
};

TEST(Metrics, RequestsAreCountedByRouteAndStatus) {
  RequestCounts counts;
  SilentAnswer silent;
  for (int i = 0; i < 2; ++i) {
    CountedAnswer answer(silent, &counts);
    answer.is_for("GET", "/v1/volumes/*/*");
    EXPECT_TRUE(answer.send(404, "text/plain", ""));
    EXPECT_EQ(counts.counts().running, 1U);
  }
  {
    const CountedAnswer nothing_said(silent, &counts);
  }
  MetricsInput input;
  input.requests = counts.counts();
  const std::string text = metrics_text(input);
  EXPECT_THAT(
      text, HasSubstr("dvdi_http_requests_total{method=\"GET\",route=\"/v1/volumes/*/*\",code=\"404\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_http_requests_total{method=\"\",route=\"\",code=\"500\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dvdi_http_requests_running 0\n"));
}

class MetricsOnTcp : public testing::Test {
 protected:
  // On a port that was free a moment ago; tries others should somebody have taken it meanwhile.
  void SetUp() override {
    for (int port = 20000 + ::getpid() % 10000; !server_ && port < 40000; ++port) {
      address_ = "127.0.0.1:" + std::to_string(port);
      auto server = serve_metrics(address_, "v", [this](const Context&) { return answer_; });
      if (server) server_ = *std::move(server);
    }
    ASSERT_TRUE(server_);
  }
  Result<http::Response> ask(http::Method method, const std::string& path) const {
    return http::send(Context().with_timeout(seconds(60)), {.url = "http://" + address_},
                      {.method = method, .path = path});
  }

  Result<std::string> answer_ = std::string("text\n");
  std::string address_;
  std::unique_ptr<http::Server> server_;
};

TEST_F(MetricsOnTcp, ShowsMetricsAndHealthAndNothingElse) {
  const auto metrics = ask(http::Method::get, "/metrics");
  ASSERT_TRUE(metrics) << metrics.error().text();
  EXPECT_EQ(metrics->status, 200);
  EXPECT_EQ(metrics->body, "text\n");
  const auto health = ask(http::Method::get, "/healthz");
  ASSERT_TRUE(health);
  EXPECT_THAT(health->body, HasSubstr("\"version\":\"v\""));
  EXPECT_THAT(health->body, Not(HasSubstr("state_dir")));
  for (const char* path : {"/v1/volumes", "/", "/metrics/", "/v1/drivers"})
    EXPECT_EQ(ask(http::Method::get, path)->status, 404) << path;
  EXPECT_EQ(ask(http::Method::post, "/metrics")->status, 405);
}

TEST_F(MetricsOnTcp, WhatCannotBeReadIsAnErrorOfTheServer) {
  answer_ = Error{.code = Code::io, .message = "no ledger"};
  const auto metrics = ask(http::Method::get, "/metrics");
  ASSERT_TRUE(metrics);
  EXPECT_EQ(metrics->status, 503);
}

TEST_F(MetricsOnTcp, TheAddressIsTakenByOneAlone) {
  const auto second = serve_metrics(address_, "v", [this](const Context&) { return answer_; });
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().text(), HasSubstr(address_));
}

}  // namespace
}  // namespace dvdi
