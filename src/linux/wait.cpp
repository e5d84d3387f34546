#include "linux/wait.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <vector>

#include "linux/fd.h"

namespace dvdi {

Status wait_ready(const Context& context, std::span<pollfd> descriptors, std::string_view what) {
  UniqueFd cancelled;
  std::vector<pollfd> all(descriptors.begin(), descriptors.end());
  const auto wake = [&cancelled] {
    const std::uint64_t one = 1;
    // Cannot fail or block: the counter is far from full.
    [[maybe_unused]] const ssize_t written = ::write(cancelled.get(), &one, sizeof one);
  };
  std::optional<std::stop_callback<decltype(wake)>> on_stop;
  if (context.stop().stop_possible()) {
    cancelled.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!cancelled) return fail(os_error(what, errno));
    all.push_back(pollfd{.fd = cancelled.get(), .events = POLLIN, .revents = 0});
    on_stop.emplace(context.stop(), wake);
  }
  for (;;) {
    // Look at the descriptors before the context: what has come is taken, also in the last moment.
    auto ended = context.check(what);
    const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(context.longest_wait()).count();
    const int ready = ::poll(all.data(), all.size(), ended ? static_cast<int>(milliseconds) : 0);
    if (ready < 0 && errno != EINTR) return fail(os_error(what, errno));
    if (ready > 0) {
      std::copy_n(all.begin(), descriptors.size(), descriptors.begin());
      if (std::ranges::any_of(descriptors, [](const pollfd& one) { return one.revents != 0; })) return {};
    }
    if (!ended) return ended;
  }
}

bool process_ended(int pidfd) {
  pollfd one{.fd = pidfd, .events = POLLIN, .revents = 0};
  return ::poll(&one, 1, 0) == 1;
}

}  // namespace dvdi
