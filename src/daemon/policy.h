// The operator's policy: which principals, roles and users may use which volumes, and how. A file of rules;
// the first one that matches a volume decides. Pure but for load_policy(). docs/access.md describes it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "dvdi/v1/container.pb.h"

namespace dvdi {

// Limits on the file. Beyond one of them it is refused.
inline constexpr std::size_t max_policy_bytes = 256 << 10;
inline constexpr std::size_t max_policy_rules = 1000;
inline constexpr std::size_t max_patterns_per_list = 256;
inline constexpr std::size_t max_pattern_bytes = 255;
inline constexpr std::size_t max_principals = 10'000;
// A longer text of a request (an option's value may be 64 KiB) is not compared: it fits every pattern of a
// rule that denies, and only `*` of one that allows.
inline constexpr std::size_t max_matched_bytes = 4096;

enum class Effect { allow, deny };

struct PolicyRule {
  using Patterns = std::optional<std::vector<std::string>>;  // absent: whatever it is

  std::string name;
  unsigned line = 0;  // of the file
  Effect effect = Effect::deny;
  std::string reason = {};  // for whom it denies something
  // Who: all that are there must match.
  Patterns principals = {}, roles = {}, users = {}, frameworks = {}, owners = {};
  // What. With `host_paths` alone the rule is about host paths, with the others alone about volumes, with
  // none about both.
  Patterns drivers = {}, volumes = {}, host_paths = {};
  // allow: every driver option of the volume must be in it, with a value that fits. deny: one that is in it
  // with such a value is enough.
  std::optional<std::map<std::string, std::vector<std::string>>> options = {};
  std::optional<bool> read_only = {};  // true: for use read-only, false: for use read-write
  // Of a rule that allows: what it allows beyond the usual.
  bool suid = false, dev = false, ownership = false;
};

// On whose behalf. The caller of the daemon, and the container that he asks for.
struct Subject {
  // uid 0, or the engine's own process. Nobody else's claims count, and what reaches beyond a container's own
  // files (host paths, changing owners) has to be allowed by a rule.
  bool trusted = true;
  std::string owner = {};      // of the container: `run`, uid:N, an agent's work directory
  std::string principal = {};  // after mapping
  std::string role = {}, framework = {};
  std::string user = {};                  // the task's, as the request names it, without the group
  std::optional<std::uint32_t> uid = {};  // of that user, where it is known
};

// What became of one volume.
struct VolumeDecision {
  std::size_t position = 0;  // in the request
  std::string volume;        // DRIVER/NAME, or the host path
  bool allowed = false;
  std::string rule;   // that decided; "": none did, the default applies
  unsigned line = 0;  // of that rule
  std::string why;    // one sentence
  std::vector<std::pair<std::string, std::string>> passed_over;  // rules before it, and why they do not apply
};

struct Decision {
  bool allowed = true;
  std::vector<VolumeDecision> volumes;  // in the order of the request; paths of the sandbox are not in it
};

class Policy {
 public:
  // Without a file: everything is allowed to trusted callers, but for what a rule has to permit.
  Policy() = default;

  const std::string& file() const { return file_; }  // "" without a file
  Effect by_default() const { return default_; }
  const std::vector<PolicyRule>& rules() const { return rules_; }
  // What rules have in `users`, without patterns and numbers: names of the host, whose numbers are worth
  // knowing. A request may name the same user by number.
  std::vector<std::string> user_names() const;
  bool looks_at_users() const;
  void set_user_ids(std::map<std::string, std::uint32_t> ids) { user_ids_ = std::move(ids); }

  // The principal of a request that names none: by framework, else role, user, label; "" if there is no
  // entry. A label counts only where the caller is trusted.
  std::string principal_of(const Subject& subject, const v1::Attribution& attribution) const;

  // Every volume of the request. The request is one that src/spec has checked. `explain`: also with the rules
  // that were passed over.
  Decision decide(const Subject& subject, const v1::ContainerRequest& request, bool explain = false) const;
  // One host path: for its real path, which only the host knows.
  VolumeDecision decide_host_path(const Subject& subject, const std::string& path, bool read_only,
                                  bool explain = false) const;

 private:
  friend Result<Policy> parse_policy(const std::string& text, const std::string& file_name);
  struct Item;
  VolumeDecision decide_item(const Subject& subject, const Item& item, bool explain) const;
  std::optional<std::string> why_not(const PolicyRule& rule, const Subject& subject, const Item& item) const;
  bool user_fits(const std::vector<std::string>& users, const Subject& subject) const;

  std::string file_;
  Effect default_ = Effect::allow;
  std::vector<PolicyRule> rules_;
  std::map<std::string, std::string> by_framework_, by_role_, by_user_;
  std::map<std::pair<std::string, std::string>, std::string> by_label_;
  std::map<std::string, std::uint32_t> user_ids_;
};

// invalid_argument naming file, line and key.
Result<Policy> parse_policy(const std::string& text, const std::string& file_name);
// permission_denied where somebody but root can write the file. "" gives the policy without a file.
Result<Policy> load_policy(const std::string& path);

// Whom a request is for, before mapping. `caller_uid`: of the caller; nullopt: this process itself.
Subject subject_of(std::optional<std::uint32_t> caller_uid, const std::string& owner,
                   const v1::ContainerRequest& request);

// The request with its principal filled in, if the policy allows it; else permission_denied that says which
// rule, which volume, and what to do.
Result<v1::ContainerRequest> admit(const Policy& policy, Subject subject, v1::ContainerRequest request);
// That error, for one volume.
Error refusal(const Policy& policy, const VolumeDecision& decision);

}  // namespace dvdi
