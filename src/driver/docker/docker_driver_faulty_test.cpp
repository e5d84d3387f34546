// Everything that a plugin can do wrong, and what the driver makes of it.
#include <gmock/gmock.h>

#include <atomic>
#include <latch>
#include <stop_token>
#include <thread>

#include "driver/docker/test_support.h"

namespace dvdi::driver::docker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using testing::FaultyPlugin;
using ::testing::HasSubstr;
using testing::impatient;
using testing::minute;
using ::testing::Not;

class DockerDriverFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    if (auto entered = enter_private_mount_namespace(); !entered) {
      ASSERT_EQ(entered.error().code, Code::unsupported) << entered.error().text();
      GTEST_SKIP() << entered.error().text();
    }
    plugin_ = std::make_unique<FaultyPlugin>();
    driver_ = plugin_->make_driver();
    const auto created = driver_->create(minute(), "v", {});
    ASSERT_TRUE(created) << created.error().text();
  }

  template <class T>
  void expect_failure(const Result<T>& result, Code code, Outcome outcome, std::string_view operation,
                      const std::string& text = "", const std::string& volume = "v") const {
    ASSERT_FALSE(result);
    const Error& error = result.error();
    EXPECT_EQ(code_name(error.code), code_name(code)) << error.text();
    EXPECT_EQ(error.outcome, outcome) << error.text();
    EXPECT_EQ(error.operation, operation) << error.text();
    EXPECT_EQ(error.driver, "faulty") << error.text();
    EXPECT_EQ(error.volume, volume) << error.text();
    EXPECT_THAT(error.text(), HasSubstr(text));
  }

  auto mount() { return driver_->mount(minute(), "v", "id-1"); }
  auto unmount() { return driver_->unmount(minute(), "v", "id-1"); }
  std::vector<std::string> mounts() const { return plugin_->dir().mounts(); }

  std::unique_ptr<FaultyPlugin> plugin_;
  std::unique_ptr<DockerDriver> driver_;
};

TEST_F(DockerDriverFaults, AnErrorIsARefusalWhateverTheStatus) {
  plugin_->fault(R"([{"op":"Mount","fault":"error","text":"no space\non device","times":1},
                     {"op":"Mount","fault":"error","text":"no space","status":500,"times":1},
                     {"op":"Mount","fault":"plain","text":"backend down\n","status":502,"times":1},
                     {"op":"Mount","fault":"empty","status":500,"times":1},
                     {"op":"Mount","fault":"error","text":"","status":500,"times":1},
                     {"op":"Mount","fault":"raw","body":"{\"err\":\"in small letters\"}","times":1}])");
  expect_failure(mount(), Code::driver_error, Outcome::refused, "mount", "no space\\x0aon device");
  expect_failure(mount(), Code::driver_error, Outcome::refused, "mount", "no space");
  expect_failure(mount(), Code::driver_error, Outcome::refused, "mount", "HTTP 502: backend down");
  expect_failure(mount(), Code::driver_error, Outcome::refused, "mount", "HTTP 500 without a text");
  expect_failure(mount(), Code::driver_error, Outcome::refused, "mount", "HTTP 500 without a text");
  expect_failure(mount(), Code::driver_error, Outcome::refused, "mount", "in small letters");
  EXPECT_EQ(plugin_->count("Mount"), 6);
  EXPECT_TRUE(mount());
}

TEST_F(DockerDriverFaults, AMountPointThatCannotBeOneIsAViolation) {
  for (const std::string value : {R"("")", R"("data")", R"("/")", R"("//")", R"("/a/..")", "17", "null",
                                  "[\"/a\"]", R"("/a\u0000b")"}) {
    SCOPED_TRACE(value);
    plugin_->fault(fmt::format(R"({{"op":"Mount","fault":"mountpoint","value":{},"times":1}})", value));
    expect_failure(mount(), Code::driver_violation, Outcome::unknown, "mount");
  }
  plugin_->fault(fmt::format(R"({{"op":"Mount","fault":"mountpoint","value":"/{}","times":1}})",
                             std::string(4096, 'x')));
  expect_failure(mount(), Code::driver_violation, Outcome::unknown, "mount", "longer than a path");
}

