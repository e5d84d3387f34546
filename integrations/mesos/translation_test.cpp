#include "translation.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "base/json.h"
#include "container_paths.h"

namespace dvdi_mesos {
namespace {

using dvdi::json::value;
using testing::HasSubstr;
using testing::Not;
using What = PrepareDocument::What;

const std::string place = "/mnt/mesos/sandbox";

value json(const std::string& text) { return dvdi::json::parse(text, "a test").value(); }

std::vector<value> recorded(const std::string& file, const std::string& call) {
  std::ifstream lines(std::string(DVDI_TEST_DATA) + "/mesos/" + file + ".jsonl");
  EXPECT_TRUE(lines.is_open()) << file;
  std::vector<value> found;
  for (std::string line; std::getline(lines, line);) {
    value read = json(line);
    if (read.at("call") == value(call)) found.push_back(std::move(read));
  }
  return found;
}

PrepareDocument translate_call(const value& call, const Rules& rules = {}) {
  return prepare_document("/var/lib/mesos", serialize(call.at("container_id")),
                          serialize(call.at("container_config")), place, rules);
}

PrepareDocument translate(const std::string& config, const Rules& rules = {}) {
  return prepare_document("/o", R"({"value":"c"})", config, place, rules);
}

std::string volume(const std::string& path, const std::string& source) {
  return R"({"container_path":")" + path + R"(","mode":"RW","source":)" + source + "}";
}
std::string docker(const std::string& path, const std::string& more = R"("driver":"nfs","name":"n")") {
  return volume(path, R"({"type":"DOCKER_VOLUME","docker_volume":{)" + more + "}}");
}
std::string config(const std::string& volumes, const std::string& more = "") {
  return R"({"directory":"/s","command_info":{},"container_info":{"type":"MESOS","volumes":[)" + volumes +
         "]}" + more + "}";
}

// What is sent of every recorded prepare, in full: the filter is a list of what is let through.
TEST(PrepareDocument, OfARecordedCommandTask) {
  const PrepareDocument document = translate_call(recorded("01-command-task-host", "prepare").at(0));
  ASSERT_EQ(document.what, What::call) << document.text;
  EXPECT_EQ(json(document.text), json(R"({
    "owner": "/var/lib/mesos",
    "container_id": {"value": "2981fbb8-b666-43fb-b61d-f7fb74c88ea7"},
    "container_config": {
      "directory": "/var/lib/mesos/slaves/49d1c5c7-ccc8-4f69-9ad1-5a168a93fc28-S0/frameworks/49d1c5c7-ccc8-4f69-9ad1-5a168a93fc28-0000/executors/task1/runs/2981fbb8-b666-43fb-b61d-f7fb74c88ea7",
      "user": "root",
      "container_info": {"type": "MESOS", "volumes": [
        {"container_path": "data", "mode": "RW", "source": {"type": "DOCKER_VOLUME", "docker_volume": {
          "driver": "nfs", "name": "vol-one", "driver_options": {"parameter": [
            {"key": "size", "value": "5"}, {"key": "mountopts", "value": "nolock,vers=4.1"}]}}}}]},
      "executor_info": {"executor_id": {"value": "task1"}, "name": "Command Executor ", "source": "task1",
        "framework_id": {"value": "49d1c5c7-ccc8-4f69-9ad1-5a168a93fc28-0000"},
        "resources": [{"allocation_info": {"role": "*"}}]},
      "resources": [{"allocation_info": {"role": "*"}}],
      "task_info": {"name": "task1", "task_id": {"value": "task1"}}}})"));
}

TEST(PrepareDocument, NothingOfAnyRecordedCallThatIsNobodysBusiness) {
  std::size_t calls = 0;
  for (const auto& file : std::filesystem::directory_iterator(std::string(DVDI_TEST_DATA) + "/mesos")) {
    if (file.path().extension() != ".jsonl") continue;
    Rules rules;
    rules.csi_volumes_elsewhere = true;
    std::vector<std::string> sent;
    for (const value& call : recorded(file.path().stem(), "prepare")) {
      sent.push_back(translate_call(call, rules).text);
    }
    for (const value& call : recorded(file.path().stem(), "recover")) {
      for (const value& state : call.at("containers").as_array()) {
        sent.push_back(live_container(serialize(state), rules).document);
      }
    }
    for (const std::string& one : sent) {
      ++calls;
      for (const char* secret : {"cGFzc3", "sleep", "launcher_dir", "SECRET_", "hunter", "manifest", "scalar",
                                 "ephemeral", "arguments", "csi_volume", "secret", "--user"}) {
        EXPECT_THAT(one, Not(HasSubstr(secret))) << file.path();
      }
    }
  }
  EXPECT_GT(calls, 30U);
}

TEST(PrepareDocument, ContainersWithoutExternalVolumesNeedNoDaemon) {
  EXPECT_EQ(translate_call(recorded("05-task-group", "prepare").at(0)).what, What::nothing);
  EXPECT_EQ(translate_call(recorded("05-task-group", "prepare").at(1)).what, What::call);
  EXPECT_EQ(translate(config("")).what, What::nothing);
  EXPECT_EQ(translate(R"({"directory":"/s","command_info":{}})").what, What::nothing);
  EXPECT_EQ(translate(config(R"({"container_path":"h","mode":"RW","host_path":"/h"})")).what, What::nothing);
  Rules rules;
  rules.csi_volumes_elsewhere = true;
  EXPECT_EQ(translate_call(recorded("10-csi-volume", "prepare").at(0), rules).what, What::nothing);
}

TEST(PrepareDocument, ADebugContainerHasNoVolumesOfItsOwn) {
  EXPECT_EQ(translate(config(docker("d"), R"(,"container_class":"DEBUG")")).what, What::nothing);
  EXPECT_EQ(translate(config(docker("d"), R"(,"container_class":"DEFAULT")")).what, What::call);
}

TEST(PrepareDocument, ACsiVolumeIsRefusedUnlessAnotherIsolatorMountsIt) {
  const PrepareDocument document = translate_call(recorded("10-csi-volume", "prepare").at(0));
  EXPECT_EQ(document.what, What::refused);
  EXPECT_THAT(document.text,
              HasSubstr("container path 'csi-data' is a CSI_VOLUME (plugin 'org.example.csi')"));
  EXPECT_THAT(document.text, HasSubstr("csi_volumes_elsewhere"));
}

TEST(PrepareDocument, TheOldVariablesAndNoOthers) {
  const value call = recorded("04-dvdi-environment", "prepare").at(0);
  const PrepareDocument document = translate_call(call);
  ASSERT_EQ(document.what, What::call);
  const value sent =
      json(document.text).at("container_config").at("command_info").at("environment").at("variables");
  EXPECT_EQ(sent.as_array().size(), 6U);
  EXPECT_EQ(sent.at(0), json(R"({"name":"DVDI_VOLUME_OPTS","value":"size=5,iops=150"})"));
  Rules rules;
  rules.environment_volumes = false;
  EXPECT_EQ(translate_call(call, rules).what, What::nothing);
}

TEST(PrepareDocument, VariablesThatAskForNothing) {
  const auto with = [](const std::string& name, const std::string& text) {
    return translate(R"({"directory":"/s","command_info":{"environment":{"variables":[{"name":")" + name +
                     R"(","type":"VALUE","value":")" + text + R"("},{"name":"OTHER","value":"x"}]}}})");
  };
  EXPECT_EQ(with("DVDI_VOLUME_NAME", "").what, What::nothing);
  EXPECT_EQ(with("DVDI_VOLUME_DVDCLI", "/usr/bin/dvdcli").what, What::nothing);
  EXPECT_EQ(with("MESOS_ALLOCATION_ROLE", "r").what, What::nothing);
  EXPECT_EQ(with("DVDI_VOLUME_DRIVER", "x").what, What::call);  // without a name: dvdid says what is wrong
  EXPECT_THAT(with("DVDI_VOLUME_NAME", "x").text, Not(HasSubstr("OTHER")));
}

