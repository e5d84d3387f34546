// What `dvdi policy check` explains: the decision on one request, as the engine would make it. Pure.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "daemon/access.h"
#include "daemon/policy.h"

namespace dvdi {

struct PolicyQuestion {
  std::string as;                                        // name or number of the caller; "": root
  std::optional<std::string> role = {}, principal = {};  // claims, beside those of the request
};

struct PolicyAnswer {
  bool allowed = false;
  Subject subject;
  std::optional<Refusal> access;  // refused before the policy is asked: what only root may ask for
  Decision decision;
};

// The numbers of USER[:GROUP], of the root file system's accounts if there is one, else of the host's.
using FindUser = std::function<Result<MemberUser>(const std::string& user, const std::string& rootfs)>;

// A caller that is not root is taken to be in the group that may ask, and to ask for a container of its own.
Result<PolicyAnswer> check_policy(Policy policy, v1::ContainerRequest request, const PolicyQuestion& question,
                                  const FindUser& find_user);

// The policy in a file that need not be in use yet: whoever may write it.
Result<Policy> read_policy(const std::string& path);

}  // namespace dvdi
