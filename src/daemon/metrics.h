// What /metrics shows, in the text format of Prometheus. docs/metrics.md describes each, and a test holds the
// two against each other.
#pragma once

#include <string>

#include "daemon/request_counts.h"
#include "event/sink_status.h"
#include "linux/helper_pool.h"
#include "linux/process_figures.h"
#include "store/ledger.h"
#include "volume/manager.h"

namespace dvdi {

// Everything by value or quickly copied: nothing is locked while the text is made.
struct MetricsInput {
  std::string version;
  LedgerFigures ledger;
  WriteTimes writes;
  StoreSize store;
  std::vector<volume::DriverStatus> drivers;
  std::vector<volume::CallTimes> call_times;
  std::vector<SinkStatus> sinks;
  WallTime now = {};
  HelperPool::Counts helpers;
  RequestCounts::Counts requests;
  unsigned connections = 0;
  ProcessFigures process;
};

// No label is a volume, a container or anything else of which there may be any number.
std::string metrics_text(const MetricsInput& input);

}  // namespace dvdi
