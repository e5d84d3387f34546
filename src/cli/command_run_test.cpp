#include "cli/command_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <mutex>

#include "base/sync.h"
#include "cli/fake_api_test.h"
#include "cli/interrupt.h"

namespace dvdi::cli {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

std::size_t threads() {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/task"),
                                                std::filesystem::directory_iterator{}));
}

// Waits until cancelled; the deadline only ends a broken test.
void wait_for_cancellation(const Context& context) {
  const Status ended = pause(context, std::chrono::seconds(30), "test");
  EXPECT_FALSE(ended) << "was not cancelled";
}

class RunTest : public testing::Test {
 protected:
  int run() {
    const RunServices services{.open = [this](const Context&, bool settle) -> Result<std::unique_ptr<Api>> {
                                 scene_.calls.emplace_back(settle ? "open settle" : "open");
                                 const std::size_t which = opened_++;
                                 if (which < open_errors_.size() && open_errors_[which])
                                   return *open_errors_[which];
                                 return std::make_unique<FakeApi>(scene_);
                               },
                               .launch = [this](const Context&, const launcher::Task& task,
                                                const launcher::OnCreated& on_created) -> Result<int> {
                                 scene_.calls.emplace_back("launch");
                                 task_ = task;
                                 threads_at_launch_ = threads();
                                 struct sigaction now{};
                                 sigaction(SIGINT, nullptr, &now);
                                 handler_at_launch_ = now.sa_handler;
                                 if (launch_error_) return *launch_error_;
                                 if (const Status status = on_created(4711); !status)
                                   return fail(status.error());
                                 scene_.calls.emplace_back("task");
                                 if (late_launch_error_) return *late_launch_error_;
                                 return task_code_;
                               },
                               .say =
                                   [this](std::string_view text) {
                                     {
                                       const std::lock_guard lock(said_mutex_);
                                       said_.emplace_back(text);
                                     }
                                     on_say_(text);
                                   },
                               .say_error = [this](const Error& error) { errors_.push_back(error); }};
    return dvdi::cli::run(Context(), command_, request_, services);
  }

  Scene scene_;
  RunCommand command_;
  v1::ContainerRequest request_;
  std::vector<std::optional<Error>> open_errors_;
  std::size_t opened_ = 0;
  std::optional<Error> launch_error_, late_launch_error_;
  int task_code_ = 0;
  launcher::Task task_;
  std::size_t threads_at_launch_ = 0;
  void (*handler_at_launch_)(int) = nullptr;
  std::mutex said_mutex_;
  std::vector<std::string> said_;
  std::function<void(std::string_view)> on_say_ = [](std::string_view) {};
  std::vector<Error> errors_;
};

TEST_F(RunTest, ReleasesTheEngineWhileTheTaskRuns) {
  task_code_ = 42;
  EXPECT_EQ(run(), 42);
  EXPECT_THAT(scene_.calls, ElementsAre("open settle", "prepare run", "launch", "isolate run/c1 4711",
                                        "close", "task", "open", "cleanup run/c1", "close"));
  EXPECT_TRUE(said_.empty()) << said_.front();
  EXPECT_TRUE(errors_.empty());
}

TEST_F(RunTest, StaysWithTheDaemonWhileTheTaskRuns) {
  scene_.holds_state = false;
  EXPECT_EQ(run(), 0);
  EXPECT_THAT(scene_.calls, ElementsAre("open settle", "prepare run", "launch", "isolate run/c1 4711", "task",
                                        "cleanup run/c1", "close"));
}

TEST_F(RunTest, LaunchesFromOneThreadWithTheUsualSignalHandling) {
  const std::size_t before = threads();
  EXPECT_EQ(run(), 0);
  EXPECT_EQ(threads_at_launch_, before);
  EXPECT_EQ(handler_at_launch_, SIG_DFL);
}

TEST_F(RunTest, HandsTheRequestToTheLauncher) {
  request_.mutable_command()->set_user("u:g");
  request_.mutable_command()->add_arguments("true");
  command_.host_pid = true;
  command_.inherit_environment = true;
  scene_.prepared->launch.set_sandbox("/sandbox");
  EXPECT_EQ(run(), 0);
  EXPECT_EQ(task_.user, "u:g");
  EXPECT_EQ(task_.command.arguments(0), "true");
  EXPECT_TRUE(task_.host_pid);
  EXPECT_TRUE(task_.inherit_environment);
  EXPECT_EQ(task_.launch.sandbox(), "/sandbox");
  EXPECT_THAT(task_.foreign_mount_points, ElementsAre("/foreign"));
}

