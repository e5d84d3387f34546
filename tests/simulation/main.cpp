// tools/simulate: worlds from a seed, until something does not hold or the steps are used up.
#include <stdlib.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "world.h"

namespace dvdi::simulation {
namespace {

struct Options {
  std::uint64_t seed = 1;
  std::uint64_t steps = 100'000;
  std::optional<std::uint64_t> seconds;
  std::string trace;
  bool quiet = false;
};

constexpr std::string_view help =
    R"(usage: tools/simulate [--seed N] [--steps M | --seconds S] [--trace FILE] [--quiet]

Runs the engine in simulated worlds: scheduler, clock, disk, kernel and drivers come from
the seed, and what must hold is checked after every change. The first world has the seed N,
the next N+1 and so on; each lives for some 4,000 to 20,000 steps. The same seed and number
of steps give the same run, to the byte of the trace.

  --seed N      the first world's seed (1)
  --steps M     how many steps in all (100000)
  --seconds S   worlds are begun for so long instead
  --trace FILE  every step, one line each
  --quiet       no progress

Exit code: 0 everything held; 1 something did not: the end of the trace and the command
that replays it are on standard error; 2 usage.
)";

bool number(std::string_view text, std::uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// An exit code, if there is nothing to run.
std::optional<int> read(int count, char** arguments, Options& options) {
  for (int i = 1; i < count; ++i) {
    const std::string_view name = arguments[i];
    if (name == "--help" || name == "-h") {
      static_cast<void>(std::fwrite(help.data(), 1, help.size(), stdout));
      return 0;
    }
    if (name == "--quiet") {
      options.quiet = true;
      continue;
    }
    const std::string_view value = i + 1 < count ? arguments[++i] : "";
    std::uint64_t seconds = 0;
    bool good = !value.empty();
    if (name == "--seed") {
      good = good && number(value, options.seed);
    } else if (name == "--steps") {
      good = good && number(value, options.steps) && options.steps > 0;
    } else if (name == "--seconds") {
      good = good && number(value, seconds);
      options.seconds = seconds;
    } else if (name == "--trace") {
      options.trace = value;
    } else {
      good = false;
    }
    if (!good) {
      fmt::print(stderr, "simulate: {} {} is not understood (see --help)\n", name, value);
      return 2;
    }
  }
  return std::nullopt;
}

int run(const Options& options) {
  auto helpers = HelperPool::start();
  if (!helpers) {
    fmt::print(stderr, "simulate: {}\n", helpers.error().text());
    return 2;
  }
  std::string folder = "/tmp/dvdi-simulate-XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) {
    std::perror("simulate: mkdtemp");
    return 2;
  }
  const std::string lock_file = folder + "/locks";
  std::FILE* file = nullptr;
  if (!options.trace.empty() && (file = std::fopen(options.trace.c_str(), "we")) == nullptr) {
    std::perror("simulate: the trace");
    return 2;
  }
  Trace trace(file);
  Counts counts;
  const auto begin = std::chrono::steady_clock::now();
  auto last_said = begin;
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  const auto goes_on = [&] {
    return options.seconds ? elapsed() < static_cast<double>(*options.seconds) : counts.steps < options.steps;
  };
  for (std::uint64_t seed = options.seed; goes_on(); ++seed) {
    const std::uint64_t left = options.seconds ? ~std::uint64_t{0} : options.steps - counts.steps;
    trace.line("world {}", seed);
    trace.replay = fmt::format("tools/simulate --seed {} --steps {} --trace FILE", seed, left);
    World world(seed, **helpers, lock_file, trace);
    world.run(left);
    world.add_to(counts);
    const auto now = std::chrono::steady_clock::now();
    if (!options.quiet && now - last_said > std::chrono::seconds(10)) {
      last_said = now;
      fmt::print(stderr, "{:.0f} s: {} steps, {} worlds, {} crashes, {} checks\n", elapsed(), counts.steps,
                 counts.worlds, counts.crashes, counts.checks);
    }
  }
  ::unlink(lock_file.c_str());
  ::rmdir(folder.c_str());
  const bool written = file == nullptr || std::fclose(file) == 0;
  fmt::print(
      "{} steps in {} worlds (seed {}): everything held\n"
      "{} checks, {} events, {} driver calls, {} prepared, {} ended, {} crashes, {} of them restarts of the "
      "machine,\n{} writes lost and {} torn; trace {:016x}\n",
      counts.steps, counts.worlds, options.seed, counts.checks, counts.events, counts.calls, counts.prepared,
      counts.ended, counts.crashes, counts.reboots, counts.dropped_writes, counts.torn_writes,
      trace.digest());
  return written ? 0 : 2;
}

}  // namespace
}  // namespace dvdi::simulation

int main(int count, char** arguments) {
  dvdi::simulation::Options options;
  if (const auto code = dvdi::simulation::read(count, arguments, options)) return *code;
  return dvdi::simulation::run(options);
}
