#include "spec/agent.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "spec/request_test_support.h"

namespace dvdi::spec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

json::value parsed(std::string_view text) {
  auto value = json::parse(text, "the test");
  if (value) return *value;
  ADD_FAILURE() << value.error().text();
  return nullptr;
}

struct Call {
  std::string place;  // FILE:NUMBER
  json::value message;
};

// The calls of that name in tests/data/mesos, in the order of files and lines.
std::vector<Call> recorded(std::string_view call) {
  std::set<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(DVDI_TEST_DATA "/mesos")) {
    if (entry.path().extension() == ".jsonl") files.insert(entry.path());
  }
  std::vector<Call> calls;
  for (const auto& file : files) {
    std::ifstream stream(file);
    for (std::string line; std::getline(stream, line);) {
      json::value message = parsed(line);
      if (json::text_or_empty(message, "call") != call) continue;
      const auto place = fmt::format("{}:{}", file.stem().string(), message.at("n").as_int64());
      calls.push_back({place, std::move(message)});
    }
  }
  return calls;
}

// A request in one line: what a reader of the recordings can check by eye.
std::string shown(const v1::ContainerRequest& request) {
  std::string out = request.container_id().value();
  for (const v1::Volume& volume : request.container_info().volumes()) {
    const auto external = external_volume(volume);
    EXPECT_TRUE(external) << external.error().text();
    if (external && *external) {
      out += fmt::format("\n  {}/{} on {} {}", (*external)->driver, (*external)->name,
                         (*external)->host_only ? "the host" : (*external)->container_path,
                         (*external)->read_only ? "ro" : "rw");
      for (const auto& [key, value] : (*external)->options) out += fmt::format(" {}={}", key, value);
      if ((*external)->ownership == Ownership::match_target) out += " match-target";
    } else {
      out += fmt::format("\n  elsewhere: {} {}{}", volume.container_path(), volume.host_path(),
                         volume.has_source() ? v1::Volume::Source::Type_Name(volume.source().type()) : "");
    }
  }
  const v1::Attribution& who = request.attribution();
  out +=
      fmt::format("\n  framework {} task {} '{}' role {} user {}",
                  who.framework_id().empty() ? "-" : who.framework_id().substr(who.framework_id().size() - 4),
                  who.task_id(), who.task_name(), who.role(), who.user());
  for (const v1::Label& label : who.labels().labels())
    out += fmt::format(" {}={}", label.key(), label.value());
  if (!request.rootfs().empty()) out += "\n  rootfs";
  for (const std::string& warning : request.warnings()) out += "\n  ! " + warning;
  return out + "\n";
}

std::string prepared(const Call& call, const AgentRules& rules = {}) {
  const auto id = container_id_text(call.message.at("container_id"));
  if (!id) return id.error().text();
  const auto request = parse_container_config(call.message.at("container_config"), *id, rules);
  if (!request) return request.error().text();
  const auto& config = call.message.at("container_config");
  EXPECT_EQ(request->directory(), json::text_or_empty(config, "directory"));
  EXPECT_EQ(request->rootfs(), json::text_or_empty(config, "rootfs"));
  return shown(*request);
}

// Written out from the recordings by hand (tests/data/mesos/README.md).
const std::string nfs_task = "\n  nfs/vol-one on data rw mountopts=nolock,vers=4.1 size=5\n";
const std::string parent_05 = "995c28ed-852b-4c85-828c-fe8926cb2472";
const std::string parent_05b = "fd026a77-52a9-4118-8059-bc1fb481f95d";
const std::string parent_06b = "054c065a-d50f-4ede-8f3c-08511ddae810";
const std::string parent_08b = "63df22d2-04ce-4d3d-9942-2647bbffb9f5";
const std::string parent_09c = "d6df36bc-7a5c-4bda-8803-8b848013c857";
const std::string nested_rw = "\n  nfs/vol-nested on data rw\n";
const std::string nested_ro = "\n  nfs/vol-nested on /mnt/data ro\n";

