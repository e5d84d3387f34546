// What the daemon does now and then: events and usage that were kept long enough go.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/context.h"
#include "event/retention.h"

namespace dvdi {

// A thread that looks once after the start, then every hour, and earlier when much was written meanwhile.
class Housekeeper {
 public:
  struct Parts {
    Ledger& ledger;  // outlives it
    Retention retention;
    std::vector<std::string> sinks;  // that are configured
    std::function<void(std::string)> say;
  };
  struct Limits {
    Duration every = std::chrono::hours(1);
    std::uint64_t writes = 10'000;  // transactions
  };

  Housekeeper(Parts parts, const Context& context) : Housekeeper(std::move(parts), context, Limits{}) {}
  Housekeeper(Parts parts, const Context& context, Limits limits);
  ~Housekeeper();  // between two transactions
  Housekeeper(const Housekeeper&) = delete;
  Housekeeper& operator=(const Housekeeper&) = delete;

 private:
  void run(const Context& context);
  void once(const Context& context);

  const Parts parts_;
  const Limits limits_;
  std::string said_;  // the failure that was said last: not every hour again
  std::jthread thread_;
};

}  // namespace dvdi
