#include "daemon/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/glob.h"
#include "base/text.h"
#include "spec/request.h"

namespace dvdi {

namespace {

bool fits(const std::vector<std::string>& patterns, std::string_view text, Effect effect) {
  if (text.size() > max_matched_bytes) {
    return effect == Effect::deny || std::ranges::find(patterns, "*") != patterns.end();
  }
  return std::ranges::any_of(patterns, [&](const std::string& one) { return glob_matches(one, text); });
}

std::string shown(std::string_view text) {
  return text.empty() ? "which is not known" : fmt::format("'{}'", printable(text));
}

std::string named(const PolicyRule& rule) {
  return fmt::format("rule '{}' (line {})", printable(rule.name), rule.line);
}

}  // namespace

// One volume of a request, as far as rules look at it.
struct Policy::Item {
  std::size_t position = 0;
  bool is_host_path = false;
  std::string driver, name;  // of a volume
  std::string path;          // of a host path: absolute, without `.`, `..` and `//`
  std::map<std::string, std::string> options = {};
  bool read_only = false;
  bool suid = false, dev = false, ownership = false;

  std::string text() const { return is_host_path ? path : driver + "/" + name; }
};

std::vector<std::string> Policy::user_names() const {
  std::set<std::string> names;
  for (const PolicyRule& rule : rules_) {
    if (!rule.users) continue;
    for (const std::string& one : *rule.users) {
      if (one.find_first_of("*?") == std::string::npos && !parse_number<std::uint32_t>(one))
        names.insert(one);
    }
  }
  return {names.begin(), names.end()};
}

bool Policy::looks_at_users() const {
  return !by_user_.empty() ||
         std::ranges::any_of(rules_, [](const PolicyRule& rule) { return rule.users.has_value(); });
}

bool Policy::user_fits(const std::vector<std::string>& users, const Subject& subject) const {
  return std::ranges::any_of(users, [&](const std::string& one) {
    if (!subject.user.empty() && glob_matches(one, subject.user)) return true;
    if (!subject.uid) return false;
    if (one == "root" && *subject.uid == 0) return true;
    if (parse_number<std::uint32_t>(one) == subject.uid) return true;
    const auto known = user_ids_.find(one);
    return known != user_ids_.end() && known->second == *subject.uid;
  });
}

// nullopt: the rule is about this volume for this subject.
std::optional<std::string> Policy::why_not(const PolicyRule& rule, const Subject& subject,
                                           const Item& item) const {
  const auto misses = [&](const PolicyRule::Patterns& patterns, std::string_view text) {
    return patterns && !fits(*patterns, text, rule.effect);
  };
  if (misses(rule.principals, subject.principal))
    return fmt::format("it is not about the principal, {}", shown(subject.principal));
  if (misses(rule.roles, subject.role))
    return fmt::format("it is not about the role, {}", shown(subject.role));
  if (misses(rule.frameworks, subject.framework))
    return fmt::format("it is not about the framework, {}", shown(subject.framework));
  if (misses(rule.owners, subject.owner))
    return fmt::format("it is not about the owner, {}", shown(subject.owner));
  if (rule.users && !user_fits(*rule.users, subject))
    return fmt::format("it is not about the user, {}", shown(subject.user));

  const bool about_volumes = rule.drivers || rule.volumes || rule.options;
  if (item.is_host_path) {
    if (about_volumes && !rule.host_paths) return "it is about volumes of drivers only";
    if (misses(rule.host_paths, item.path)) return "it is not about this path";
  } else {
    if (rule.host_paths && !about_volumes) return "it is about host paths only";
    if (misses(rule.drivers, item.driver)) return fmt::format("it is not about driver {}", item.driver);
    if (misses(rule.volumes, item.name)) return "it is not about a volume of this name";
  }
  if (rule.read_only && *rule.read_only != item.read_only)
    return fmt::format("it is about read-{} use", *rule.read_only ? "only" : "write");

  if (rule.effect == Effect::deny) {
    if (item.is_host_path || !rule.options) return std::nullopt;
    const bool any = std::ranges::any_of(item.options, [&](const auto& option) {
      const auto found = rule.options->find(option.first);
      return found != rule.options->end() && fits(found->second, option.second, rule.effect);
    });
    if (any) return std::nullopt;
    return "none of the driver options is one that it names, with such a value";
  }
  if (!item.is_host_path && rule.options) {
    for (const auto& [key, value] : item.options) {
      const auto found = rule.options->find(key);
      if (found == rule.options->end())
        return fmt::format("it does not allow the driver option '{}'", printable(key));
      // The value may be a secret.
      if (!fits(found->second, value, rule.effect))
        return fmt::format("it does not allow this value of the driver option '{}'", printable(key));
    }
  }
  if (item.suid && !rule.suid) return "it does not permit setuid programs (dvdi.suid)";
  if (item.dev && !rule.dev) return "it does not permit device files (dvdi.dev)";
  if (subject.trusted) return std::nullopt;
  if (item.is_host_path && !rule.host_paths)
    return "it has no host_paths, and only root gets host paths without";
  if (item.ownership && !rule.ownership) return "it does not permit other owners (dvdi.ownership)";
  return std::nullopt;
}

VolumeDecision Policy::decide_item(const Subject& subject, const Item& item, bool explain) const {
  VolumeDecision decision{.position = item.position, .volume = item.text()};
  for (const PolicyRule& rule : rules_) {
    if (auto passed = why_not(rule, subject, item)) {
      if (explain) decision.passed_over.emplace_back(named(rule), *std::move(passed));
      continue;
    }
    decision.allowed = rule.effect == Effect::allow;
    decision.rule = rule.name;
    decision.line = rule.line;
    decision.why = fmt::format("{} {} it{}{}", named(rule), decision.allowed ? "allows" : "denies",
                               rule.reason.empty() ? "" : ": ", printable(rule.reason, 1000));
    return decision;
  }
  const std::string_view no_rule = file_.empty() ? "there is no policy file" : "no rule is about it";
  if (default_ == Effect::deny) {
    decision.why = fmt::format("{}, and the default is to deny", no_rule);
  } else if (item.suid || item.dev) {
    decision.why = fmt::format("{}, and {} need a rule that permits them", no_rule,
                               item.suid ? "setuid programs (dvdi.suid)" : "device files (dvdi.dev)");
  } else if (!subject.trusted && item.is_host_path) {
    decision.why = fmt::format("{}, and only root gets host paths without one that names them", no_rule);
  } else if (!subject.trusted && item.ownership) {
    decision.why = fmt::format(
        "{}, and other owners (dvdi.ownership) need one that permits them, but for root", no_rule);
  } else {
    decision.allowed = true;
    decision.why = fmt::format("{}, and the default is to allow", no_rule);
  }
  return decision;
}

Decision Policy::decide(const Subject& subject, const v1::ContainerRequest& request, bool explain) const {
  Decision decision;
  const auto add = [&](VolumeDecision one) {
    decision.allowed = decision.allowed && one.allowed;
    decision.volumes.push_back(std::move(one));
  };
  for (int i = 0; i < request.container_info().volumes_size(); ++i) {
    const v1::Volume& volume = request.container_info().volumes(i);
    const auto position = static_cast<std::size_t>(i);
    auto external = spec::external_volume(volume);
    if (!external) {
      add({.position = position,
           .volume = volume.source().docker_volume().driver() + "/" + volume.source().docker_volume().name(),
           .why = external.error().message});
      continue;
    }
    if (spec::ExternalVolume* one = external->has_value() ? &**external : nullptr) {
      add(decide_item(subject,
                      {.position = position,
                       .driver = one->driver,
                       .name = one->name,
                       .options = std::move(one->options),
                       .read_only = one->read_only,
                       .suid = one->suid,
                       .dev = one->dev,
                       .ownership = one->ownership != spec::Ownership::none},
                      explain));
      continue;
    }
    // As the filesystem isolator reads it; what is relative lies in the sandbox.
    std::string path = volume.host_path();
    if (path.empty() && volume.source().type() == v1::Volume::Source::HOST_PATH)
      path = volume.source().host_path().path();
    if (!path.starts_with('/')) continue;
    VolumeDecision one = decide_host_path(subject, path, volume.mode() == v1::Volume::RO, explain);
    one.position = position;
    add(std::move(one));
  }
  return decision;
}

VolumeDecision Policy::decide_host_path(const Subject& subject, const std::string& path, bool read_only,
                                        bool explain) const {
  std::string normal = std::filesystem::path(path).lexically_normal().string();
  while (normal.size() > 1 && normal.back() == '/') normal.pop_back();
  if (normal.starts_with("//")) normal.erase(0, 1);
  return decide_item(subject, {.is_host_path = true, .path = std::move(normal), .read_only = read_only},
                     explain);
}

std::string Policy::principal_of(const Subject& subject, const v1::Attribution& attribution) const {
  const auto look = [](const std::map<std::string, std::string>& in, const std::string& key) {
    const auto found = in.find(key);
    return found == in.end() ? std::string() : found->second;
  };
  if (std::string found = look(by_framework_, subject.framework); !found.empty()) return found;
  if (std::string found = look(by_role_, subject.role); !found.empty()) return found;
  if (std::string found = look(by_user_, subject.user); !found.empty()) return found;
  if (subject.uid) {
    if (std::string found = look(by_user_, std::to_string(*subject.uid)); !found.empty()) return found;
  }
  if (!subject.trusted) return {};
  for (const v1::Label& label : attribution.labels().labels()) {
    const auto found = by_label_.find({label.key(), label.value()});
    if (found != by_label_.end()) return found->second;
  }
  return {};
}

Subject subject_of(std::optional<std::uint32_t> caller_uid, const std::string& owner,
                   const v1::ContainerRequest& request) {
  const v1::Attribution& from = request.attribution();
  Subject subject{.trusted = !caller_uid || *caller_uid == 0,
                  .owner = owner,
                  .principal = from.principal(),
                  .role = from.role(),
                  .framework = from.framework_id(),
                  .user = request.command().user()};
  if (subject.user.empty()) subject.user = from.user();
  subject.user.resize(std::min(subject.user.size(), subject.user.find(':')));
  if (subject.user.empty()) subject.user = subject.trusted ? "root" : std::to_string(*caller_uid);
  subject.uid =
      subject.user == "root" ? std::optional<std::uint32_t>(0) : parse_number<std::uint32_t>(subject.user);
  return subject;
}

Error refusal(const Policy& policy, const VolumeDecision& decision) {
  Error error{
      .code = Code::permission_denied,
      .message = fmt::format("{} may not be used: {}{}", printable(decision.volume, 4096), decision.why,
                             policy.file().empty() ? "" : fmt::format(" [{}]", policy.file())),
      .hint =
          "ask whoever operates this node; `dvdi policy check` explains it, docs/access.md has the "
          "rules"};
  return error;
}

Result<v1::ContainerRequest> admit(const Policy& policy, Subject subject, v1::ContainerRequest request) {
  if (subject.principal.empty()) {
    subject.principal = policy.principal_of(subject, request.attribution());
    if (!subject.principal.empty()) request.mutable_attribution()->set_principal(subject.principal);
  }
  const Decision decision = policy.decide(subject, request);
  for (const VolumeDecision& one : decision.volumes) {
    if (!one.allowed) return refusal(policy, one);
  }
  return request;
}

}  // namespace dvdi
