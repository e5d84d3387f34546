#include "store/suspect.h"

#include <fcntl.h>
#include <unistd.h>

#include "linux/fd.h"

namespace dvdi {

namespace {

std::string mark(const std::string& path) { return path + "-suspect"; }

}  // namespace

void suspect(const std::string& path) {
  const UniqueFd fd(::open(mark(path).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

bool is_suspected(const std::string& path) { return ::access(mark(path).c_str(), F_OK) == 0; }

void clear_suspicion(const std::string& path) { static_cast<void>(::unlink(mark(path).c_str())); }

}  // namespace dvdi
