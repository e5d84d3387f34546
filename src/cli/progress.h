// "still at it" on standard error, for a person who waits.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace dvdi::cli {

// One line that is written again every second: what is done, how much of it, for how long. Nothing where
// standard error is no terminal, or before the first second has passed.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();  // takes the line away
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // From any thread; 0 of 0: nobody knows.
  void at(std::uint64_t done, std::uint64_t all);

  static std::string line(const std::string& what, std::uint64_t done, std::uint64_t all, unsigned seconds);

 private:
  void show();

  const std::string what_;
  std::atomic<std::uint64_t> done_ = 0, all_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool over_ = false;
  std::thread thread_;  // the last: it uses the others
};

}  // namespace dvdi::cli
