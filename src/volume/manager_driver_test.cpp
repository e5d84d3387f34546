// What is recorded of drivers themselves, and that nothing secret is.
#include "volume/manager_test_support.h"

namespace dvdi::volume {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class ManagerDriver : public ManagerTest {
 protected:
  std::optional<DriverRow> driver_row(const std::string& name = "fake") const {
    std::optional<DriverRow> found;
    EXPECT_TRUE(ledger->read(context(), "look", [&](Reader& reader) -> Status {
      DVDI_TRY(found, reader.driver(name));
      return {};
    }));
    return found;
  }
  std::string everything_recorded() const {
    std::string all;
    for (const json::value& body : event_bodies()) all += json::serialize(body) + "\n";
    if (const auto owed = debt("a")) all += owed->last_error;
    return all;
  }
  static Request secret(const std::string& value) {
    Request request = want("a");
    request.options["fs.Password"] = value;
    return request;
  }
};

TEST_F(ManagerDriver, NothingIsRecordedOfOneThatIsUp) {
  EXPECT_TRUE(acquire("c1", {want("a")}));
  EXPECT_TRUE(release("c1"));
  fake->fail(Operation::mount, "a", Fault::refuse);
  EXPECT_FALSE(acquire("c2", {want("a")}));
  EXPECT_FALSE(driver_row());
  EXPECT_THAT(events("driver/fake"), IsEmpty());
}

TEST_F(ManagerDriver, DownAndUpAgainAreRecordedOnceEach) {
  fake->fail(Operation::create, "", Fault::not_sent, 3);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(acquire("c1", {want("a")}));
  ASSERT_TRUE(driver_row());
  EXPECT_EQ(driver_row()->state, DriverState::down);
  EXPECT_THAT(driver_row()->reason, HasSubstr("create could not be sent"));
  EXPECT_THAT(events("driver/fake"), ElementsAre("driver.down"));
  EXPECT_TRUE(acquire("c1", {want("a")}));
  EXPECT_EQ(driver_row()->state, DriverState::up);
  EXPECT_THAT(events("driver/fake"), ElementsAre("driver.down", "driver.up"));
  EXPECT_TRUE(release("c1"));
  expect_nothing_left();
}

TEST_F(ManagerDriver, WhatARestartFindsIsComparedWithWhatWasRecorded) {
  fake->fail(Operation::create, "", Fault::not_sent);
  EXPECT_FALSE(acquire("c1", {want("a")}));
  restart();
  fake->fail(Operation::create, "", Fault::not_sent);
  EXPECT_FALSE(acquire("c1", {want("a")}));
  EXPECT_THAT(events("driver/fake"), ElementsAre("driver.down"));
  restart();
  EXPECT_TRUE(acquire("c1", {want("a")}));
  EXPECT_THAT(events("driver/fake"), ElementsAre("driver.down", "driver.up"));
}

TEST_F(ManagerDriver, ATimeOutIsDown) {
  fake->fail(Operation::mount, "a", Fault::time_out);
  EXPECT_FALSE(acquire("c1", {want("a")}));
  ASSERT_TRUE(driver_row());
  EXPECT_THAT(driver_row()->reason, HasSubstr("mount had no answer within 120 s"));
}

TEST_F(ManagerDriver, ANameThatOnlyARequestHasIsNotRecorded) {
  EXPECT_FALSE(acquire("c1", {want_of("nobody", "a")}));
  EXPECT_FALSE(driver_row("nobody"));
  // One that has volumes here is known, also when it is not there from the start.
  add_driver("other");
  EXPECT_TRUE(acquire("c1", {want_of("other", "a")}));
  EXPECT_TRUE(release("c1"));
  restart();
  catalog.remove("other");
  EXPECT_FALSE(acquire("c2", {want_of("other", "a")}));
  ASSERT_TRUE(driver_row("other"));
  EXPECT_EQ(driver_row("other")->state, DriverState::down);
}

TEST_F(ManagerDriver, SecretsInTheErrorsOfLaterCallsAreReplaced) {
  fake->manner.refusal = "cannot log in with hunter2";
  EXPECT_TRUE(acquire("c1", {secret("hunter2")}));
  fake->fail(Operation::unmount, "a", Fault::refuse);
  EXPECT_TRUE(release("c1"));
  EXPECT_THAT(everything_recorded(), Not(HasSubstr("hunter2")));
  EXPECT_THAT(everything_recorded(), HasSubstr("cannot log in with <secret>"));
  fake->fail(Operation::remove, "a", Fault::refuse);
  settle_all();
  const auto removed = manager->remove_volume(context(), volume("a"));
  ASSERT_FALSE(removed);
  EXPECT_THAT(removed.error().text(), HasSubstr("with <secret>"));
}

TEST_F(ManagerDriver, AfterARestartWhatADriverSaysOfAVolumeWithSecretsIsWithheld) {
  fake->manner.refusal = "cannot log in with hunter2";
  EXPECT_TRUE(acquire("c1", {secret("hunter2"), want("b")}));
  restart();
  fake->fail(Operation::unmount, "", Fault::refuse, 2);
  EXPECT_TRUE(release("c1"));
  ASSERT_TRUE(debt("a"));
  EXPECT_THAT(debt("a")->last_error, HasSubstr("withheld"));
  EXPECT_THAT(debt("b")->last_error, HasSubstr("cannot log in"));
  settle_all();
  // The next container's secrets are not all that the driver may still repeat.
  EXPECT_TRUE(acquire("c2", {secret("another-one")}));
  fake->fail(Operation::unmount, "a", Fault::refuse);
  EXPECT_TRUE(release("c2"));
  ASSERT_TRUE(debt("a"));
  EXPECT_THAT(debt("a")->last_error, HasSubstr("withheld"));
  fake->fail(Operation::remove, "a", Fault::refuse);
  settle_all();
  restart();
  const auto removed = manager->remove_volume(context(), volume("a"));
  ASSERT_FALSE(removed);
  EXPECT_THAT(removed.error().text(), Not(HasSubstr("hunter2")));
}

TEST_F(ManagerDriver, AVolumeThatIsCreatedWithASecretIsRememberedAsOne) {
  fake->manner.refusal = "cannot log in with hunter2";
  EXPECT_TRUE(manager->create_volume(context(), volume("a"), {{"token", "hunter2"}}));
  restart();
  fake->fail(Operation::remove, "a", Fault::refuse);
  const auto removed = manager->remove_volume(context(), volume("a"));
  ASSERT_FALSE(removed);
  EXPECT_THAT(removed.error().text(), HasSubstr("withheld"));
}

TEST_F(ManagerDriver, ALaterContainersSecretsMarkAMountThatIsThere) {
  EXPECT_TRUE(acquire("c1", {want("a")}));
  EXPECT_FALSE(row("a")->has_secrets);
  EXPECT_TRUE(acquire("c2", {secret("hunter2")}));
  EXPECT_TRUE(row("a")->has_secrets);
}

}  // namespace
}  // namespace dvdi::volume
