// The one interface to whatever mounts volumes on this node: a Docker volume plugin, the built-in `local`
// driver, later a CSI driver. Every implementation passes the suite in driver/conformance_test.h.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"

namespace dvdi::driver {

using Options = std::map<std::string, std::string>;

struct VolumeInfo {
  std::string name;
  std::string mount_point;  // "" where it is not mounted or the driver does not say
  std::string created_at;   // as the driver writes it; "" where it does not say
  std::optional<std::uint64_t> size_bytes;
  std::map<std::string, std::string> status;  // the driver's own words; nested values as JSON text
};

struct Capabilities {
  bool global = false;  // volumes are visible from every node of the cluster (Docker's Scope "global")
};

// The operations, as they appear in errors, events and configuration.
enum class Operation { create, remove, get, list, path, mount, unmount, capabilities };
std::string_view operation_name(Operation operation);

// Thread-safe. Every call ends by the deadline of its context, and when the context is cancelled. A failed
// call's Error names driver, volume and operation and carries what is known about the effect:
// Outcome::not_sent, Outcome::refused (a complete answer that says no) or Outcome::unknown. A driver never
// retries a call that may have had an effect; it may retry to connect.
class Driver {
 public:
  virtual ~Driver() = default;

  virtual const std::string& name() const = 0;

  // Creating a volume that exists is a success where the driver sees it so.
  virtual Status create(const Context& context, const std::string& volume, const Options& options) = 0;
  virtual Status remove(const Context& context, const std::string& volume) = 0;
  // Code::not_found only where the driver answered so in a way that its protocol defines; else
  // Outcome::refused.
  virtual Result<VolumeInfo> get(const Context& context, const std::string& volume) = 0;
  virtual Result<std::vector<VolumeInfo>> list(const Context& context) = 0;
  // Where the volume is mounted; "" where it is not.
  virtual Result<std::string> path(const Context& context, const std::string& volume) = 0;
  // Mounts for the caller `mount_id`; the mount point as the driver gave it, which the caller verifies.
  virtual Result<std::string> mount(const Context& context, const std::string& volume,
                                    const std::string& mount_id) = 0;
  virtual Status unmount(const Context& context, const std::string& volume, const std::string& mount_id) = 0;
  virtual Result<Capabilities> capabilities(const Context& context) = 0;

  // A mount point of this volume may be a plain directory instead of a mount of its own.
  virtual bool may_be_plain_directory(const std::string& volume) const = 0;
};

// Finds drivers by name. Thread-safe.
class Catalog {
 public:
  virtual ~Catalog() = default;
  // unavailable / not_found with what was looked for and where, if there is no such driver.
  virtual Result<std::shared_ptr<Driver>> find(const Context& context, const std::string& name) = 0;
  // The names of all drivers that could be found now.
  virtual std::vector<std::string> names() = 0;
};

}  // namespace dvdi::driver
