#include "daemon/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>

#include "daemon/client.h"
#include "daemon/wire.h"
#include "http/client.h"
#include "linux/process.h"

namespace dvdi {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

// One for the program: it forks before there are threads.
HelperPool& helpers() {
  static HelperPool& pool = *HelperPool::start()->release();
  return pool;
}

class ServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: mounts";
    helpers();
    std::string name = "/tmp/dvdi-service-test.XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    config_.state_dir = folder_ + "/state";
    config_.socket = folder_ + "/socket";
    config_.docker.roots.run_dir = folder_ + "/plugins";
    config_.docker.roots.spec_dirs = {};
    start();
  }
  void TearDown() override {
    service_.reset();
    if (!folder_.empty()) {
      ::umount2((config_.state_dir + "/staged").c_str(), MNT_DETACH);
      ::umount2((config_.state_dir + "/local/mnt").c_str(), MNT_DETACH);
      std::error_code error;
      std::filesystem::remove_all(folder_, error);
    }
  }
  void start() {
    auto opened = Service::open(Context(), config_,
                                {.helpers = helpers(),
                                 .version = "test",
                                 .info = [](std::string_view) {},
                                 .warning = [this](std::string_view) { ++warnings_; }});
    ASSERT_TRUE(opened) << opened.error().text();
    service_ = *std::move(opened);
    auto socket = http::listen_unix(config_.socket, 0600);
    ASSERT_TRUE(socket) << socket.error().text();
    const Status serving = service_->serve(*std::move(socket));
    ASSERT_TRUE(serving) << serving.error().text();
  }
  struct Answer {
    long status = 0;
    json::value body;
    std::string text;
  };
  Answer call(http::Method method, const std::string& path, const std::string& body = {}) {
    const auto response =
        http::send(Context().with_timeout(std::chrono::seconds(60)), {.unix_socket = config_.socket},
                   {.method = method, .path = path, .body = body});
    if (!response) {
      ADD_FAILURE() << response.error().text();
      return {};
    }
    auto parsed = json::parse(response->body, "the answer");
    return {.status = response->status, .body = parsed ? *parsed : json::value(), .text = response->body};
  }
  Answer get(const std::string& path) { return call(http::Method::get, path); }
  Answer post(const std::string& path, const std::string& body) {
    return call(http::Method::post, path, body);
  }

  v1::ContainerRequest request(const std::string& id) {
    v1::ContainerRequest request;
    request.mutable_container_id()->set_value(id);
    v1::Volume& volume = *request.mutable_container_info()->add_volumes();
    volume.set_container_path("data");
    volume.set_mode(v1::Volume::RW);
    volume.mutable_source()->set_type(v1::Volume::Source::DOCKER_VOLUME);
    volume.mutable_source()->mutable_docker_volume()->set_driver("local");
    volume.mutable_source()->mutable_docker_volume()->set_name("v");
    request.mutable_container_info()->set_type(v1::ContainerInfo::MESOS);
    return request;
  }

  std::atomic<std::size_t> warnings_ = 0;
  std::string folder_;
  Config config_;
  std::unique_ptr<Service> service_;
  Context context_ = Context().with_timeout(std::chrono::seconds(60));
};

