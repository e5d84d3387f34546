#include "driver/docker/discovery.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <set>

#include "base/json.h"
#include "base/text.h"
#include "linux/fd.h"

namespace dvdi::driver::docker {

namespace {

constexpr std::size_t max_file_bytes = std::size_t{64} << 10U;

Error unusable(Code code, std::string message) {
  return Error{.code = code, .message = std::move(message), .outcome = Outcome::not_sent};
}

bool is_socket(const std::string& path) {
  struct stat what{};
  return ::stat(path.c_str(), &what) == 0 && S_ISSOCK(what.st_mode);
}

bool is_managed_id(std::string_view name) {
  return name.size() == 64 && name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// The names in a folder, sorted; none if it cannot be read.
std::vector<std::string> names_in(const std::string& folder) {
  struct Close {
    void operator()(DIR* open) const { ::closedir(open); }
  };
  std::vector<std::string> names;
  const std::unique_ptr<DIR, Close> open(::opendir(folder.c_str()));
  if (!open) return names;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is this function's own
  while (const dirent* entry = ::readdir(open.get())) names.emplace_back(&entry->d_name[0]);
  std::ranges::sort(names);
  return names;
}

// nullopt where there is no such file.
Result<std::optional<std::string>> read_registration(const std::string& path) {
  // O_NONBLOCK: a FIFO in this place must not stop us.
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<std::string>();
    return unusable(Code::failed_precondition, os_error(fmt::format("open {}", path), errno).message);
  }
  struct stat what{};
  if (::fstat(file.get(), &what) != 0 || !S_ISREG(what.st_mode)) {
    return unusable(Code::failed_precondition, fmt::format("{} is no regular file", path));
  }
  std::string text(max_file_bytes + 1, '\0');
  std::size_t used = 0;
  for (;;) {
    const ssize_t got = ::read(file.get(), text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return unusable(Code::failed_precondition, os_error(fmt::format("read {}", path), errno).message);
    used += static_cast<std::size_t>(got);
    if (got == 0 || used == text.size()) break;
  }
  if (used > max_file_bytes) {
    return unusable(Code::failed_precondition,
                    fmt::format("{} is longer than {} bytes", path, max_file_bytes));
  }
  text.resize(used);
  return std::optional(std::move(text));
}

Result<http::Endpoint> parse_json_registration(std::string_view text) {
  DVDI_TRY(const json::value document, json::parse(text, "the file"));
  if (!document.is_object()) return unusable(Code::failed_precondition, "the file holds no JSON object");
  DVDI_TRY(http::Endpoint endpoint, parse_address(json::text_or_empty(document, "Addr")));
  const json::value* tls = json::find(document, "TLSConfig");
  if (tls == nullptr || tls->is_null() || !endpoint.unix_socket.empty()) return endpoint;
  if (!tls->is_object()) return unusable(Code::failed_precondition, "TLSConfig is no JSON object");
  if (endpoint.url.starts_with("http://")) {
    // tcp:// becomes https:// here. An explicit http:// beside a TLSConfig gets the safe reading too.
    endpoint.url.replace(0, 4, "https");
  }
  if (const json::value* skip = json::find(*tls, "InsecureSkipVerify"); skip != nullptr && !skip->is_null()) {
    if (!skip->is_bool())
      return unusable(Code::failed_precondition, "InsecureSkipVerify is neither true nor false");
    endpoint.tls.insecure_skip_verify = skip->get_bool();
  }
  endpoint.tls.ca_file = json::text_or_empty(*tls, "CAFile");
  endpoint.tls.cert_file = json::text_or_empty(*tls, "CertFile");
  endpoint.tls.key_file = json::text_or_empty(*tls, "KeyFile");
  return endpoint;
}

Result<std::optional<http::Endpoint>> find_socket(const Roots& roots, const std::string& name,
                                                  std::vector<std::string>& looked) {
  for (const std::string& path : {fmt::format("{}/{}.sock", roots.run_dir, name),
                                  fmt::format("{}/{}/{}.sock", roots.run_dir, name, name)}) {
    looked.push_back(path);
    if (is_socket(path)) return std::optional(http::Endpoint{.unix_socket = path});
  }
  looked.push_back(fmt::format("{}/<id>/{}.sock", roots.run_dir, name));
  std::vector<std::string> managed;
  for (const std::string& folder : names_in(roots.run_dir)) {
    if (!is_managed_id(folder)) continue;
    std::string path = fmt::format("{}/{}/{}.sock", roots.run_dir, folder, name);
    if (is_socket(path)) managed.push_back(std::move(path));
  }
  if (managed.size() > 1) {
    Error error =
        unusable(Code::failed_precondition, fmt::format("{} managed plugins are called '{}': {}",
                                                        managed.size(), name, fmt::join(managed, ", ")));
    error.hint = "name one of them with a .spec file of another name";
    return error;
  }
  if (managed.empty()) return std::optional<http::Endpoint>();
  return std::optional(http::Endpoint{.unix_socket = managed.front()});
}

Result<std::optional<http::Endpoint>> find_registration(const std::string& path, bool is_json) {
  DVDI_TRY(const std::optional<std::string> text, read_registration(path));
  if (!text) return std::optional<http::Endpoint>();
  auto parsed = is_json ? parse_json_registration(*text) : parse_address(trim(*text));
  if (!parsed) {
    return unusable(Code::failed_precondition, fmt::format("{}: {}", path, parsed.error().message));
  }
  return std::optional(*std::move(parsed));
}

}  // namespace

bool valid_plugin_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name.front() == '.') return false;
  return std::ranges::none_of(
      name, [](char c) { return c == '/' || static_cast<unsigned char>(c) < 0x20 || c == '\x7f'; });
}

