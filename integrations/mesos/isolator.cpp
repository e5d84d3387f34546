// The isolator module org_dvdi_VolumeIsolator: Mesos' side of volume_isolation.h. Only this file includes
// headers of Mesos; it turns messages into JSON and answers into Futures, and decides nothing.
#include <sys/types.h>

#include <memory>
#include <mesos/module/isolator.hpp>
#include <mesos/slave/containerizer.hpp>
#include <mesos/slave/isolator.hpp>
#include <mesos/version.hpp>
#include <process/future.hpp>
#include <stout/hashset.hpp>
#include <stout/json.hpp>
#include <stout/nothing.hpp>
#include <stout/option.hpp>
#include <stout/protobuf.hpp>
#include <stout/stringify.hpp>
#include <string>
#include <utility>
#include <vector>

#include "daemon.h"
#include "parameters.h"
#include "volume_isolation.h"

static_assert(MESOS_MAJOR_VERSION_NUM == 1 && MESOS_MINOR_VERSION_NUM >= 10,
              "the isolator interface of Mesos before 1.10 is another one: update() has no limits there");

namespace {

using dvdi_mesos::Outcome;
using mesos::ContainerID;
using mesos::slave::ContainerConfig;
using mesos::slave::ContainerLaunchInfo;
using mesos::slave::ContainerState;
using process::Future;
using process::Promise;

template <typename Message>
std::string to_json(const Message& message) {
  return stringify(JSON::protobuf(message));
}

template <typename T>
std::shared_ptr<Promise<T>> make_promise() {
  return std::make_shared<Promise<T>>();
}

// What is left of an outcome that is not done.
template <typename T>
void end(Promise<T>& promise, const Outcome& outcome) {
  if (outcome.kind == Outcome::Kind::failed) {
    promise.fail(outcome.text);
  } else {
    promise.discard();
  }
}

dvdi_mesos::Done completes(const std::shared_ptr<Promise<Nothing>>& promise) {
  return [promise](const Outcome& outcome) {
    if (outcome.kind == Outcome::Kind::done) {
      promise->set(Nothing());
    } else {
      end(*promise, outcome);
    }
  };
}

template <typename T>
Future<T> cancelled_with(const std::shared_ptr<Promise<T>>& promise, const dvdi_mesos::Call& call) {
  // The callback goes when the Future is completed, so nothing holds itself.
  promise->future().onDiscard([call] { call->cancel(); });
  return promise->future();
}

ContainerLaunchInfo to_message(const dvdi_mesos::LaunchInfo& from) {
  ContainerLaunchInfo to;
  for (const dvdi_mesos::Mount& one : from.mounts) {
    mesos::slave::ContainerMountInfo& mount = *to.add_mounts();
    mount.set_target(one.target);
    mount.set_source(one.source);
    if (!one.type.empty()) mount.set_type(one.type);
    if (!one.options.empty()) mount.set_options(one.options);
    mount.set_flags(one.flags);
  }
  for (const int one : from.clone_namespaces) to.add_clone_namespaces(one);
  return to;
}

class VolumeIsolator : public mesos::slave::Isolator {
 public:
  explicit VolumeIsolator(std::unique_ptr<dvdi_mesos::VolumeIsolation> calls) : calls_(std::move(calls)) {}

  bool supportsNesting() override { return true; }
  bool supportsStandalone() override { return true; }

  Future<Nothing> recover(const std::vector<ContainerState>& states,
                          const hashset<ContainerID>& orphans) override {
    std::vector<std::string> live;
    live.reserve(states.size());
    for (const ContainerState& one : states) live.push_back(to_json(one));
    std::vector<std::string> ids;
    ids.reserve(orphans.size());
    for (const ContainerID& one : orphans) ids.push_back(to_json(one));
    const auto promise = make_promise<Nothing>();
    return cancelled_with(promise, calls_->recover(live, ids, completes(promise)));
  }

  Future<Option<ContainerLaunchInfo>> prepare(const ContainerID& id, const ContainerConfig& config) override {
    const auto promise = make_promise<Option<ContainerLaunchInfo>>();
    const auto done = [promise](const Outcome& outcome) {
      if (outcome.kind != Outcome::Kind::done) {
        end(*promise, outcome);
      } else if (outcome.has_launch_info) {
        promise->set(Option<ContainerLaunchInfo>(to_message(outcome.launch_info)));
      } else {
        promise->set(Option<ContainerLaunchInfo>(None()));
      }
    };
    return cancelled_with(promise, calls_->prepare(to_json(id), to_json(config), done));
  }

  Future<Nothing> isolate(const ContainerID& id, pid_t pid) override {
    const auto promise = make_promise<Nothing>();
    return cancelled_with(promise, calls_->isolate(to_json(id), pid, completes(promise)));
  }

  // Of volumes there is nothing to add to a container's status.
  Future<mesos::ContainerStatus> status(const ContainerID& /*id*/) override {
    return mesos::ContainerStatus();
  }

  Future<Nothing> cleanup(const ContainerID& id) override {
    const auto promise = make_promise<Nothing>();
    // Who gives up waits no longer; the volumes are let go of all the same.
    const std::weak_ptr<Promise<Nothing>> waiting = promise;  // the Future must not hold its own Promise
    promise->future().onDiscard([waiting] {
      if (const auto held = waiting.lock()) held->discard();
    });
    calls_->cleanup(to_json(id), completes(promise));
    return promise->future();
  }

 private:
  const std::unique_ptr<dvdi_mesos::VolumeIsolation> calls_;
};

mesos::slave::Isolator* create(const mesos::Parameters& given) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const mesos::Parameter& one : given.parameter()) pairs.emplace_back(one.key(), one.value());
  dvdi_mesos::Parameters parameters;
  std::string error;
  if (!dvdi_mesos::read_parameters(pairs, parameters, error)) {
    LOG(ERROR) << "org_dvdi_VolumeIsolator: " << error;
    return nullptr;
  }
  dvdi_mesos::AgentFlags flags = dvdi_mesos::own_agent_flags();
  if (!parameters.sandbox_directory.empty()) flags.sandbox_directory = parameters.sandbox_directory;
  std::unique_ptr<dvdi_mesos::Daemon> daemon = dvdi_mesos::connect_daemon(parameters.socket);
  if (daemon == nullptr) {
    LOG(ERROR) << "org_dvdi_VolumeIsolator: there is no memory for it";
    return nullptr;
  }
  dvdi_mesos::VolumeIsolation::Seams seams;
  seams.warn = [](const std::string& text) { LOG(WARNING) << "org_dvdi_VolumeIsolator: " << text; };
  LOG(INFO) << "org_dvdi_VolumeIsolator asks dvdid at '" << daemon->where() << "'";
  return new VolumeIsolator(std::unique_ptr<dvdi_mesos::VolumeIsolation>(new dvdi_mesos::VolumeIsolation(
      std::move(parameters), std::move(flags), std::move(daemon), std::move(seams))));
}

}  // namespace

// By this name the agent finds it. No `compatible`: the agent then admits it only if it is of the very
// version that the module was built against, whose messages and classes are compiled in here.
mesos::modules::Module<mesos::slave::Isolator> org_dvdi_VolumeIsolator(
    MESOS_MODULE_API_VERSION, MESOS_VERSION, "dvdi", "maintainers@dvdi.example",
    "External volumes for containers, by dvdid", nullptr, create);