TEST(PrepareDocument, ASecretVariableIsNamedWithoutItsValue) {
  const PrepareDocument document = translate(
      R"({"directory":"/s","command_info":{"environment":{"variables":[{"name":"DVDI_VOLUME_NAME","type":"SECRET",
          "secret":{"type":"VALUE","value":{"data":"cGFzcw=="}}}]}}})");
  EXPECT_EQ(document.what, What::call);
  EXPECT_THAT(document.text, HasSubstr(R"("name":"DVDI_VOLUME_NAME","type":"SECRET")"));
  EXPECT_THAT(document.text, Not(HasSubstr("cGFzcw")));
}

TEST(PrepareDocument, DefaultDriverAndOwnershipWhereAVolumeDoesNotSay) {
  Rules rules;
  rules.default_driver = "nfs";
  rules.ownership = "user";
  const auto sent = [&](const std::string& docker_volume) {
    const value read = json(translate(config(docker("d", docker_volume)), rules).text);
    return serialize(read.at("container_config")
                         .at("container_info")
                         .at("volumes")
                         .at(0)
                         .at("source")
                         .at("docker_volume"));
  };
  EXPECT_EQ(
      json(sent(R"("name":"n")")),
      json(
          R"({"driver":"nfs","name":"n","driver_options":{"parameter":[{"key":"dvdi.ownership","value":"user"}]}})"));
  EXPECT_THAT(sent(R"("name":"n","driver":"own")"), HasSubstr(R"("driver":"own")"));
  for (const char* said :
       {R"("key":"dvdi.ownership","value":"none")", R"("key":"dvdi/dvdi.ownership","value":"none")",
        R"("key":"dvdi.host-only","value":"true")"}) {
    EXPECT_THAT(sent(R"("name":"n","driver_options":{"parameter":[{)" + std::string(said) + "}]}"),
                Not(HasSubstr(R"("value":"user")")));
  }
}

