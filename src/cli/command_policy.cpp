#include <fmt/format.h>

#include "base/json.h"
#include "base/text.h"
#include "cli/commands.h"

namespace dvdi::cli {

namespace {

json::value text_or_null(const std::string& text) { return text.empty() ? json::value() : json::value(text); }

json::object volume_json(const VolumeDecision& decision) {
  json::array passed;
  for (const auto& [rule, why] : decision.passed_over)
    passed.push_back(json::object{{"rule", rule}, {"why", why}});
  return json::object{{"volume", decision.volume},
                      {"allowed", decision.allowed},
                      {"rule", text_or_null(decision.rule)},
                      {"line", decision.rule.empty() ? json::value() : json::value(decision.line)},
                      {"why", decision.why},
                      {"passed_over", std::move(passed)}};
}

json::object answer_json(const PolicyAnswer& answer) {
  json::array volumes;
  for (const VolumeDecision& one : answer.decision.volumes) volumes.push_back(volume_json(one));
  json::value access;
  if (answer.access) {
    access = json::object{{"rule", answer.access->rule}, {"message", answer.access->error.message}};
  }
  return json::object{{"allowed", answer.allowed},
                      {"caller", answer.subject.trusted ? "root" : "member"},
                      {"owner", answer.subject.owner},
                      {"user", text_or_null(answer.subject.user)},
                      {"role", text_or_null(answer.subject.role)},
                      {"principal", text_or_null(answer.subject.principal)},
                      {"framework", text_or_null(answer.subject.framework)},
                      {"access", std::move(access)},
                      {"volumes", std::move(volumes)}};
}

std::string_view verdict(bool allowed) { return allowed ? "allowed" : "denied"; }

}  // namespace

Result<int> policy_check(const PolicyAnswer& answer, Screen& screen) {
  const int code = answer.allowed ? 0 : exit_failed;
  if (screen.format == Format::json) {
    DVDI_CHECK(screen.out.write_json(answer_json(answer)));
    return code;
  }
  const Subject& subject = answer.subject;
  std::string out = fmt::format("{:<8} for {}, user {}", verdict(answer.allowed),
                                subject.trusted ? "root" : "a member of the group (" + subject.owner + ")",
                                printable(subject.user));
  const auto who = [&](std::string_view name, const std::string& text) {
    if (!text.empty()) out += fmt::format(", {} {}", name, printable(text));
  };
  who("role", subject.role);
  who("principal", subject.principal);
  who("framework", subject.framework);
  out += "\n";
  if (answer.access) {
    out += fmt::format("{:<8} {}: {}\n", verdict(false), answer.access->rule,
                       printable(answer.access->error.message, 4096));
  }
  // Sentences, not a table: reasons are read whole or not at all.
  for (const VolumeDecision& one : answer.decision.volumes) {
    out += fmt::format("{:<8} {}: {}\n", verdict(one.allowed), printable(one.volume, 4096),
                       printable(one.why, 4096));
    for (const auto& [rule, why] : one.passed_over)
      out += fmt::format("{:<8} - {}: {}\n", "", printable(rule, 4096), printable(why, 4096));
  }
  if (answer.decision.volumes.empty()) out += "The request has no volume that a policy is about.\n";
  DVDI_CHECK(screen.out.write(out));
  return code;
}

}  // namespace dvdi::cli
