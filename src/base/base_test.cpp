#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/glob.h"
#include "base/json.h"
#include "base/random.h"
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