TEST_F(DockerDriverFaults, AnAnswerThatIsNoneIsAViolationWithUnknownOutcome) {
  for (const std::string rule :
       {R"("fault":"half")", R"("fault":"raw","body":"[]")", R"("fault":"raw","body":"true")",
        R"("fault":"raw","body":"<html>")", R"("fault":"raw","body":"{\"Err\":5}")",
        R"("fault":"raw","body":"{} {}")", R"("fault":"garbage")", R"("fault":"redirect")"}) {
    for (const std::string operation : {"Mount", "Unmount"}) {
      SCOPED_TRACE(operation + rule);
      plugin_->fault(fmt::format(R"({{"op":"{}",{},"times":1}})", operation, rule));
      if (operation == "Mount") {
        expect_failure(mount(), Code::driver_violation, Outcome::unknown, "mount", "driver 'faulty'");
      } else {
        expect_failure(unmount(), Code::driver_violation, Outcome::unknown, "unmount", "driver 'faulty'");
      }
    }
  }
  EXPECT_EQ(plugin_->count("/control/redirected"), 0);
}

TEST_F(DockerDriverFaults, AnEmptyAnswerIsEnoughWhereNothingIsToBeSaid) {
  plugin_->fault(R"({"op":"*","fault":"empty","effect":true})");
  EXPECT_TRUE(driver_->create(minute(), "w", {}));
  EXPECT_TRUE(unmount());
  EXPECT_TRUE(driver_->remove(minute(), "w"));
  expect_failure(mount(), Code::driver_violation, Outcome::unknown, "mount", "empty");
  expect_failure(driver_->get(minute(), "v"), Code::driver_violation, Outcome::unknown, "get");
  expect_failure(driver_->path(minute(), "v"), Code::driver_violation, Outcome::unknown, "path");
  expect_failure(driver_->list(minute()), Code::driver_violation, Outcome::unknown, "list", "", "");
}

TEST_F(DockerDriverFaults, AHugeAnswerIsCutOff) {
  plugin_->fault(R"({"op":"*","fault":"big"})");
  const auto peak_kib = [] {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("VmHWM:")) return std::stol(line.substr(6));
    }
    return -1L;
  };
  const long before = peak_kib();
  expect_failure(mount(), Code::driver_violation, Outcome::unknown, "mount", "longer than 1048576 bytes");
  expect_failure(unmount(), Code::driver_violation, Outcome::unknown, "unmount", "longer than 1048576 bytes");
  expect_failure(driver_->list(minute()), Code::driver_violation, Outcome::unknown, "list", "longer than",
                 "");
  const long grown = peak_kib() - before;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they keep what was freed
  EXPECT_LT(grown, 60 * 1024);  // of 100 MB that were offered, three times
#else
  EXPECT_LT(grown, 200 * 1024);
#endif
}

TEST_F(DockerDriverFaults, ACallThatIsNotAnsweredEndsAtTheDeadlineAndOthersGoOn) {
  plugin_->fault(R"({"op":"Mount","fault":"hang","name":"v"})");
  ASSERT_TRUE(driver_->create(minute(), "w", {}));
  constexpr int hanging = 20;
  std::vector<std::jthread> callers;
  std::atomic<int> timed_out = 0;
  std::stop_source stop;
  for (int i = 0; i < hanging; ++i) {
    callers.emplace_back([&] {
      const auto mounted = driver_->mount(minute().with_stop(stop.get_token()), "v", "id-1");
      if (!mounted && mounted.error().code == Code::cancelled && mounted.error().outcome == Outcome::unknown)
        ++timed_out;
    });
  }
  plugin_->calls("Mount", hanging);
  EXPECT_TRUE(driver_->mount(minute(), "w", "id-1"));  // none of them is in its way
  expect_failure(driver_->mount(Context().with_timeout(milliseconds(100)), "v", "id-2"),
                 Code::deadline_exceeded, Outcome::unknown, "mount");
  stop.request_stop();
  callers.clear();
  EXPECT_EQ(timed_out, hanging);
}

