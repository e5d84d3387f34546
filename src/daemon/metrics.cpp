#include "daemon/metrics.h"

#include <fmt/format.h>

#include <map>

namespace dvdi {

namespace {

// A label's value: backslash, quote and line feed are escaped.
std::string label(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

class Text {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  template <class Number>
  void sample(std::string_view name, std::string_view labels, Number value) {
    out += labels.empty() ? fmt::format("{} {}\n", name, value)
                          : fmt::format("{}{{{}}} {}\n", name, labels, value);
  }
  std::string out;
};

void by_state(Text& text, std::string_view name, std::string_view help,
              std::map<std::string, unsigned> counts, std::initializer_list<const char*> states) {
  text.family(name, "gauge", help);
  for (const char* state : states) text.sample(name, fmt::format("state=\"{}\"", state), counts[state]);
}

}  // namespace

std::string metrics_text(const MetricsInput& input) {
  Text text;
  std::map<std::string, unsigned> containers;
  for (const ContainerView& one : input.containers) ++containers[one.state];
  by_state(text, "dvdi_containers", "Containers that the ledger knows, by state.", std::move(containers),
           {"preparing", "prepared", "running", "cleaning"});
  std::map<std::string, unsigned> mounts;
  unsigned references = 0, owed = 0, parked = 0, foreign = 0;
  for (const VolumeView& one : input.volumes) {
    if (!one.state.empty()) ++mounts[one.state];
    references += static_cast<unsigned>(one.containers.size());
    if (one.owed) ++owed;
    if (one.owed && one.owed->parked) ++parked;
    if (!one.foreign_since.empty()) ++foreign;
  }
  by_state(text, "dvdi_mounts", "Mounts of volumes on this node, by state.", std::move(mounts),
           {"mounting", "mounted", "unmounting", "unknown"});
  text.family("dvdi_references", "gauge", "References of containers to volumes.");
  text.sample("dvdi_references", "", references);
  text.family("dvdi_unmounts_owed", "gauge", "Unmounts that are owed, parked ones included.");
  text.sample("dvdi_unmounts_owed", "", owed);
  text.family("dvdi_unmounts_parked", "gauge", "Unmounts that are owed and wait for an operator.");
  text.sample("dvdi_unmounts_parked", "", parked);
  text.family("dvdi_foreign_holders", "gauge",
              "Volumes that somebody else has mounted through the same driver.");
  text.sample("dvdi_foreign_holders", "", foreign);
  const auto of_drivers = [&](std::string_view name, std::string_view type, std::string_view help,
                              auto value) {
    text.family(name, type, help);
    for (const volume::DriverStatus& one : input.drivers)
      text.sample(name, fmt::format("driver=\"{}\"", label(one.name)), value(one));
  };
  using volume::DriverStatus;
  of_drivers("dvdi_driver_calls_running", "gauge", "Calls to a driver at this moment.",
             [](const DriverStatus& one) { return one.running; });
  of_drivers("dvdi_driver_calls_waiting", "gauge", "Calls that wait because too many are running.",
             [](const DriverStatus& one) { return one.waiting; });
  of_drivers("dvdi_driver_calls_total", "counter", "Calls to a driver that have ended.",
             [](const DriverStatus& one) { return one.calls; });
  of_drivers("dvdi_driver_call_errors_total", "counter",
             "Calls to a driver that have failed, time-outs included.",
             [](const DriverStatus& one) { return one.errors; });
  of_drivers("dvdi_driver_call_timeouts_total", "counter", "Calls to a driver that had no answer in time.",
             [](const DriverStatus& one) { return one.timeouts; });
  text.family("dvdi_driver_call_duration_seconds", "histogram",
              "How long calls to a driver took, by operation and outcome.");
  for (const volume::CallTimes& one : input.call_times) {
    const std::string labels = fmt::format("driver=\"{}\",operation=\"{}\",outcome=\"{}\"", label(one.driver),
                                           one.operation, one.outcome);
    const auto& bounds = volume::call_time_bounds();
    std::uint64_t so_far = 0;
    for (std::size_t i = 0; i < bounds.size() && i < one.counts.size(); ++i) {
      so_far += one.counts[i];
      text.sample("dvdi_driver_call_duration_seconds_bucket",
                  fmt::format("{},le=\"{}\"", labels, std::chrono::duration<double>(bounds[i]).count()),
                  so_far);
    }
    text.sample("dvdi_driver_call_duration_seconds_bucket", labels + ",le=\"+Inf\"", one.count);
    text.sample("dvdi_driver_call_duration_seconds_sum", labels,
                std::chrono::duration<double>(one.sum).count());
    text.sample("dvdi_driver_call_duration_seconds_count", labels, one.count);
  }
  text.family("dvdi_connections", "gauge", "Open connections to the daemon.");
  text.sample("dvdi_connections", "", input.connections);
  text.family("dvdi_helpers_stuck", "gauge", "Helper processes that are stuck in the kernel.");
  text.sample("dvdi_helpers_stuck", "", input.stuck_helpers);
  return text.out;
}

}  // namespace dvdi
