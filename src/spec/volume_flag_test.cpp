#include "spec/request_test_support.h"

namespace dvdi::spec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;
using testing::StartsWith;

TEST(VolumeFlag, DriverNamePathModeAndOptions) {
  const ExternalVolume plain = only_volume_of(of_flags({"local/a:data"}));
  EXPECT_EQ(plain.driver, "local");
  EXPECT_EQ(plain.name, "a");
  EXPECT_EQ(plain.container_path, "data");
  EXPECT_FALSE(plain.read_only);
  const ExternalVolume full =
      only_volume_of(of_flags({"rc/b:/mnt/b:ro,remote=loc:/x=y,size=,dvdi.exclusive=true"}));
  EXPECT_EQ(full.container_path, "/mnt/b");
  EXPECT_TRUE(full.read_only);
  EXPECT_TRUE(full.exclusive);
  EXPECT_THAT(full.options, ElementsAre(Pair("remote", "loc:/x=y"), Pair("size", "")));
  EXPECT_FALSE(only_volume_of(of_flags({"local/a:data:rw"})).read_only);
  EXPECT_THAT(only_volume_of(of_flags({"local/a:data,k=v"})).options, ElementsAre(Pair("k", "v")));
  EXPECT_TRUE(only_volume_of(of_flags({"local/a:,dvdi.host-only=true"})).host_only);
}

TEST(VolumeFlag, WhatIsMissingIsNamed) {
  EXPECT_THAT(problems_of(of_flags({"a", "local/a", "local/a,x=secret", ""})),
              ElementsAre(StartsWith("--volume 1 (a): names no driver"),
                          StartsWith("--volume 2 (local/a): names no container path"),
                          StartsWith("--volume 3 (local/a): names no container path"),
                          StartsWith("--volume 4 (): names no driver")));
  EXPECT_THAT(problems_of(of_flags({"/a:x", "local/:y", "local/a:", "local/a:/"})),
              ElementsAre("--volume 1 (/a): a driver name is required",
                          "--volume 2 (local/): a volume name is required",
                          "--volume 3 (local/a): a container path is required",
                          "--volume 4 (local/a): a volume cannot be mounted over the root '/'"));
  EXPECT_THAT(problems_of(of_flags({"local/a:x:RO", "local/b:y:", "local/c:z:ro:k=v"})),
              ElementsAre(StartsWith("--volume 1 (local/a): after the container path"),
                          StartsWith("--volume 2 (local/b): after the container path"),
                          StartsWith("--volume 3 (local/c): after the container path")));
  EXPECT_THAT(problems_of(of_flags({"local/a/b:x"})), ElementsAre(HasSubstr("'a/b' has the character '/'")));
  EXPECT_THAT(problems_of(of_flags({"local/a:x,k=v,k=w", "local/b:y,dvdi.no=1", "local/c:\xff"})),
              testing::UnorderedElementsAre(HasSubstr("'k' is given twice"), HasSubstr("no option 'dvdi.no'"),
                                            HasSubstr("is not UTF-8")));
}

TEST(VolumeFlag, MessagesHoldNoOptionValues) {
  for (const std::string flag :
       {"local/a,password=hunter2", "a:password=hunter2", "local/a:x,password,hunter2", "local/a:x:hunter2",
        "local/a:../x,password=hunter2"}) {
    const auto problems = problems_of(of_flags({flag}));
    ASSERT_FALSE(problems.empty()) << flag;
    for (const std::string& problem : problems) EXPECT_THAT(problem, Not(HasSubstr("hunter2")));
  }
}

}  // namespace
}  // namespace dvdi::spec
