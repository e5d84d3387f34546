// An Api for tests: each call is a function that a test may replace, and leaves a line in `calls`.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "daemon/api.h"

namespace dvdi::cli {

// What happened to all engines of one test; outlives them.
struct Scene {
  std::vector<std::string> calls;
  std::vector<std::string> notices;
  bool holds_state = true;
  Result<Api::Prepared> prepared =
      Api::Prepared{.key = {.owner = "run", .id = "c1"}, .launch = {}, .foreign_mount_points = {"/foreign"}};
  bool prepared_is_known = true;  // the ledger still has the container that was prepared
  std::function<void(const Context&)> during_prepare = [](const Context&) {};
  Status isolated;
  std::function<void(const Context&)> during_cleanup = [](const Context&) {};
  Result<std::vector<isolator::Owed>> cleaned = std::vector<isolator::Owed>{};

  std::vector<ContainerView> containers;
  Api::Volumes volumes;
  std::vector<EventView> events;
  std::size_t events_per_call = 1000;
  std::function<void()> before_events = [] {};
  Result<Api::Verified> verified = Api::Verified{};
  UsageReport usage;
  UsageQuery query;
  std::vector<SinkStatus> sinks;
  Result<Compared> compared = Compared{};
  Status sink_answer;
  Status removed;
  Result<std::vector<std::string>> listed = std::vector<std::string>{};
  v1::ContainerRequest request;  // of the last prepare
  Result<volume::Release> release = volume::Release{};
};

class FakeApi final : public Api {
 public:
  explicit FakeApi(Scene& scene) : scene_(scene) {}
  ~FakeApi() override { scene_.calls.emplace_back("close"); }

  Result<Prepared> prepare(const Context& context, const PrepareOptions& options,
                           const v1::ContainerRequest& request) override {
    scene_.request = request;
    scene_.calls.push_back("prepare " + options.owner);
    scene_.during_prepare(context);
    if (auto ended = context.check("prepare"); !ended) return fail(ended.error());
    return scene_.prepared;
  }
  Status isolate(const Context&, const isolator::ContainerKey& key, pid_t pid, bool /*watch*/) override {
    scene_.calls.push_back("isolate " + key.text() + " " + std::to_string(pid));
    return scene_.isolated;
  }
  Result<std::vector<isolator::Owed>> cleanup(const Context& context,
                                              const isolator::ContainerKey& key) override {
    scene_.calls.push_back("cleanup " + key.text());
    scene_.during_cleanup(context);
    if (auto ended = context.check("cleanup"); !ended) return fail(ended.error());
    return scene_.cleaned;
  }
  Result<volume::Release> release_volume(const Context&, const std::string& driver, const std::string& name,
                                         bool dry_run) override {
    scene_.calls.push_back(std::string(dry_run ? "would release " : "release ") + driver + "/" + name);
    return scene_.release;
  }
  Result<std::vector<volume::DriverStatus>> drivers(const Context&) override {
    return std::vector<volume::DriverStatus>();
  }
  Result<std::vector<ContainerView>> containers(const Context&, bool ended) override {
    scene_.calls.emplace_back(ended ? "containers ended" : "containers");
    return scene_.containers;
  }
  Result<ContainerView> find_container(const Context&, const isolator::ContainerKey& key) override {
    if (scene_.prepared && scene_.prepared_is_known && key == scene_.prepared->key)
      return ContainerView{.owner = key.owner, .id = key.id};
    return no_container(key);
  }
  Result<ContainerView> container(const Context&, const std::string& id) override {
    for (const ContainerView& one : scene_.containers) {
      if (one.id.starts_with(id)) return one;
    }
    return Error{.code = Code::not_found, .message = "no container " + id};
  }
  Result<Volumes> volumes(const Context&, bool ask_drivers) override {
    scene_.calls.emplace_back(ask_drivers ? "volumes ask" : "volumes");
    return scene_.volumes;
  }
  Result<VolumeView> volume(const Context&, const std::string& driver, const std::string& name) override {
    for (const VolumeView& one : scene_.volumes.volumes) {
      if (one.driver == driver && one.name == name) return one;
    }
    return Error{.code = Code::not_found, .message = "no such volume", .driver = driver, .volume = name};
  }
  Result<std::vector<std::string>> driver_volumes(const Context&, const std::string& driver) override {
    scene_.calls.push_back("list " + driver);
    return scene_.listed;
  }
  Status create_volume(const Context&, const std::string& driver, const std::string& name,
                       const std::vector<std::pair<std::string, std::string>>& options) override {
    std::string call = "create " + driver + "/" + name;
    for (const auto& [key, value] : options) call.append(" ").append(key).append("=").append(value);
    scene_.calls.push_back(call);
    return {};
  }
  Status remove_volume(const Context&, const std::string& driver, const std::string& name) override {
    scene_.calls.push_back("remove " + driver + "/" + name);
    if (name == "held") return scene_.removed;
    return {};
  }
  Result<std::vector<EventView>> events(const Context&, std::uint64_t after, std::size_t limit,
                                        Duration) override {
    scene_.before_events();
    std::vector<EventView> found;
    for (const EventView& one : scene_.events) {
      if (one.sequence > after && found.size() < std::min(limit, scene_.events_per_call))
        found.push_back(one);
    }
    return found;
  }
  Result<Verified> verify_events(const Context&, const std::function<void(std::uint64_t)>&) override {
    return scene_.verified;
  }
  Result<UsageReport> usage(const Context&, const UsageQuery& query, const UsageProgress&) override {
    scene_.query = query;
    return scene_.usage;
  }
  Result<Compared> compare_events(const Context&, const std::string& sink) override {
    scene_.calls.push_back("compare " + sink);
    return scene_.compared;
  }
  Result<std::vector<SinkStatus>> sinks(const Context&) override { return scene_.sinks; }
  Status test_sink(const Context&, const std::string& name) override { return sink_call("test " + name); }
  Status pause_sink(const Context&, const std::string& name) override { return sink_call("pause " + name); }
  Status resume_sink(const Context&, const std::string& name) override { return sink_call("resume " + name); }
  Status replay_sink(const Context&, const std::string& name, std::uint64_t from) override {
    return sink_call("replay " + name + " from " + std::to_string(from));
  }
  bool holds_state() const override { return scene_.holds_state; }
  std::vector<std::string> notices() override { return scene_.notices; }

 private:
  Status sink_call(std::string call) {
    scene_.calls.push_back(std::move(call));
    return scene_.sink_answer;
  }
  Scene& scene_;
};

}  // namespace dvdi::cli