TEST_F(ServiceTest, AClientDoesWhatTheEngineDoes) {
  Client client(config_.socket);
  const auto health = client.health(context_);
  ASSERT_TRUE(health) << health.error().text();
  EXPECT_EQ(health->state_dir, config_.state_dir);
  EXPECT_EQ(health->version, "test");

  const auto prepared = client.prepare(context_, {.owner = "run"}, request("c1"));
  ASSERT_TRUE(prepared) << prepared.error().text();
  EXPECT_EQ(prepared->key.id, "c1");
  EXPECT_EQ(prepared->launch.mounts_size(), 1);
  EXPECT_THAT(prepared->foreign_mount_points, Contains(config_.state_dir));
  const auto again = client.prepare(context_, {.owner = "run"}, request("c1"));
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->launch.SerializeAsString(), prepared->launch.SerializeAsString());

  auto other = request("c1");
  other.mutable_container_info()->mutable_volumes(0)->set_container_path("elsewhere");
  const auto conflict = client.prepare(context_, {.owner = "run"}, other);
  ASSERT_FALSE(conflict);
  EXPECT_EQ(conflict.error().code, Code::conflict);

  ASSERT_TRUE(client.isolate(context_, prepared->key, ::getpid(), false));
  const auto container = client.container(context_, "c1");
  ASSERT_TRUE(container);
  EXPECT_EQ(container->state, "running");
  EXPECT_EQ(container->pid, ::getpid());
  const auto volumes = client.volumes(context_, false);
  ASSERT_TRUE(volumes);
  EXPECT_THAT(volumes->volumes, ElementsAre(Field(&VolumeView::state, "mounted")));
  EXPECT_FALSE(client.remove_volume(context_, "local", "v"));

  const auto owed = client.cleanup(context_, prepared->key);
  ASSERT_TRUE(owed) << owed.error().text();
  EXPECT_THAT(*owed, IsEmpty());
  const auto verified = client.verify_events(context_, nullptr);
  ASSERT_TRUE(verified);
  const auto events = client.events(context_, 0, 1000, {});
  ASSERT_TRUE(events);
  EXPECT_EQ(events->size(), verified->count);
  // Who asked is in what happened.
  EXPECT_THAT(events->back().json, HasSubstr(R"("peer":{"uid":0,)"));
  const auto usage = client.usage(context_, {.by = {"owner", "day"}}, {});
  ASSERT_TRUE(usage) << usage.error().text();
  EXPECT_THAT(usage->rows, Contains(Field(&UsageRow::group, Contains("run"))));
  const auto drivers = client.drivers(context_);
  ASSERT_TRUE(drivers);
  EXPECT_THAT(*drivers, Contains(Field(&volume::DriverStatus::name, "local")));
  EXPECT_TRUE(client.remove_volume(context_, "local", "v"));
}

TEST_F(ServiceTest, ErrorsAreProblemsThatSayWhatToDo) {
  const auto wrong = post("/v1/prepare", R"({"owner": "o", "container_id": {"value": "c"}})");
  EXPECT_EQ(wrong.status, 400);
  EXPECT_EQ(json::text_or_empty(wrong.body, "code"), "invalid_argument");
  EXPECT_THAT(std::string(json::text_or_empty(wrong.body, "detail")), HasSubstr("container_config"));
  EXPECT_EQ(post("/v1/prepare", "{").status, 400);
  EXPECT_EQ(post("/v1/prepare", "[]").status, 400);
  EXPECT_EQ(post("/v1/isolate", R"({"owner": "o", "container_id": "c", "pid": "1"})").status, 400);
  EXPECT_EQ(post("/v1/isolate", R"({"owner": "o", "container_id": "c", "pid": 1})").status, 409);
  EXPECT_EQ(get("/nothing").status, 404);
  EXPECT_EQ(get("/v1/containers/a/b").status, 404);
  EXPECT_EQ(get("/v1/volumes/nosuchdriver/x").status, 404);
  EXPECT_EQ(get("/v1/containers?such=1").status, 400);
  EXPECT_EQ(get("/v1/events?after=x").status, 400);
  EXPECT_EQ(get("/v1/usage?by=colour").status, 400);
  EXPECT_EQ(
      post("/v1/usage", R"({"by": ["role"], "prices": {"currency": "EUR", "rules": [{"per_mount": 1}]}})")
          .status,
      400);
  EXPECT_EQ(call(http::Method::del, "/v1/volumes").status, 501);
  EXPECT_EQ(get("/v1/%zz").status, 400);
}

