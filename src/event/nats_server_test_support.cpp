#include "event/nats_server_test_support.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "base/sha256.h"

namespace dvdi {

NatsServer::NatsServer(std::string config) : config_(std::move(config)) {
  std::string pattern = "/tmp/dvdi-nats-XXXXXX";
  folder_ = mkdtemp(pattern.data());
  for (auto at = config_.find("STORE"); at != std::string::npos; at = config_.find("STORE"))
    config_.replace(at, 5, folder_ + "/store");
  for (auto at = config_.find("FOLDER"); at != std::string::npos; at = config_.find("FOLDER"))
    config_.replace(at, 6, folder_);
}

NatsServer::~NatsServer() {
  kill();
  std::filesystem::remove_all(folder_);
}

void NatsServer::start() {
  const std::string config = write("nats.conf", config_);
  std::array<int, 2> log{};
  ASSERT_EQ(::pipe2(log.data(), O_CLOEXEC), 0);
  const std::array<const char*, 8> arguments{"nats-server", "-c", config.c_str(), "-a",
                                             "127.0.0.1",   "-p", port_.c_str(),  nullptr};
  pid_ = ::fork();
  ASSERT_GE(pid_, 0);
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(log[1], STDERR_FILENO);
    for (const char* const path :
         {"/usr/sbin/nats-server", "/usr/bin/nats-server", "/usr/local/bin/nats-server"})
      ::execv(path, const_cast<char* const*>(arguments.data()));
    constexpr std::string_view missing = "nats-server is not installed: tools/packages install test\n";
    static_cast<void>(!::write(STDERR_FILENO, missing.data(), missing.size()));
    ::_exit(127);
  }
  ::close(log[1]);
  if (log_ >= 0) ::close(log_);
  log_ = log[0];  // kept open: it writes on
  std::string said;
  std::array<char, 4096> buffer{};
  while (said.find("Server is ready") == std::string::npos) {
    const ssize_t got = ::read(log_, buffer.data(), buffer.size());
    ASSERT_GT(got, 0) << "nats-server ended: " << said;
    said.append(buffer.data(), static_cast<std::size_t>(got));
  }
  const std::string listening = "Listening for client connections on 127.0.0.1:";
  const auto at = said.find(listening);
  ASSERT_NE(at, std::string::npos) << said;
  port_ = said.substr(at + listening.size(), said.find('\n', at) - at - listening.size());
}

void NatsServer::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = 0;
  ::close(log_);
  log_ = -1;
}

void NatsServer::signal(int number) const {
  ASSERT_EQ(::kill(pid_, number), 0);
  // Until each of its threads has stopped.
  if (number == SIGSTOP) {
    ASSERT_EQ(::waitpid(pid_, nullptr, WUNTRACED), pid_);
  }
}

std::string NatsServer::write(const std::string& name, std::string_view text, mode_t mode) const {
  const std::string path = folder_ + "/" + name;
  std::ofstream(path, std::ios::binary) << text;
  EXPECT_EQ(::chmod(path.c_str(), mode), 0);
  return path;
}

std::string NatsServer::url(const std::string& scheme, const std::string& host) const {
  return fmt::format("{}://{}:{}", scheme, host, port_);
}

std::vector<StoredEvent> test_events(const std::string& node, std::uint64_t first, std::uint64_t last,
                                     const std::string& text) {
  std::vector<StoredEvent> events;
  std::string previous = genesis_hash();
  for (std::uint64_t sequence = 1; sequence <= last; ++sequence) {
    const Event event{.type = sequence % 2 == 0 ? "dvdi.mount.mounted" : "dvdi.mount.mounting",
                      .volume = VolumeKey{.driver = "local", .name = "v"},
                      .reason = text};
    StoredEvent stored{
        .sequence = sequence,
        .body = event_body(event, sequence, node, previous, WallTime(std::chrono::days(20000))),
        .hash = {}};
    stored.hash = previous = sha256_hex(stored.body);
    if (sequence >= first) events.push_back(std::move(stored));
  }
  return events;
}

}  // namespace dvdi
