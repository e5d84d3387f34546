#include "isolator/chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/sha256.h"
#include "isolator/test_support.h"

namespace dvdi::isolator {
namespace {

using test::broken;
using test::ChainWorld;
using test::Script;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr auto p1 = Property::host_paths;
constexpr auto p2 = static_cast<Property>(101);
constexpr auto p3 = static_cast<Property>(102);

// Three in a row: first, second, third; each needs what the one before it provides.
std::pair<std::string, Script> first(Script script = {}) {
  script.provides = {p1};
  return {"first", script};
}
std::pair<std::string, Script> second(Script script = {}) {
  script.needs = {p1};
  script.provides = {p2};
  return {"second", script};
}
std::pair<std::string, Script> third(Script script = {}) {
  script.needs = {p2};
  script.provides = {p3};
  return {"third", script};
}

struct ChainTest : testing::Test, ChainWorld {
  static Script failing_prepare(const std::string& message) {
    return {.prepare = [message](const Context&, Preparation&) -> Status { return broken(message); }};
  }
  static auto failing_cleanup(const std::string& message) {
    return [message](const Context&, const std::vector<Failure>&) -> Result<std::vector<Owed>> {
      return broken(message);
    };
  }
};

TEST_F(ChainTest, PreparesProvidersFirstWhateverTheConfiguration) {
  const auto forwards = chain(first(), second(), third());
  const auto backwards = chain(third(), second(), first());
  EXPECT_THAT(forwards->order(), ElementsAre("first", "second", "third"));
  EXPECT_EQ(forwards->order(), backwards->order());
  ASSERT_TRUE(prepare(*backwards));
  EXPECT_THAT(log.lines(), ElementsAre("prepare first", "prepare second", "prepare third"));
}

TEST_F(ChainTest, IsolatorsWriteTheWorkingCopyAndNeverTheRequest) {
  request.mutable_container_info()->add_volumes()->set_container_path("data");
  const std::string before = request.SerializeAsString();
  const auto both = chain(second({.prepare = [](const Context&, Preparation& preparation) -> Status {
                            preparation.launch.set_sandbox(preparation.working.volumes(0).host_path());
                            return {};
                          }}),
                          first({.prepare = [](const Context&, Preparation& preparation) -> Status {
                            preparation.working.mutable_volumes(0)->set_host_path("/vol");
                            return {};
                          }}));
  const auto launch = prepare(*both);
  ASSERT_TRUE(launch);
  EXPECT_EQ(launch->sandbox(), "/vol");
  EXPECT_EQ(request.SerializeAsString(), before);
}

TEST_F(ChainTest, PrepareStopsAtTheFirstFailureAndRollsBackInReverse) {
  const auto three = chain(first(), second(failing_prepare("no")), third());
  const auto launch = prepare(*three);
  ASSERT_FALSE(launch);
  EXPECT_EQ(launch.error().message, "no");
  EXPECT_THAT(launch.error().attached, IsEmpty());
  EXPECT_THAT(log.lines(), ElementsAre("prepare first", "prepare second", "cleanup second", "cleanup first"));
}

TEST_F(ChainTest, PrepareFailureCarriesEveryErrorOfTheRollBack) {
  Script last = failing_prepare("no");
  last.cleanup = failing_cleanup("third stuck");
  const auto three =
      chain(first({.cleanup = [](const Context&, const std::vector<Failure>&) -> Result<std::vector<Owed>> {
              return std::vector<Owed>{{.driver = "d", .volume = "v", .reason = "busy"}};
            }}),
            second({.cleanup = failing_cleanup("second stuck")}), third(last));
  const auto launch = prepare(*three);
  ASSERT_FALSE(launch);
  EXPECT_EQ(launch.error().message, "no");
  EXPECT_EQ(launch.error().code, Code::io);
  EXPECT_THAT(test::messages(launch.error().attached),
              ElementsAre(AllOf(HasSubstr("third"), HasSubstr("third stuck")),
                          AllOf(HasSubstr("second"), HasSubstr("second stuck")), HasSubstr("owed")));
  EXPECT_EQ(launch.error().attached[2].driver, "d");
  EXPECT_EQ(launch.error().attached[2].volume, "v");
  // Those that come later in the roll-back are told what failed before them.
  EXPECT_THAT(log.lines(), ElementsAre("prepare first", "prepare second", "prepare third", "cleanup third",
                                       "cleanup second !third", "cleanup first !third !second"));
}

TEST_F(ChainTest, ACancelledCallerDoesNotStopTheRollBack) {
  std::stop_source stop;
  context = context.with_stop(stop.get_token());
  bool rolled_back = false;
  const auto two = chain(
      first({.cleanup = [&](const Context& inner, const std::vector<Failure>&) -> Result<std::vector<Owed>> {
        DVDI_CHECK(inner.check("rolling back"));
        EXPECT_TRUE(inner.has_deadline());
        rolled_back = true;
        return std::vector<Owed>();
      }}),
      second({.prepare = [&](const Context& inner, Preparation&) -> Status {
        stop.request_stop();
        return inner.check("preparing");
      }}));
  const auto launch = prepare(*two);
  ASSERT_FALSE(launch);
  EXPECT_EQ(launch.error().code, Code::cancelled);
  EXPECT_THAT(launch.error().attached, IsEmpty());
  EXPECT_TRUE(rolled_back);
}

TEST_F(ChainTest, AFailedPrepareCanBeRepeatedAThousandTimes) {
  const auto two = chain(first(), second(failing_prepare("no")));
  for (int i = 0; i < 1000; ++i) ASSERT_FALSE(prepare(*two));
  EXPECT_THAT(log.lines(), SizeIs(4000));
}

TEST_F(ChainTest, CleanupInvokesAllInReverseAndTellsEachWhatFailedBefore) {
  const auto three = chain(first(), second({.cleanup = failing_cleanup("second stuck")}),
                           third({.cleanup = failing_cleanup("third stuck")}));
  books.put(key, ContainerState::running, "digest");  // still there afterwards: references are left
  const auto owed = three->cleanup(context, key);
  EXPECT_THAT(log.lines(),
              ElementsAre("cleanup third", "cleanup second !third", "cleanup first !third !second"));
  ASSERT_FALSE(owed);
  EXPECT_THAT(owed.error().message, HasSubstr("third stuck"));
  EXPECT_THAT(test::messages(owed.error().attached), ElementsAre(HasSubstr("second stuck")));
}

TEST_F(ChainTest, CleanupSucceedsOnceTheBooksHaveLetGoAndSaysWhatIsOwed) {
  const auto two = chain(
      first({.cleanup = [&](const Context&, const std::vector<Failure>& before) -> Result<std::vector<Owed>> {
        books.put(key, ContainerState::ended, "digest");
        EXPECT_THAT(before, SizeIs(1));
        return std::vector<Owed>{{.driver = "d", .volume = "v", .reason = "kept"}};
      }}),
      second({.cleanup = failing_cleanup("stuck")}));
  books.put(key, ContainerState::running, "digest");
  const auto owed = two->cleanup(context, key);
  ASSERT_TRUE(owed) << owed.error().text();
  ASSERT_THAT(*owed, SizeIs(2));
  EXPECT_EQ((*owed)[0].volume, "v");
  EXPECT_EQ((*owed)[1].volume, "");
  EXPECT_THAT((*owed)[1].reason, AllOf(HasSubstr("second"), HasSubstr("stuck")));
}

TEST_F(ChainTest, CleanupFailsWhenTheBooksCannotTell) {
  const auto one = chain(first({.cleanup = failing_cleanup("stuck")}));
  books.fail_with(broken("the disk is full"));
  const auto owed = one->cleanup(context, key);
  ASSERT_FALSE(owed);
  EXPECT_THAT(owed.error().message, HasSubstr("stuck"));
  EXPECT_THAT(test::messages(owed.error().attached), ElementsAre("the disk is full"));
}

TEST_F(ChainTest, CleanupOfAnUnknownContainerSucceeds) {
  const auto two = chain(first(), second());
  const auto owed = two->cleanup(context, key);
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, IsEmpty());
}

TEST_F(ChainTest, RecoverInvokesAllInReverseAndTellsEachWhatFailedBefore) {
  const auto three =
      chain(first({.recover = [](const auto&) -> Status { return broken("books"); }}), second(),
            third({.recover = [](const auto&) -> Status { return broken("mounts"); }}));
  const auto status = three->recover(context, {.owner = "run"});
  EXPECT_THAT(log.lines(), ElementsAre("recover third", "recover second !third", "recover first !third"));
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, AllOf(HasSubstr("third"), HasSubstr("mounts")));
  EXPECT_THAT(test::messages(status.error().attached), ElementsAre(HasSubstr("books")));
  EXPECT_TRUE(chain(first(), second())->recover(context, {.owner = "run"}));
}

