// The policy's file: TOML to rules.
#include <fmt/format.h>

#include <set>

#include "daemon/policy.h"
#include "daemon/text_file.h"
#include "daemon/toml_table.h"

namespace dvdi {

namespace {

constexpr std::size_t max_name_bytes = 255;

Status one_of(const Table& table, std::string_view key, const std::string& value,
              std::initializer_list<std::string_view> known) {
  if (std::ranges::find(known, value) != known.end()) return {};
  return table.wrong(
      fmt::format("{} must be one of {}, it is '{}'", key, fmt::join(known, ", "), printable(value)));
}

Status check_patterns(const Table& table, std::string_view key, const std::vector<std::string>& patterns) {
  if (patterns.empty()) {
    return table.wrong(
        fmt::format("{} is empty: nothing would match; leave it out where it does not matter", key));
  }
  if (patterns.size() > max_patterns_per_list)
    return table.wrong(fmt::format("{} has more than {} patterns", key, max_patterns_per_list));
  for (const std::string& one : patterns) {
    if (one.size() > max_pattern_bytes)
      return table.wrong(fmt::format("a pattern of {} is longer than {} bytes", key, max_pattern_bytes));
  }
  return {};
}

Status read_patterns(Table& table, const char* key, PolicyRule::Patterns& into) {
  if (!table.has(key)) return {};
  std::vector<std::string> read;
  DVDI_CHECK(table.texts(key, read));
  DVDI_CHECK(check_patterns(table, key, read));
  into = std::move(read);
  return {};
}

Status read_options(Table& table, PolicyRule& rule) {
  if (!table.has("options")) return {};
  rule.options.emplace();
  return table.table("options", [&](Table& options) {
    return options.names([&](const std::string& key) -> Status {
      if (rule.options->size() == max_patterns_per_list)
        return options.wrong(fmt::format("there are more than {} options", max_patterns_per_list));
      PolicyRule::Patterns values;
      DVDI_CHECK(read_patterns(options, key.c_str(), values));
      rule.options->emplace(key, *std::move(values));
      return {};
    });
  });
}

Status read_permits(Table& table, PolicyRule& rule) {
  std::vector<std::string> permits;
  DVDI_CHECK(table.texts("permit", permits));
  if (!permits.empty() && rule.effect == Effect::deny)
    return table.wrong("permit has no meaning in a rule that denies");
  for (const std::string& one : permits) {
    DVDI_CHECK(one_of(table, "permit", one, {"suid", "dev", "ownership"}));
    if (one == "suid") rule.suid = true;
    if (one == "dev") rule.dev = true;
    if (one == "ownership") rule.ownership = true;
  }
  return {};
}

Result<PolicyRule> read_policy_rule(Table& table) {
  PolicyRule rule{.line = table.line()};
  DVDI_CHECK(table.text("name", rule.name));
  if (rule.name.empty() || rule.name.size() > max_name_bytes)
    return table.wrong(fmt::format("rule.name is required, of at most {} bytes", max_name_bytes));
  std::string effect;
  DVDI_CHECK(table.text("effect", effect));
  DVDI_CHECK(one_of(table, "rule.effect", effect, {"allow", "deny"}));
  rule.effect = effect == "allow" ? Effect::allow : Effect::deny;
  DVDI_CHECK(table.text("reason", rule.reason));
  if (rule.reason.size() > 1000) return table.wrong("rule.reason is longer than 1000 bytes");
  DVDI_CHECK(read_patterns(table, "principals", rule.principals));
  DVDI_CHECK(read_patterns(table, "roles", rule.roles));
  DVDI_CHECK(read_patterns(table, "users", rule.users));
  DVDI_CHECK(read_patterns(table, "frameworks", rule.frameworks));
  DVDI_CHECK(read_patterns(table, "owners", rule.owners));
  DVDI_CHECK(read_patterns(table, "drivers", rule.drivers));
  DVDI_CHECK(read_patterns(table, "volumes", rule.volumes));
  DVDI_CHECK(read_patterns(table, "host_paths", rule.host_paths));
  for (const std::string& one : rule.host_paths.value_or(std::vector<std::string>())) {
    if (!one.starts_with('/') && !one.starts_with('*'))
      return table.wrong(fmt::format("host_paths: '{}' fits no path: begin with / or *", printable(one)));
  }
  DVDI_CHECK(read_options(table, rule));
  std::string mode;
  DVDI_CHECK(table.text("mode", mode));
  if (!mode.empty()) {
    DVDI_CHECK(one_of(table, "rule.mode", mode, {"ro", "rw"}));
    rule.read_only = mode == "ro";
  }
  DVDI_CHECK(read_permits(table, rule));
  return rule;
}

// name -> principal
Status read_map(Table& table, const char* key, std::map<std::string, std::string>& into) {
  return table.table(key, [&](Table& map) {
    return map.names([&](const std::string& name) -> Status {
      std::string principal;
      DVDI_CHECK(map.text(name.c_str(), principal));
      if (into.size() == max_principals)
        return map.wrong(fmt::format("there are more than {} entries", max_principals));
      if (principal.size() > max_name_bytes)
        return map.wrong(
            fmt::format("the principal of '{}' is longer than {} bytes", printable(name), max_name_bytes));
      into.emplace(name, std::move(principal));
      return {};
    });
  });
}

}  // namespace

Result<Policy> parse_policy(const std::string& text, const std::string& file_name) {
  if (text.size() > max_policy_bytes) {
    return Error{
        .code = Code::invalid_argument,
        .message = fmt::format("the policy {} is larger than {} KiB", file_name, max_policy_bytes >> 10U)};
  }
  const TomlFile file{.name = file_name, .hint = "docs/access.md lists every key"};
  Policy policy;
  policy.file_ = file_name;
  DVDI_CHECK(read_toml(text, file, [&](Table& root) -> Status {
    std::string by_default = "deny";
    DVDI_CHECK(root.text("default", by_default));
    DVDI_CHECK(one_of(root, "default", by_default, {"allow", "deny"}));
    policy.default_ = by_default == "allow" ? Effect::allow : Effect::deny;
    std::set<std::string> names;
    DVDI_CHECK(root.tables("rule", max_policy_rules, [&](Table& table) -> Status {
      DVDI_TRY(PolicyRule rule, read_policy_rule(table));
      if (!names.insert(rule.name).second)
        return table.wrong(fmt::format("there is a rule '{}' already", printable(rule.name)));
      policy.rules_.push_back(std::move(rule));
      return {};
    }));
    return root.table("principals", [&](Table& table) -> Status {
      DVDI_CHECK(read_map(table, "framework", policy.by_framework_));
      DVDI_CHECK(read_map(table, "role", policy.by_role_));
      DVDI_CHECK(read_map(table, "user", policy.by_user_));
      std::map<std::string, std::string> labels;
      DVDI_CHECK(read_map(table, "label", labels));
      for (auto& [label, principal] : labels) {
        const auto equals = label.find('=');
        if (equals == std::string::npos || equals == 0)
          return table.wrong(fmt::format("principals.label: '{}' must be KEY=VALUE", printable(label)));
        policy.by_label_[{label.substr(0, equals), label.substr(equals + 1)}] = std::move(principal);
      }
      return {};
    });
  }));
  return policy;
}

Result<Policy> load_policy(const std::string& path) {
  if (path.empty()) return Policy();
  DVDI_TRY(const std::string text,
           read_text_file(path, "the policy", max_policy_bytes, Trust::operator_only));
  return parse_policy(text, path);
}

}  // namespace dvdi