TEST_F(RunTest, SaysWarningsAndWhatWasSettled) {
  request_.add_warnings("unused");
  scene_.notices = {"container run/x was released"};
  EXPECT_EQ(run(), 0);
  EXPECT_THAT(said_, ElementsAre("warning: unused", "container run/x was released"));
}

TEST_F(RunTest, StopsIfThereIsNoEngine) {
  open_errors_ = {Error{.code = Code::io, .message = "no state"}};
  EXPECT_EQ(run(), 125);
  EXPECT_THAT(scene_.calls, ElementsAre("open settle"));
  ASSERT_EQ(errors_.size(), 1U);
  EXPECT_EQ(errors_[0].message, "no state");
}

TEST_F(RunTest, DoesNotCleanUpWhatPrepareDidNotGive) {
  // The id may be that of somebody else's running container.
  scene_.prepared = Error{.code = Code::conflict, .message = "known with another request"};
  EXPECT_EQ(run(), 125);
  EXPECT_THAT(scene_.calls, ElementsAre("open settle", "prepare run", "close"));
  EXPECT_EQ(errors_.size(), 1U);
}

TEST_F(RunTest, CleansUpAfterALaunchThatFailed) {
  launch_error_ = Error{.code = Code::io, .message = "clone"};
  EXPECT_EQ(run(), 125);
  EXPECT_THAT(scene_.calls, ElementsAre("open settle", "prepare run", "launch", "cleanup run/c1", "close"));
  EXPECT_EQ(errors_.at(0).message, "clone");
}

TEST_F(RunTest, TellsAProgramThatIsNotThereFromOneThatCannotBeRun) {
  late_launch_error_ = Error{.code = Code::not_found, .message = "no such program"};
  EXPECT_EQ(run(), 127);
  EXPECT_THAT(scene_.calls, Contains("cleanup run/c1"));
  late_launch_error_ = Error{.code = Code::permission_denied, .message = "not executable"};
  EXPECT_EQ(run(), 126);
}

TEST_F(RunTest, AFailedIsolateIsNotTheTasksFault) {
  scene_.isolated = Error{.code = Code::not_found, .message = "no such container"};
  EXPECT_EQ(run(), 125);
  EXPECT_THAT(scene_.calls, ElementsAre("open settle", "prepare run", "launch", "isolate run/c1 4711",
                                        "cleanup run/c1", "close"));
}

TEST_F(RunTest, LeavesAContainerAloneThatSomebodyElseStarted) {
  scene_.isolated = Error{.code = Code::conflict, .message = "it runs already"};
  EXPECT_EQ(run(), 125);
  EXPECT_THAT(scene_.calls, testing::Not(Contains("cleanup run/c1")));
  EXPECT_EQ(scene_.calls.back(), "close");
}

TEST_F(RunTest, KeepsTheTasksCodeIfCleaningUpFails) {
  task_code_ = 7;
  scene_.cleaned = Error{.code = Code::io, .message = "disk full"};
  EXPECT_EQ(run(), 7);
  EXPECT_EQ(errors_.at(0).message, "disk full");
  EXPECT_THAT(said_, Contains(HasSubstr("NOT RELEASED")));
}

TEST_F(RunTest, KeepsTheTasksCodeIfThereIsNoEngineAfterwards) {
  task_code_ = 7;
  open_errors_ = {std::nullopt, Error{.code = Code::io, .message = "gone"}};
  EXPECT_EQ(run(), 7);
  EXPECT_EQ(errors_.at(0).message, "gone");
  EXPECT_THAT(said_, Contains(HasSubstr("NOT RELEASED")));
}

TEST_F(RunTest, SaysLoudlyThatTheLedgerDoesNotKnowItsContainer) {
  scene_.prepared_is_known = false;  // somebody moved the state away while the task ran
  EXPECT_EQ(run(), 0);
  EXPECT_THAT(said_, Contains(HasSubstr("NOT RELEASED")));
  EXPECT_THAT(scene_.calls, testing::Not(Contains("cleanup run/c1")));
}

