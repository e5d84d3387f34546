#include "isolator/order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "isolator/test_support.h"

namespace dvdi::isolator {
namespace {

using test::Log;
using test::Script;
using test::Scripted;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr auto property_1 = Property::host_paths;
constexpr auto property_2 = static_cast<Property>(101);
constexpr auto property_3 = static_cast<Property>(102);

using Named = std::pair<std::string, Script>;

Result<std::vector<std::string>> order_of(const std::vector<Named>& scripts) {
  Log log;
  std::vector<std::unique_ptr<Isolator>> isolators;
  for (const auto& [name, script] : scripts)
    isolators.push_back(std::make_unique<Scripted>(name, log, script));
  DVDI_TRY(const auto ordered, in_order(std::move(isolators)));
  std::vector<std::string> names;
  for (const auto& one : ordered) names.emplace_back(one->name());
  return names;
}

TEST(Order, IsTheSameForEveryOrderOfConfiguration) {
  std::vector<Named> scripts = {{"a", {.needs = {property_2}}},
                                {"b", {.needs = {property_1}}},
                                {"c", {.provides = {property_2}, .needs = {property_1}}},
                                {"d", {.provides = {property_1}}},
                                {"e", {}}};
  std::ranges::sort(scripts, {}, &Named::first);
  int permutations = 0;
  do {
    const auto names = order_of(scripts);
    ASSERT_TRUE(names) << names.error().text();
    ASSERT_THAT(*names, ElementsAre("d", "b", "c", "a", "e"));
    ++permutations;
  } while (std::ranges::next_permutation(scripts, {}, &Named::first).found);
  EXPECT_EQ(permutations, 120);
}

TEST(Order, ANeedThatNobodyProvidesIsAnError) {
  const auto names = order_of({{"a", {.needs = {property_1}}}});
  ASSERT_FALSE(names);
  EXPECT_EQ(names.error().code, Code::invalid_argument);
  EXPECT_THAT(names.error().message, HasSubstr("'a' needs host paths, which no isolator provides"));
}

TEST(Order, TwoOfOneNameAreAnError) {
  const auto names = order_of({{"a", {}}, {"b", {}}, {"a", {}}});
  ASSERT_FALSE(names);
  EXPECT_THAT(names.error().message, HasSubstr("'a' is there twice"));
}

TEST(Order, TwoProvidersOfOnePropertyAreAnError) {
  const auto names = order_of({{"b", {.provides = {property_1}}}, {"a", {.provides = {property_1}}}});
  ASSERT_FALSE(names);
  EXPECT_THAT(names.error().message, HasSubstr("'a' and 'b' both provide host paths"));
}

TEST(Order, NeedsInACircleAreAnError) {
  const auto names = order_of({{"a", {.provides = {property_2}, .needs = {property_3}}},
                               {"b", {.provides = {property_3}, .needs = {property_2}}},
                               {"free", {.provides = {property_1}}}});
  ASSERT_FALSE(names);
  EXPECT_EQ(names.error().code, Code::invalid_argument);
  EXPECT_THAT(names.error().message, HasSubstr("'a', 'b' need one another"));
  EXPECT_FALSE(order_of({{"self", {.provides = {property_1}, .needs = {property_1}}}}));
}

}  // namespace
}  // namespace dvdi::isolator
