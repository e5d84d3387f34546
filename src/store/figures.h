// The ledger in numbers, for whoever watches a node.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "store/types.h"

namespace dvdi {

struct LedgerFigures {
  // By who has them (run, dvdcli, user: a member of the group, agent: a path, other) and by state. Without
  // those that have ended.
  std::map<std::pair<std::string, std::string>, std::uint64_t> containers;
  std::map<std::string, std::uint64_t> mounts;  // by state
  std::uint64_t staged = 0;

  struct OfDriver {
    std::uint64_t references = 0;
    std::uint64_t lost = 0;     // mounts
    std::uint64_t owed = 0;     // unmounts, parked ones included
    std::uint64_t parked = 0;   // of them
    Duration oldest_owed = {};  // since when the oldest is owed; 0: none is
    std::uint64_t foreign = 0;  // holders
  };
  std::map<std::string, OfDriver> by_driver;  // those of which there is something

  // Events that are kept: numbers first to last, both 0 where none ever was.
  std::uint64_t first_event = 0, last_event = 0;
  std::uint64_t event_bytes = 0;

  std::vector<DriverRow> drivers;
  std::vector<SinkRow> sinks;
};

// Of the ledger's files, and of what they can still grow into. 0 where it cannot be found out.
struct StoreSize {
  std::uint64_t database_bytes = 0, log_bytes = 0;  // state.db, state.db-wal
  std::uint64_t free_bytes = 0;
};

}  // namespace dvdi