std::string who(const std::string& framework, const std::string& task = "", const std::string& name = "",
                const std::string& role = "*", const std::string& user = "root") {
  return fmt::format("  framework {} task {} '{}' role {} user {}", framework, task, name, role, user);
}

TEST(AgentRecordings, EveryPrepare) {
  const std::map<std::string, std::string> expected = {
      {"01-command-task-host:3",
       "2981fbb8-b666-43fb-b61d-f7fb74c88ea7" + nfs_task + who("0000", "task1", "task1") + "\n"},
      {"02-two-volumes:12",
       "309dba15-15a1-41da-a1a1-ddfbf8847362\n  nfs/vol-two on /mnt/reference ro\n"
       "  elsewhere: hostdir /usr/share/misc\n" +
           who("0001", "task2", "task2") + "\n"},
      {"03-image-rootfs:21",
       "7fa072f1-3c30-40a8-8e25-ddbc241eaba2\n  nfs/vol-abs on /mnt/data rw\n"
       "  local/vol-rel on scratch rw type=tmpfs\n" +
           who("0002", "task3", "task3") + "\n  rootfs\n"},
      {"04-dvdi-environment:30",
       "e20867b3-12eb-410b-9cd7-5b953f5c24e3\n  rexray/vol-env on /mnt/env rw iops=150 size=5 match-target\n"
       "  rexray/vol-env1 on the host rw\n" +
           who("0003", "task4", "task4") + "\n"},
      {"05-task-group:39", parent_05 + "\n" + who("0004") + "\n"},
      {"05-task-group:43",
       parent_05 + ".0c4ac615-a150-4583-81c8-836318c6f814" + nested_rw + who("0004") + "\n"},
      {"05-task-group:47",
       parent_05 + ".f3f047ff-6760-4946-830b-ddd73d2dfa26" + nested_ro + who("0004") + "\n  rootfs\n"},
      {"05b-task-group-executor-volume:40",
       parent_05b + "\n  nfs/vol-pod on shared rw\n" + who("0002", "", "", "analytics") + " exec-label=el\n"},
      {"05b-task-group-executor-volume:44",
       parent_05b +
           ".9ce03b9f-411d-4d6e-bcce-aa7c87069599\n  nfs/vol-of-task on own rw\n"
           "  elsewhere: shared SANDBOX_PATH\n" +
           who("0002", "", "", "analytics", "nobody") + " exec-label=el\n"},
      {"06-agent-killed-and-restarted:57",
       "7051b27e-a85c-4c6d-8c72-045e212f131f" + nfs_task + who("0005", "task6", "task6") + "\n"},
      {"06b-agent-killed-and-restarted-nested:9", parent_06b + "\n" + who("0006") + "\n"},
      {"06b-agent-killed-and-restarted-nested:13",
       parent_06b + ".296774f5-d9ea-46df-8c42-59244271100e" + nested_rw + who("0006") + "\n"},
      {"06b-agent-killed-and-restarted-nested:16",
       parent_06b + ".dc893406-74d4-43a2-af7a-82bfdb13fdda" + nested_ro + who("0006") + "\n  rootfs\n"},
      {"06c-agent-restarted-role-labels-user:3",
       "15dc6ff9-0498-4cce-b9c5-89b0d70a7469\n  nfs/vol-team-a on data rw\n" +
           who("0000", "report-2024.11-b", "report job", "analytics", "nobody") +
           " owner=team-a no-value=\n"},
      {"07-executor-killed-while-agent-down:14",
       "11ee3807-2ad8-41ea-baef-7bf59c996406" + nfs_task + who("0007", "task7", "task7") + "\n"},
      {"07b-container-and-cgroup-gone-while-agent-down:3",
       "a26b8453-385e-4d26-840c-3c8dfaf29dea" + nfs_task + who("0001", "task7b", "task7b") + "\n"},
      {"08-agent-meta-lost:6",
       "3e7d28d9-3733-49be-9297-f620658a7d0b" + nfs_task + who("0008", "task8", "task8") + "\n"},
      {"08b-agent-meta-lost-nested:4", parent_08b + "\n" + who("0009") + "\n"},
      {"08b-agent-meta-lost-nested:8",
       parent_08b + ".49ce7aa6-05c8-494c-8ce8-c61e83f2cf2b" + nested_rw + who("0009") + "\n"},
      {"08b-agent-meta-lost-nested:12",
       parent_08b + ".5c911545-5014-4baa-a772-174ac88760a2" + nested_ro + who("0009") + "\n  rootfs\n"},
      {"09-standalone-container:6",
       "standalone-1\n  nfs/vol-standalone on data rw\n" + who("-", "", "", "") + "\n"},
      {"09b-standalone-agent-restarted:10",
       "standalone-2\n  nfs/vol-standalone on data rw\n" + who("-", "", "", "") + "\n"},
      {"09c-nested-debug:3", parent_09c + "\n" + who("0011") + "\n"},
      {"09c-nested-debug:7",
       parent_09c + ".04383e84-fae6-4c89-9196-86d7108c71ce" + nested_rw + who("0011") + "\n"},
      {"09c-nested-debug:8",
       parent_09c + ".291712e8-7a70-4ab3-94ae-c9678eaa730a" + nested_ro + who("0011") + "\n  rootfs\n"},
      {"09c-nested-debug:16",
       parent_09c + ".04383e84-fae6-4c89-9196-86d7108c71ce.debug-1\n" + who("0011") + "\n"},
      {"09c-nested-debug:20",
       "the configuration of container '" + parent_09c +
           ".nested-1' cannot be used: 1 problem\n"
           "  container_info.volumes[0].source.docker_volume.driver: the volume names no driver, and there "
           "is "
           "no default driver (name one in docker_volume.driver, or configure a default)"},
      {"09c-nested-debug:9",
       parent_09c + ".nested-after-restart\n  nfs/vol-late on nd rw\n" + who("0011") + "\n"},
      {"10-csi-volume:18",
       "the configuration of container '9f3c88d7-acb4-46b4-b85f-5c056c69cde2' cannot be used: 1 problem\n"
       "  container_info.volumes[0].source.type: CSI_VOLUME: dvdi has no driver for CSI plugins, and the "
       "task "
       "would run without it (let another isolator mount it and tell dvdi so, or use a Docker volume "
       "driver)"},
      {"11-role-principal-labels-user:27",
       "7572bb6c-76af-484d-ada2-989e0b76e8a5\n  nfs/vol-team-a on data rw\n" +
           who("0014", "report-2024.11-a", "report job", "analytics", "nobody") +
           " owner=team-a no-value=\n"},
      {"11b-reserved-resources-principal:51",
       "e548afd0-75e0-48ee-8de1-142f0eb01d37\n  nfs/vol-team-b on data rw\n" +
           who("0003", "reserved-1", "reserved job", "analytics") + " owner=team-b\n"},
      {"11c-custom-executor:36", "2fda8fb8-4ef8-421e-81cb-d26050837307\n  nfs/vol-on-executor on edata rw\n" +
                                     who("0001", "", "", "analytics", "nobody") + " exec-label=el\n"},
      {"12-host-rebooted:3",
       "d37e2af1-6253-42ca-9f2b-b80f44c08451" + nfs_task + who("0000", "task12", "task12") + "\n"},
  };
  std::map<std::string, std::string> found;
  for (const Call& call : recorded("prepare")) found.emplace(call.place, prepared(call));
  EXPECT_EQ(found.size(), expected.size());
  for (const auto& [place, text] : found) {
    const auto one = expected.find(place);
    EXPECT_EQ(text, one == expected.end() ? "nothing" : one->second) << place;
  }
}