// Whether a mount has vanished only an isolator can tell; that it has no second effect is its part.
TEST_F(ChainTest, RepeatedPrepareGivesTheSameAnswerAndLooksAgain) {
  const auto one = chain(first({.prepare = [&](const Context&, Preparation& preparation) -> Status {
    books.put(key, ContainerState::prepared, preparation.digest);
    preparation.launch.set_sandbox(preparation.directory);
    return {};
  }}));
  const auto launch = prepare(*one);
  ASSERT_TRUE(launch);
  const auto again = prepare(*one);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->SerializeAsString(), launch->SerializeAsString());
  EXPECT_THAT(log.lines(), ElementsAre("prepare first", "prepare first"));
}

TEST_F(ChainTest, WhoLaunchesIsPartOfTheRequest) {
  std::string digest;
  const auto one = chain(first({.prepare = [&](const Context&, Preparation& preparation) -> Status {
    EXPECT_TRUE(preparation.staged);
    digest = preparation.digest;
    books.put(key, ContainerState::prepared, digest);
    return {};
  }}));
  const auto prepare_as = [&](bool staged) {
    return one->prepare(context, key, request, folder.text(), true, {}, staged);
  };
  ASSERT_TRUE(prepare_as(true));
  EXPECT_NE(digest, digest_of(request));
  const auto own = prepare_as(false);
  ASSERT_FALSE(own);
  EXPECT_EQ(own.error().code, Code::conflict);
  // Looked at again, as a mount may have vanished.
  ASSERT_TRUE(prepare_as(true));
  EXPECT_THAT(log.lines(), ElementsAre("prepare first", "prepare first"));
}

