// How long events and usage intervals are kept.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/ledger.h"

namespace dvdi {

struct Retention {
  Duration events_age = std::chrono::hours(24 * 400);         // 0: whatever their age
  std::uint64_t events_bytes = std::uint64_t{1} << 30U;       // 0: whatever their size
  std::uint64_t events_hard_bytes = std::uint64_t{4} << 30U;  // also what a sink has not got yet; 0: never
  Duration usage_age = std::chrono::hours(24 * 800);          // 0: for ever

  bool operator==(const Retention&) const = default;
};

struct Retained {
  std::uint64_t events = 0;          // that were taken away
  std::uint64_t usage = 0;           // intervals that were
  std::vector<std::string> dropped;  // sinks that do not get some of those events
  bool finished = true;              // false: there is more to take away
};

// Takes away what is older or more than that, a bounded piece in each transaction, until the context ends. Of
// the sinks that are named, none is passed over before the hard limit: what it has not got stays. The newest
// event always stays. Intervals that are open do, too.
Result<Retained> retain(const Context& context, Ledger& ledger, const Retention& retention,
                        const std::vector<std::string>& sinks);

}  // namespace dvdi
