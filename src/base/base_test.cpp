#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <latch>
#include <set>
#include <stdexcept>
#include <thread>

#include "base/fake_clock_test.h"
#include "base/glob.h"
#include "base/json.h"
#include "base/kept_threads.h"
#include "base/random.h"
#include "base/sha256.h"
#include "base/sync.h"
#include "base/text.h"

namespace dvdi {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Glob, StarAndQuestionMark) {
  const auto all = [](std::string_view pattern, std::vector<std::string_view> texts, bool expected) {
    for (const auto text : texts) EXPECT_EQ(glob_matches(pattern, text), expected) << pattern << " " << text;
  };
  all("", {""}, true);
  all("", {"a"}, false);
  all("*", {"", "a", "a/b"}, true);
  all("a*", {"a", "ab", "a/b"}, true);
  all("a*", {"", "ba"}, false);
  all("*b", {"b", "ab", "abab"}, true);
  all("*b", {"", "ba"}, false);
  all("a*b*c", {"abc", "aXbYbZc", "abbcc"}, true);
  all("a*b*c", {"ac", "acb", "abcd"}, false);
  all("?", {"a", "/"}, true);
  all("?", {"", "ab"}, false);
  all("?*", {"a", "ab"}, true);
  all("?*", {""}, false);
  all("a.[b]", {"a.[b]"}, true);
  all("a.[b]", {"aXb", "a.b"}, false);
}

TEST(Glob, ManyStarsCostLittle) {
  std::string pattern;
  for (int i = 0; i < 100; ++i) pattern += "a*";
  // With a search that goes back to every star this would not end.
  EXPECT_FALSE(glob_matches(pattern + "b", std::string(4000, 'a')));
  EXPECT_TRUE(glob_matches(pattern, std::string(4000, 'a')));
}

TEST(Error, TextNamesOperationVolumeDriverAttemptAndWhatToDo) {
  const Error error{.code = Code::driver_error,
                    .message = "the driver answered: no such device",
                    .driver = "nfs",
                    .volume = "db",
                    .operation = "mount",
                    .attempt = 2,
                    .hint = "see the driver's log",
                    .attached = {Error{.code = Code::io, .message = "unmount failed"}}};
  EXPECT_EQ(error.text(),
            "mount of volume 'db' by driver 'nfs', attempt 2: the driver answered: no such device (see the "
            "driver's "
            "log)\n  unmount failed");
}

TEST(Context, TheEarlierDeadlineHolds) {
  const Context context = Context().with_timeout(std::chrono::hours(1));
  EXPECT_LE(context.with_timeout(std::chrono::hours(2)).remaining(), std::chrono::hours(1));
  EXPECT_LE(context.with_timeout(std::chrono::seconds(1)).remaining(), std::chrono::seconds(1));
}

TEST(Context, DetachedOutlivesCancellation) {
  std::stop_source source;
  const Context context = Context().with_stop(source.get_token()).with_timeout(Duration::zero());
  source.request_stop();
  EXPECT_FALSE(context.check("work"));
  EXPECT_TRUE(context.detached(std::chrono::minutes(1)).check("roll-back"));
}

TEST(Condition, EndsWithTheDeadlineAndWithCancellation) {
  EXPECT_EQ(
      pause(Context().with_timeout(std::chrono::milliseconds(5)), std::chrono::hours(1), "wait").error().code,
      Code::deadline_exceeded);
  std::stop_source source;
  std::jthread canceller([&] { source.request_stop(); });
  EXPECT_EQ(pause(Context().with_stop(source.get_token()), std::chrono::hours(1), "wait").error().code,
            Code::cancelled);
  EXPECT_TRUE(pause(Context(), std::chrono::milliseconds(1), "wait"));
}

TEST(Json, SaysWhereTheTextIsWrong) {
  EXPECT_THAT(json::parse("{\n \"a\": }", "the request").error().message, HasSubstr("line 2, column 7"));
  EXPECT_FALSE(json::parse("{", "the request"));
  EXPECT_FALSE(json::parse("", "the request"));
  EXPECT_FALSE(json::parse("{} {}", "the request"));
  EXPECT_FALSE(json::parse(std::string(65, '['), "the request"));
  EXPECT_TRUE(json::parse(" {\"a\": [1]} ", "the request"));
}