TEST(AgentRecordings, EveryRecover) {
  const std::map<std::string, std::vector<std::string>> expected = {
      {"00-agent-start:2", {}},
      {"06-agent-killed-and-restarted:2",
       {"30528 7051b27e-a85c-4c6d-8c72-045e212f131f" + nfs_task + who("0005", "task6", "", "*", "") + "\n"}},
      {"06b-agent-killed-and-restarted-nested:2",
       {"30599 " + parent_06b + "\n" + who("0006", "", "", "*", "") + "\n",
        "30615 " + parent_06b + ".dc893406-74d4-43a2-af7a-82bfdb13fdda" + nested_ro +
            who("0006", "", "", "", "") + "\n",
        "30612 " + parent_06b + ".296774f5-d9ea-46df-8c42-59244271100e" + nested_rw +
            who("0006", "", "", "", "") + "\n"}},
      {"06c-agent-restarted-role-labels-user:2",
       {"3219 15dc6ff9-0498-4cce-b9c5-89b0d70a7469\n  nfs/vol-team-a on data rw\n" +
        who("0000", "report-2024.11-b", "", "analytics", "nobody") + " owner=team-a no-value=\n"}},
      {"07-executor-killed-while-agent-down:2",
       {"30877 11ee3807-2ad8-41ea-baef-7bf59c996406" + nfs_task + who("0007", "task7", "", "*", "") + "\n"}},
      {"07b-container-and-cgroup-gone-while-agent-down:2",
       {"1094 a26b8453-385e-4d26-840c-3c8dfaf29dea" + nfs_task + who("0001", "task7b", "", "*", "") + "\n"}},
      {"08-agent-meta-lost:2", {"orphan 3e7d28d9-3733-49be-9297-f620658a7d0b"}},
      {"08b-agent-meta-lost-nested:2",
       {"orphan " + parent_08b, "orphan " + parent_08b + ".49ce7aa6-05c8-494c-8ce8-c61e83f2cf2b",
        "orphan " + parent_08b + ".5c911545-5014-4baa-a772-174ac88760a2"}},
      {"09b-standalone-agent-restarted:2",
       {"32325 standalone-2\n  nfs/vol-standalone on data rw\n" + who("-", "", "", "", "") + "\n"}},
      // The first start of that agent is number 2, too.
      {"09c-nested-debug:2",
       {"32680 " + parent_09c + "\n" + who("0011", "", "", "*", "") + "\n",
        "32751 " + parent_09c + ".nested-1\n" + who("0011", "", "", "", "") +
            "\n  ! container_info.volumes[0] is left out: it cannot be used: 1 problem\n"
            "  container_info.volumes[0].source.docker_volume.driver: the volume names no driver, and there "
            "is "
            "no default driver (name one in docker_volume.driver, or configure a default)\n",
        "32693 " + parent_09c + ".04383e84-fae6-4c89-9196-86d7108c71ce" + nested_rw +
            who("0011", "", "", "", "") + "\n",
        "32696 " + parent_09c + ".291712e8-7a70-4ab3-94ae-c9678eaa730a" + nested_ro +
            who("0011", "", "", "", "") + "\n"}},
      {"12-host-rebooted:2", {}},
  };
  std::map<std::string, std::vector<std::string>> found;
  for (const Call& call : recorded("recover")) {
    auto& lines = found[call.place];
    for (const auto& state : call.message.at("containers").as_array()) {
      const auto read = parse_container_state(state);
      ASSERT_TRUE(read) << read.error().text();
      EXPECT_EQ(read->id, read->request.container_id().value());
      EXPECT_EQ(read->directory, json::text_or_empty(state, "directory"));
      lines.push_back(fmt::format("{} {}", read->pid, shown(read->request)));
    }
    for (const auto& id : call.message.at("orphans").as_array()) {
      lines.push_back("orphan " + *container_id_text(id));
    }
  }
  EXPECT_EQ(found.size(), expected.size());
  for (const auto& [place, lines] : found) {
    const auto one = expected.find(place);
    ASSERT_NE(one, expected.end()) << place;
    EXPECT_EQ(lines, one->second) << place;
  }
}

