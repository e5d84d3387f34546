// The daemon without its process: engine, reconciler and server put together. dvdid.cpp adds options, signals
// and systemd; a test takes it as it is.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "daemon/admission.h"
#include "daemon/engine.h"
#include "daemon/housekeeper.h"
#include "daemon/reconciler.h"
#include "daemon/routes.h"
#include "http/server.h"

namespace dvdi {

// Thread-safe.
class Service {
 public:
  struct Parts {
    HelperPool& helpers;  // outlives this
    std::string version;
    std::function<void(std::string_view)> info, warning;  // for the log
    Sinks::Factory make_sink = {};                        // what sinks are linked with only a daemon needs
  };

  // Opens the state directory, for this daemon alone: waits, while the context lasts, for commands that work
  // on it.
  static Result<std::unique_ptr<Service>> open(const Context& context, const Config& config, Parts parts);
  ~Service();  // cancels what is running

  // Serves on that socket from now on.
  Status serve(UniqueFd listening);
  // Takes over what can change: access and policy, rules for agents, drain_timeout. What else is not as it is
  // in force is returned, as names of keys and tables that need a restart.
  Result<std::vector<std::string>> reload(const Config& config);
  Duration drain_timeout();
  // Accepts nothing more and lets what is running end, while the context lasts. False: something had to be
  // cancelled. A sink has some seconds for the batch that is under way.
  bool drain(const Context& context);

  Engine& engine() { return *engine_; }

 private:
  Service(Config config, Parts parts) : parts_(std::move(parts)), config_(std::move(config)) {}
  Result<std::string> metrics(const Context& context);
  // At that address from now on; "": nowhere. Tasks get their volumes also where it cannot be had.
  void show_metrics_at(const std::string& address);
  AccessRules access();
  spec::AgentRules agent();

  const Parts parts_;
  Mutex mutex_;
  Config config_;               // guarded by mutex_, as is:
  std::optional<gid_t> group_;  // config_.access.group
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Reconciler> reconciler_;
  std::unique_ptr<Housekeeper> housekeeper_;
  std::unique_ptr<Routes> routes_;
  RequestCounts requests_;
  std::unique_ptr<http::Server> server_;
  std::atomic<http::Server*> counted_ = nullptr;  // server_, for metrics()
  std::unique_ptr<http::Server> metrics_server_;  // of the thread that calls serve, reload and drain
};

}  // namespace dvdi
