#include "daemon/usage_wire.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/text.h"
#include "base/time_text.h"

namespace dvdi::wire {

namespace {

constexpr std::size_t piece_bytes = std::size_t{64} << 10U;
constexpr unsigned most_digits = 39;  // of a Wide

Error wrong(std::string message) {
  return Error{.code = Code::invalid_argument,
               .message = std::move(message),
               .hint = "docs/openapi.yaml has the form"};
}

Status only_members(const json::value& from, const std::string& place,
                    std::initializer_list<std::string_view> known) {
  if (!from.is_object())
    return wrong(fmt::format("{} must be an object", place.empty() ? "the body" : place));
  for (const auto& one : from.get_object()) {
    if (std::ranges::find(known, std::string_view(one.key())) == known.end())
      return wrong(fmt::format("{}{}: no such member here; there are {}", place.empty() ? "" : place + ".",
                               printable(one.key()), fmt::join(known, ", ")));
  }
  return {};
}

// nullptr: absent, or null.
const json::value* member(const json::value& from, std::string_view name) {
  const json::value* found = json::find(from, name);
  return found == nullptr || found->is_null() ? nullptr : found;
}

Status read_text(const json::value& from, std::string_view name, const std::string& place,
                 std::optional<std::string>& into) {
  const json::value* found = member(from, name);
  if (found == nullptr) return {};
  if (!found->is_string()) return wrong(fmt::format("{}{} must be a text", place, name));
  into = found->get_string();
  return {};
}

Status read_time(const json::value& from, std::string_view name, std::optional<WallTime>& into) {
  std::optional<std::string> text;
  DVDI_CHECK(read_text(from, name, "", text));
  if (!text) return {};
  into = parse_time(*text);
  if (!into) return wrong(fmt::format("{} must be a time as 2026-11-22T10:00:00Z", name));
  return {};
}

Result<PriceRule> rule_of(const json::value& from, const std::string& place) {
  PriceRule rule;
  DVDI_CHECK(only_members(from, place,
                          {"driver", "volume", "type", price_names[0], price_names[1], price_names[2],
                           price_names[3], price_names[4], price_names[5], price_names[6]}));
  DVDI_CHECK(read_text(from, "driver", place + ".", rule.driver));
  DVDI_CHECK(read_text(from, "volume", place + ".", rule.volume));
  DVDI_CHECK(read_text(from, "type", place + ".", rule.type));
  for (const auto* pattern : {&rule.driver, &rule.volume, &rule.type}) {
    if (*pattern && (*pattern)->size() > max_price_pattern_bytes)
      return wrong(fmt::format("{}: a pattern is longer than {} bytes", place, max_price_pattern_bytes));
  }
  for (std::size_t i = 0; i < price_names.size(); ++i) {
    std::optional<std::string> text;
    DVDI_CHECK(read_text(from, price_names[i], place + ".", text));
    if (!text) continue;
    const auto price = parse_price(*text);
    if (!price) return wrong(fmt::format("{}.{}: {}", place, price_names[i], price.error().message));
    rule.prices[i] = *price;
  }
  return rule;
}

Result<PriceList> prices_of_json(const json::value& from) {
  DVDI_CHECK(only_members(from, "prices", {"currency", "rules"}));
  PriceList list;
  std::optional<std::string> currency;
  DVDI_CHECK(read_text(from, "currency", "prices.", currency));
  if (!currency) return wrong("prices.currency: a text is needed");
  if (const auto checked = check_currency(*currency); !checked)
    return wrong(fmt::format("prices.currency: {}", checked.error().message));
  list.currency = *std::move(currency);
  const json::value* rules = member(from, "rules");
  if (rules == nullptr || !rules->is_array() || rules->get_array().size() > max_price_rules)
    return wrong(fmt::format("prices.rules: a list of at most {} rules is needed", max_price_rules));
  for (const json::value& one : rules->get_array()) {
    DVDI_TRY(PriceRule rule, rule_of(one, fmt::format("prices.rules[{}]", list.rules.size())));
    list.rules.push_back(std::move(rule));
  }
  return list;
}

json::object to_json(const PriceList& list) {
  json::array rules;
  for (const PriceRule& rule : list.rules) {
    json::object one;
    if (rule.driver) one["driver"] = *rule.driver;
    if (rule.volume) one["volume"] = *rule.volume;
    if (rule.type) one["type"] = *rule.type;
    for (std::size_t i = 0; i < price_names.size(); ++i) {
      if (rule.prices[i]) one[price_names[i]] = decimal_text(*rule.prices[i], money_decimals);
    }
    rules.push_back(std::move(one));
  }
  return {{"currency", list.currency}, {"rules", std::move(rules)}};
}

json::value time_or_null(const std::optional<WallTime>& time) {
  return time ? json::value(rfc3339(*time)) : json::value();
}

void put_figures(json::object& into, const UsageSum& sum, bool priced) {
  for (const auto& [name, text] : figures(sum, priced)) {
    if (std::string_view(name) == "mounts") {
      into[name] = sum.mounts;
    } else {
      into[name] = text;
    }
  }
}

json::object to_json(const UsageRow& row, const std::vector<std::string>& by, bool priced) {
  json::object group;
  for (std::size_t i = 0; i < by.size(); ++i) group[by[i]] = row.group[i];
  json::object out{{"group", std::move(group)}};
  put_figures(out, row.sum, priced);
  return out;
}

Result<UsageSum> sum_of(const json::value& from, bool priced) {
  UsageSum sum;
  bool good = true;
  const auto read = [&](const char* name, unsigned decimals, Wide& into) {
    const auto value = parse_decimal(json::text_or_empty(from, name), decimals, most_digits);
    good = good && value;
    into = value.value_or(0);
  };
  read("referenced_seconds", seconds_decimals, sum.referenced.nanoseconds);
  read("mounted_seconds", seconds_decimals, sum.mounted.nanoseconds);
  read("provisioned_seconds", seconds_decimals, sum.provisioned.nanoseconds);
  read("referenced_gib_hours", gib_hour_decimals, sum.referenced.nano_gib_hours);
  read("mounted_gib_hours", gib_hour_decimals, sum.mounted.nano_gib_hours);
  read("provisioned_gib_hours", gib_hour_decimals, sum.provisioned.nano_gib_hours);
  if (priced) {
    read("referenced_cost", money_decimals, sum.referenced.cost);
    read("mounted_cost", money_decimals, sum.mounted.cost);
    read("provisioned_cost", money_decimals, sum.provisioned.cost);
    read("mounts_cost", money_decimals, sum.mounts_cost);
  }
  const json::value* mounts = json::find(from, "mounts");
  boost::system::error_code error;
  if (mounts != nullptr && mounts->is_number()) sum.mounts = mounts->to_number<std::uint64_t>(error);
  if (!good || error || mounts == nullptr)
    return Error{.code = Code::corrupted, .message = "a figure of the daemon's usage report is no number"};
  return sum;
}

}  // namespace

json::object to_json(const UsageQuery& query) {
  json::array by;
  for (const std::string& one : query.by) by.emplace_back(one);
  return {{"by", std::move(by)},
          {"since", time_or_null(query.since)},
          {"until", time_or_null(query.until)},
          {"prices", query.prices ? json::value(to_json(*query.prices)) : json::value()}};
}

Result<UsageQuery> usage_query_of(const json::value& body) {
  DVDI_CHECK(only_members(body, "", {"by", "since", "until", "prices"}));
  UsageQuery query;
  if (const json::value* by = member(body, "by")) {
    if (!by->is_array()) return wrong("by must be a list of texts");
    query.by.clear();
    for (const json::value& one : by->get_array()) {
      if (!one.is_string()) return wrong("by must be a list of texts");
      query.by.emplace_back(one.get_string());
    }
  }
  DVDI_CHECK(read_time(body, "since", query.since));
  DVDI_CHECK(read_time(body, "until", query.until));
  if (const json::value* prices = member(body, "prices")) {
    DVDI_TRY(query.prices, prices_of_json(*prices));
  }
  return query;
}

std::vector<std::pair<const char*, std::string>> figures(const UsageSum& sum, bool priced) {
  const auto seconds = [](const UsageFigure& one) { return decimal_text(one.nanoseconds, seconds_decimals); };
  const auto gib_hours = [](const UsageFigure& one) {
    return decimal_text(one.nano_gib_hours, gib_hour_decimals);
  };
  const auto money = [](Wide amount) { return decimal_text(amount, money_decimals); };
  std::vector<std::pair<const char*, std::string>> out = {
      {"referenced_seconds", seconds(sum.referenced)},
      {"mounted_seconds", seconds(sum.mounted)},
      {"provisioned_seconds", seconds(sum.provisioned)},
      {"referenced_gib_hours", gib_hours(sum.referenced)},
      {"mounted_gib_hours", gib_hours(sum.mounted)},
      {"provisioned_gib_hours", gib_hours(sum.provisioned)},
      {"mounts", fmt::format("{}", sum.mounts)}};
  if (priced) {
    out.emplace_back("referenced_cost", money(sum.referenced.cost));
    out.emplace_back("mounted_cost", money(sum.mounted.cost));
    out.emplace_back("provisioned_cost", money(sum.provisioned.cost));
    out.emplace_back("mounts_cost", money(sum.mounts_cost));
    out.emplace_back("cost", money(sum.cost()));
  }
  return out;
}

Status write_report(const UsageReport& report, const UsageQuery& query,
                    const std::function<Status(std::string_view)>& write) {
  const bool priced = !report.currency.empty();
  json::array by;
  for (const std::string& one : report.by) by.emplace_back(one);
  const json::object head{{"by", std::move(by)},
                          {"since", time_or_null(query.since)},
                          {"until", time_or_null(query.until)},
                          {"currency", priced ? json::value(report.currency) : json::value()}};
  std::string text = json::serialize(head);
  text.back() = ',';  // goes on
  text += R"("rows":[)";
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    if (i != 0) text += ',';
    text += json::serialize(to_json(report.rows[i], report.by, priced));
    if (text.size() < piece_bytes) continue;
    DVDI_CHECK(write(text));
    text.clear();
  }
  json::object total;
  put_figures(total, report.total, priced);
  return write(text + R"(],"total":)" + json::serialize(total) + "}\n");
}

Result<UsageReport> usage_report_of(const json::value& value) {
  UsageReport report{.currency = std::string(json::text_or_empty(value, "currency"))};
  const bool priced = !report.currency.empty();
  const json::value* by = json::find(value, "by");
  const json::value* rows = json::find(value, "rows");
  const json::value* total = json::find(value, "total");
  if (by == nullptr || !by->is_array() || rows == nullptr || !rows->is_array() || total == nullptr)
    return Error{.code = Code::corrupted, .message = "the daemon's usage report has no by, rows or total"};
  for (const json::value& one : by->get_array()) {
    if (one.is_string()) report.by.emplace_back(one.get_string());
  }
  report.rows.reserve(rows->get_array().size());
  for (const json::value& one : rows->get_array()) {
    UsageRow& row = report.rows.emplace_back();
    DVDI_TRY(row.sum, sum_of(one, priced));
    const json::value* group = json::find(one, "group");
    for (const std::string& key : report.by) {
      row.group.emplace_back(group == nullptr ? std::string_view() : json::text_or_empty(*group, key));
    }
  }
  DVDI_TRY(report.total, sum_of(*total, priced));
  return report;
}

}  // namespace dvdi::wire
