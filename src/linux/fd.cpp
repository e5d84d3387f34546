#include "linux/fd.h"

#include <unistd.h>

namespace dvdi {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

}  // namespace dvdi
