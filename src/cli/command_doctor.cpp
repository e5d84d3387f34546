#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "base/text.h"
#include "cli/commands.h"

namespace dvdi::cli {

namespace {

std::string_view level_name(Finding::Level level) {
  switch (level) {
    case Finding::Level::ok:
      return "ok";
    case Finding::Level::warning:
      return "warning";
    case Finding::Level::problem:
      return "problem";
  }
  return "problem";
}

}  // namespace

Result<int> doctor(const std::vector<Finding>& findings, Screen& screen) {
  const auto count = [&](Finding::Level level) {
    return std::ranges::count(findings, level, &Finding::level);
  };
  const auto problems = count(Finding::Level::problem);
  const auto warnings = count(Finding::Level::warning);
  const int code = problems == 0 ? 0 : exit_failed;
  if (screen.format == Format::json) {
    json::array all;
    for (const Finding& one : findings) {
      all.push_back(json::object{{"level", level_name(one.level)},
                                 {"subject", one.subject},
                                 {"text", one.text},
                                 {"advice", one.advice.empty() ? json::value() : json::value(one.advice)}});
    }
    DVDI_CHECK(screen.out.write_json(json::object{{"healthy", problems == 0}, {"findings", std::move(all)}}));
    return code;
  }
  // Sentences, not a table: advice is read whole or not at all.
  for (const Finding& one : findings) {
    DVDI_CHECK(screen.out.write(fmt::format("{:<8} {}: {}\n", level_name(one.level), printable(one.subject),
                                            printable(one.text, 4096))));
    if (!one.advice.empty()) {
      DVDI_CHECK(screen.out.write(fmt::format("{:<8} -> {}\n", "", printable(one.advice, 4096))));
    }
  }
  DVDI_CHECK(screen.out.write(
      fmt::format("{} checks: {} problems, {} warnings\n", findings.size(), problems, warnings)));
  return code;
}

Result<int> version(Screen& screen) {
  if (screen.format == Format::json) {
    DVDI_CHECK(screen.out.write_json(json::object{{"version", DVDI_VERSION}}));
  } else {
    DVDI_CHECK(screen.out.write("dvdi " DVDI_VERSION "\n"));
  }
  return 0;
}

}  // namespace dvdi::cli