TEST(AgentRecordings, SecretsAreNotKept) {
  for (const Call& call : recorded("prepare")) {
    const auto request = parse_container_config(call.message.at("container_config"), "c",
                                                {.csi_volumes_elsewhere = true, .default_driver = "d"});
    ASSERT_TRUE(request) << call.place << request.error().text();
    const std::string bytes = request->SerializeAsString();
    for (const char* secret : {"aHVudGVyMg==", "hunter2", "cGFzc3dvcmQ=", "user-secret", "TOKEN"}) {
      EXPECT_THAT(bytes, Not(HasSubstr(secret))) << call.place;
    }
  }
}

TEST(AgentRecordings, WhatAnOperatorMayChoose) {
  for (const Call& call : recorded("prepare")) {
    if (call.place == "04-dvdi-environment:30") {
      EXPECT_EQ(prepared(call, {.environment = false}),
                "e20867b3-12eb-410b-9cd7-5b953f5c24e3\n" + who("0003", "task4", "task4") + "\n");
    } else if (call.place == "09c-nested-debug:20") {
      EXPECT_THAT(prepared(call, {.default_driver = "rexray"}), HasSubstr("\n  rexray/"));
    } else if (call.place == "10-csi-volume:18") {
      EXPECT_THAT(prepared(call, {.csi_volumes_elsewhere = true}),
                  HasSubstr("\n  elsewhere: csi-data CSI_VOLUME\n"));
    }
  }
}

