#include <fmt/format.h>

#include "base/json.h"
#include "base/text.h"
#include "cli/commands.h"

namespace dvdi::cli {

Result<int> config_check(const Result<ConfigReport>& report, Screen& screen) {
  if (!report) return fail(report.error());
  if (screen.format == Format::json) {
    json::object settings;
    for (const auto& [key, value] : report->effective) settings[key] = value;
    DVDI_CHECK(screen.out.write_json(
        json::object{{"file", report->file.empty() ? json::value() : json::value(report->file)},
                     {"settings", std::move(settings)}}));
    return 0;
  }
  DVDI_CHECK(screen.out.write(report->file.empty() ? std::string("no configuration file: the defaults hold\n")
                                                   : fmt::format("{}: right\n", printable(report->file))));
  for (const auto& [key, value] : report->effective)
    DVDI_CHECK(screen.out.write(fmt::format("{:<24}{}\n", key, printable(value, 4096))));
  return 0;
}

}  // namespace dvdi::cli
