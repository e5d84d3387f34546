#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace dvdi::cli {

namespace {

constexpr std::string_view clear_line = "\r\x1b[K";

void write_to_terminal(std::string_view text) {
  // Nobody is there to be told that it failed.
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

}  // namespace

Progress::Progress(std::string what) : what_(std::move(what)) {
  if (::isatty(STDERR_FILENO) == 1) thread_ = std::thread([this] { show(); });
}

Progress::~Progress() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Progress::at(std::uint64_t done, std::uint64_t all) {
  done_ = done;
  all_ = all;
}

std::string Progress::line(const std::string& what, std::uint64_t done, std::uint64_t all, unsigned seconds) {
  const std::string share = all == 0 ? "" : fmt::format(", {} %", std::min(done, all) * 100 / all);
  return fmt::format("{}{}, {} s", what, share, seconds);
}

void Progress::show() {
  std::unique_lock lock(mutex_);
  for (unsigned seconds = 1; !wake_.wait_for(lock, std::chrono::seconds(1), [&] { return over_; });
       ++seconds) {
    write_to_terminal(std::string(clear_line) + line(what_, done_, all_, seconds));
  }
  write_to_terminal(clear_line);
}

}  // namespace dvdi::cli