// --- ContainerID ---

std::string id_of(std::string_view text) {
  const auto id = container_id_text(parsed(text));
  return id ? *id : "refused: " + id.error().text();
}

TEST(ContainerIdText, ParentsComeFirst) {
  EXPECT_EQ(id_of(R"({"value": "c", "parent": {"value": "b", "parent": {"value": "a"}}})"), "a.b.c");
  EXPECT_EQ(id_of(R"({"value": "My task: 1%é"})").substr(0, 8), "refused:");  // a space
  EXPECT_EQ(id_of(R"({"value": "My_task:1%é", "parent": null, "other": 1})"), "My_task:1%é");
  EXPECT_EQ(id_of(R"("my.task")"), "my.task");
}

TEST(ContainerIdText, WhatWouldBeAmbiguousOrUnsafeIsRefused) {
  for (const char* text :
       {R"({"value": "a.b"})", R"({"value": ".."})", R"({"value": "a/b"})", R"({"value": "a\\b"})",
        R"({"value": "a\u0000"})", R"({"value": "a\n"})", R"({"value": ""})", R"({})", R"({"value": 5})", "5",
        R"({"value": "a", "parent": "b"})", R"({"value": "a", "parent": {"value": "b.c"}})", R"("a/b")",
        R"("")"}) {
    EXPECT_THAT(id_of(text), StartsWith("refused: the container id cannot be used")) << text;
  }
  EXPECT_THAT(id_of(R"({"value": "a", "parent": {"value": "b.c"}})"),
              HasSubstr("container_id.parent.value: 'b.c' is no container id"));
}

TEST(ContainerIdText, HasLimits) {
  std::string deep = R"({"value": "a"})";
  for (std::size_t i = 1; i < max_container_depth; ++i) deep = R"({"value": "a", "parent": )" + deep + "}";
  EXPECT_EQ(id_of(deep).size(), 2 * max_container_depth - 1);
  EXPECT_THAT(id_of(R"({"value": "a", "parent": )" + deep + "}"), HasSubstr("nested deeper than"));

  const std::string long_value(255, 'x');
  EXPECT_EQ(id_of(R"({"value": ")" + long_value + "\"}"), long_value);
  EXPECT_THAT(id_of(R"({"value": "x)" + long_value + "\"}"), StartsWith("refused"));
  std::string longest = R"({"value": ")" + long_value + "\"}";
  for (int i = 0; i < 3; ++i) longest = R"({"value": ")" + long_value + R"(", "parent": )" + longest + "}";
  EXPECT_EQ(id_of(longest).size(), 1023U);
  EXPECT_THAT(id_of(R"({"value": "ab", "parent": )" + longest + "}"),
              HasSubstr("bytes long with its parents"));
}

