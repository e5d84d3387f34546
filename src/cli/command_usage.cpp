#include <fmt/format.h>

#include <cctype>

#include "base/json.h"
#include "base/time_text.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "daemon/wire.h"

namespace dvdi::cli {

namespace {

json::value time_or_null(const std::optional<WallTime>& time) {
  return time ? json::value(rfc3339(*time)) : json::value();
}

std::string gib_hours(double value) { return value > 0 ? fmt::format("{:.2f}", value) : "-"; }

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

Result<int> usage(const Context& context, Api& api, const UsageCommand& command, Screen& screen) {
  DVDI_TRY(const std::vector<UsageRow> rows,
           api.usage(context, {.by = command.by, .since = command.since, .until = command.until}));
  if (screen.format == Format::json) {
    json::array all;
    for (const UsageRow& row : rows) all.push_back(wire::to_json(row));
    DVDI_CHECK(screen.out.write_json(json::object{{"by", command.by},
                                                  {"since", time_or_null(command.since)},
                                                  {"until", time_or_null(command.until)},
                                                  {"rows", std::move(all)}}));
    return 0;
  }
  Table table({{upper(command.by)},
               {"REFERENCED", Table::Align::right},
               {"MOUNTED", Table::Align::right},
               {"PROVISIONED", Table::Align::right},
               {"MOUNTS", Table::Align::right},
               {"REF GIB-H", Table::Align::right},
               {"MNT GIB-H", Table::Align::right},
               {"PROV GIB-H", Table::Align::right}});
  for (const UsageRow& row : rows) {
    table.add({row.group.empty() ? "-" : row.group, human_duration(row.referenced_seconds),
               human_duration(row.mounted_seconds), human_duration(row.provisioned_seconds),
               fmt::format("{}", row.mounts), gib_hours(row.referenced_gib_hours),
               gib_hours(row.mounted_gib_hours), gib_hours(row.provisioned_gib_hours)});
  }
  DVDI_CHECK(screen.out.write(table.render(screen.width)));
  return 0;
}

}  // namespace dvdi::cli
