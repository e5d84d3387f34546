// The parser, docs/configuration.md, examples/dvdi.toml and the manual know the same keys, with the same
// defaults.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "daemon/config.h"
#include "daemon/toml_table.h"

namespace dvdi {
namespace {

using testing::IsEmpty;

std::string file(const std::string& name) {
  std::ifstream stream(std::string(DVDI_SOURCE_DIR) + "/" + name);
  EXPECT_TRUE(stream) << name;
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

// What a text of settings says, commented out or not.
struct Settings {
  std::map<std::string, std::string> values;  // TABLE.KEY: what is behind the equals sign
  std::set<std::string> names;                // of values, and of their tables
  std::string uncommented;
};
Settings settings_of(const std::string& text) {
  static const std::regex header(R"(#? ?\[([A-Za-z_.]+)\])");
  static const std::regex setting(R"(#? ?([a-z_.]+) = (.+))");
  Settings found;
  const auto name = [&](const std::string& path) {
    for (std::size_t end = 0; (end = path.find('.', end)) != std::string::npos; ++end)
      found.names.insert(path.substr(0, end));
    found.names.insert(path);
  };
  std::istringstream lines(text);
  std::string table;
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_match(line, match, header)) {
      table = match.str(1) + ".";
      name(match.str(1));
      found.uncommented += "[" + match.str(1) + "]\n";
    } else if (std::regex_match(line, match, setting)) {
      EXPECT_TRUE(found.values.emplace(table + match.str(1), match.str(2)).second) << "twice: " << line;
      name(table + match.str(1));
      if (match.str(2).find("# instead of") == std::string::npos)  // they exclude each other
        found.uncommented += match.str(1) + " = " + match.str(2) + "\n";
    }
  }
  return found;
}

// The block of docs/configuration.md that has every key.
std::string documented() {
  const std::string page = file("docs/configuration.md");
  const std::string begin = "Every key, with its default:\n\n```toml\n";
  const auto from = page.find(begin);
  const auto to = page.find("\n```\n", from);
  EXPECT_NE(from, std::string::npos);
  EXPECT_NE(to, std::string::npos);
  return page.substr(from + begin.size(), to - from - begin.size() + 1);
}

TEST(ConfigDocs, TheExampleHasWhatThePageHas) {
  EXPECT_EQ(settings_of(file("examples/dvdi.toml")).values, settings_of(documented()).values);
}

TEST(ConfigDocs, TheyHaveEveryKeyThatTheParserKnowsAndNoOther) {
  const Settings settings = settings_of(file("examples/dvdi.toml"));
  TomlTrace trace;
  const auto config = parse_config(settings.uncommented, "dvdi.toml", &trace);
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(std::set<std::string>(trace.asked.begin(), trace.asked.end()), settings.names);
}

TEST(ConfigDocs, WhatIsDocumentedAsTheDefaultIsTheDefault) {
  for (const std::string& text : {documented(), file("examples/dvdi.toml")}) {
    TomlTrace trace;
    const auto config = parse_config(text, "dvdi.toml", &trace);
    ASSERT_TRUE(config) << config.error().text();
    EXPECT_THAT(trace.changed, IsEmpty());
  }
}

TEST(ConfigDocs, EveryKeyIsExplainedInThePageAndInTheManual) {
  const std::string page = file("docs/configuration.md");
  const std::string manual = file("docs/man/dvdi.toml.5");
  for (const auto& [name, value] : settings_of(documented()).values) {
    const std::string key = name.substr(name.rfind('.') + 1);
    EXPECT_TRUE(std::regex_search(page, std::regex("[`.]" + key + "`"))) << "docs/configuration.md: " << name;
    EXPECT_TRUE(std::regex_search(manual, std::regex("\n\\.R?BR?[^\n]*\\b" + key + "\\b")))
        << "docs/man/dvdi.toml.5: " << name;
  }
}

TEST(ConfigDocs, AnotherValueThanTheDefaultIsSeen) {
  TomlTrace trace;
  ASSERT_TRUE(
      parse_config("state_dir = \"/x\"\nsettle_budget = \"5s\"\n[deadlines]\nmount = 7\n", "t", &trace));
  EXPECT_THAT(trace.changed, testing::UnorderedElementsAre("state_dir", "deadlines.mount"));
}

}  // namespace
}  // namespace dvdi