TEST(PrepareDocument, APathThatLiesInAnotherIsolatorsNamesBoth) {
  const PrepareDocument document =
      translate(config(docker("a/b") + R"(,{"container_path":"a","mode":"RW","host_path":"/h"})"));
  EXPECT_EQ(document.what, What::refused);
  EXPECT_THAT(document.text,
              HasSubstr("'a/b' of volume 'n' of driver 'nfs' lies in the container path 'a' of host "
                        "path '/h', which another isolator mounts"));
  // dvdid is not told of a CSI volume, so here nobody else would notice.
  Rules rules;
  rules.csi_volumes_elsewhere = true;
  const std::string csi = volume("a/b/c", R"({"type":"CSI_VOLUME","csi_volume":{"plugin_name":"p"}})");
  EXPECT_THAT(translate(config(docker("a/b") + "," + csi), rules).text,
              HasSubstr("has in it the container path 'a/b/c'"));
}

TEST(ContainerPaths, Together) {
  const auto apart = [](const std::string& ours, const std::string& theirs, const View& view) {
    return check_apart({{ours, "o", true}, {theirs, "t", false}}, view).empty();
  };
  const View host{"/s", false};
  EXPECT_TRUE(apart("a", "ab", host));
  EXPECT_FALSE(apart("a", "a", host));
  EXPECT_FALSE(apart("a//./b/", "a/b", host));
  EXPECT_FALSE(apart("/s/a/b", "a", host));
  EXPECT_TRUE(apart("/mnt/a", "/mnt/b", host));
  EXPECT_FALSE(apart("/mnt/a", "/mnt", host));
  EXPECT_FALSE(apart("/", "a", host));
  EXPECT_TRUE(apart("", "a", host));
  EXPECT_FALSE(apart("/mnt/mesos/sandbox/a", "a/b", {place, true}));
  EXPECT_TRUE(check_apart({{"a", "x", true}, {"a/b", "y", true}}, host).empty());
}

TEST(PrepareDocument, OtherIsolatorsVolumesWithoutWhatTheyHold) {
  Rules rules;
  rules.csi_volumes_elsewhere = true;
  const PrepareDocument document = translate(
      config(docker("d") + "," + volume("s", R"({"type":"SECRET","secret":{"value":{"data":"cGFzcw=="}}})") +
             "," + volume("c", R"({"type":"CSI_VOLUME","csi_volume":{"plugin_name":"p"}})") + "," +
             volume("h", R"({"type":"HOST_PATH","host_path":{"path":"/h"}})")),
      rules);
  const value sent = json(document.text).at("container_config").at("container_info").at("volumes");
  EXPECT_EQ(sent.at(1), json(R"({"container_path":"s","mode":"RW","source":{"type":"SECRET"}})"));
  EXPECT_EQ(sent.at(2), json(R"({"container_path":"c","mode":"RW","source":{"type":"UNKNOWN"}})"));
  EXPECT_EQ(
      sent.at(3),
      json(R"({"container_path":"h","mode":"RW","source":{"type":"HOST_PATH","host_path":{"path":"/h"}}})"));
}

