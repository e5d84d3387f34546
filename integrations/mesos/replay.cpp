// For the tests: makes the calls of a recording (tests/data/mesos) as an agent would, with libdvdi against a
// real dvdid.
//
//   mesos_replay WORK_DIR [PARAMETER=VALUE]...
//
// Reads one recorded call a line from standard input and answers each with one line: {"call", "kind", "text",
// and of prepare "launch_info"}. Calls that the module does not get are answered with null.
#include <future>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "volume_isolation.h"

namespace {

using dvdi_mesos::Outcome;
using dvdi_mesos::VolumeIsolation;
using nlohmann::json;

const char* name_of(Outcome::Kind kind) {
  if (kind == Outcome::Kind::done) return "done";
  return kind == Outcome::Kind::failed ? "failed" : "discarded";
}

json launch_info(const Outcome& outcome) {
  if (!outcome.has_launch_info) return nullptr;
  json info = {{"mounts", json::array()}, {"clone_namespaces", outcome.launch_info.clone_namespaces}};
  for (const dvdi_mesos::Mount& one : outcome.launch_info.mounts) {
    info["mounts"].push_back({{"target", one.target},
                              {"source", one.source},
                              {"type", one.type},
                              {"options", one.options},
                              {"flags", one.flags}});
  }
  return info;
}

std::vector<std::string> texts(const json& elements) {
  std::vector<std::string> found;
  for (const json& one : elements) found.push_back(one.dump());
  return found;
}

json answer(VolumeIsolation& isolation, const json& call) {
  const std::string name = call.at("call");
  std::promise<Outcome> promise;
  const dvdi_mesos::Done done = [&promise](const Outcome& outcome) { promise.set_value(outcome); };
  if (name == "recover") {
    isolation.recover(texts(call.at("containers")), texts(call.at("orphans")), done);
  } else if (name == "prepare") {
    isolation.prepare(call.at("container_id").dump(), call.at("container_config").dump(), done);
  } else if (name == "isolate") {
    isolation.isolate(call.at("container_id").dump(), call.at("pid"), done);
  } else if (name == "cleanup") {
    isolation.cleanup(call.at("container_id").dump(), done);
  } else {
    return nullptr;
  }
  const Outcome outcome = promise.get_future().get();
  return {{"call", name},
          {"kind", name_of(outcome.kind)},
          {"text", outcome.text},
          {"launch_info", launch_info(outcome)}};
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::pair<std::string, std::string>> given;
  for (int i = 2; i < argc; ++i) {
    const std::string one = argv[i];
    const std::size_t equal = one.find('=');
    given.emplace_back(one.substr(0, equal), equal == std::string::npos ? "" : one.substr(equal + 1));
  }
  dvdi_mesos::Parameters parameters;
  std::string error;
  if (argc < 2 || !dvdi_mesos::read_parameters(given, parameters, error)) {
    std::cerr << (error.empty() ? "usage: mesos_replay WORK_DIR [PARAMETER=VALUE]..." : error) << '\n';
    return 2;
  }
  dvdi_mesos::AgentFlags flags = dvdi_mesos::read_agent_flags({std::string("--work_dir=") + argv[1]}, {});
  VolumeIsolation::Seams seams;
  seams.warn = [](const std::string& text) { std::cerr << text << "\n" << std::flush; };
  seams.first_wait = std::chrono::milliseconds(50);
  seams.longest_wait = std::chrono::milliseconds(200);
  auto daemon = dvdi_mesos::connect_daemon(parameters.socket);
  VolumeIsolation isolation(parameters, flags, std::move(daemon), seams);
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << answer(isolation, json::parse(line)).dump() << "\n" << std::flush;
  }
  return 0;
}
