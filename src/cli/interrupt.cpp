#include "cli/interrupt.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <system_error>

namespace dvdi::cli {

namespace {

constexpr std::array<int, 3> signals = {SIGINT, SIGTERM, SIGHUP};
constexpr unsigned char end_of_watch = 0;

std::atomic<int> pipe_for_handler = -1;
static_assert(std::atomic<int>::is_always_lock_free, "used in a signal handler");

extern "C" void hand_on(int number) {
  const int saved = errno;
  const auto byte = static_cast<unsigned char>(number);
  // Full: thousands of signals are waiting to be read already.
  [[maybe_unused]] const ssize_t written = ::write(pipe_for_handler.load(), &byte, 1);
  errno = saved;
}

}  // namespace

Interrupt::Interrupt(OnSignal on_signal) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return;
  read_end_.reset(ends[0]);
  write_end_.reset(ends[1]);
  // The handler must never wait; the watcher should.
  ::fcntl(write_end_.get(), F_SETFL, O_NONBLOCK);
  pipe_for_handler = write_end_.get();
  try {
    watcher_ = std::thread([this, on_signal = std::move(on_signal)] { watch(on_signal); });
  } catch (const std::system_error&) {
    return;
  }
  for (std::size_t i = 0; i < signals.size(); ++i) {
    ::sigaction(signals[i], nullptr, &old_[i]);
    if (old_[i].sa_handler == SIG_IGN) continue;
    struct sigaction action{};
    action.sa_handler = hand_on;
    action.sa_flags = SA_RESTART;
    ::sigemptyset(&action.sa_mask);
    ::sigaction(signals[i], &action, nullptr);
    installed_[i] = true;
  }
}

int Interrupt::finish() {
  if (!watcher_.joinable()) return first_;
  for (std::size_t i = 0; i < signals.size(); ++i) {
    if (installed_[i]) ::sigaction(signals[i], &old_[i], nullptr);
  }
  // Behind every signal's byte. A full pipe has a reader that empties it.
  while (::write(write_end_.get(), &end_of_watch, 1) < 0 && (errno == EINTR || errno == EAGAIN)) {
    std::this_thread::yield();
  }
  watcher_.join();
  pipe_for_handler = -1;
  return first_;
}

void Interrupt::watch(const OnSignal& on_signal) {
  unsigned count = 0;
  for (;;) {
    unsigned char byte = end_of_watch;
    const ssize_t got = ::read(read_end_.get(), &byte, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got != 1 || byte == end_of_watch) return;
    if (++count == 1) first_ = byte;
    on_signal(byte, count);
  }
}

}  // namespace dvdi::cli
