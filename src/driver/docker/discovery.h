// Where a Docker volume plugin listens: found in the folders that plugins register themselves in.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "http/client.h"

namespace dvdi::driver::docker {

// The folders, in the order in which they are looked at.
struct Roots {
  std::string run_dir = "/run/docker/plugins";
  std::vector<std::string> spec_dirs = {"/etc/docker/plugins", "/usr/lib/docker/plugins"};

  bool operator==(const Roots&) const = default;
};

// What a plugin may be called: 1 to 255 bytes, no '/', no control character, no '.' at the beginning.
bool valid_plugin_name(std::string_view name);

// Looks, in this order, for a socket RUN_DIR/NAME.sock, RUN_DIR/NAME/NAME.sock, RUN_DIR/<64 hex
// digits>/NAME.sock (a managed plugin), then for NAME.spec in each spec folder, then for NAME.json in each.
// Errors: not_found (the message lists every place), invalid_argument (the name), failed_precondition (a file
// that cannot be understood, or two managed plugins of one name). All of them Outcome::not_sent.
Result<http::Endpoint> find_endpoint(const Roots& roots, const std::string& name);

// The names of all plugins that are registered now, sorted.
std::vector<std::string> registered_names(const Roots& roots);

// The address of a .spec file or of a .json file's "Addr": unix:///path, tcp://host:port,
// http(s)://host:port.
Result<http::Endpoint> parse_address(std::string_view text);

}  // namespace dvdi::driver::docker
