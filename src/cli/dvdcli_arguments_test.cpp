#include "cli/dvdcli_arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dvdi::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;
using testing::StartsWith;
using Verb = DvdcliCommand::Verb;

DvdcliCommand parsed(const std::vector<std::string>& words) {
  auto result = parse_dvdcli(words);
  if (const auto* answer = std::get_if<Answer>(&result)) {
    ADD_FAILURE() << answer->exit_code << ": " << answer->text;
    return {};
  }
  return std::get<DvdcliCommand>(std::move(result));
}

Answer answered(const std::vector<std::string>& words) {
  auto result = parse_dvdcli(words);
  const auto* answer = std::get_if<Answer>(&result);
  if (answer == nullptr) {
    ADD_FAILURE() << "it is taken as a command";
    return {.exit_code = -1, .text = {}};
  }
  return *answer;
}

TEST(DvdcliArguments, WhatTheStockIsolatorWrites) {
  const auto command = parsed({"mount", "--volumedriver=nfs", "--volumename=shared-vol",
                               "--volumeopts=mountopts=nolock,vers=4.1", "--volumeopts=size=5"});
  EXPECT_EQ(command.verb, Verb::mount);
  EXPECT_EQ(command.driver, "nfs");
  EXPECT_EQ(command.name, "shared-vol");
  EXPECT_THAT(command.options, ElementsAre(Pair("mountopts", "nolock,vers=4.1"), Pair("size", "5")));
  EXPECT_FALSE(command.explicit_create);
  EXPECT_EQ(parsed({"unmount", "--volumedriver=nfs", "--volumename=v"}).verb, Verb::unmount);
}

TEST(DvdcliArguments, AnOptionIsOneWhateverItsValueHas) {
  EXPECT_THAT(
      parsed({"create", "--volumedriver=d", "--volumename=v", "--volumeopts", "a==,b=c,=", "--volumeopts=e="})
          .options,
      ElementsAre(Pair("a", "=,b=c,="), Pair("e", "")));
}

TEST(DvdcliArguments, FlagsStandAnywhereAndTheLastOneCounts) {
  const auto command = parsed({"--volumedriver", "one", "mount", "--volumename", "-v", "--volumedriver=two"});
  EXPECT_EQ(command.driver, "two");
  EXPECT_EQ(command.name, "-v");
}

TEST(DvdcliArguments, ExplicitCreateInBothSpellings) {
  const std::vector<std::pair<std::string, bool>> cases = {
      {"--explicitcreate", true},        {"--explicitCreate", true},    {"--explicitCreate=true", true},
      {"--explicitcreate=false", false}, {"--explicitcreate=0", false}, {"--explicitCreate=T", true}};
  for (const auto& [flag, expected] : cases) {
    EXPECT_EQ(parsed({"mount", "--volumedriver=d", "--volumename=v", flag}).explicit_create, expected)
        << flag;
  }
}

TEST(DvdcliArguments, WhatIsWrongIsUsageAndSaysWhat) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"mount", "--volumedriver=d", "--volumename=v", "--nosuch=1"}, "there is no flag --nosuch"},
      {{"mount", "--volumedriver=d", "--volumename=v", "-volumename=x"}, "there is no flag -volumename"},
      {{"unmount", "--volumedriver=d", "--volumename=v", "--volumeopts=a=b"},
       "`unmount` has no flag --volumeopts"},
      {{"create", "--volumedriver=d", "--volumename=v", "--explicitcreate"},
       "`create` has no flag --explicitcreate"},
      {{"mount", "--volumedriver=d", "--volumename=v", "--explicitcreate=maybe"},
       "--explicitcreate is true or false"},
      {{"mount", "--volumedriver=d", "--volumename"}, "--volumename needs a value"},
      {{"mount", "--volumedriver=d", "my", "--volumename=v"}, "'my' is one word too many"},
      {{"mout", "--volumedriver=d"}, "there is no command 'mout'"},
      {{"--volumedriver=d"}, "a command is needed"},
  };
  for (const auto& [words, text] : cases) {
    const Answer answer = answered(words);
    EXPECT_EQ(answer.exit_code, exit_usage) << text;
    EXPECT_THAT(answer.text, AllOf(StartsWith("dvdcli: "), HasSubstr(text)));
  }
}

TEST(DvdcliArguments, AnOptionWithoutAValueIsRefusedAndNotRepeated) {
  for (const std::string option : {"s3cret", "=s3cret", ""}) {
    const Answer answer = answered(
        {"mount", "--volumedriver=d", "--volumename=v", "--volumeopts=a=b", "--volumeopts=" + option});
    EXPECT_EQ(answer.exit_code, exit_usage);
    EXPECT_THAT(answer.text, AllOf(HasSubstr("number 2 of --volumeopts"), Not(HasSubstr("s3cret"))));
  }
}

TEST(DvdcliArguments, WithoutADriverOrAVolumeItFailsAsTheOriginal) {
  for (const std::string verb : {"mount", "unmount", "create", "remove", "path", "get", "list"}) {
    EXPECT_EQ(answered({verb, "--volumename=v"}).exit_code, exit_failed) << verb;
  }
  EXPECT_EQ(answered({"mount", "--volumedriver=d", "--volumename="}).exit_code, exit_failed);
  EXPECT_EQ(parsed({"list", "--volumedriver=d"}).verb, Verb::list);
  EXPECT_EQ(parsed({"version"}).verb, Verb::version);
}

TEST(DvdcliArguments, HelpNamesEveryCommandAndItsFlags) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{}, {"--help"}, {"-h"}, {"help"}}) {
    const Answer answer = answered(words);
    EXPECT_EQ(answer.exit_code, 0);
    for (const std::string verb : {"mount", "unmount", "create", "remove", "path", "get", "list", "version"})
      EXPECT_THAT(answer.text, HasSubstr("\n  " + verb + " "));
  }
  EXPECT_THAT(answered({"mount", "--help"}).text,
              AllOf(HasSubstr("--explicitcreate"), HasSubstr("--volumeopts"), HasSubstr("Examples:")));
  EXPECT_THAT(answered({"help", "unmount"}).text,
              AllOf(HasSubstr("dvdcli unmount"), Not(HasSubstr("--volumeopts"))));
}

}  // namespace
}  // namespace dvdi::cli
