#include "daemon/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dvdi::wire {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

// What one side writes, the other reads; and what it writes again is the same text.
template <class T, class Read>
void same_after_a_round_trip(const T& value, Read read) {
  const std::string text = json::serialize(to_json(value));
  EXPECT_EQ(json::serialize(to_json(read(*json::parse(text, "text")))), text);
}

TEST(Wire, ErrorsKeepEverything) {
  const Error error{.code = Code::driver_violation,
                    .message = "no \"mount\"",
                    .driver = "d",
                    .volume = "v",
                    .operation = "mount",
                    .attempt = 2,
                    .hint = "look",
                    .outcome = Outcome::unknown,
                    .attached = {{.code = Code::io, .message = "inner"}}};
  same_after_a_round_trip(error, error_of);
  const Error read = error_of(to_json(error));
  EXPECT_EQ(read.code, Code::driver_violation);
  EXPECT_EQ(read.outcome, Outcome::unknown);
  EXPECT_EQ(read.attempt, 2U);
  ASSERT_THAT(read.attached, SizeIs(1));
  EXPECT_EQ(read.attached[0].code, Code::io);
  const json::value sent = problem(error);
  EXPECT_EQ(sent.at("status"), 502);
  EXPECT_THAT(std::string(json::text_or_empty(sent, "detail")), HasSubstr("no \"mount\""));
}

TEST(Wire, ErrorsOfAHostileDaemonAreNotDeeperThanTheyMayBe) {
  json::value nested = json::object{{"code", "io"}};
  for (int i = 0; i < 40; ++i) nested = json::object{{"code", "io"}, {"attached", json::array{nested}}};
  const Error error = error_of(nested);
  unsigned depth = 0;
  for (const Error* at = &error; !at->attached.empty(); at = &at->attached[0]) ++depth;
  EXPECT_EQ(depth, 8U);
  EXPECT_EQ(error_of(json::value(3)).code, Code::internal);
}

TEST(Wire, ContainersAndVolumes) {
  const ContainerView container{.owner = "/var/lib/mesos",
                                .id = "p.c",
                                .state = "running",
                                .framework = "f",
                                .role = "r",
                                .labels = {{"a", "b"}},
                                .pid = 7,
                                .since = "2026-11-22T10:00:00.000000Z",
                                .volumes = {{"d", "v", "data", "ro"}, {"d", "host", "", "rw"}}};
  same_after_a_round_trip(container, container_view_of);
  EXPECT_EQ(container_view_of(to_json(container)).labels, container.labels);
  const VolumeView volume{
      .driver = "d",
      .name = "v",
      .state = "unknown",
      .size_bytes = 5,
      .containers = {"run/a"},
      .exclusive = true,
      .owed = VolumeView::Debt{.since = "s", .last_error = "e", .attempts = 3, .parked = true},
      .foreign_since = "x",
      .foreign_evidence = "y",
      .lost = "its server is gone",
      .fenced = "since z"};
  same_after_a_round_trip(volume, volume_view_of);
  const VolumeView read = volume_view_of(to_json(volume));
  EXPECT_EQ(read.size_bytes, 5U);
  ASSERT_TRUE(read.owed);
  EXPECT_TRUE(read.owed->parked);
  EXPECT_EQ(read.lost, "its server is gone");
  EXPECT_EQ(read.fenced, "since z");
  EXPECT_EQ(volume_view_of(to_json(VolumeView{})).state, "");
}

TEST(Wire, TheRest) {
  same_after_a_round_trip(Api::Verified{.count = 3, .first = 1, .last = 3, .head = "h"}, verified_of);
  same_after_a_round_trip(
      Compared{.sink = {.sequence = 7, .hash = "h", .first = 2, .count = 6}, .same = true, .not_told = "n"},
      compared_of);
  same_after_a_round_trip(volume::Release{.steps = {"a", "b"}, .left = "c"}, release_of);
  same_after_a_round_trip(volume::DriverStatus{.name = "d",
                                               .running = 1,
                                               .last_error = "e",
                                               .last_error_time = WallTime(),
                                               .state = DriverState::slow,
                                               .state_reason = "r",
                                               .state_since = WallTime()},
                          driver_status_of);
  EXPECT_EQ(
      json::serialize(to_json(volume::Recovered{.dropped = {"a"},
                                                .kept = {{"b", "why"}},
                                                .missing = {{"c", "d", "v", "gone"}},
                                                .owed = {{.driver = "d", .volume = "v", .reason = "r"}}})),
      R"({"dropped":["a"],"kept":[{"id":"b","reason":"why"}],"missing":[{"id":"c","driver":"d",)"
      R"("volume":"v","reason":"gone"}],"owed":[{"driver":"d","volume":"v","reason":"r"}]})");
}

TEST(Wire, NestedContainerIdsAreMesosMessages) {
  EXPECT_EQ(json::serialize(container_id_json("a")), R"({"value":"a"})");
  EXPECT_EQ(json::serialize(container_id_json("a.b.c")),
            R"({"value":"c","parent":{"value":"b","parent":{"value":"a"}}})");
}

TEST(Wire, LaunchInfoIsAMesosMessage) {
  v1::ContainerLaunchInfo launch;
  launch.add_clone_namespaces(0x20000);
  launch.add_mounts()->set_target("/t");
  const auto written = launch_json(launch);
  ASSERT_TRUE(written);
  EXPECT_THAT(json::serialize(*written), HasSubstr("clone_namespaces"));
  const auto read = launch_of(*written);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->mounts(0).target(), "/t");
  EXPECT_FALSE(launch_of(json::value("text")));
}

}  // namespace
}  // namespace dvdi::wire
