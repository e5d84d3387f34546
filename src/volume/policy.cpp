// Policy: what holds for one driver.

#include <algorithm>
#include <cctype>

#include "volume/manager.h"

namespace dvdi::volume {

namespace {

using driver::Operation;

Duration of_all(const Policy& policy, Operation operation) {
  return operation == Operation::mount     ? policy.mount_deadline
         : operation == Operation::unmount ? policy.unmount_deadline
                                           : policy.call_deadline;
}

template <class T>
T own_or(const Policy& policy, const std::string& driver, std::optional<T> DriverPolicy::* own, T of_all) {
  const auto found = policy.by_driver.find(driver);
  return found == policy.by_driver.end() ? of_all : (found->second.*own).value_or(of_all);
}

}  // namespace

Duration Policy::deadline(const std::string& driver, Operation operation) const {
  if (const auto found = by_driver.find(driver); found != by_driver.end()) {
    const auto& own = found->second.deadlines;
    if (const auto deadline = own.find(operation); deadline != own.end()) return deadline->second;
  }
  return of_all(*this, operation);
}

bool Policy::is_secret(std::string_view option) const {
  const auto same = [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); };
  return std::ranges::any_of(secret_options, [&](const std::string& part) {
    return !part.empty() && !std::ranges::search(option, part, same).empty();
  });
}

unsigned Policy::at_once(const std::string& driver) const {
  return own_or(*this, driver, &DriverPolicy::calls_at_once, calls_per_driver);
}
unsigned Policy::waiting(const std::string& driver) const {
  return own_or(*this, driver, &DriverPolicy::calls_waiting, calls_waiting);
}
unsigned Policy::attempts(const std::string& driver) const {
  return own_or(*this, driver, &DriverPolicy::unmount_attempts, unmount_attempts);
}
Duration Policy::backoff(const std::string& driver) const {
  return own_or(*this, driver, &DriverPolicy::debt_backoff, debt_backoff);
}
Duration Policy::backoff_cap(const std::string& driver) const {
  return own_or(*this, driver, &DriverPolicy::debt_backoff_cap, debt_backoff_cap);
}
Duration Policy::late_answer_of(const std::string& driver) const {
  return own_or(*this, driver, &DriverPolicy::late_answer, late_answer);
}

Duration Policy::longest(Operation operation) const {
  Duration longest = of_all(*this, operation);
  for (const auto& [name, own] : by_driver) longest = std::max(longest, deadline(name, operation));
  return longest;
}

}  // namespace dvdi::volume
