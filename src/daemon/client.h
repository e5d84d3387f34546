// The daemon, as an Api.
#pragma once

#include <memory>
#include <string>

#include "base/json.h"
#include "capi/errors.h"  // daemon_is_away()
#include "daemon/api.h"

namespace dvdi {

// What a daemon says of itself (GET /healthz).
struct DaemonHealth {
  std::string version;
  std::string state_dir;
};

// Calls by way of the C API. Connections stay open from one call to the next. Thread-safe.
class Client final : public Api {
 public:
  explicit Client(std::string socket);
  ~Client() override;

  // unavailable if nobody listens there.
  Result<DaemonHealth> health(const Context& context);

  Result<Prepared> prepare(const Context& context, const PrepareOptions& options,
                           const v1::ContainerRequest& request) override;
  Status isolate(const Context& context, const isolator::ContainerKey& key, pid_t pid, bool watch) override;
  Result<std::vector<isolator::Owed>> cleanup(const Context& context,
                                              const isolator::ContainerKey& key) override;
  Result<std::vector<ContainerView>> containers(const Context& context, bool ended) override;
  Result<ContainerView> find_container(const Context& context, const isolator::ContainerKey& key) override;
  Result<ContainerView> container(const Context& context, const std::string& id) override;
  Result<Volumes> volumes(const Context& context, bool ask_drivers) override;
  Result<VolumeView> volume(const Context& context, const std::string& driver,
                            const std::string& name) override;
  Result<std::vector<std::string>> driver_volumes(const Context& context, const std::string& driver) override;
  Status create_volume(const Context& context, const std::string& driver, const std::string& name,
                       const std::vector<std::pair<std::string, std::string>>& options) override;
  Status remove_volume(const Context& context, const std::string& driver, const std::string& name) override;
  Result<volume::Release> release_volume(const Context& context, const std::string& driver,
                                         const std::string& name, bool dry_run) override;
  Result<std::vector<volume::DriverStatus>> drivers(const Context& context) override;
  Result<std::vector<EventView>> events(const Context& context, std::uint64_t after, std::size_t limit,
                                        Duration wait) override;
  Result<Verified> verify_events(const Context& context,
                                 const std::function<void(std::uint64_t)>& progress) override;
  Result<UsageReport> usage(const Context& context, const UsageQuery& query,
                            const UsageProgress& progress) override;
  Result<Compared> compare_events(const Context& context, const std::string& sink) override;
  Result<std::vector<SinkStatus>> sinks(const Context& context) override;
  Status test_sink(const Context& context, const std::string& name) override;
  Status pause_sink(const Context& context, const std::string& name) override;
  Status resume_sink(const Context& context, const std::string& name) override;
  Status replay_sink(const Context& context, const std::string& name, std::uint64_t from) override;
  bool holds_state() const override { return false; }
  std::vector<std::string> notices() override { return {}; }

 private:
  // The body of a successful answer, parsed; else the error that the daemon gave. One that says that the
  // daemon went away is daemon_is_away().
  Result<json::value> call(const Context& context, const char* method, const std::string& path,
                           const std::string& body = {});
  Result<std::string> call_text(const Context& context, const char* method, const std::string& path,
                                const std::string& body);

  struct Handles;
  Status ask_sink(const Context& context, const std::string& name, const std::string& what,
                  const json::object& body = {});

  const std::string socket_;
  const std::unique_ptr<Handles> handles_;
};

}  // namespace dvdi