TEST_F(RunTest, SaysWhatIsOwed) {
  scene_.cleaned = std::vector<isolator::Owed>{{.driver = "rc", .volume = "v", .reason = "busy"}};
  EXPECT_EQ(run(), 0);
  EXPECT_THAT(said_, ElementsAre(testing::AllOf(HasSubstr("'v'"), HasSubstr("'rc'"), HasSubstr("busy"),
                                                HasSubstr("dvdi volume inspect rc/v"))));
}

TEST_F(RunTest, ASignalCancelsPreparing) {
  scene_.during_prepare = [](const Context& context) {
    ::raise(SIGTERM);
    wait_for_cancellation(context);
  };
  EXPECT_EQ(run(), 128 + SIGTERM);
  EXPECT_THAT(scene_.calls, ElementsAre("open settle", "prepare run", "close"));
  EXPECT_THAT(said_, Contains(HasSubstr("SIGTERM")));
  EXPECT_EQ(errors_.at(0).code, Code::cancelled);
}

TEST_F(RunTest, ASignalThatComesWhenAllIsPreparedCleansUp) {
  // `--verbose` says something just after prepare has succeeded: the last moment before the signals are given
  // back.
  command_.verbose = true;
  on_say_ = [](std::string_view text) {
    if (text.find("is prepared") != std::string_view::npos) ::raise(SIGINT);
  };
  EXPECT_EQ(run(), 128 + SIGINT);
  EXPECT_THAT(scene_.calls, ElementsAre("open settle", "prepare run", "cleanup run/c1", "close"));
}

TEST_F(RunTest, PreparingHasADeadline) {
  command_.timeout = std::chrono::milliseconds(1);
  scene_.during_prepare = [](const Context& context) {
    EXPECT_TRUE(context.has_deadline());
    EXPECT_LE(context.remaining(), std::chrono::milliseconds(1));
  };
  scene_.prepared = Error{.code = Code::deadline_exceeded, .message = "late"};
  EXPECT_EQ(run(), 125);
}

TEST_F(RunTest, SignalsDoNotStopCleaningUp) {
  scene_.during_cleanup = [this](const Context& context) {
    EXPECT_TRUE(context.has_deadline());
    ::raise(SIGINT);
    ::raise(SIGTERM);
    EXPECT_FALSE(context.cancelled());
    scene_.calls.emplace_back("survived");
  };
  task_code_ = 3;
  EXPECT_EQ(run(), 3);
  EXPECT_THAT(scene_.calls, Contains("survived"));
  EXPECT_THAT(said_, ElementsAre(HasSubstr("still releasing"), HasSubstr("still releasing")));
}

TEST(Interrupt, LeavesTheProcessAsItWas) {
  struct sigaction before{};
  sigaction(SIGINT, nullptr, &before);
  const std::size_t count = threads();
  {
    Interrupt interrupt([](int, unsigned) {});
    struct sigaction now{};
    sigaction(SIGINT, nullptr, &now);
    EXPECT_NE(now.sa_handler, before.sa_handler);
    EXPECT_EQ(interrupt.finish(), 0);
    EXPECT_EQ(interrupt.finish(), 0);
  }
  struct sigaction after{};
  sigaction(SIGINT, nullptr, &after);
  EXPECT_EQ(after.sa_handler, before.sa_handler);
  EXPECT_EQ(threads(), count);
}

TEST(Interrupt, SeesEverySignalBeforeItIsFinished) {
  std::vector<std::pair<int, unsigned>> seen;
  Interrupt interrupt([&](int number, unsigned count) { seen.emplace_back(number, count); });
  ::raise(SIGHUP);
  ::raise(SIGINT);
  EXPECT_EQ(interrupt.finish(), SIGHUP);
  EXPECT_THAT(seen, ElementsAre(testing::Pair(SIGHUP, 1U), testing::Pair(SIGINT, 2U)));
}

TEST(Interrupt, LeavesIgnoredSignalsIgnored) {
  auto* before = std::signal(SIGHUP, SIG_IGN);
  Interrupt interrupt([](int, unsigned) { ADD_FAILURE(); });
  ::raise(SIGHUP);
  EXPECT_EQ(interrupt.finish(), 0);
  EXPECT_EQ(std::signal(SIGHUP, before), SIG_IGN);
}

}  // namespace
}  // namespace dvdi::cli
