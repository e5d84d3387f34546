#include "isolator/external_volumes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "isolator/test_support.h"

namespace dvdi::isolator {
namespace {

using test::broken;
using testing::_;
using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Return;
using testing::SizeIs;

class FakeHoldings : public volume::Holdings {
 public:
  MOCK_METHOD(Result<std::vector<volume::Mounted>>, acquire,
              (const Context&, const volume::Holder&, const std::vector<volume::Request>&), (override));
  MOCK_METHOD(Status, started, (const Context&, const ContainerKey&, const ProcessIdentity&, bool),
              (override));
  MOCK_METHOD(Result<std::vector<Owed>>, release, (const Context&, const ContainerKey&, const std::string&),
              (override));
  MOCK_METHOD(Result<volume::Recovered>, recover, (const Context&, const RecoverRequest&, bool), (override));
};

struct ExternalVolumesTest : testing::Test {
  testing::StrictMock<FakeHoldings> holdings;
  ExternalVolumes isolator{holdings};
  Context context;
  v1::ContainerRequest request;

  v1::Volume& add(const std::string& driver, const std::string& name, const std::string& path,
                  const std::map<std::string, std::string>& options = {}) {
    v1::Volume& volume = *request.mutable_container_info()->add_volumes();
    volume.set_container_path(path);
    volume.set_mode(v1::Volume::RW);
    volume.mutable_source()->set_type(v1::Volume::Source::DOCKER_VOLUME);
    auto& docker = *volume.mutable_source()->mutable_docker_volume();
    docker.set_driver(driver);
    docker.set_name(name);
    for (const auto& [key, value] : options) {
      auto& parameter = *docker.mutable_driver_options()->add_parameter();
      parameter.set_key(key);
      parameter.set_value(value);
    }
    return volume;
  }
  Preparation preparation() {
    return {.key = {.owner = "run", .id = "c"},
            .request = request,
            .digest = "digest",
            .directory = "/sandbox",
            .directory_is_ours = true,
            .working = request.container_info(),
            .host_paths = {},
            .launch = {}};
  }
  // Answers every request with /vol/NAME.
  void mount_all(std::vector<volume::Request>& seen) {
    EXPECT_CALL(holdings, acquire(_, _, _))
        .WillOnce(
            [&seen](const Context&, const volume::Holder&,
                    const std::vector<volume::Request>& requests) -> Result<std::vector<volume::Mounted>> {
              seen = requests;
              std::vector<volume::Mounted> mounted;
              for (const auto& one : requests)
                mounted.push_back({.volume = one.volume,
                                   .mount_point = "/vol/" + one.volume.name,
                                   .identity = StoredIdentity{.mount_id = 7,
                                                              .major = 1,
                                                              .minor = 2,
                                                              .root = "/",
                                                              .source = "server:/x",
                                                              .fs_type = "nfs"}});
              return mounted;
            });
  }
};

TEST_F(ExternalVolumesTest, ProvidesHostPaths) {
  EXPECT_THAT(isolator.provides(), ElementsAre(Property::host_paths));
}

TEST_F(ExternalVolumesTest, WritesTheMountPointIntoTheWorkingCopyAndWhatIsKnownOfIt) {
  add("d", "a", "data", {{"size", "5"}, {"dvdi.ownership", "user"}});
  v1::Volume& host = *request.mutable_container_info()->add_volumes();
  host.set_container_path("/etc/x");
  host.set_host_path("/etc/y");
  host.set_mode(v1::Volume::RO);
  add("d", "b", "/mnt/b").set_mode(v1::Volume::RO);
  std::vector<volume::Request> seen;
  mount_all(seen);
  Preparation prepared = preparation();
  const auto status = isolator.prepare(context, prepared);
  ASSERT_TRUE(status) << status.error().text();

  ASSERT_THAT(seen, SizeIs(2));
  EXPECT_EQ(seen[0].volume.text(), "d/a");
  EXPECT_THAT(seen[0].options, ElementsAre(std::pair("size", "5")));
  ASSERT_THAT(seen[1].uses, SizeIs(1));
  EXPECT_EQ(seen[1].uses[0].container_path, "/mnt/b");
  EXPECT_TRUE(seen[1].uses[0].read_only);

  ASSERT_EQ(prepared.working.volumes_size(), 3);
  EXPECT_EQ(prepared.working.volumes(0).host_path(), "/vol/a");
  EXPECT_EQ(prepared.working.volumes(1).host_path(), "/etc/y");
  EXPECT_EQ(prepared.working.volumes(2).host_path(), "/vol/b");
  ASSERT_TRUE(prepared.host_paths.contains("/vol/a"));
  EXPECT_FALSE(prepared.host_paths.contains("/etc/y"));
  const HostPath& known = prepared.host_paths.at("/vol/a");
  EXPECT_EQ(known.label, "d/a");
  EXPECT_EQ(known.identity->mount_id(), 7U);
  EXPECT_EQ(known.identity->fs_type(), "nfs");
  EXPECT_EQ(known.identity->mount_point(), "/vol/a");
  EXPECT_EQ(known.ownership.at("data"), spec::Ownership::user);
}

TEST_F(ExternalVolumesTest, SetuidProgramsAndDevicesAreForOneContainerPathEach) {
  add("d", "a", "data");
  add("d", "a", "tools", {{"dvdi.suid", "true"}});
  add("d", "a", "devices", {{"dvdi.dev", "true"}});
  std::vector<volume::Request> seen;
  mount_all(seen);
  Preparation prepared = preparation();
  ASSERT_TRUE(isolator.prepare(context, prepared));
  const HostPath& known = prepared.host_paths.at("/vol/a");
  EXPECT_THAT(known.suid, ElementsAre("tools"));
  EXPECT_THAT(known.dev, ElementsAre("devices"));
  EXPECT_THAT(seen.at(0).options, testing::IsEmpty());
}

TEST_F(ExternalVolumesTest, TellsWhoAsks) {
  request.mutable_attribution()->set_principal("ann");
  auto& label = *request.mutable_attribution()->mutable_labels()->add_labels();
  label.set_key("team");
  label.set_value("x");
  EXPECT_CALL(
      holdings,
      acquire(_,
              AllOf(Field(&volume::Holder::digest, "digest"), Field(&volume::Holder::directory, "/sandbox"),
                    Field(&volume::Holder::directory_is_ours, true),
                    Field(&volume::Holder::attribution,
                          AllOf(Field(&Attribution::principal, "ann"),
                                Field(&Attribution::labels, ElementsAre(std::pair("team", "x")))))),
              IsEmpty()))
      .WillOnce(Return(std::vector<volume::Mounted>()));
  Preparation prepared = preparation();
  EXPECT_TRUE(isolator.prepare(context, prepared));  // without volumes, too
}

TEST_F(ExternalVolumesTest, OneVolumeAtTwoPathsIsOneRequest) {
  add("d", "a", "rw");
  add("d", "a", "ro").set_mode(v1::Volume::RO);
  std::vector<volume::Request> seen;
  mount_all(seen);
  Preparation prepared = preparation();
  ASSERT_TRUE(isolator.prepare(context, prepared));
  ASSERT_THAT(seen, SizeIs(1));
  ASSERT_THAT(seen[0].uses, SizeIs(2));
  EXPECT_FALSE(seen[0].uses[0].read_only);
  EXPECT_TRUE(seen[0].uses[1].read_only);
  EXPECT_EQ(prepared.working.volumes(0).host_path(), "/vol/a");
  EXPECT_EQ(prepared.working.volumes(1).host_path(), "/vol/a");
}

TEST_F(ExternalVolumesTest, ContradictionsBetweenTwoAppearancesAreRefusedBeforeAnythingIsMounted) {
  const std::vector<std::pair<std::map<std::string, std::string>, std::map<std::string, std::string>>> pairs =
      {
          {{{"size", "5"}}, {{"size", "6"}}},
          {{{"dvdi.exclusive", "true"}}, {}},
          {{}, {{"dvdi.explicit-create", "true"}}},
          {{{"dvdi.ownership", "match-target"}}, {{"dvdi.ownership", "user"}}},
          {{{"dvdi.ownership", "match-target"}}, {{"dvdi.ownership", "match-target"}}},
      };
  for (const auto& [first, second] : pairs) {
    request.Clear();
    add("d", "a", "one", first);
    add("d", "a", "two", second);
    Preparation prepared = preparation();
    const auto status = isolator.prepare(context, prepared);  // the strict mock fails the test if it is asked
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Code::invalid_argument) << status.error().text();
    EXPECT_EQ(status.error().driver, "d");
    EXPECT_THAT(status.error().message, AllOf(HasSubstr("'one'"), HasSubstr("'two'")));
  }
}

TEST_F(ExternalVolumesTest, HostOnlyVolumesAreMountedAndLeaveTheWorkingCopy) {
  add("d", "hidden", "", {{"dvdi.host-only", "true"}});
  add("d", "a", "data");
  std::vector<volume::Request> seen;
  mount_all(seen);
  Preparation prepared = preparation();
  const auto status = isolator.prepare(context, prepared);
  ASSERT_TRUE(status) << status.error().text();
  ASSERT_THAT(seen, SizeIs(2));
  EXPECT_THAT(seen[0].uses, IsEmpty());
  ASSERT_EQ(prepared.working.volumes_size(), 1);
  EXPECT_EQ(prepared.working.volumes(0).container_path(), "data");
}

TEST_F(ExternalVolumesTest, AFailureIsPassedOnAndTheWorkingCopyIsAsItWas) {
  add("d", "a", "data");
  EXPECT_CALL(holdings, acquire(_, _, _)).WillOnce(Return(broken("no")));
  Preparation prepared = preparation();
  const auto status = isolator.prepare(context, prepared);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "no");
  EXPECT_FALSE(prepared.working.volumes(0).has_host_path());
}

