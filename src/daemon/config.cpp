#include "daemon/config.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "daemon/config_sinks.h"
#include "daemon/text_file.h"
#include "daemon/toml_table.h"
#include "http/server.h"

namespace dvdi {

namespace {

constexpr std::size_t max_config_bytes = 1 << 20;

Status read_docker_settings(Table& table, driver::docker::Settings& settings) {
  DVDI_CHECK(
      table.duration("connect_patience", settings.patience.total, Duration::zero(), std::chrono::hours(1)));
  return table.flag("plain_directories", settings.plain_directories);
}

// What one driver has of its own.
Status read_driver_policy(Table& table, volume::DriverPolicy& policy) {
  using driver::Operation;
  using std::chrono::hours;
  using std::chrono::milliseconds;
  const auto own_number = [](Table& from, const char* key, std::optional<unsigned>& into, unsigned least,
                             unsigned most) -> Status {
    if (!from.has(key)) return {};
    return from.number(key, into.emplace(), least, most);
  };
  const auto own_duration = [](Table& from, const char* key, std::optional<Duration>& into, Duration least,
                               Duration most) -> Status {
    if (!from.has(key)) return {};
    return from.duration(key, into.emplace(), least, most);
  };
  DVDI_CHECK(own_number(table, "calls_at_once", policy.calls_at_once, 1, 10'000));
  DVDI_CHECK(own_number(table, "calls_waiting", policy.calls_waiting, 0, 100'000));
  DVDI_CHECK(table.table("deadlines", [&](Table& deadlines) -> Status {
    std::optional<Duration> other;
    DVDI_CHECK(own_duration(deadlines, "other", other, milliseconds(10), hours(24)));
    for (const auto operation :
         {Operation::create, Operation::remove, Operation::get, Operation::list, Operation::path,
          Operation::capabilities, Operation::mount, Operation::unmount}) {
      const bool is_other = operation != Operation::mount && operation != Operation::unmount;
      std::optional<Duration> own = is_other ? other : std::nullopt;
      const std::string key(driver::operation_name(operation));
      DVDI_CHECK(own_duration(deadlines, key.c_str(), own, milliseconds(10), hours(24)));
      if (own) policy.deadlines[operation] = *own;
    }
    return {};
  }));
  return table.table("debts", [&](Table& debts) -> Status {
    DVDI_CHECK(own_number(debts, "attempts", policy.unmount_attempts, 1, 1'000'000));
    DVDI_CHECK(own_duration(debts, "backoff", policy.debt_backoff, milliseconds(1), hours(24)));
    DVDI_CHECK(own_duration(debts, "backoff_cap", policy.debt_backoff_cap, milliseconds(1), hours(24 * 30)));
    return own_duration(debts, "late_answer", policy.late_answer, Duration::zero(), hours(24));
  });
}

Status read_root(Table& root, Config& config) {
  using std::chrono::hours;
  using std::chrono::milliseconds;
  volume::Policy& volumes = config.volumes;
  DVDI_CHECK(root.path_of_folder("state_dir", config.state_dir));
  config.state_dir_chosen = config.state_dir != Config().state_dir;
  DVDI_CHECK(root.path_of_folder("socket", config.socket));
  DVDI_CHECK(root.duration("drain_timeout", config.drain_timeout, Duration::zero(), hours(24)));
  DVDI_CHECK(root.text("metrics_listen", config.metrics_listen, http::check_tcp_address));
  DVDI_CHECK(root.table("agent", [&](Table& table) -> Status {
    DVDI_CHECK(table.flag("environment_volumes", config.agent.environment));
    DVDI_CHECK(table.flag("csi_volumes_elsewhere", config.agent.csi_volumes_elsewhere));
    return table.text("default_driver", config.agent.default_driver);
  }));
  DVDI_CHECK(root.duration("settle_budget", config.settle_budget, Duration::zero(), hours(1)));
  DVDI_CHECK(root.path_of_folder("sandbox_in_container", config.sandbox_in_container));
  DVDI_CHECK(root.table("access", [&](Table& table) -> Status {
    DVDI_CHECK(table.text("group", config.access.group));
    return table.path_of_folder("policy_file", config.access.policy_file);
  }));
  DVDI_CHECK(root.table("deadlines", [&](Table& table) -> Status {
    DVDI_CHECK(table.duration("mount", volumes.mount_deadline, milliseconds(10), hours(24)));
    DVDI_CHECK(table.duration("unmount", volumes.unmount_deadline, milliseconds(10), hours(24)));
    return table.duration("other", volumes.call_deadline, milliseconds(10), hours(24));
  }));
  DVDI_CHECK(root.table("retention", [&](Table& table) -> Status {
    Retention& kept = config.retention;
    DVDI_CHECK(table.duration("events", kept.events_age, Duration::zero(), hours(24 * 36'500)));
    DVDI_CHECK(table.mebibytes("events_mib", kept.events_bytes));
    DVDI_CHECK(table.mebibytes("events_hard_mib", kept.events_hard_bytes));
    if (kept.events_hard_bytes > 0 && (kept.events_bytes == 0 || kept.events_hard_bytes < kept.events_bytes))
      return table.wrong(
          "retention.events_hard_mib must not be less than retention.events_mib (0: no limit)");
    return table.duration("usage", kept.usage_age, Duration::zero(), hours(24 * 36'500));
  }));
  DVDI_CHECK(root.table("limits", [&](Table& table) -> Status {
    DVDI_CHECK(table.number("calls_per_driver", volumes.calls_per_driver, 1, 10'000));
    return table.number("calls_waiting", volumes.calls_waiting, 0, 100'000);
  }));
  DVDI_CHECK(root.table("debts", [&](Table& table) -> Status {
    DVDI_CHECK(table.number("attempts", volumes.unmount_attempts, 1, 1'000'000));
    DVDI_CHECK(table.duration("backoff", volumes.debt_backoff, milliseconds(1), hours(24)));
    DVDI_CHECK(table.duration("backoff_cap", volumes.debt_backoff_cap, milliseconds(1), hours(24 * 30)));
    return table.duration("late_answer", volumes.late_answer, Duration::zero(), hours(24));
  }));
  DVDI_CHECK(
      root.table("secrets", [&](Table& table) { return table.texts("options", volumes.secret_options); }));
  DVDI_CHECK(root.table("docker", [&](Table& table) -> Status {
    DVDI_CHECK(table.path_of_folder("plugin_dir", config.docker.roots.run_dir));
    DVDI_CHECK(table.texts("spec_dirs", config.docker.roots.spec_dirs));
    return read_docker_settings(table, config.docker.settings);
  }));
  DVDI_CHECK(root.table("sink", [&](Table& table) { return read_sinks(table, config.sinks); }));
  return root.table("driver", [&](Table& table) {
    return table.each_table([&](const std::string& name, Table& one) -> Status {
      driver::docker::Settings settings = config.docker.settings;
      DVDI_CHECK(read_docker_settings(one, settings));
      config.docker.by_name[name] = settings;
      return read_driver_policy(one, volumes.by_driver[name]);
    });
  });
}

std::string environment(const char* name) {
  const char* value =
      std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nothing here changes the environment
  return value == nullptr ? "" : value;
}

}  // namespace

Result<Config> parse_config(const std::string& text, const std::string& file_name, TomlTrace* trace) {
  const TomlFile file{.name = file_name, .hint = "docs/configuration.md lists every key", .trace = trace};
  Config config;
  DVDI_CHECK(read_toml(text, file, [&](Table& root) { return read_root(root, config); }));
  return config;
}

std::string config_path(const std::string& file) {
  const std::string usual = "/etc/dvdi/dvdi.toml";
  std::string path = file.empty() ? environment("DVDI_CONFIG") : file;
  if (path.empty() && ::access(usual.c_str(), F_OK) == 0) path = usual;
  return path;
}

Result<Config> load_config(const std::string& file, const std::string& state_dir) {
  const std::string path = config_path(file);
  Config config;
  if (!path.empty()) {
    DVDI_TRY(const std::string text, read_text_file(path, "the configuration", max_config_bytes));
    DVDI_TRY(config, parse_config(text, path));
  }
  const std::string given = state_dir.empty() ? environment("DVDI_STATE_DIR") : state_dir;
  if (!given.empty()) {
    config.state_dir = given;
    config.state_dir_chosen = true;
  }
  std::error_code error;
  const auto absolute = std::filesystem::absolute(config.state_dir, error).lexically_normal();
  if (error) return os_error(fmt::format("find the state directory {}", config.state_dir), error.value());
  config.state_dir = absolute.string();
  while (config.state_dir.size() > 1 && config.state_dir.back() == '/') config.state_dir.pop_back();
  return config;
}

SocketChoice choose_socket(const Config& config, const std::string& given) {
  if (!given.empty()) return {.path = given, .chosen = true};
  if (std::string path = environment("DVDI_SOCKET"); !path.empty())
    return {.path = std::move(path), .chosen = true};
  return {.path = config.socket, .chosen = false};
}

}  // namespace dvdi