// --- ContainerConfig ---

std::string config_of(std::string_view text, const AgentRules& rules = {}) {
  const auto request = parse_container_config(parsed(text), "c", rules);
  return request ? shown(*request) : request.error().text();
}

TEST(ContainerConfig, EveryProblemHasItsPlace) {
  EXPECT_EQ(config_of(R"({"directory": "rel", "rootfs": "/", "user": "a b", "command_info": {"environment": {
      "variables": [{"name": "DVDI_VOLUME_NAME", "type": "SECRET", "secret": {}},
                    {"name": "DVDI_VOLUME_NAME1", "value": "a/b"}]}},
      "container_info": {"volumes": [7, {"container_path": "../x", "mode": "XX", "host_path": "/h",
        "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "d", "name": "n"}}},
        {"container_path": "a/../b", "mode": "RO", "host_path": "/h"}]}})"),
            R"(the configuration of container 'c' cannot be used: 10 problems
  directory: the sandbox must be absolute, 'rel' is not
  rootfs: is the host's root
  user: 'a b' is not of the form USER or USER:GROUP
  container_info.volumes[0]: is a number, not a Volume
  container_info.volumes[1]: has both host_path and source: it is not clear where the data lies
  container_info.volumes[1].mode: 'XX' is none of RW, RO
  container_info.volumes[1].container_path: '../x' has a '..' component
  command_info.environment.DVDI_VOLUME_NAME: is a secret: the names of volumes cannot be
  command_info.environment.DVDI_VOLUME_NAME1: a volume name 'a/b' has the character '/', which is not allowed in names)"
            "\n  container_info.volumes[2].container_path: 'a/../b' has a '..' component");
}

TEST(ContainerConfig, OnlyTheCommandsOwnVariablesName) {
  EXPECT_EQ(config_of(R"({"directory": "/s", "command_info": {"environment": {"variables": []}},
      "executor_info": {"command": {"environment": {"variables": [{"name": "DVDI_VOLUME_NAME", "value": "v"}]}}},
      "task_info": {"command": {"environment": {"variables": [{"name": "DVDI_VOLUME_NAME", "value": "v"}]}}}})"),
            "c\n  framework - task  '' role  user \n");
}

TEST(ContainerConfig, APathThatAnotherIsolatorMountsIsTaken) {
  EXPECT_THAT(config_of(R"({"directory": "/s", "container_info": {"volumes": [
      {"container_path": "data/", "mode": "RO", "host_path": "/h"},
      {"container_path": "./data", "mode": "RW",
       "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "d", "name": "n"}}}]}})"),
              HasSubstr("container_info.volumes[0].container_path: the container path 'data' is taken by "
                        "container_info.volumes[1].container_path"));
}

TEST(ContainerConfig, WhatOtherIsolatorsMountIsTheirMatter) {
  EXPECT_EQ(config_of(R"({"directory": "/s", "container_info": {"type": "MESOS", "volumes": [
      {"container_path": "../data", "mode": "RO", "host_path": "/h"},
      {"container_path": "x", "mode": "RW", "source": {"type": "SECRET", "secret": {"value": {"data": "cw=="}}}},
      {"container_path": "x", "mode": "RW", "source": {"type": "HOST_PATH", "host_path": {"path": "/y"}}},
      {"container_path": "i", "mode": "RW", "image": {"type": "DOCKER"}}]}})"),
            "c\n  elsewhere:  /h\n  elsewhere: x SECRET\n  elsewhere: x HOST_PATH\n  elsewhere: i \n"
            "  framework - task  '' role  user \n");
}

