// For tests: mounts that nobody else sees.
#pragma once

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>

#include "base/result.h"

namespace dvdi::driver {

// A mount namespace of this test program's own that shows nothing to the host. Once, before threads.
inline Status enter_private_mount_namespace() {
  static bool entered = false;
  if (entered) return {};
  if (::geteuid() != 0) return Error{.code = Code::unsupported, .message = "mounting needs root"};
  if (::unshare(CLONE_NEWNS) != 0) {
    const int error = errno;
    return Error{.code = Code::unsupported, .message = os_error("unshare(CLONE_NEWNS)", error).message};
  }
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return os_error("make / private", errno);
  }
  entered = true;
  return {};
}

}  // namespace dvdi::driver