TEST_F(ServiceTest, ARequestOfAnyFormIsPreparedForAnotherLauncher) {
  const auto prepared = post("/v1/prepare", R"({"owner": "shell", "container_id": "c",
      "request": [{"container_path": "data", "mode": "RO", "source": {"type": "DOCKER_VOLUME",
                   "docker_volume": {"driver": "local", "name": "v"}}}]})");
  ASSERT_EQ(prepared.status, 200) << prepared.text;
  const json::value& mounts = prepared.body.at("launch_info").at("mounts");
  ASSERT_EQ(mounts.as_array().size(), 1U);
  EXPECT_THAT(std::string(json::text_or_empty(mounts.at(0), "source")),
              testing::StartsWith(config_.state_dir + "/staged/"));
  const auto cleaned = post("/v1/cleanup", R"({"owner": "shell", "container_id": {"value": "c"}})");
  EXPECT_EQ(cleaned.status, 200);
  EXPECT_EQ(cleaned.text, "{\"owed\":[]}\n");
  // Repeated, and of what was never there: the same.
  EXPECT_EQ(post("/v1/cleanup", R"({"owner": "shell", "container_id": {"value": "c"}})").text, cleaned.text);
  EXPECT_EQ(post("/v1/cleanup", R"({"owner": "other", "container_id": "c"})").text, cleaned.text);
}

TEST_F(ServiceTest, EventsAreFollowedAsTheyCome) {
  std::vector<std::string> lines;
  Client client(config_.socket);
  ASSERT_TRUE(client.create_volume(context_, "local", "first", {}));
  bool second = false;
  const auto ended = http::stream(context_, {.unix_socket = config_.socket},
                                  {.path = "/v1/events?follow=true"}, {}, [&](std::string_view piece) {
                                    lines.emplace_back(piece);
                                    if (!second) {
                                      second = true;
                                      EXPECT_TRUE(client.create_volume(context_, "local", "second", {}));
                                    }
                                    return piece.find("second") == std::string_view::npos;
                                  });
  EXPECT_TRUE(ended) << ended.error().text();
  EXPECT_THAT(lines, SizeIs(2));
  EXPECT_THAT(lines.back(), Not(HasSubstr("first")));
}

TEST_F(ServiceTest, TheStateDirectoryIsItsOwnWhileItLives) {
  const auto other = Engine::open(context_, config_, helpers());
  ASSERT_FALSE(other);
  EXPECT_TRUE(daemon_is_away(other.error()));
  EXPECT_TRUE(service_->drain(context_));
  service_.reset();
  EXPECT_TRUE(Engine::open(context_, config_, helpers()));
  Client client(config_.socket);
  const auto gone = client.containers(context_, false);
  ASSERT_FALSE(gone);
  EXPECT_TRUE(daemon_is_away(gone.error()));
}

TEST_F(ServiceTest, WhatWasPreparedBeforeARestartIsThereAfterwards) {
  Client client(config_.socket);
  const auto before = client.prepare(context_, {.owner = "run"}, request("c1"));
  ASSERT_TRUE(before) << before.error().text();
  service_.reset();
  start();
  const auto after = client.prepare(context_, {.owner = "run"}, request("c1"));
  ASSERT_TRUE(after) << after.error().text();
  EXPECT_EQ(after->launch.SerializeAsString(), before->launch.SerializeAsString());
  const auto owed = client.cleanup(context_, after->key);
  ASSERT_TRUE(owed);
  EXPECT_THAT(*owed, IsEmpty());
}

TEST_F(ServiceTest, MetricsAndHealthAnswer) {
  EXPECT_EQ(get("/healthz").status, 200);
  const auto metrics = get("/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_THAT(metrics.text, HasSubstr("dvdi_mounts{state=\"mounted\"} 0\n"));
  EXPECT_THAT(metrics.text, HasSubstr("dvdi_build_info{version=\"test\"} 1\n"));
  EXPECT_THAT(metrics.text,
              HasSubstr("dvdi_http_requests_total{method=\"GET\",route=\"/healthz\",code=\"200\"} 1\n"));
  EXPECT_THAT(metrics.text, HasSubstr("dvdi_http_requests_running "));
}

