// The policy at work in an engine: every prepare passes it, whoever asks. And the record of what was refused.
#pragma once

#include <memory>
#include <string>

#include "daemon/access.h"
#include "daemon/policy.h"
#include "isolator/isolator.h"
#include "linux/helper_pool.h"
#include "store/ledger.h"

namespace dvdi {

// Thread-safe.
class Admission {
 public:
  struct Parts {  // all outlive it
    HelperPool& helpers;
    Ledger& ledger;
  };
  explicit Admission(Parts parts) : parts_(parts) {}

  // The policy of that file from now on ("": without one). After an error the one before it still holds.
  Status load(const std::string& policy_file);

  // The request as it is to be carried out (its principal filled in), or permission_denied, recorded. Who
  // asks is the context's caller; without one it is this process itself.
  Result<v1::ContainerRequest> admit(const Context& context, const ContainerKey& key,
                                     const v1::ContainerRequest& request);
  // May that container have the host path `real_path`? For SharedFilesystem::Options::may_bind.
  Status may_bind(const Context& context, const isolator::Preparation& preparation, const v1::Volume& volume,
                  const std::string& real_path);

  // Writes the event, if its turn has come. Failures are swallowed: the refusal itself stands.
  void record(const Context& context, const Denial& denial);

 private:
  // With the numbers of the users that it names.
  Result<std::shared_ptr<const Policy>> policy(const Context& context);
  Result<Subject> subject(const Context& context, const Policy& policy, const ContainerKey& key,
                          const v1::ContainerRequest& request);
  void record_refusal(const Context& context, const ContainerKey& key, const Policy& policy,
                      const Error& error);

  const Parts parts_;
  Mutex mutex_;
  // Shared: calls that began with it end with it, whatever is loaded meanwhile.
  std::shared_ptr<const Policy> policy_ = std::make_shared<const Policy>();
  bool users_looked_up_ = false;
  DenialGate gate_;
};

}  // namespace dvdi