TEST(PrepareDocument, ReservationsAndLabels) {
  const std::string sent = translate_call(recorded("11b-reserved-resources-principal", "prepare").at(0)).text;
  EXPECT_THAT(sent, HasSubstr(R"("principal":)"));
  EXPECT_THAT(sent, HasSubstr(R"("reservations":)"));
  EXPECT_THAT(translate_call(recorded("11-role-principal-labels-user", "prepare").at(0)).text,
              HasSubstr(R"("labels":)"));
}

TEST(PrepareDocument, WhatIsNoJsonIsRefused) {
  EXPECT_EQ(translate("{").what, What::refused);
  EXPECT_EQ(translate("[]").what, What::refused);
  // A byte that is no UTF-8 must not become an exception.
  EXPECT_EQ(translate(config(docker("\xff"))).what, What::refused);
}

TEST(Ids, OfNestedContainers) {
  EXPECT_EQ(container_key(R"({"value":"c","parent":{"value":"b","parent":{"value":"a"}}})"), "a.b.c");
  EXPECT_EQ(container_key(R"({"parent":{"value":"a"}})"), "");
  EXPECT_EQ(container_key("1"), "");
  EXPECT_EQ(json(cleanup_document("/o", R"({"value":"c","parent":{"value":"a"},"x":1})")),
            json(R"({"owner":"/o","container_id":{"value":"c","parent":{"value":"a"}}})"));
  EXPECT_EQ(json(isolate_document("/o", R"({"value":"c"})", 7)),
            json(R"({"owner":"/o","container_id":{"value":"c"},"pid":7})"));
}

TEST(RecoverDocument, OfRecordedLists) {
  const value call = recorded("06b-agent-killed-and-restarted-nested", "recover").at(0);
  std::vector<LiveContainer> live;
  for (const value& state : call.at("containers").as_array())
    live.push_back(live_container(serialize(state), {}));
  ASSERT_EQ(live.size(), 3U);
  EXPECT_FALSE(live[0].external);
  EXPECT_TRUE(live[1].external);
  EXPECT_TRUE(live[2].external);
  EXPECT_EQ(live[1].key, live[0].key + ".dc893406-74d4-43a2-af7a-82bfdb13fdda");
  const value sent = json(recover_document("/var/lib/mesos", live, {R"({"value":"o"})"}));
  EXPECT_EQ(sent.at("complete"), value(true));
  EXPECT_EQ(sent.at("containers").as_array().size(), 3U);
  EXPECT_EQ(sent.at("containers")
                .at(1)
                .at("container_info")
                .at("volumes")
                .at(0)
                .at("source")
                .at("docker_volume")
                .at("name"),
            value("vol-nested"));
  EXPECT_EQ(sent.at("orphans"), json(R"([{"value":"o"}])"));
  const value user = json(
      live_container(
          serialize(recorded("06c-agent-restarted-role-labels-user", "recover").at(0).at("containers").at(0)),
          {})
          .document);
  EXPECT_EQ(user.at("executor_info").at("command").at("user"), value("nobody"));
}

TEST(KnownContainers, OfOneOwner) {
  std::set<std::string> ids;
  EXPECT_TRUE(
      known_containers(R"({"containers":[{"owner":"/o","id":"a.b"},{"owner":"run","id":"x"}]})", "/o", ids));
  EXPECT_EQ(ids, std::set<std::string>{"a.b"});
  EXPECT_FALSE(known_containers("{}", "/o", ids));
}

TEST(LaunchInfo, MountsInTheirOrderWithTheirFlags) {
  LaunchInfo info;
  std::string error;
  ASSERT_TRUE(read_launch_info(R"({"launch_info":{"clone_namespaces":[131072],"mounts":[
      {"target":"/s/b","source":"/st/0","flags":4096,"type":"t","options":"o"},
      {"target":"/s/a","source":"/st/1","flags":20481}]}})",
                               info, error));
  EXPECT_EQ(info.clone_namespaces, std::vector<int>{131072});
  ASSERT_EQ(info.mounts.size(), 2U);
  EXPECT_EQ(info.mounts[0].target, "/s/b");
  EXPECT_EQ(info.mounts[0].type, "t");
  EXPECT_EQ(info.mounts[1].flags, 20481U);
}

