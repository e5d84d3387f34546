#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/text.h"
#include "base/time_text.h"
#include "cli/commands.h"
#include "cli/csv.h"
#include "cli/table.h"
#include "daemon/usage_wire.h"

namespace dvdi::cli {

namespace {

std::string duration(const UsageFigure& figure) {
  return human_duration(static_cast<double>(figure.nanoseconds) / 1e9);
}

std::string gib_hours(const UsageFigure& figure) {
  return figure.nano_gib_hours == 0 ? "-"
                                    : fmt::format("{:.2f}", static_cast<double>(figure.nano_gib_hours) / 1e9);
}

std::string upper(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

std::string table_of(const UsageReport& report, std::optional<std::size_t> width) {
  const bool priced = !report.currency.empty();
  std::vector<Table::Column> columns;
  for (const std::string& key : report.by) {
    // The key of a label is somebody's text.
    columns.push_back({key.starts_with("label:") ? printable(key) : upper(key)});
  }
  for (const char* title :
       {"REFERENCED", "MOUNTED", "PROVISIONED", "MOUNTS", "REF GIB-H", "MNT GIB-H", "PROV GIB-H"}) {
    columns.push_back({title, Table::Align::right});
  }
  if (priced) columns.push_back({fmt::format("COST {}", report.currency), Table::Align::right});
  Table table(columns);
  const auto add = [&](std::vector<std::string> cells, const UsageSum& sum) {
    cells.insert(cells.end(), {duration(sum.referenced), duration(sum.mounted), duration(sum.provisioned),
                               fmt::format("{}", sum.mounts), gib_hours(sum.referenced),
                               gib_hours(sum.mounted), gib_hours(sum.provisioned)});
    if (priced) cells.push_back(decimal_text(sum.cost(), money_decimals, 2));
    table.add(std::move(cells));
  };
  for (const UsageRow& row : report.rows) {
    std::vector<std::string> cells = row.group;
    for (std::string& cell : cells) {
      if (cell.empty()) cell = "-";
    }
    add(std::move(cells), row.sum);
  }
  std::vector<std::string> cells(report.by.size());
  cells.front() = "TOTAL";
  add(std::move(cells), report.total);
  return table.render(width);
}

// No row for the total: who adds up the column would count everything twice.
Status write_csv(const UsageReport& report, Output& out) {
  const bool priced = !report.currency.empty();
  std::vector<std::string> cells;
  for (const std::string& key : report.by) cells.push_back(csv_text(key));
  for (const auto& [name, text] : wire::figures({}, priced)) cells.emplace_back(name);
  if (priced) cells.emplace_back("currency");
  DVDI_CHECK(out.write(csv_line(cells)));
  for (const UsageRow& row : report.rows) {
    cells.clear();
    for (const std::string& value : row.group) cells.push_back(csv_text(value));
    for (auto& [name, text] : wire::figures(row.sum, priced)) cells.push_back(std::move(text));
    if (priced) cells.push_back(csv_text(report.currency));
    DVDI_CHECK(out.write(csv_line(cells)));
  }
  return {};
}

}  // namespace

Result<int> usage(const Context& context, Api& api, const UsageCommand& command, Screen& screen,
                  const UsageProgress& progress) {
  const UsageQuery query{
      .by = command.by, .since = command.since, .until = command.until, .prices = command.prices};
  DVDI_TRY(const UsageReport report, api.usage(context, query, progress));
  switch (screen.format) {
    case Format::json:
      DVDI_CHECK(
          wire::write_report(report, query, [&](std::string_view piece) { return screen.out.write(piece); }));
      break;
    case Format::csv:
      DVDI_CHECK(write_csv(report, screen.out));
      break;
    case Format::table:
      DVDI_CHECK(screen.out.write(table_of(report, screen.width)));
      break;
  }
  return 0;
}

}  // namespace dvdi::cli
