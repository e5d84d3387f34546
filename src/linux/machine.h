// The seam through which a simulator stands in for the kernel: what the engine asks of it that is not in
// files. In production none is installed and each question costs one branch more.
#pragma once

#include <atomic>
#include <string>
#include <string_view>

#include "linux/helper_pool.h"
#include "linux/mount_table.h"
#include "linux/process.h"

namespace dvdi {

class SimulatedMachine {
 public:
  virtual ~SimulatedMachine() = default;
  virtual Result<std::string> mount_table() = 0;  // the text of a mountinfo file
  virtual Result<std::string> boot_id() = 0;
  virtual Result<ProcessIdentity> identify(pid_t pid) = 0;
  virtual Result<bool> runs(const ProcessIdentity& identity) = 0;
  // What HelperPool::run would have had a helper process do.
  virtual Result<std::string> help(const Context& context, std::string_view what, HelperFunction function,
                                   std::string_view request) = 0;
};

namespace internal {
inline std::atomic<SimulatedMachine*> installed_machine = nullptr;
}  // namespace internal

// Null in production.
inline SimulatedMachine* simulated_machine() {
  return internal::installed_machine.load(std::memory_order_relaxed);
}
inline void install_machine(SimulatedMachine* one) { internal::installed_machine = one; }

}  // namespace dvdi
