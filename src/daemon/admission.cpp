#include "daemon/admission.h"

#include <unistd.h>

#include <algorithm>

#include "isolator/ownership.h"

namespace dvdi {

Status Admission::load(const std::string& policy_file) {
  DVDI_TRY(Policy loaded, load_policy(policy_file));
  const Lock lock(mutex_);
  policy_ = std::make_shared<const Policy>(std::move(loaded));
  users_looked_up_ = false;
  return {};
}

Result<std::shared_ptr<const Policy>> Admission::policy(const Context& context) {
  std::shared_ptr<const Policy> seen;
  {
    const Lock lock(mutex_);
    if (users_looked_up_) return policy_;
    seen = policy_;
  }
  // Not with the lock held: a directory service can hang.
  std::map<std::string, std::uint32_t> ids;
  for (const std::string& name : seen->user_names()) {
    const auto owner = isolator::find_owner(context, parts_.helpers, name, "");
    if (owner) {
      ids.emplace(name, owner->uid);
    } else if (owner.error().code != Code::not_found && owner.error().code != Code::invalid_argument) {
      return fail(owner.error());
    }
  }
  Policy with_ids = *seen;
  with_ids.set_user_ids(std::move(ids));
  const Lock lock(mutex_);
  if (policy_ == seen) {
    policy_ = std::make_shared<const Policy>(std::move(with_ids));
    users_looked_up_ = true;
  }
  return policy_;
}

Result<Subject> Admission::subject(const Context& context, const Policy& policy, const ContainerKey& key,
                                   const v1::ContainerRequest& request) {
  std::optional<std::uint32_t> caller;
  if (context.caller()) caller = context.caller()->uid;
  Subject subject = subject_of(caller, key.owner, request);
  if (!subject.uid && policy.looks_at_users()) {
    const std::string& user = request.command().user().empty() ? subject.user : request.command().user();
    // An agent runs the task as the host's user of that name, whatever its image calls so.
    const bool agents = std::ranges::find(request.forms(), v1::ContainerRequest::MESOS_CONTAINER_CONFIG) !=
                        request.forms().end();
    DVDI_TRY(const auto owner,
             isolator::find_owner(context, parts_.helpers, user, agents ? std::string() : request.rootfs()));
    subject.uid = owner.uid;
  }
  return subject;
}

Result<v1::ContainerRequest> Admission::admit(const Context& context, const ContainerKey& key,
                                              const v1::ContainerRequest& request) {
  DVDI_TRY(const auto policy, this->policy(context));
  DVDI_TRY(Subject who, subject(context, *policy, key, request));
  auto admitted = dvdi::admit(*policy, std::move(who), request);
  if (!admitted) record_refusal(context, key, *policy, admitted.error());
  return admitted;
}

Status Admission::may_bind(const Context& context, const isolator::Preparation& preparation,
                           const v1::Volume& volume, const std::string& real_path) {
  DVDI_TRY(const auto policy, this->policy(context));
  DVDI_TRY(const Subject who, subject(context, *policy, preparation.key, preparation.request));
  const VolumeDecision decision = policy->decide_host_path(who, real_path, volume.mode() == v1::Volume::RO);
  if (decision.allowed) return {};
  Error error = refusal(*policy, decision);
  record_refusal(context, preparation.key, *policy, error);
  return error;
}

void Admission::record_refusal(const Context& context, const ContainerKey& key, const Policy& policy,
                               const Error& error) {
  const Caller self{.uid = ::geteuid(), .gid = ::getegid(), .pid = ::getpid()};
  record(context, {.caller = context.caller().value_or(self),
                   .action = std::string(action_name(Action::prepare)),
                   .what = key.text(),
                   .rule = policy.file().empty() ? "no policy" : "policy",
                   .error = error.text()});
}

void Admission::record(const Context& context, const Denial& denial) {
  const auto recorded = gate_.pass(denial, context.clock().boot());
  if (!recorded) return;
  Event event = denial_event(*recorded);
  event.trace_id = context.trace_id();
  static_cast<void>(parts_.ledger.write(context.with_caller(recorded->caller), "record a refusal",
                                        [&](Transaction& transaction) { return transaction.record(event); }));
}

}  // namespace dvdi