TEST_F(DockerDriverFaults, AnAnswerThatDripsForEverEndsAtTheDeadline) {
  plugin_->fault(R"({"op":"Mount","fault":"drip"})");
  expect_failure(driver_->mount(Context().with_timeout(milliseconds(200)), "v", "id-1"),
                 Code::deadline_exceeded, Outcome::unknown, "mount");
}

TEST_F(DockerDriverFaults, AMountThatComesAfterTheDeadlineIsUnknownNotRefused) {
  plugin_->fault(R"({"op":"Mount","fault":"hold","times":1})");
  expect_failure(driver_->mount(Context().with_timeout(milliseconds(100)), "v", "id-1"),
                 Code::deadline_exceeded, Outcome::unknown, "mount");
  EXPECT_TRUE(mounts().empty());
  plugin_->release();
  // The plugin works one volume at a time: this answer comes after the late mount.
  const auto again = mount();
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(mounts(), std::vector{*again});
}

TEST_F(DockerDriverFaults, AConnectionThatBreaksIsAnUnknownOutcomeAndNothingIsSentTwice) {
  plugin_->fault(
      R"([{"op":"Mount","fault":"close","times":1},{"op":"Mount","fault":"close","effect":true,"times":1},
                     {"op":"Unmount","fault":"close","effect":true,"times":1}])");
  expect_failure(mount(), Code::io, Outcome::unknown, "mount");
  EXPECT_TRUE(mounts().empty());
  expect_failure(mount(), Code::io, Outcome::unknown, "mount");
  EXPECT_EQ(mounts().size(), 1U);
  expect_failure(unmount(), Code::io, Outcome::unknown, "unmount");
  EXPECT_TRUE(mounts().empty());
  EXPECT_EQ(plugin_->count("Mount"), 2);
  EXPECT_EQ(plugin_->count("Unmount"), 1);
}

TEST_F(DockerDriverFaults, TheEffectCanBeThereThoughTheAnswerSaysNo) {
  plugin_->fault(R"([{"op":"Mount","fault":"error","effect":true,"times":1},
                     {"op":"Unmount","fault":"error","text":"target is busy","times":2}])");
  expect_failure(mount(), Code::driver_error, Outcome::refused, "mount", "injected failure");
  EXPECT_EQ(mounts().size(), 1U);
  expect_failure(unmount(), Code::driver_error, Outcome::refused, "unmount", "busy");
  expect_failure(unmount(), Code::driver_error, Outcome::refused, "unmount", "busy");
  EXPECT_TRUE(unmount());
  EXPECT_TRUE(mounts().empty());
}

TEST_F(DockerDriverFaults, AClaimThatIsNotTrueIsPassedOnForTheCallerToVerify) {
  plugin_->fault(R"({"op":"Mount","fault":"lie","times":1})");
  EXPECT_TRUE(mount());
  EXPECT_TRUE(mounts().empty());
}

TEST_F(DockerDriverFaults, AnOldPluginIsGoodEnough) {
  for (const std::string how : {R"("fault":"missing")", R"("fault":"error","text":"unknown call")"}) {
    SCOPED_TRACE(how);
    plugin_->clear();
    for (const char* operation : {"Get", "Path", "Capabilities"}) {
      plugin_->fault(fmt::format(R"({{"op":"{}",{}}})", operation, how));
    }
    const auto capabilities = driver_->capabilities(minute());
    ASSERT_TRUE(capabilities) << capabilities.error().text();
    EXPECT_FALSE(capabilities->global);
    const auto mounted = mount();
    ASSERT_TRUE(mounted);
    const auto shown = driver_->get(minute(), "v");
    ASSERT_TRUE(shown) << shown.error().text();
    EXPECT_EQ(shown->mount_point, *mounted);
    const auto path = driver_->path(minute(), "v");
    ASSERT_TRUE(path) << path.error().text();
    EXPECT_EQ(*path, *mounted);
    EXPECT_TRUE(unmount());
    expect_failure(driver_->get(minute(), "other"), Code::not_found, Outcome::refused, "get", "", "other");

    plugin_->fault(fmt::format(R"({{"op":"List",{}}})", how));
    ASSERT_FALSE(driver_->list(minute()));
    EXPECT_EQ(driver_->list(minute()).error().outcome, Outcome::refused);
    // Nobody can tell whether it is there: not not_found.
    const auto unknown = driver_->get(minute(), "v");
    ASSERT_FALSE(unknown);
    EXPECT_NE(unknown.error().code, Code::not_found);
    EXPECT_EQ(unknown.error().outcome, Outcome::refused);
  }
  plugin_->clear();
  plugin_->fault(R"({"op":"List","fault":"missing"})");
  expect_failure(driver_->list(minute()), Code::unsupported, Outcome::refused, "list", "does not know", "");
}

