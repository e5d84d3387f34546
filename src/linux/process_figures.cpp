#include "linux/process_figures.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "base/clock.h"
#include "linux/process.h"

namespace dvdi {

namespace {

std::uint64_t count_entries(const char* folder) {
  std::error_code error;
  std::uint64_t count = 0;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    ++count;
  return count;
}

// The kernel knows it by the clock of the boot. Read once: setting the clock must not look like a restart.
double start_time() {
  static const double start = [] {
    const auto self = identify_process(::getpid());
    const Clock& clock = system_clock();
    const auto ticks_a_second = ::sysconf(_SC_CLK_TCK);
    if (!self || ticks_a_second <= 0) return 0.0;
    const std::chrono::duration<double> boot =
        clock.wall().time_since_epoch() - clock.boot().time_since_epoch();
    return boot.count() + static_cast<double>(self->start_ticks) / static_cast<double>(ticks_a_second);
  }();
  return start;
}

}  // namespace

ProcessFigures process_figures() {
  ProcessFigures figures;
  figures.start_seconds = start_time();
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) == 0) {
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    figures.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) figures.most_descriptors = limit.rlim_cur;
  // proc(5): size and resident set, in pages.
  std::ifstream memory("/proc/self/statm");
  std::uint64_t size = 0, resident = 0;
  if (memory >> size >> resident) {
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    figures.virtual_bytes = size * page;
    figures.resident_bytes = resident * page;
  }
  // The one that reads the folder is open meanwhile.
  const std::uint64_t open = count_entries("/proc/self/fd");
  figures.open_descriptors = open > 0 ? open - 1 : 0;
  figures.threads = count_entries("/proc/self/task");
  return figures;
}

}  // namespace dvdi