TEST_F(ServiceTest, MetricsOnTcpComeAndGoWithAReload) {
  // Free a moment ago.
  auto free = http::listen_tcp("127.0.0.1:0");
  ASSERT_TRUE(free);
  sockaddr_in at{};
  socklen_t size = sizeof at;
  ASSERT_EQ(::getsockname(free->get(), reinterpret_cast<sockaddr*>(&at), &size), 0);
  Config changed = config_;
  changed.metrics_listen = "127.0.0.1:" + std::to_string(ntohs(at.sin_port));
  const auto status = [&] {
    const auto answer = http::send(Context().with_timeout(std::chrono::seconds(60)),
                                   {.url = "http://" + changed.metrics_listen}, {.path = "/metrics"});
    return answer ? answer->status : 0;
  };
  const std::size_t warnings = warnings_;
  // Somebody has it: the daemon serves all the same, and says so.
  ASSERT_TRUE(service_->reload(changed));
  EXPECT_EQ(warnings_, warnings + 1);
  EXPECT_EQ(get("/healthz").status, 200);
  free->reset();
  ASSERT_TRUE(service_->reload(changed));
  EXPECT_EQ(status(), 200);
  ASSERT_TRUE(service_->reload(config_));
  EXPECT_EQ(status(), 0);
}

TEST_F(ServiceTest, ReloadTakesOverWhatCanChange) {
  Config changed = config_;
  changed.agent.default_driver = "local";
  changed.drain_timeout = std::chrono::seconds(7);
  const auto rest = service_->reload(changed);
  ASSERT_TRUE(rest);
  EXPECT_THAT(*rest, ElementsAre());
  EXPECT_EQ(service_->drain_timeout(), std::chrono::seconds(7));
  changed.access.group = "no such group";
  changed.drain_timeout = std::chrono::seconds(8);
  EXPECT_FALSE(service_->reload(changed));
  EXPECT_EQ(service_->drain_timeout(), std::chrono::seconds(7));
}

TEST_F(ServiceTest, ReloadSaysEachTimeWhatNeedsARestart) {
  const std::vector<std::pair<std::string, std::string>> keys = {
      {"socket = '/elsewhere'", "socket"},
      {"sandbox_in_container = '/elsewhere'", "sandbox_in_container"},
      {"[deadlines]\nmount = 1", "[deadlines]"},
      {"[deadlines]\nunmount = 1", "[deadlines]"},
      {"[deadlines]\nother = 1", "[deadlines]"},
      {"[limits]\ncalls_per_driver = 1", "[limits]"},
      {"[limits]\ncalls_waiting = 1", "[limits]"},
      {"[debts]\nattempts = 1", "[debts]"},
      {"[debts]\nbackoff = 2", "[debts]"},
      {"[debts]\nbackoff_cap = 1", "[debts]"},
      {"[debts]\nlate_answer = 1", "[debts]"},
      {"[secrets]\noptions = []", "[secrets]"},
      {"[docker]\nplugin_dir = '/elsewhere'", "[docker]"},
      {"[docker]\nspec_dirs = ['/elsewhere']", "[docker]"},
      {"[docker]\nconnect_patience = 1", "[docker]"},
      {"[docker]\nplain_directories = true", "[docker]"},
      {"[sink.x]\ntype = 'file'\npath = '/x'", "[sink]"},
      {"[driver.x]\nplain_directories = true", "[driver]"},
      {"[driver.x]\ncalls_at_once = 1", "[driver]"},
      {"[driver.x]\ndeadlines.get = 1", "[driver]"},
  };
  const auto none = service_->reload(config_);
  ASSERT_TRUE(none);
  EXPECT_THAT(*none, ElementsAre());
  for (const auto& [text, name] : keys) {
    auto changed = parse_config(text, "dvdi.toml");
    ASSERT_TRUE(changed) << changed.error().text();
    changed->state_dir = config_.state_dir;
    if (name != "socket") changed->socket = config_.socket;
    if (!text.contains("plugin_dir") && !text.contains("spec_dirs"))
      changed->docker.roots = config_.docker.roots;
    for (int again = 0; again < 2; ++again) {
      const auto rest = service_->reload(*changed);
      ASSERT_TRUE(rest);
      EXPECT_THAT(*rest, ElementsAre(name)) << text;
    }
  }
}

}  // namespace
}  // namespace dvdi