TEST(Json, ReadsTheTextsOfSomeMembers) {
  std::string a = "old", b = "old";
  const std::array members = {json::TextMember{"a", &a}, json::TextMember{"b", &b}};
  const auto read = [&](std::string_view text) {
    return json::read_texts(text, members, "the event").has_value();
  };
  ASSERT_TRUE(read(R"( {"x":{"a":"inner","y":["b"]},"a":"1\u00e4\n2","c":[{"b":"no"}],"z":null} )"));
  EXPECT_EQ(a, "1\u00e4\n2");
  EXPECT_EQ(b, "");
  ASSERT_TRUE(read(R"({"a":"first","b":"x","a":"last"})"));
  EXPECT_EQ(a, "last") << "as in a value";
  ASSERT_TRUE(read(R"({"a":{"a":"x"},"b":7})"));
  EXPECT_EQ(a, "");
  EXPECT_EQ(b, "");
  ASSERT_TRUE(read(R"(["a","x"])"));
  EXPECT_EQ(a, "");
  ASSERT_TRUE(read(R"({"a":"first","b":"x","a":1})"));
  EXPECT_EQ(a, "");
  for (const char* text :
       {"", "{", "{\"a\":\"x\"", "{\"a\":\"x\"} {}", "{\"a\":}", "{\"a\":\"\xff\"}", "{'a':1}"}) {
    EXPECT_FALSE(read(text)) << text;
    EXPECT_FALSE(json::parse(text, "the event")) << text;
  }
  EXPECT_FALSE(read(std::string(65, '[') + std::string(65, ']')));
  EXPECT_TRUE(read(std::string(64, '[') + std::string(64, ']')));
  EXPECT_THAT(json::read_texts("{\n \"a\": }", members, "the event").error().message,
              HasSubstr("the event is not JSON: "));
}

TEST(Sha256, IsTheStandardOne) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

// With threads of their own, and with threads that stay, from the second on.
class RunParallel : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam()) keep_threads_of_run_parallel();
  }
};
INSTANTIATE_TEST_SUITE_P(Threads, RunParallel, testing::Bool(),
                         [](const auto& kept) { return kept.param ? "kept" : "ended"; });

TEST_P(RunParallel, AllPiecesRunAtTheSameTime) {
  for (int round = 0; round < 20; ++round) {
    std::latch all(8);
    std::atomic<int> done = 0;
    run_parallel(std::vector<std::function<void()>>(8, [&] {
      all.arrive_and_wait();
      ++done;
    }));
    EXPECT_EQ(done, 8);
  }
}

TEST_P(RunParallel, PiecesMayHavePiecesOfTheirOwn) {
  std::latch all(64);
  run_parallel(std::vector<std::function<void()>>(
      8, [&] { run_parallel(std::vector<std::function<void()>>(8, [&] { all.arrive_and_wait(); })); }));
  EXPECT_TRUE(all.try_wait());
}

TEST_P(RunParallel, ThreadsAreUsedAgain) {
  std::mutex mutex;
  std::set<std::thread::id> seen;
  for (int round = 0; round < 100; ++round) {
    run_parallel({[] {},
                  [&] {
                    const std::lock_guard lock(mutex);
                    seen.insert(std::this_thread::get_id());
                  }});
  }
  // One that is not back yet is not waited for.
  EXPECT_TRUE(!GetParam() || seen.size() < 50) << seen.size();
}

TEST_P(RunParallel, WaitsForTheOthersAlsoWhereTheFirstPieceThrows) {
  std::atomic<bool> done = false;
  std::latch thrown(1);
  EXPECT_THROW(run_parallel({[&] {
                               thrown.count_down();
                               throw std::runtime_error("x");
                             },
                             [&] {
                               thrown.wait();
                               std::this_thread::yield();
                               done = true;
                             }}),
               std::runtime_error);
  EXPECT_TRUE(done);
}

TEST_P(RunParallel, AChildOfForkHasThreadsOfItsOwn) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer makes no thread in a child of a process with several";
#endif
  const auto both = [] {
    std::latch all(2);
    run_parallel(std::vector<std::function<void()>>(2, [&] { all.arrive_and_wait(); }));
  };
  both();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    both();
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(Context, ALongWaitLooksSeldomAtItsDeadline) {
  FakeClock clock;
  const auto waits = [&](Duration timeout) { return Context(clock).with_timeout(timeout).longest_wait(); };
  using std::chrono::hours;
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  EXPECT_EQ(Context(clock).longest_wait(), hours(1));
  EXPECT_EQ(waits(hours(24)), hours(1));
  EXPECT_EQ(waits(seconds(100)), seconds(50));
  EXPECT_EQ(waits(milliseconds(1500)), seconds(1));
  EXPECT_EQ(waits(milliseconds(700)), milliseconds(700)) << "and no longer";
  EXPECT_EQ(waits(seconds(0)), seconds(0));
}

TEST(Text, Pieces) {
  EXPECT_THAT(split("a,,b", ','), ElementsAre("a", "", "b"));
  EXPECT_THAT(split("", ','), ElementsAre(""));
  EXPECT_EQ(trim(" a b\n"), "a b");
  EXPECT_EQ(printable("a\nb\xff"), "a\\x0ab\\xff");
  EXPECT_EQ(printable("abcdef", 3), "abc…");
}

TEST(Clock, Rfc3339) {
  EXPECT_EQ(rfc3339(WallTime(std::chrono::seconds(1) + std::chrono::microseconds(5))),
            "1970-01-01T00:00:01.000005Z");
}

TEST(Random, UuidIsVersion4) {
  const std::string uuid = random_uuid();
  EXPECT_EQ(uuid.size(), 36U);
  EXPECT_EQ(uuid[14], '4');
  EXPECT_NE(uuid, random_uuid());
}

}  // namespace
}  // namespace dvdi