Result<http::Endpoint> parse_address(std::string_view text) {
  const auto refuse = [&] {
    return fail(unusable(Code::failed_precondition,
                         fmt::format("'{}' is none of unix:///path, tcp://host:port, http://host:port, "
                                     "https://host:port",
                                     printable(text))));
  };
  const auto scheme_end = text.find("://");
  if (scheme_end == std::string_view::npos) return refuse();
  const std::string_view scheme = text.substr(0, scheme_end);
  std::string_view rest = text.substr(scheme_end + 3);
  if (std::ranges::any_of(rest,
                          [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == '\x7f'; })) {
    return refuse();
  }
  if (scheme == "unix") {
    if (rest.size() < 2 || rest.front() != '/' || rest.size() > 4095) return refuse();
    return http::Endpoint{.unix_socket = std::string(rest)};
  }
  if (rest.ends_with('/')) rest.remove_suffix(1);
  // No user, path or query: every path is the protocol's.
  if (rest.empty() || rest.size() > 300 || rest.find_first_of("/?#@\\") != std::string_view::npos)
    return refuse();
  if (scheme == "tcp" || scheme == "http") return http::Endpoint{.url = fmt::format("http://{}", rest)};
  if (scheme == "https") return http::Endpoint{.url = fmt::format("https://{}", rest)};
  return refuse();
}

Result<http::Endpoint> find_endpoint(const Roots& roots, const std::string& name) {
  if (!valid_plugin_name(name)) {
    return unusable(Code::invalid_argument,
                    fmt::format("'{}' cannot be the name of a driver: 1 to 255 bytes without '/' or control "
                                "characters, and no '.' at the beginning",
                                printable(name)));
  }
  std::vector<std::string> looked;
  DVDI_TRY(const auto socket, find_socket(roots, name, looked));
  if (socket) return *socket;
  for (const bool is_json : {false, true}) {
    for (const std::string& folder : roots.spec_dirs) {
      const std::string path = fmt::format("{}/{}.{}", folder, name, is_json ? "json" : "spec");
      looked.push_back(path);
      DVDI_TRY(const auto registered, find_registration(path, is_json));
      if (registered) return *registered;
    }
  }
  Error error = unusable(Code::not_found, fmt::format("no Docker volume plugin is called '{}'; looked for {}",
                                                      printable(name), fmt::join(looked, ", ")));
  error.hint = "is the plugin installed and running?";
  return error;
}

std::vector<std::string> registered_names(const Roots& roots) {
  std::set<std::string> found;
  const auto add = [&](std::string_view file, std::string_view suffix) {
    if (!file.ends_with(suffix)) return;
    file.remove_suffix(suffix.size());
    if (valid_plugin_name(file)) found.emplace(file);
  };
  for (const std::string& entry : names_in(roots.run_dir)) {
    const std::string path = fmt::format("{}/{}", roots.run_dir, entry);
    if (is_socket(path)) {
      add(entry, ".sock");
    } else if (is_managed_id(entry)) {
      for (const std::string& file : names_in(path)) {
        if (is_socket(fmt::format("{}/{}", path, file))) add(file, ".sock");
      }
    } else if (is_socket(fmt::format("{}/{}.sock", path, entry))) {
      add(entry, "");
    }
  }
  for (const std::string& folder : roots.spec_dirs) {
    for (const std::string& file : names_in(folder)) {
      add(file, ".spec");
      add(file, ".json");
    }
  }
  return {found.begin(), found.end()};
}

}  // namespace dvdi::driver::docker
