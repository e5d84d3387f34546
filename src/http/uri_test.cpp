#include "http/uri.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dvdi::http {
namespace {

using testing::ElementsAre;
using testing::Pair;

TEST(Uri, WhatIsEncodedIsDecoded) {
  std::string every;
  for (int c = 1; c < 256; ++c) every += static_cast<char>(c);
  const auto segments = split_path("/" + percent_encode(every) + "/x");
  ASSERT_TRUE(segments);
  EXPECT_THAT(*segments, ElementsAre(every, "x"));
  EXPECT_EQ(percent_encode("/var/lib a"), "%2Fvar%2Flib%20a");
}

TEST(Uri, PathsAreSplitBeforeTheyAreDecoded) {
  const auto segments = split_path("/v1/containers/%2Fvar%2flib/id");
  ASSERT_TRUE(segments);
  EXPECT_THAT(*segments, ElementsAre("v1", "containers", "/var/lib", "id"));
  EXPECT_THAT(*split_path("/"), ElementsAre(""));
  for (const char* wrong : {"", "v1", "/%", "/%4", "/%zz", "/%00", "/a%2"})
    EXPECT_FALSE(split_path(wrong)) << wrong;
  EXPECT_THAT(*split_path("/%41"), ElementsAre("A"));
}

TEST(Uri, QueriesHaveEachNameOnce) {
  const auto query = parse_query("after=12&follow=true&flag&driver=a%26b%3d");
  ASSERT_TRUE(query);
  EXPECT_THAT(*query, ElementsAre(Pair("after", "12"), Pair("driver", "a&b="), Pair("flag", ""),
                                  Pair("follow", "true")));
  EXPECT_TRUE(parse_query("")->empty());
  EXPECT_FALSE(parse_query("a=1&a=2"));
  EXPECT_FALSE(parse_query("a=%4"));
}

}  // namespace
}  // namespace dvdi::http
