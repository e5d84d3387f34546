#include "daemon/policy_check.h"

#include "base/text.h"
#include "daemon/text_file.h"

namespace dvdi {

namespace {

bool unknown_user(const Error& error) {
  return error.code == Code::not_found || error.code == Code::invalid_argument;
}

}  // namespace

Result<PolicyAnswer> check_policy(Policy policy, v1::ContainerRequest request, const PolicyQuestion& question,
                                  const FindUser& find_user) {
  MemberUser caller;
  if (const auto number = parse_number<std::uint32_t>(question.as)) {
    caller = {.uid = *number, .gid = *number};  // it need have no account here
  } else if (!question.as.empty()) {
    DVDI_TRY(caller, find_user(question.as, ""));
  }
  if (question.role) request.mutable_attribution()->set_role(*question.role);
  if (question.principal) request.mutable_attribution()->set_principal(*question.principal);
  std::optional<MemberUser> user;
  if (!request.command().user().empty()) {
    auto found = find_user(request.command().user(), request.rootfs());
    if (found) {
      user = *found;
    } else if (!unknown_user(found.error())) {
      return fail(std::move(found).error());
    }
  }
  std::map<std::string, std::uint32_t> ids;
  for (const std::string& name : policy.user_names()) {
    const auto found = find_user(name, "");
    if (found) {
      ids.emplace(name, found->uid);
    } else if (!unknown_user(found.error())) {
      return fail(found.error());
    }
  }
  policy.set_user_ids(std::move(ids));

  PolicyAnswer answer;
  const Caller peer{.uid = caller.uid, .gid = caller.gid};
  const Standing standing = caller.uid == 0 ? Standing::root : Standing::member;
  answer.access = adopt_request(standing, peer, {}, user, request);
  answer.subject = subject_of(caller.uid, standing == Standing::root ? "run" : own_owner(peer), request);
  if (user) answer.subject.uid = user->uid;
  if (answer.subject.principal.empty())
    answer.subject.principal = policy.principal_of(answer.subject, request.attribution());
  answer.decision = policy.decide(answer.subject, request, true);
  answer.allowed = !answer.access && answer.decision.allowed;
  return answer;
}

Result<Policy> read_policy(const std::string& path) {
  DVDI_TRY(const std::string text, read_text_file(path, "the policy", max_policy_bytes));
  return parse_policy(text, path);
}

}  // namespace dvdi
