// The version of a kernel, from uname or DVDI_KERNEL.
#pragma once

#include <compare>

namespace dvdi {

struct KernelVersion {
  unsigned long major = 0;
  unsigned long minor = 0;
  auto operator<=>(const KernelVersion&) const = default;
};

KernelVersion parse_kernel_version(const char* text);  // "6.1.0-25-amd64"; what is not a number counts as 0

}  // namespace dvdi
