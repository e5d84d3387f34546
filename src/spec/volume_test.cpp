// The rules of one volume, and taking apart the volume of a message that did not come through parse_request.
#include "spec/request_test_support.h"
#include "spec/rules.h"

namespace dvdi::spec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::SizeIs;

v1::Volume message() {
  v1::Volume volume;
  volume.set_container_path("/mnt/x/");
  volume.set_mode(v1::Volume::RO);
  volume.mutable_source()->set_type(v1::Volume::Source::DOCKER_VOLUME);
  volume.mutable_source()->mutable_docker_volume()->set_driver("d");
  volume.mutable_source()->mutable_docker_volume()->set_name("n");
  return volume;
}

void add_option(v1::Volume& volume, const std::string& key, const std::string& value) {
  v1::Parameter& parameter =
      *volume.mutable_source()->mutable_docker_volume()->mutable_driver_options()->add_parameter();
  parameter.set_key(key);
  parameter.set_value(value);
}

TEST(ExternalVolume, OfAMessage) {
  v1::Volume volume = message();
  volume.set_create_under_tmp(true);
  add_option(volume, "size", "5");
  add_option(volume, "dvdi.ownership", "match-target");
  const auto external = external_volume(volume);
  ASSERT_TRUE(external && *external) << external.error().text();
  EXPECT_EQ((*external)->driver, "d");
  EXPECT_EQ((*external)->name, "n");
  EXPECT_EQ((*external)->container_path, "/mnt/x");
  EXPECT_TRUE((*external)->read_only);
  EXPECT_TRUE((*external)->create_under_tmp);
  EXPECT_EQ((*external)->ownership, Ownership::match_target);
  EXPECT_THAT((*external)->options, ElementsAre(Pair("size", "5")));
}

TEST(ExternalVolume, AHostPathInTheWorkingCopyChangesNothing) {
  v1::Volume volume = message();
  volume.set_host_path("/var/lib/driver/n");
  const auto external = external_volume(volume);
  ASSERT_TRUE(external);
  EXPECT_TRUE(external->has_value());
}

TEST(ExternalVolume, OtherSourcesAreNotExternal) {
  v1::Volume volume;
  EXPECT_FALSE(external_volume(volume).value());
  volume.set_host_path("/x");
  EXPECT_FALSE(external_volume(volume).value());
  volume.clear_host_path();
  for (const auto type : {v1::Volume::Source::HOST_PATH, v1::Volume::Source::SANDBOX_PATH,
                          v1::Volume::Source::SECRET, v1::Volume::Source::CSI_VOLUME}) {
    volume.mutable_source()->set_type(type);
    EXPECT_FALSE(external_volume(volume).value());
  }
}

TEST(ExternalVolume, TheSameChecksApplyToAMessage) {
  v1::Volume volume = message();
  volume.clear_mode();
  volume.set_container_path("a/../../etc");
  add_option(volume, "dvdi.exclusive", "1");
  add_option(volume, "k", "1");
  add_option(volume, "k", "2");
  const auto external = external_volume(volume);
  ASSERT_FALSE(external);
  EXPECT_EQ(external.error().code, Code::invalid_argument);
  EXPECT_THAT(external.error().attached, SizeIs(4));
  EXPECT_THAT(external.error().text(),
              HasSubstr("source.docker_volume.driver_options.parameter[2]: the option 'k'"));
}

TEST(ExternalVolume, HostOnlyDropsTheContainerPathAndHasNoOwnership) {
  v1::Volume volume = message();
  add_option(volume, "dvdi.host-only", "true");
  EXPECT_EQ(external_volume(volume).value()->container_path, "");
  add_option(volume, "dvdi.ownership", "user");
  EXPECT_FALSE(external_volume(volume));
}

TEST(ExternalVolume, SetuidProgramsAndDevicesAreAskedFor) {
  EXPECT_FALSE(external_volume(message()).value()->suid);
  EXPECT_FALSE(external_volume(message()).value()->dev);
  v1::Volume volume = message();
  add_option(volume, "dvdi.suid", "true");
  EXPECT_TRUE(external_volume(volume).value()->suid);
  EXPECT_FALSE(external_volume(volume).value()->dev);
  add_option(volume, "dvdi.dev", "true");
  EXPECT_TRUE(external_volume(volume).value()->dev);
  EXPECT_THAT(external_volume(volume).value()->options, testing::IsEmpty()) << "a driver sees neither";
  add_option(volume, "dvdi.host-only", "true");
  EXPECT_FALSE(external_volume(volume)) << "there is no bind";
}

TEST(Rules, ContainerPaths) {
  const auto normal = [](std::string path) {
    Problems problems;
    const auto checked = check_container_path({.value = std::move(path), .place = "p"}, problems);
    EXPECT_EQ(checked.has_value(), problems.empty());
    return checked.value_or("REFUSED");
  };
  EXPECT_EQ(normal("data"), "data");
  EXPECT_EQ(normal("./a//b/"), "a/b");
  EXPECT_EQ(normal("//a/./b"), "/a/b");
  EXPECT_EQ(normal("/$(touch x); `y`|&"), "/$(touch x); `y`|&");
  EXPECT_EQ(normal("...//a..b"), ".../a..b");
  for (const std::string bad : {"", "/", "//", "/.", ".", "./", "..", "/..", "a/..", "../a", "a/../b"}) {
    EXPECT_EQ(normal(bad), "REFUSED") << bad;
  }
  EXPECT_EQ(normal(std::string("a\0b", 3)), "REFUSED");
  EXPECT_EQ(normal("a\nb"), "REFUSED");
  const std::string longest = std::string(255, 'a');
  EXPECT_EQ(normal("/" + longest), "/" + longest);
  EXPECT_EQ(normal("/" + longest + "a"), "REFUSED");
  std::string path;
  while (path.size() < max_path_bytes - 1) path += "/a";
  EXPECT_EQ(normal(path + "/").size(), max_path_bytes - 1);
  EXPECT_EQ(normal(path + "/a"), "REFUSED");
  EXPECT_EQ(normal(std::string(10000, 'x')), "REFUSED");
}

TEST(Rules, Names) {
  const auto count = [](const std::string& name) {
    Problems problems;
    const bool usable = check_volume_name({.value = name, .place = "p"}, problems);
    EXPECT_EQ(usable, problems.empty());
    return problems.count();
  };
  EXPECT_EQ(count(std::string(255, 'n')), 0U);
  EXPECT_EQ(count(std::string(256, 'n')), 1U);
  EXPECT_EQ(count(""), 1U);
  EXPECT_EQ(count("."), 1U);
  EXPECT_EQ(count(".."), 1U);
  EXPECT_EQ(count("..."), 0U);
  EXPECT_EQ(count(std::string("a\0", 2)), 1U);
}

TEST(Rules, Utf8) {
  for (const std::string good : {"", "a", "é", "€", "😀", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"})
    EXPECT_TRUE(is_utf8(good));
  for (const std::string bad :
       {"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "a\xe2\x82", "\xc3(", "\xff"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

TEST(Rules, PlacesAreSafeToShow) {
  EXPECT_EQ(member("", "a"), "a");
  EXPECT_EQ(member("a[1]", "b_2"), "a[1].b_2");
  EXPECT_EQ(member("a", "x\n\"y"), "a[\"x\\x0a\"y\"]");
  EXPECT_EQ(element("", 3), "[3]");
}

}  // namespace
}  // namespace dvdi::spec