TEST(LaunchInfo, WhatNoLauncherCanMountIsAnError) {
  for (const char* wrong :
       {R"({"target":"s","source":"/st","flags":1})", R"({"target":"/s","source":"st","flags":1})",
        R"({"target":"/s","source":"/st"})", R"({"target":"/s","source":"/st","flags":4294967296})",
        R"({"target":"/s","source":"/st","flags":-1})"}) {
    LaunchInfo info;
    std::string error;
    EXPECT_FALSE(read_launch_info(std::string(R"({"launch_info":{"mounts":[)") + wrong + "]}}", info, error))
        << wrong;
    EXPECT_THAT(error, HasSubstr("no launcher"));
  }
  LaunchInfo info;
  std::string error;
  EXPECT_FALSE(read_launch_info("", info, error));
}

TEST(SandboxPlace, OfAgentAndDaemonMustBeTheSame) {
  const std::string with =
      config(docker("data") + "," + docker("/mnt/x", R"("driver":"a","name":"b")"), R"(,"rootfs":"/r")");
  LaunchInfo info;
  info.mounts = {{"/r/mnt/mesos/sandbox/data", "/st/0", "", "", 0}};
  EXPECT_EQ(check_sandbox_place(with, place, info, {}), "");
  EXPECT_THAT(check_sandbox_place(with, "/elsewhere", info, {}), HasSubstr("sandbox_in_container"));
  EXPECT_EQ(check_sandbox_place(config(docker("data")), "/elsewhere", info, {}), "");
}

TEST(SandboxPlace, OfVolumesThatVariablesNameToo) {
  const std::string config =
      R"({"rootfs":"/r","directory":"/w","command_info":{"environment":{"variables":[
          {"name":"DVDI_VOLUME_NAME","value":"v"},{"name":"DVDI_VOLUME_CONTAINERPATH","value":"/sandbox/data"}]}}})";
  LaunchInfo info;
  EXPECT_THAT(check_sandbox_place(config, "/sandbox", info, {}), HasSubstr("DVDI_VOLUME_CONTAINERPATH"));
  info.mounts.emplace_back();
  info.mounts.back().target = "/r/sandbox/data";
  EXPECT_EQ(check_sandbox_place(config, "/sandbox", info, {}), "");
}

TEST(Bytes, ThatAreNoUtf8RefuseOnlyExternalVolumes) {
  const std::string before = R"({"directory":"/w","command_info":{"value":"caf)";
  const std::string plain = before + "\xE9" + R"("}})";
  EXPECT_EQ(prepare_document("/o", R"({"value":"c"})", plain, "/s", {}).what, What::nothing);
  const std::string external =
      before + "\xE9" +
      R"("},"container_info":{"type":"MESOS","volumes":[{"container_path":"d","mode":"RW","source":{"type":"DOCKER_VOLUME",
          "docker_volume":{"driver":"x","name":"n"}}}]}})";
  const PrepareDocument document = prepare_document("/o", R"({"value":"c"})", external, "/s", {});
  EXPECT_EQ(document.what, What::refused);
  EXPECT_THAT(document.text, HasSubstr("no UTF-8"));
  const LiveContainer live = live_container(
      std::string(
          R"({"container_id":{"value":"c"},"directory":"/w","executor_info":{"executor_id":{"value":"e"},"source":")") +
          "\xE9" + R"("}})",
      {});
  EXPECT_EQ(live.key, "c");
}

TEST(FormerMounts, TakeThePlaceOfTheVariablesThatHadAskedForThem) {
  const std::string state =
      R"({"container_id":{"value":"c"},"executor_info":{"executor_id":{"value":"e"},"command":{
      "environment":{"variables":[{"name":"DVDI_VOLUME_NAME","value":"v"},{"name":"MESOS_ALLOCATION_ROLE","value":"r"}]}}}})";
  LiveContainer live = live_container(state, {});
  ASSERT_THAT(live.document, HasSubstr("DVDI_VOLUME_NAME"));
  FormerMount mount;
  mount.container = "another";
  EXPECT_FALSE(add_former_mounts(live, {mount}));
  mount.container = "c";
  mount.driver = "d";
  mount.volume = "v";
  EXPECT_TRUE(add_former_mounts(live, {mount}));
  EXPECT_THAT(live.document, Not(HasSubstr("DVDI_VOLUME_NAME")));
  EXPECT_THAT(live.document, HasSubstr("MESOS_ALLOCATION_ROLE"));
  EXPECT_THAT(live.document, HasSubstr(R"("docker_volume":{"driver":"d")"));
  EXPECT_THAT(live.document, HasSubstr(R"({"key":"dvdi.host-only","value":"true"})"))
      << "it had no container path";
}

}  // namespace
}  // namespace dvdi_mesos
