// What the benchmark programs share: threads that begin together, and what their times come to.
#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <thread>
#include <vector>

namespace bench {

using Clock = std::chrono::steady_clock;

struct Rounds {
  unsigned threads = 1;
  std::uint64_t warm_up = 10;  // rounds of each thread that are not counted
  std::uint64_t rounds = 0;    // of each thread; 0: as many as go into `seconds`
  double seconds = 3;
};

// Runs round(thread, generator) over and over, prints one JSON line: rounds, how many a second, and the
// median and p99 of one round in microseconds.
inline void run_rounds(const Rounds& how, const std::function<void(unsigned, std::mt19937&)>& round) {
  std::vector<std::vector<std::int64_t>> taken(how.threads);
  Clock::time_point begun, end;
  std::atomic<std::int64_t> last{0};
  std::barrier start(how.threads, [&]() noexcept {
    begun = Clock::now();
    end = begun + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(how.seconds));
  });
  const auto work = [&](unsigned thread) {
    std::mt19937 generator(thread + 1);
    for (std::uint64_t i = 0; i < how.warm_up; ++i) round(thread, generator);
    start.arrive_and_wait();
    Clock::time_point from = Clock::now();
    while (how.rounds == 0 ? from < end : taken[thread].size() < how.rounds) {
      round(thread, generator);
      const Clock::time_point to = Clock::now();
      taken[thread].push_back(std::chrono::nanoseconds(to - from).count());
      from = to;
    }
    const std::int64_t mine = std::chrono::nanoseconds(from - begun).count();
    std::int64_t known = last.load();
    while (known < mine && !last.compare_exchange_weak(known, mine)) {
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < how.threads; ++i) threads.emplace_back(work, i);
  }
  std::vector<std::int64_t> all;
  for (const auto& one : taken) all.insert(all.end(), one.begin(), one.end());
  std::ranges::sort(all);
  const auto at = [&](double part) {
    if (all.empty()) return 0.0;
    const auto index = static_cast<std::size_t>(part * static_cast<double>(all.size() - 1));
    return static_cast<double>(all[index]) / 1e3;
  };
  std::printf(R"({"rounds":%zu,"per_second":%.2f,"median_us":%.2f,"p99_us":%.2f})"
              "\n",
              all.size(), static_cast<double>(all.size()) / (static_cast<double>(last.load()) / 1e9), at(0.5),
              at(0.99));
}

// The volumes of one round: `count` different ones of `all`.
inline std::vector<unsigned> choose(std::mt19937& generator, unsigned count, unsigned all) {
  std::vector<unsigned> chosen;
  while (chosen.size() < std::min(count, all)) {
    const unsigned one = std::uniform_int_distribution<unsigned>(0, all - 1)(generator);
    if (std::ranges::find(chosen, one) == chosen.end()) chosen.push_back(one);
  }
  return chosen;
}

}  // namespace bench