TEST_F(ExternalVolumesTest, TwoVolumesAtOneMountPointAreRefused) {
  add("d", "a", "one");
  add("d", "b", "two");
  EXPECT_CALL(holdings, acquire(_, _, _))
      .WillOnce(Return(
          std::vector<volume::Mounted>{{.volume = {"d", "a"}, .mount_point = "/vol", .identity = {}},
                                       {.volume = {"d", "b"}, .mount_point = "/vol", .identity = {}}}));
  Preparation prepared = preparation();
  const auto status = isolator.prepare(context, prepared);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::driver_violation);
}

TEST_F(ExternalVolumesTest, IsolateRecordsTheProcessAndNotOnlyItsNumber) {
  EXPECT_CALL(holdings, started(_, _, *identify_process(::getpid()), true)).WillOnce(Return(Status()));
  EXPECT_TRUE(isolator.isolate(context, {"run", "c"}, ::getpid(), true));
}

TEST_F(ExternalVolumesTest, CleanupUnmountsOnlyIfNothingFailedBefore) {
  EXPECT_CALL(holdings, release(_, ContainerKey{"run", "c"}, "")).WillOnce(Return(std::vector<Owed>()));
  EXPECT_TRUE(isolator.cleanup(context, {"run", "c"}, {}));

  EXPECT_CALL(holdings, release(_, _, AllOf(HasSubstr("shared filesystem"), HasSubstr("busy"))))
      .WillOnce(Return(std::vector<Owed>{{.driver = "d", .volume = "a", .reason = "kept"}}));
  const auto owed =
      isolator.cleanup(context, {"run", "c"}, {{.isolator = "shared filesystem", .error = broken("busy")}});
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, SizeIs(1));
}

TEST_F(ExternalVolumesTest, RecoverUnmountsOnlyIfNothingFailedBeforeAndTheListsAreComplete) {
  const RecoverRequest all{.owner = "run", .live = {{.id = "a"}}, .orphans = {"b"}};
  EXPECT_CALL(holdings,
              recover(_,
                      AllOf(Field(&RecoverRequest::owner, "run"),
                            Field(&RecoverRequest::live, ElementsAre(Field(&volume::LiveContainer::id, "a"))),
                            Field(&RecoverRequest::orphans, ElementsAre("b"))),
                      true))
      .WillOnce(Return(volume::Recovered()));
  EXPECT_TRUE(isolator.recover(context, all, {}));
  EXPECT_CALL(holdings, recover(_, _, false)).Times(2).WillRepeatedly(Return(volume::Recovered()));
  EXPECT_TRUE(isolator.recover(context, all, {{.isolator = "x", .error = broken("no")}}));
  RecoverRequest some = all;
  some.complete = false;
  EXPECT_TRUE(isolator.recover(context, some, {}));
}

}  // namespace
}  // namespace dvdi::isolator
