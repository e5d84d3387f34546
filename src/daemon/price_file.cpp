#include "daemon/price_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "daemon/text_file.h"
#include "daemon/toml_table.h"

namespace dvdi {

namespace {

constexpr std::size_t max_price_file_bytes = std::size_t{1} << 20U;

Status read_pattern(Table& table, const char* key, std::optional<std::string>& into) {
  if (!table.has(key)) return {};
  std::string pattern;
  DVDI_CHECK(table.text(key, pattern));
  if (pattern.size() > max_price_pattern_bytes)
    return table.wrong(fmt::format("{} is longer than {} bytes", key, max_price_pattern_bytes));
  into = std::move(pattern);
  return {};
}

Result<PriceRule> read_price_rule(Table& table) {
  PriceRule rule;
  DVDI_CHECK(read_pattern(table, "driver", rule.driver));
  DVDI_CHECK(read_pattern(table, "volume", rule.volume));
  DVDI_CHECK(read_pattern(table, "type", rule.type));
  bool any = false;
  for (std::size_t i = 0; i < price_names.size(); ++i) {
    DVDI_CHECK(table.decimal(price_names[i], rule.prices[i], parse_price));
    any = any || rule.prices[i];
  }
  if (!any)
    return table.wrong(fmt::format("this price needs at least one of {}", fmt::join(price_names, ", ")));
  return rule;
}

}  // namespace

Result<PriceList> parse_prices(const std::string& text, const std::string& file_name) {
  const TomlFile file{.name = file_name, .hint = "docs/usage.md lists every key"};
  PriceList list;
  DVDI_CHECK(read_toml(text, file, [&](Table& root) -> Status {
    DVDI_CHECK(root.text("currency", list.currency));
    if (!root.has("currency")) return root.wrong(R"(currency is required, such as "EUR")");
    if (const auto checked = check_currency(list.currency); !checked)
      return root.wrong(fmt::format("currency: {}", checked.error().message));
    DVDI_CHECK(root.tables("price", max_price_rules, [&](Table& table) -> Status {
      DVDI_TRY(PriceRule rule, read_price_rule(table));
      list.rules.push_back(std::move(rule));
      return {};
    }));
    if (list.rules.empty()) return root.wrong("there is no [[price]]");
    return {};
  }));
  return list;
}

Result<PriceList> load_prices(const std::string& path) {
  DVDI_TRY(const std::string text, read_text_file(path, "the prices", max_price_file_bytes));
  return parse_prices(text, path);
}

}  // namespace dvdi