TEST(ContainerConfig, ADebugContainerHasNoVolumes) {
  EXPECT_EQ(config_of(R"({"directory": "/s", "container_class": "DEBUG", "command_info": {"environment": {
      "variables": [{"name": "DVDI_VOLUME_NAME", "value": "v"}]}}, "container_info": {"volumes": [
      {"container_path": "d", "mode": "RW",
       "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "d", "name": "n"}}}]}})"),
            "c\n  framework - task  '' role  user \n");
}

TEST(ContainerConfig, AttributionNeverFailsAContainer) {
  const std::string many = [] {
    std::string labels;
    for (std::size_t i = 0; i < max_labels + 5; ++i) {
      labels += fmt::format(R"({}{{"key": "k{}", "value": "v"}})", i == 0 ? "" : ",", i);
    }
    return labels;
  }();
  const auto request = parse_container_config(
      parsed(fmt::format(R"({{"directory": "/s", "resources": {{}}, "executor_info": {{"framework_id": 7}},
        "task_info": {{"name": "a\nb{}", "task_id": {{"value": ""}}, "labels": {{"labels": [{}]}}}},
        "command_info": {{"environment": {{"variables": [{{"name": "MESOS_ALLOCATION_ROLE", "value": "r"}}]}}}}}})",
                         std::string(1000, 'x'), many)),
      "c");
  ASSERT_TRUE(request) << request.error().text();
  EXPECT_THAT(request->attribution().task_name(), StartsWith("a\\x0ab"));
  EXPECT_LE(request->attribution().task_name().size(), max_name_bytes + 3);
  EXPECT_EQ(request->attribution().labels().labels_size(), static_cast<int>(max_labels));
  EXPECT_EQ(request->attribution().role(), "r");
  EXPECT_FALSE(request->attribution().has_principal());
}

TEST(ContainerConfig, TheAllocatedRoleGoesBeforeTheVariable) {
  const auto role = [](const std::string& members) {
    return parse_container_config(
               parsed(R"({"command_info": {"environment": {"variables": [{"name": "MESOS_ALLOCATION_ROLE",
                 "value": "claimed"}]}})" +
                      members + "}"),
               "c")
        ->attribution()
        .role();
  };
  EXPECT_EQ(role(""), "claimed");
  EXPECT_EQ(role(R"(, "executor_info": {"resources": [{}, {"allocation_info": {"role": "parents"}}]})"),
            "parents");
  EXPECT_EQ(role(R"(, "executor_info": {"resources": [{"allocation_info": {"role": "parents"}}]},
                   "resources": [{"allocation_info": {"role": "own"}}])"),
            "own");
}

TEST(ContainerConfig, IsAnObject) {
  EXPECT_THAT(config_of("[]"), HasSubstr("it is an array, not a ContainerConfig"));
  EXPECT_THAT(config_of(R"({"container_info": []})"),
              HasSubstr("container_info: is an array, not an object"));
}

// --- ContainerState ---

TEST(ContainerState, OnlyAnIdThatCannotBeReadIsAnError) {
  EXPECT_FALSE(parse_container_state(parsed("[]")));
  EXPECT_FALSE(parse_container_state(parsed("{}")));
  EXPECT_FALSE(parse_container_state(parsed(R"({"container_id": {"value": "a.b"}})")));
  const auto state = parse_container_state(parsed(R"({"container_id": {"value": "a"}, "pid": -1,
    "directory": "rel", "executor_info": {"command": {"environment": {"variables": [
      {"name": "DVDI_VOLUME_NAME", "value": "a/b"}]}}, "container": {"volumes": [
      {"container_path": "../x", "mode": "RW", "source": {"type": "CSI_VOLUME"}},
      {"container_path": "d", "mode": "RW",
       "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "d", "name": "n"}}}]}}})"));
  ASSERT_TRUE(state) << state.error().text();
  EXPECT_EQ(state->pid, 0);
  EXPECT_EQ(state->directory, "");
  EXPECT_EQ(state->request.container_info().volumes_size(), 1);
  EXPECT_THAT(state->request.warnings(),
              ElementsAre(StartsWith("executor_info.container.volumes[0] is left out"),
                          StartsWith("the volumes of executor_info.command.environment are left out"),
                          HasSubstr("directory: the sandbox must be absolute")));
}

}  // namespace
}  // namespace dvdi::spec