TEST_F(ChainTest, AnAnswerThatTheBooksNoLongerHaveIsNotGivenAgain) {
  const auto one = chain(first({.prepare = [&](const Context&, Preparation& preparation) -> Status {
    books.put(key, ContainerState::prepared, preparation.digest);
    return {};
  }}));
  ASSERT_TRUE(prepare(*one));
  books.erase(key);  // another process cleaned it up
  ASSERT_TRUE(prepare(*one));
  EXPECT_THAT(log.lines(), ElementsAre("prepare first", "prepare first"));
}

TEST_F(ChainTest, AnotherRequestForAKnownContainerIsAConflictAndTouchesNothing) {
  const auto one = chain(first());
  for (const auto state : {ContainerState::preparing, ContainerState::prepared, ContainerState::running}) {
    books.put(key, state, "of another request");
    const auto launch = prepare(*one);
    ASSERT_FALSE(launch);
    EXPECT_EQ(launch.error().code, Code::conflict);
  }
  EXPECT_THAT(log.lines(), IsEmpty());
}

TEST_F(ChainTest, WhatLivesUntilItsUnmountIsTheSameWithOtherOptions) {
  auto with_options = [](const std::string& driver, const std::string& value) {
    v1::ContainerRequest asked;
    auto& docker = *asked.mutable_container_info()->add_volumes()->mutable_source()->mutable_docker_volume();
    docker.set_driver(driver);
    auto& option = *docker.mutable_driver_options()->add_parameter();
    option.set_key("size");
    option.set_value(value);
    return asked;
  };
  const auto one = chain(first());
  const ContainerKey of_dvdcli{.owner = "dvdcli", .id = "v"};
  const auto ask = [&](const ContainerKey& whose, const v1::ContainerRequest& asked) {
    return one->prepare(Context(), whose, asked, "/", false, std::nullopt, true);
  };
  books.put(of_dvdcli, ContainerState::prepared,
            sha256_hex(digest_of_volumes(with_options("d", "5")) + " staged"));
  EXPECT_TRUE(ask(of_dvdcli, with_options("d", "6")));
  const auto another = ask(of_dvdcli, with_options("e", "5"));
  ASSERT_FALSE(another) << "another volume is no repetition";
  EXPECT_EQ(another.error().code, Code::conflict);
  EXPECT_NE(digest_of(with_options("d", "5")), digest_of(with_options("d", "6"))) << "as for all others";
}

