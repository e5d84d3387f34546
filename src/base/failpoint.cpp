#include "base/failpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <cstdlib>
#include <string>

#include "base/scheduler.h"
#include "base/text.h"

namespace dvdi {

namespace {

struct Settings {
  std::string name;      // "": every place counts
  unsigned long at = 0;  // 0: never
  int log = -1;          // kept open for the life of the process
};

std::string environment(const char* name) {
  const char* value =
      std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nothing here changes the environment
  return value == nullptr ? "" : value;
}

Settings read_settings() {
  Settings settings;
  std::string number = environment("DVDI_FAILPOINT");
  if (const auto colon = number.find(':'); colon != std::string::npos) {
    settings.name = number.substr(0, colon);
    number.erase(0, colon + 1);
  }
  std::from_chars(number.data(), number.data() + number.size(), settings.at);
  if (const std::string file = environment("DVDI_FAILPOINT_LOG"); !file.empty()) {
    settings.log = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  }
  return settings;
}

}  // namespace

void failpoint(const char* name, std::string_view detail) {
  if (Scheduler* simulated = scheduler(); simulated != nullptr) simulated->failpoint(name, detail);
  static const Settings settings = read_settings();
  if (settings.at == 0 && settings.log < 0) return;
  static std::atomic<unsigned long> passed = 0;
  if (!settings.name.empty() && settings.name != name) return;
  const unsigned long number = ++passed;
  if (settings.log >= 0) {
    const std::string line = fmt::format("{} {} {}\n", number, name, printable(detail));
    static_cast<void>(!::write(settings.log, line.data(), line.size()));
  }
  if (number == settings.at) ::kill(::getpid(), SIGKILL);
}

}  // namespace dvdi
