// The daemon's API over HTTP: one request, one call of Api, its answer as JSON. docs/openapi.yaml describes
// it.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/access.h"
#include "daemon/api.h"
#include "daemon/request_counts.h"
#include "http/server.h"
#include "spec/agent.h"

namespace dvdi {

// Thread-safe.
class Routes {
 public:
  struct Parts {
    Api& api;  // outlives this
    // The agents' calls, which only a daemon answers.
    std::function<Result<volume::Recovered>(const Context&, const volume::RecoverRequest&)> recover;
    std::function<Result<std::vector<volume::Adopted>>(const Context&, const std::string&,
                                                       const std::vector<volume::LeftBehind>&)>
        adopt;
    std::string version, state_dir;           // for /healthz
    std::function<AccessRules()> access;      // as the configuration has them now
    std::function<spec::AgentRules()> agent;  // the same
    // What command.user of a request is on this host; nullopt for "".
    std::function<Result<std::optional<MemberUser>>(const Context&, const std::string&)> find_user;
    std::function<void(const Context&, const Denial&)> denied;   // records a refusal
    std::function<Result<std::string>(const Context&)> metrics;  // Prometheus' text format
    RequestCounts* requests = nullptr;                           // outlives this; counts each
    std::function<void()> changed;             // there may be something new to watch or to settle
    std::function<void(const Error&)> failed;  // an answer of 500 and above: for the log
  };
  explicit Routes(Parts parts);

  // An http::Handler.
  void handle(const Context& context, http::IncomingRequest& request, http::Answer& answer);

 private:
  struct Call;
  // Answers by itself, or returns what went wrong.
  using Work = Status (Routes::*)(Call& call);
  struct Route {
    std::string_view method;
    std::string_view path;  // "/v1/volumes/*/*": each * is one segment
    Work work;
    std::optional<Action> action;  // nullopt: everybody may
  };
  static const std::vector<Route>& table();

  Status dispatch(Call& call);
  Status healthz(Call& call);
  Status metrics(Call& call);
  Status recover(Call& call);
  Status adopt(Call& call);
  Status prepare(Call& call);
  Status isolate(Call& call);
  Status cleanup(Call& call);
  Status containers(Call& call);
  Status container(Call& call);
  Status volumes(Call& call);
  Status volume(Call& call);
  Status create_volume(Call& call);
  Status remove_volume(Call& call);
  Status release_volume(Call& call);
  Status events(Call& call);
  Status follow_events(Call& call, std::uint64_t after);
  Status verify_events(Call& call);
  Status usage(Call& call);
  Status usage_with_prices(Call& call);
  Status give_usage(Call& call, const UsageQuery& query);
  Status drivers(Call& call);
  Status driver_volumes(Call& call);
  Status sinks(Call& call);
  Status compare_sink(Call& call);
  Status test_sink(Call& call);
  Status pause_sink(Call& call);
  Status resume_sink(Call& call);
  Status replay_sink(Call& call);

  // permission_denied, recorded, unless the caller may. `what` names what it is about.
  Status permit(Call& call, Action action, const std::string& owner = {}, const std::string& what = {});
  Status refused(Call& call, const Refusal& refusal, Action action, const std::string& what);

  const Parts parts_;
};

}  // namespace dvdi
