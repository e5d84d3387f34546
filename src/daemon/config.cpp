#include "daemon/config.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <sstream>
#include <toml.hpp>

#include "base/text.h"
#include "base/time_text.h"
#include "linux/fd.h"

namespace dvdi {

namespace {

constexpr std::size_t max_config_bytes = 1 << 20;

Error at(const toml::value& value, const std::string& file, std::string message) {
  return Error{.code = Code::invalid_argument,
               .message = fmt::format("{}:{}: {}", file, value.location().line(), message),
               .hint = "docs/configuration.md lists every key"};
}

// Reads the keys of one table, and knows which were not asked for.
class Table {
 public:
  Table(const toml::value& table, std::string name, const std::string& file)
      : table_(table), name_(std::move(name)), file_(file) {}

  Status duration(const char* key, Duration& into, Duration least, Duration most) {
    return take(key, [&](const toml::value& value) -> Status {
      std::optional<Duration> read;
      if (value.is_integer()) {
        read = parse_duration(std::to_string(value.as_integer()) + "s");
      } else if (value.is_string()) {
        read = parse_duration(value.as_string().str);
      }
      if (!read)
        return at(value, file_, fmt::format(R"({} must be a duration such as 30, "500ms", "2m")", path(key)));
      if (*read < least || *read > most) {
        return at(value, file_,
                  fmt::format("{} must be between {} ms and {} s", path(key), least.count() / 1'000'000,
                              most.count() / 1'000'000'000));
      }
      into = *read;
      return {};
    });
  }
  Status number(const char* key, unsigned& into, unsigned least, unsigned most) {
    return take(key, [&](const toml::value& value) -> Status {
      if (!value.is_integer() || value.as_integer() < least || value.as_integer() > most) {
        return at(value, file_,
                  fmt::format("{} must be a whole number from {} to {}", path(key), least, most));
      }
      into = static_cast<unsigned>(value.as_integer());
      return {};
    });
  }
  Status text(const char* key, std::string& into) {
    return take(key, [&](const toml::value& value) -> Status {
      if (!value.is_string() || value.as_string().str.empty()) {
        return at(value, file_, fmt::format("{} must be a text", path(key)));
      }
      into = value.as_string().str;
      return {};
    });
  }
  Status path_of_folder(const char* key, std::string& into) {
    DVDI_CHECK(text(key, into));
    if (into.front() != '/') return at(table_, file_, fmt::format("{} must be an absolute path", path(key)));
    return {};
  }
  Status flag(const char* key, bool& into) {
    return take(key, [&](const toml::value& value) -> Status {
      if (!value.is_boolean()) return at(value, file_, fmt::format("{} must be true or false", path(key)));
      into = value.as_boolean();
      return {};
    });
  }
  Status texts(const char* key, std::vector<std::string>& into) {
    return take(key, [&](const toml::value& value) -> Status {
      std::vector<std::string> read;
      if (value.is_array()) {
        for (const toml::value& one : value.as_array()) {
          if (one.is_string()) read.push_back(one.as_string().str);
        }
      }
      if (!value.is_array() || read.size() != value.as_array().size()) {
        return at(value, file_, fmt::format("{} must be a list of texts", path(key)));
      }
      into = std::move(read);
      return {};
    });
  }
  Status table(const char* key, const std::function<Status(Table&)>& read) {
    return take(key, [&](const toml::value& value) -> Status {
      if (!value.is_table()) return at(value, file_, fmt::format("{} must be a table", path(key)));
      Table inner(value, path(key), file_);
      DVDI_CHECK(read(inner));
      return inner.nothing_else();
    });
  }
  // Every key of this table is a name.
  Status each_table(const std::function<Status(const std::string&, Table&)>& read) {
    for (const auto& [key, value] : table_.as_table()) {
      DVDI_CHECK(table(key.c_str(), [&, &name = key](Table& inner) { return read(name, inner); }));
    }
    return {};
  }
  Status nothing_else() const {
    for (const auto& [key, value] : table_.as_table()) {
      if (std::ranges::find(known_, key) == known_.end()) {
        return at(value, file_, fmt::format("unknown key {}", printable(path(key))));
      }
    }
    return {};
  }

 private:
  std::string path(const std::string& key) const { return name_.empty() ? key : name_ + "." + key; }
  Status take(const std::string& key, const std::function<Status(const toml::value&)>& read) {
    known_.push_back(key);
    if (!table_.contains(key)) return {};
    return read(table_.at(key));
  }

  const toml::value& table_;
  const std::string name_;
  const std::string& file_;
  std::vector<std::string> known_;
};

Status read_docker_settings(Table& table, driver::docker::Settings& settings) {
  DVDI_CHECK(
      table.duration("connect_patience", settings.patience.total, Duration::zero(), std::chrono::hours(1)));
  return table.flag("plain_directories", settings.plain_directories);
}

Status read_root(Table& root, Config& config) {
  using std::chrono::hours;
  using std::chrono::milliseconds;
  volume::Policy& volumes = config.volumes;
  DVDI_CHECK(root.path_of_folder("state_dir", config.state_dir));
  DVDI_CHECK(root.duration("settle_budget", config.settle_budget, Duration::zero(), hours(1)));
  DVDI_CHECK(root.path_of_folder("sandbox_in_container", config.sandbox_in_container));
  DVDI_CHECK(root.table("deadlines", [&](Table& table) -> Status {
    DVDI_CHECK(table.duration("mount", volumes.mount_deadline, milliseconds(10), hours(24)));
    DVDI_CHECK(table.duration("unmount", volumes.unmount_deadline, milliseconds(10), hours(24)));
    return table.duration("other", volumes.call_deadline, milliseconds(10), hours(24));
  }));
  DVDI_CHECK(root.table("limits", [&](Table& table) {
    return table.number("calls_per_driver", volumes.calls_per_driver, 1, 10'000);
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
  return root.table("driver", [&](Table& table) {
    return table.each_table([&](const std::string& name, Table& one) -> Status {
      driver::docker::Settings settings = config.docker.settings;
      DVDI_CHECK(read_docker_settings(one, settings));
      config.docker.by_name[name] = settings;
      return {};
    });
  });
}

Result<std::string> read_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd) return os_error(fmt::format("read the configuration {}", path), errno);
  std::string text;
  std::array<char, 16384> buffer{};
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(fmt::format("read the configuration {}", path), errno);
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > max_config_bytes) {
      return Error{.code = Code::invalid_argument,
                   .message = fmt::format("the configuration {} is larger than 1 MiB", path)};
    }
  }
}

std::string environment(const char* name) {
  const char* value =
      std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nothing here changes the environment
  return value == nullptr ? "" : value;
}

}  // namespace

Result<Config> parse_config(const std::string& text, const std::string& file_name) {
  try {
    std::istringstream stream(text);
    const toml::value root = toml::parse(stream, file_name);
    Config config;
    Table table(root, "", file_name);
    DVDI_CHECK(read_root(table, config));
    DVDI_CHECK(table.nothing_else());
    return config;
  } catch (const std::exception& exception) {
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("{} is not TOML: {}", file_name,
                                        printable(trim(split(exception.what(), '\n').front()), 400))};
  }
}

Result<Config> load_config(const std::string& file, const std::string& state_dir) {
  constexpr std::string_view usual = "/etc/dvdi/dvdi.toml";
  std::string path = file.empty() ? environment("DVDI_CONFIG") : file;
  if (path.empty() && ::access(std::string(usual).c_str(), F_OK) == 0) path = usual;
  Config config;
  if (!path.empty()) {
    DVDI_TRY(const std::string text, read_file(path));
    DVDI_TRY(config, parse_config(text, path));
  }
  const std::string given = state_dir.empty() ? environment("DVDI_STATE_DIR") : state_dir;
  if (!given.empty()) config.state_dir = given;
  std::error_code error;
  const auto absolute = std::filesystem::absolute(config.state_dir, error).lexically_normal();
  if (error) return os_error(fmt::format("find the state directory {}", config.state_dir), error.value());
  config.state_dir = absolute.string();
  while (config.state_dir.size() > 1 && config.state_dir.back() == '/') config.state_dir.pop_back();
  return config;
}

}  // namespace dvdi
