#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "linux/kernel_version.h"
#include "linux/mount_table.h"

namespace dvdi {

namespace {

// By number: Debian 12's headers do not know it.
constexpr long statmount_number = 457;

bool has_statmount() {
  // A kernel that has it complains about the null request; any other answer (ENOSYS, a seccomp filter's
  // EPERM) means that it cannot be used.
  return ::syscall(statmount_number, nullptr, nullptr, 0UL, 0U) < 0 && (errno == EFAULT || errno == EINVAL);
}

KernelFeatures probe() {
  utsname name{};
  ::uname(&name);
  KernelVersion version = parse_kernel_version(name.release);
  bool statmount = has_statmount();
  if (const char* pretended = std::getenv("DVDI_KERNEL"); pretended != nullptr && *pretended != '\0') {
    version = parse_kernel_version(pretended);
    statmount = statmount && version >= KernelVersion{6, 8};
  }
  // idmapped_tmpfs is the version's word: asking the kernel would need a user namespace. It only serves an
  // early, clear message; mount_setattr has the last word.
  return KernelFeatures{.statmount = statmount, .idmapped_tmpfs = version >= KernelVersion{6, 3}};
}

}  // namespace

KernelVersion parse_kernel_version(const char* text) {
  KernelVersion version;
  char* end = nullptr;
  version.major = std::strtoul(text, &end, 10);
  if (end != nullptr && *end == '.') version.minor = std::strtoul(end + 1, nullptr, 10);
  return version;
}

const KernelFeatures& kernel_features() {
  static const KernelFeatures features = probe();
  return features;
}

}  // namespace dvdi