TEST_F(ChainTest, WhatLivesUntilItsUnmountIsPreparedAfterACleanupThatWasInterrupted) {
  const auto one = chain(first());
  const ContainerKey of_dvdcli{.owner = "dvdcli", .id = "v"};
  books.put(of_dvdcli, ContainerState::cleaning, digest_of_volumes(request));
  EXPECT_TRUE(one->prepare(Context(), of_dvdcli, request, "/", false, std::nullopt, false));
  EXPECT_THAT(log.lines(), ElementsAre("prepare first"));
}

// Its cleanup was cut off and goes on by itself: a roll-back would forget that it was asked for.
TEST_F(ChainTest, APrepareAfterAnUnfinishedCleanupTouchesNothing) {
  const auto one = chain(first(failing_prepare("refused")));
  for (const std::string& digest : {digest_of(request), std::string("of another request")}) {
    books.put(key, ContainerState::cleaning, digest);
    const auto launch = prepare(*one);
    ASSERT_FALSE(launch);
    EXPECT_EQ(launch.error().code, Code::failed_precondition);
    EXPECT_THAT(launch.error().message, HasSubstr("cleaned up already"));
  }
  EXPECT_THAT(log.lines(), IsEmpty());
}

TEST_F(ChainTest, ARepetitionThatFailsTakesNothingFromAPreparedContainer) {
  // Prepared by an engine that is gone: this chain has no answer to repeat and asks its isolators.
  const auto two = chain(first(), second(failing_prepare("the folder is gone")));
  books.put(key, ContainerState::running, digest_of(request));
  const auto launch = prepare(*two);
  ASSERT_FALSE(launch);
  EXPECT_EQ(launch.error().message, "the folder is gone");
  EXPECT_THAT(log.lines(), ElementsAre("prepare first", "prepare second"));
}

TEST_F(ChainTest, PrepareDoesNothingWhenTheBooksCannotBeRead) {
  const auto one = chain(first());
  books.fail_with(broken("the disk is full"));
  ASSERT_FALSE(prepare(*one));
  EXPECT_THAT(log.lines(), IsEmpty());
}

TEST_F(ChainTest, IsolateGoesInTheOrderOfPrepareAndStopsAtTheFirstError) {
  const auto three = chain(third(), second({.isolate = []() -> Status { return broken("no"); }}), first());
  const auto status = three->isolate(context, key, 42);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "no");
  EXPECT_THAT(log.lines(), ElementsAre("isolate first 42", "isolate second 42"));
}

TEST_F(ChainTest, AParentIsNotCleanedUpBeforeItsChildren) {
  const auto one = chain(first());
  books.set_children({"c.x", "c.y"});
  const auto refused = one->cleanup(context, key);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::failed_precondition);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("'c.x'"), HasSubstr("'c.y'")));
  EXPECT_THAT(log.lines(), IsEmpty());

  books.set_children({});
  EXPECT_TRUE(one->cleanup(context, key));
}

TEST_F(ChainTest, OtherProcessesAreKeptOutWhileAContainerIsWorkedOn) {
  const auto others = KeyedLocks::open(folder / "locks");  // its own file description, as another process has
  ASSERT_TRUE(others);
  std::vector<bool> held;
  const auto look = [&] { held.push_back(!(*others)->try_acquire("container run/c")->has_value()); };
  const auto one = chain(first({.prepare = [&](const Context&, Preparation&) -> Status {
                                  look();
                                  return {};
                                },
                                .isolate = [&]() -> Status {
                                  look();
                                  return {};
                                },
                                .cleanup = [&](const Context&, const auto&) -> Result<std::vector<Owed>> {
                                  look();
                                  return std::vector<Owed>();
                                }}));
  ASSERT_TRUE(prepare(*one));
  ASSERT_TRUE(one->isolate(context, key, 1));
  ASSERT_TRUE(one->cleanup(context, key));
  look();
  EXPECT_THAT(held, ElementsAre(true, true, true, false));
}

TEST_F(ChainTest, TheDigestTellsRequestsApart) {
  v1::ContainerRequest other = request;
  EXPECT_EQ(digest_of(other), digest_of(request));
  other.mutable_command()->set_user("nobody");
  EXPECT_NE(digest_of(other), digest_of(request));
}

}  // namespace
}  // namespace dvdi::isolator