TEST_F(DockerDriverFaults, ItIntroducesItselfOnceForEachStartOfThePlugin) {
  EXPECT_TRUE(driver_->list(minute()));
  EXPECT_TRUE(driver_->list(minute()));
  EXPECT_EQ(plugin_->count("Activate"), 1);
  plugin_->kill();
  ASSERT_NO_FATAL_FAILURE(plugin_->start());
  EXPECT_TRUE(driver_->list(minute()));
  EXPECT_TRUE(driver_->list(minute()));
  EXPECT_EQ(plugin_->count("Activate"), 1);  // of the new process
  const auto shown = driver_->get(minute(), "v");
  EXPECT_TRUE(shown) << shown.error().text();
}

TEST_F(DockerDriverFaults, AfterABrokenConnectionItIntroducesItselfAgain) {
  plugin_->fault(R"({"op":"List","fault":"close","times":1})");
  EXPECT_FALSE(driver_->list(minute()));
  EXPECT_TRUE(driver_->list(minute()));
  EXPECT_EQ(plugin_->count("Activate"), 2);
}

TEST_F(DockerDriverFaults, WhatIsNoVolumeDriverIsNotCalled) {
  const struct {
    std::string rule;
    Code code;
    std::string text;
  } cases[] = {
      {R"("fault":"raw","body":"{\"Implements\":[\"authz\"]}")", Code::unsupported, "it implements: authz"},
      {R"("fault":"raw","body":"{}")", Code::unsupported, "nothing"},
      {R"("fault":"raw","body":"{\"Implements\":\"VolumeDriver\"}")", Code::driver_violation, "no list"},
      {R"("fault":"half")", Code::driver_violation, "Plugin.Activate"},
      {R"("fault":"big")", Code::driver_violation, "longer than"},
      {R"("fault":"missing")", Code::driver_error, "404"},
      {R"("fault":"close")", Code::io, "Plugin.Activate"},
  };
  for (const auto& one : cases) {
    SCOPED_TRACE(one.rule);
    plugin_->clear();
    plugin_->fault(fmt::format(R"({{"op":"Activate",{}}})", one.rule));
    const auto fresh = plugin_->make_driver(impatient());
    expect_failure(fresh->mount(minute(), "v", "id-1"), one.code, Outcome::not_sent, "mount", one.text);
  }
  plugin_->clear();
  plugin_->fault(R"({"op":"Activate","fault":"hang"})");
  const auto fresh = plugin_->make_driver(impatient());
  expect_failure(fresh->mount(Context().with_timeout(milliseconds(100)), "v", "id-1"),
                 Code::deadline_exceeded, Outcome::not_sent, "mount");
  EXPECT_EQ(plugin_->count("Mount"), 0);
}

TEST_F(DockerDriverFaults, CallsCarryWhatTheProtocolAsksForAndTheTrace) {
  ASSERT_TRUE(driver_->create(minute(), "opts", {{"size", "1g"}, {"quote", "\"\\"}}));
  const auto calls = plugin_->calls("Create");
  ASSERT_EQ(calls.size(), 2U);
  EXPECT_EQ(json::serialize(calls[0].at("opts")), "{}");
  EXPECT_EQ(calls[1].at("opts").at("size"), "1g");
  EXPECT_EQ(calls[1].at("opts").at("quote"), "\"\\");
  EXPECT_EQ(calls[1].at("trace"), "trace-1");
  EXPECT_EQ(calls[1].at("accept"), "application/vnd.docker.plugins.v1.2+json");
  ASSERT_TRUE(mount());
  EXPECT_EQ(plugin_->calls("Mount")[0].at("id"), "id-1");
  // A trace that could be a header of its own does no harm.
  EXPECT_TRUE(driver_->list(Context(system_clock(), "a\r\nX-Evil: 1").with_timeout(seconds(60))));
  EXPECT_EQ(plugin_->calls("List")[0].at("trace"), "a\\x0d\\x0aX-Evil: 1");
}

TEST_F(DockerDriverFaults, NamesThatCannotBeSentAreRefusedHere) {
  for (const std::string& name :
       {std::string(), std::string(256, 'x'), std::string("a\nb"), std::string("a\0b", 3)}) {
    expect_failure(driver_->mount(minute(), name, "id-1"), Code::invalid_argument, Outcome::not_sent, "mount",
                   "", name);
  }
  EXPECT_EQ(plugin_->count("Mount"), 0);
}

// Scenario 10: the socket file is there and nobody listens.
TEST_F(DockerDriverFaults, NobodyListensIsAnErrorThatSaysWhatWasTried) {
  plugin_->kill();
  const auto impatient_driver = plugin_->make_driver(
      {.patience = {
           .total = milliseconds(200), .first_delay = milliseconds(5), .longest_delay = milliseconds(20)}});
  const auto mounted = impatient_driver->mount(minute(), "v", "id-1");
  expect_failure(mounted, Code::unavailable, Outcome::not_sent, "mount", plugin_->socket());
  EXPECT_THAT(mounted.error().message, AllOf(HasSubstr("times in 0.2 s"), Not(HasSubstr("tried 1 time"))));
  EXPECT_THAT(mounted.error().message, HasSubstr("Connection refused"));

  std::filesystem::remove(plugin_->socket());
  expect_failure(impatient_driver->unmount(minute(), "v", "id-1"), Code::unavailable, Outcome::not_sent,
                 "unmount", plugin_->socket());
}

TEST_F(DockerDriverFaults, TheDeadlineIsStrongerThanPatience) {
  plugin_->kill();
  const auto start = system_clock().boot();
  expect_failure(driver_->mount(Context().with_timeout(milliseconds(300)), "v", "id-1"), Code::unavailable,
                 Outcome::not_sent, "mount", plugin_->socket());
  EXPECT_LT(system_clock().boot() - start, milliseconds(2000));
}

TEST_F(DockerDriverFaults, CancellationEndsTheWaitForAPlugin) {
  plugin_->kill();
  std::stop_source stop;
  std::latch located(2);  // the second attempt: it has begun to wait at least once
  DockerDriver driver(
      "faulty",
      [&, roots = plugin_->roots()] {
        if (!located.try_wait()) located.count_down();
        return find_endpoint(roots, "faulty");
      },
      {.patience = {.total = seconds(60), .first_delay = milliseconds(1), .longest_delay = seconds(60)}});
  const std::jthread canceller([&] {
    located.wait();
    stop.request_stop();
  });
  expect_failure(driver.mount(minute().with_stop(stop.get_token()), "v", "id-1"), Code::cancelled,
                 Outcome::not_sent, "mount", plugin_->socket());
}

TEST_F(DockerDriverFaults, APluginThatComesLaterIsWaitedFor) {
  plugin_->kill();
  std::filesystem::remove(plugin_->socket());
  std::latch refused(1);
  std::atomic<int> attempts = 0;
  DockerDriver driver(
      "faulty",
      [&, roots = plugin_->roots()] {
        if (++attempts == 2) refused.count_down();
        return find_endpoint(roots, "faulty");
      },
      {.patience = {
           .total = seconds(60), .first_delay = milliseconds(5), .longest_delay = milliseconds(50)}});
  std::jthread caller([&] {
    const auto mounted = driver.mount(minute(), "v", "id-1");
    EXPECT_TRUE(mounted) << mounted.error().text();
  });
  refused.wait();
  ASSERT_NO_FATAL_FAILURE(plugin_->start());
  caller.join();
  EXPECT_GE(attempts, 3);
  EXPECT_EQ(plugin_->count("Mount"), 1);
}

}  // namespace
}  // namespace dvdi::driver::docker
