#include "volume/secret_values.h"

#include <gmock/gmock.h>

namespace dvdi::volume {
namespace {

using testing::HasSubstr;
using testing::Not;

const VolumeKey volume{"d", "v"};
Policy named(std::vector<std::string> options) {
  Policy policy;
  policy.secret_options = std::move(options);
  return policy;
}
const Policy policy = named({"password", "Token"});

Error answered(std::string text) {
  return Error{.code = Code::driver_error,
               .message = "the driver answered: " + text,
               .hint = text,
               .attached = {Error{.code = Code::driver_violation, .message = text}}};
}

TEST(SecretValues, AreReplacedWhereverTheDriverRepeatsThem) {
  SecretValues secrets(policy);
  secrets.learn(volume, {{"fs_PassWord", "hunter2"}, {"token", "hunter2-longer"}, {"user", "hugo"}}, false);
  const Error error = secrets.without(answered("hugo hunter2-longer hunter2,hunter2"), volume, false);
  EXPECT_EQ(error.message, "the driver answered: hugo <secret> <secret>,<secret>");
  EXPECT_EQ(error.hint, "hugo <secret> <secret>,<secret>");
  EXPECT_EQ(error.attached.at(0).message, "hugo <secret> <secret>,<secret>");
}

TEST(SecretValues, OfOneVolumeAreNotLookedForInAnothers) {
  SecretValues secrets(policy);
  secrets.learn(volume, {{"password", "data"}}, false);
  EXPECT_THAT(secrets.without(answered("no data"), {"d", "w"}, false).message, HasSubstr("no data"));
  EXPECT_THAT(secrets.without(answered("no data"), {"e", "v"}, false).message, HasSubstr("no data"));
  // A list is about all of the driver's.
  EXPECT_THAT(secrets.without(answered("no data"), {"d", ""}, false).message, HasSubstr("no <secret>"));
}

TEST(SecretValues, InTheFormInWhichTheyAreShown) {
  SecretValues secrets(policy);
  secrets.learn(volume, {{"password", "a\nbé"}}, false);
  EXPECT_EQ(secrets.without(answered("a\\x0ab\\xc3\\xa9!"), volume, false).message,
            "the driver answered: <secret>!");
}

TEST(SecretValues, ThatAreCutInTheMiddle) {
  SecretValues secrets(policy);
  secrets.learn(volume, {{"password", "correct-horse"}}, false);
  EXPECT_EQ(secrets.without(answered("it is correct-ho…"), volume, false).message,
            "the driver answered: it is <secret>…");
  EXPECT_EQ(secrets.without(answered("it is c…"), volume, false).message, "the driver answered: it is c…");
}

TEST(SecretValues, ThatAreNotKnownHereWithholdTheDriversWords) {
  SecretValues secrets(policy);
  const Error error = secrets.without(answered("hunter2"), volume, true);
  EXPECT_THAT(error.message, HasSubstr("withheld"));
  EXPECT_THAT(error.message + error.hint + error.attached.at(0).message, Not(HasSubstr("hunter2")));
  // Our own words stay.
  const Error late{.code = Code::deadline_exceeded, .message = "no answer in time"};
  EXPECT_EQ(secrets.without(late, volume, true).message, "no answer in time");
  // Those of this process alone are not all there were.
  secrets.learn(volume, {{"password", "another"}}, true);
  EXPECT_FALSE(secrets.knows_all(volume));
  EXPECT_THAT(secrets.without(answered("hunter2"), volume, true).message, HasSubstr("withheld"));
  // Where it knows all that there ever were, nothing is withheld.
  secrets.forget(volume);
  secrets.learn(volume, {{"password", "hunter2"}}, false);
  EXPECT_TRUE(secrets.knows_all(volume));
  EXPECT_EQ(secrets.without(answered("hunter2!"), volume, true).message, "the driver answered: <secret>!");
}

TEST(SecretValues, AreBoundedInNumber) {
  SecretValues secrets(policy);
  for (int i = 0; i < 10'050; ++i) {
    secrets.learn({"d", "v" + std::to_string(i)}, {{"password", "hunter2"}}, false);
  }
  int known = 0;
  for (int i = 0; i < 10'050; ++i) known += secrets.knows_all({"d", "v" + std::to_string(i)}) ? 1 : 0;
  EXPECT_EQ(known, 10'000);
}

TEST(SecretOptions, AreTheLongEnoughOnesOfThoseNames) {
  EXPECT_TRUE(has_secrets({{"MY_TOKEN", "abc"}}, policy));
  EXPECT_FALSE(has_secrets({{"MY_TOKEN", "ab"}}, policy));
  EXPECT_FALSE(has_secrets({{"size", "abc"}}, policy));
  EXPECT_FALSE(has_secrets({{"size", "abc"}}, named({""})));
}

}  // namespace
}  // namespace dvdi::volume
