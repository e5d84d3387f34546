#include "daemon/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace dvdi {

namespace {

using volume::DriverStatus;

// A label's value: backslash, quote and line feed are escaped.
std::string escaped(std::string_view text) {
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

std::string label(std::string_view name, std::string_view value) {
  return fmt::format("{}=\"{}\"", name, escaped(value));
}

class Text {
 public:
  // Also where there is no sample: what there may be is seen at once.
  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  // Of the family that was begun last.
  template <class Number>
  void sample(std::string_view labels, Number value) {
    line("", labels, value);
  }
  void histogram(const std::string& labels, const std::vector<Duration>& bounds, const Histogram& times) {
    std::uint64_t so_far = 0;
    for (std::size_t i = 0; i < bounds.size(); ++i) {
      if (i < times.counts.size()) so_far += times.counts[i];
      line("_bucket", with(labels, label("le", fmt::to_string(seconds(bounds[i])))), so_far);
    }
    line("_bucket", with(labels, "le=\"+Inf\""), times.count);
    line("_sum", labels, seconds(times.sum));
    line("_count", labels, times.count);
  }
  template <class Number>
  void single(std::string_view name, std::string_view type, std::string_view help, Number value) {
    family(name, type, help);
    sample("", value);
  }
  static double seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

  std::string out;

 private:
  static std::string with(const std::string& labels, const std::string& more) {
    return labels.empty() ? more : labels + "," + more;
  }
  template <class Number>
  void line(std::string_view suffix, std::string_view labels, Number value) {
    out += labels.empty() ? fmt::format("{}{} {}\n", name_, suffix, value)
                          : fmt::format("{}{}{{{}}} {}\n", name_, suffix, labels, value);
  }
  std::string_view name_;
};

void add_ledger(Text& text, const LedgerFigures& ledger, const std::vector<DriverStatus>& drivers) {
  text.family("dvdi_containers", "gauge", "Containers that have not ended, by who has them and by state.");
  for (const char* owner : {"run", "dvdcli", "agent", "user", "other"}) {
    for (const char* state : {"preparing", "prepared", "running", "cleaning"}) {
      const auto found = ledger.containers.find({owner, state});
      text.sample(label("owner", owner) + "," + label("state", state),
                  found == ledger.containers.end() ? 0 : found->second);
    }
  }
  text.family("dvdi_mounts", "gauge", "Mounts of volumes on this node, by state.");
  for (const char* state : {"mounting", "mounted", "unmounting", "unknown"}) {
    const auto found = ledger.mounts.find(state);
    text.sample(label("state", state), found == ledger.mounts.end() ? 0 : found->second);
  }
  text.single("dvdi_staged_mounts", "gauge", "Private mounts of containers that another launcher binds.",
              ledger.staged);

  // A driver that is known shows its zeros: an alert that goes is seen to go.
  using OfDriver = LedgerFigures::OfDriver;
  std::set<std::string> names;
  for (const DriverStatus& one : drivers) names.insert(one.name);
  for (const auto& [name, one] : ledger.by_driver) names.insert(name);
  const auto of_drivers = [&](std::string_view name, std::string_view help, auto value) {
    text.family(name, "gauge", help);
    for (const std::string& driver : names) {
      const auto found = ledger.by_driver.find(driver);
      text.sample(label("driver", driver),
                  value(found == ledger.by_driver.end() ? OfDriver() : found->second));
    }
  };
  of_drivers("dvdi_references", "References of containers to volumes.",
             [](const OfDriver& one) { return one.references; });
  of_drivers("dvdi_unmounts_owed", "Unmounts that are owed, parked ones included.",
             [](const OfDriver& one) { return one.owed; });
  of_drivers("dvdi_unmounts_parked", "Unmounts that are owed and wait for an operator.",
             [](const OfDriver& one) { return one.parked; });
  of_drivers("dvdi_unmounts_owed_oldest_age_seconds",
             "Since when the oldest unmount that is owed is; 0 where none is.",
             [](const OfDriver& one) { return Text::seconds(one.oldest_owed); });
  of_drivers("dvdi_mounts_lost", "Mounts that are lost now: vanished, or their server is gone.",
             [](const OfDriver& one) { return one.lost; });
  of_drivers("dvdi_foreign_holders", "Volumes that somebody else has mounted through the same driver.",
             [](const OfDriver& one) { return one.foreign; });
}

void add_drivers(Text& text, const MetricsInput& input) {
  const auto of_drivers = [&](std::string_view name, std::string_view type, std::string_view help,
                              auto value) {
    text.family(name, type, help);
    for (const DriverStatus& one : input.drivers) text.sample(label("driver", one.name), value(one));
  };
  of_drivers("dvdi_mount_losses_total", "counter", "Mounts that were lost.",
             [](const DriverStatus& one) { return one.mounts_lost; });
  of_drivers("dvdi_driver_calls_running", "gauge", "Calls to a driver at this moment.",
             [](const DriverStatus& one) { return one.running; });
  of_drivers("dvdi_driver_calls_running_limit", "gauge", "How many calls to a driver may run at once.",
             [](const DriverStatus& one) { return one.calls_at_once; });
  of_drivers("dvdi_driver_calls_waiting", "gauge", "Calls that wait because too many are running.",
             [](const DriverStatus& one) { return one.waiting; });
  of_drivers("dvdi_driver_calls_waiting_limit", "gauge", "How many calls to a driver may wait.",
             [](const DriverStatus& one) { return one.calls_waiting; });
  of_drivers("dvdi_driver_calls_total", "counter", "Calls to a driver that have ended.",
             [](const DriverStatus& one) { return one.calls; });
  of_drivers("dvdi_driver_call_errors_total", "counter",
             "Calls to a driver that have failed, time-outs included.",
             [](const DriverStatus& one) { return one.errors; });
  of_drivers("dvdi_driver_call_timeouts_total", "counter", "Calls to a driver that had no answer in time.",
             [](const DriverStatus& one) { return one.timeouts; });
  of_drivers("dvdi_driver_calls_turned_away_total", "counter",
             "Calls to a driver that were not made because too many waited.",
             [](const DriverStatus& one) { return one.turned_away; });
  text.family("dvdi_driver_call_duration_seconds", "histogram",
              "How long calls to a driver took, by operation and outcome.");
  for (const volume::CallTimes& one : input.call_times) {
    text.histogram(label("driver", one.driver) + "," + label("operation", one.operation) + "," +
                       label("outcome", one.outcome),
                   volume::call_time_bounds(), one.times);
  }
  text.family("dvdi_driver_state", "gauge", "1 for what a driver's calls have shown last, 0 for the others.");
  for (const DriverRow& one : input.ledger.drivers) {
    for (const auto state : {DriverState::up, DriverState::slow, DriverState::down})
      text.sample(label("driver", one.name) + "," + label("state", driver_state_name(state)),
                  one.state == state ? 1 : 0);
  }
}

void add_store(Text& text, const MetricsInput& input) {
  text.family("dvdi_ledger_write_wait_seconds", "histogram",
              "How long transactions waited for the right to write to the ledger.");
  text.histogram("", write_time_bounds(), input.writes.wait);
  text.family("dvdi_ledger_commit_seconds", "histogram",
              "How long it took until a transaction of the ledger was on the disk.");
  text.histogram("", write_time_bounds(), input.writes.commit);
  text.single("dvdi_ledger_write_failures_total", "counter",
              "Transactions of the ledger that could not be begun or written.", input.writes.failures);
  text.family("dvdi_store_size_bytes", "gauge", "Size of the ledger's files.");
  text.sample(label("file", "database"), input.store.database_bytes);
  text.sample(label("file", "log"), input.store.log_bytes);
  text.single("dvdi_store_free_bytes", "gauge", "Free space on the file system of the state directory.",
              input.store.free_bytes);
  text.single("dvdi_events_total", "counter", "Events that were written: the number of the last one.",
              input.ledger.last_event);
  text.single("dvdi_events_first_number", "gauge", "Number of the oldest event that is kept; 0: none is.",
              input.ledger.first_event);
  text.single("dvdi_events_size_bytes", "gauge", "Size of the events that are kept.",
              input.ledger.event_bytes);
}

void add_sinks(Text& text, const std::vector<SinkStatus>& sinks, WallTime now) {
  const auto of_sinks = [&](std::string_view name, std::string_view type, std::string_view help, auto value) {
    text.family(name, type, help);
    for (const SinkStatus& one : sinks) text.sample(label("sink", one.name), value(one));
  };
  of_sinks("dvdi_sink_up", "gauge",
           "1: the last attempt to deliver to a sink went well, or there was none yet.",
           [](const SinkStatus& one) { return one.state == "waiting" ? 0 : 1; });
  of_sinks("dvdi_sink_paused", "gauge", "1: somebody has paused the sink.",
           [](const SinkStatus& one) { return one.paused ? 1 : 0; });
  of_sinks("dvdi_sink_behind_events", "gauge", "Events that a sink has not confirmed yet.",
           [](const SinkStatus& one) { return one.behind; });
  of_sinks("dvdi_sink_oldest_undelivered_age_seconds", "gauge",
           "Age of the oldest event that a sink has not confirmed yet; 0: there is none.",
           [now](const SinkStatus& one) {
             return one.oldest ? Text::seconds(std::max(Duration::zero(), now - *one.oldest)) : 0.0;
           });
  of_sinks("dvdi_sink_delivered_events_total", "counter", "Events that a sink has confirmed.",
           [](const SinkStatus& one) { return one.delivered_total; });
  of_sinks("dvdi_sink_failures_total", "counter", "Attempts to deliver to a sink that failed.",
           [](const SinkStatus& one) { return one.failures_total; });
}

void add_daemon(Text& text, const MetricsInput& input) {
  text.family("dvdi_helpers", "gauge",
              "Helper processes: idle, busy, or stuck in the kernel after they were killed.");
  text.sample(label("state", "idle"), input.helpers.idle);
  text.sample(label("state", "busy"), input.helpers.busy);
  text.sample(label("state", "stuck"), input.helpers.stuck);
  text.single("dvdi_volumes_fenced", "gauge",
              "Volumes for which nothing is done that could block, as a helper is stuck in one.",
              input.helpers.fenced);
  text.single("dvdi_connections", "gauge", "Open connections to the daemon's socket.", input.connections);
  text.single("dvdi_http_requests_running", "gauge", "Requests that are being answered.",
              input.requests.running);
  text.family("dvdi_http_requests_total", "counter",
              "Requests that were answered, by route (empty: there is none) and status.");
  for (const auto& [key, count] : input.requests.answered) {
    const auto& [method, path, status] = key;
    text.sample(
        label("method", method) + "," + label("route", path) + "," + label("code", fmt::to_string(status)),
        count);
  }
}

void add_process(Text& text, const ProcessFigures& process) {
  text.single("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.",
              process.cpu_seconds);
  text.single("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.",
              process.resident_bytes);
  text.single("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.",
              process.virtual_bytes);
  text.single("process_open_fds", "gauge", "Number of open file descriptors.", process.open_descriptors);
  text.single("process_max_fds", "gauge", "Maximum number of open file descriptors.",
              process.most_descriptors);
  text.single("process_threads", "gauge", "Number of threads.", process.threads);
  text.single("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.",
              process.start_seconds);
}

}  // namespace

std::string metrics_text(const MetricsInput& input) {
  Text text;
  text.family("dvdi_build_info", "gauge", "1, with the version of the daemon.");
  text.sample(label("version", input.version), 1);
  add_ledger(text, input.ledger, input.drivers);
  add_drivers(text, input);
  add_store(text, input);
  add_sinks(text, input.sinks, input.now);
  add_daemon(text, input);
  add_process(text, input.process);
  return std::move(text.out);
}

}  // namespace dvdi
