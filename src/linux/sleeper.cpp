#include "linux/sleeper.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>

namespace dvdi {

Result<Sleeper> Sleeper::open() {
  UniqueFd mounts(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  if (!mounts) return os_error("open /proc/self/mountinfo", errno);
  // Counts while the machine sleeps, as deadlines and backoffs do.
  UniqueFd timer(::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer) return os_error("make a timer", errno);
  UniqueFd call(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!call) return os_error("make an eventfd", errno);
  return Sleeper(std::move(mounts), std::move(timer), std::move(call));
}

Result<Sleeper::Woken> Sleeper::sleep(const Clock& clock, std::optional<BootTime> until, Also also) {
  itimerspec setting{};  // all zero: no timer
  if (until) {
    const Duration left = std::max<Duration>(*until - clock.boot(), std::chrono::nanoseconds(1));
    const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
    setting.it_value.tv_sec = seconds.count();
    setting.it_value.tv_nsec = (left - seconds).count();
  }
  // Setting it also takes back an expiry that nobody read.
  if (::timerfd_settime(timer_.get(), 0, &setting, nullptr) != 0) return os_error("set a timer", errno);
  std::array<pollfd, 4> all{};
  all[0] = {.fd = call_.get(), .events = POLLIN, .revents = 0};
  all[1] = {.fd = also.mounts ? mounts_.get() : -1, .events = POLLPRI, .revents = 0};
  all[2] = {.fd = timer_.get(), .events = POLLIN, .revents = 0};
  all[3] = {.fd = also.descriptor, .events = POLLIN, .revents = 0};
  if (::poll(all.data(), all.size(), -1) < 0 && errno != EINTR) return os_error("sleep", errno);
  Woken woken{
      .by_call = all[0].revents != 0, .by_mounts = all[1].revents != 0, .by_descriptor = all[3].revents != 0};
  if (woken.by_call) {
    std::uint64_t calls = 0;
    [[maybe_unused]] const ssize_t got = ::read(call_.get(), &calls, sizeof calls);
  }
  return woken;
}

void Sleeper::wake() {
  const std::uint64_t one = 1;
  // Fails only where the counter is full: then it is awake already.
  [[maybe_unused]] const ssize_t written = ::write(call_.get(), &one, sizeof one);
}

}  // namespace dvdi
