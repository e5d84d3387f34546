// What /metrics shows, in the text format of Prometheus. Names by its conventions.
#pragma once

#include <string>

#include "daemon/api.h"
#include "linux/helper_pool.h"

namespace dvdi {

struct MetricsInput {
  const std::vector<ContainerView>& containers;
  const std::vector<VolumeView>& volumes;
  const std::vector<volume::DriverStatus>& drivers;
  const std::vector<volume::CallTimes>& call_times;
  unsigned connections = 0;
  unsigned stuck_helpers = 0;
};

std::string metrics_text(const MetricsInput& input);

}  // namespace dvdi
