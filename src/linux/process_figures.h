// This process in numbers, as every program that Prometheus watches has them. Touches /proc alone.
#pragma once

#include <cstdint>

namespace dvdi {

struct ProcessFigures {
  double cpu_seconds = 0;    // user and system; helpers are processes of their own
  double start_seconds = 0;  // since 1970: the same at each call
  std::uint64_t resident_bytes = 0, virtual_bytes = 0;
  std::uint64_t open_descriptors = 0, most_descriptors = 0;
  std::uint64_t threads = 0;
};

// What cannot be found out is 0.
ProcessFigures process_figures();

}  // namespace dvdi
