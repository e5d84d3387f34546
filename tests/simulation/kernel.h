// The simulated kernel: its mount table and its processes. It outlives the engine's crashes and ends with the
// machine.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "linux/machine.h"

namespace dvdi::simulation {

class Kernel final : public SimulatedMachine {
 public:
  struct Mount {
    std::uint64_t id = 0;
    std::string mount_point;
    std::string source;
    std::uint32_t minor = 0;
    // A FUSE process or a machine in the network behind it; what it does when somebody looks.
    enum class Server { none, answers, silent, gone } server = Server::none;
  };

  std::uint64_t mount(const std::string& mount_point, const std::string& source, bool has_server);
  // The topmost at that place; its id, or nothing if there was none.
  std::optional<std::uint64_t> unmount(const std::string& mount_point);
  const Mount* at(const std::string& mount_point) const;
  bool has(std::uint64_t id) const;
  const std::vector<Mount>& mounts() const { return mounts_; }
  void set_server(std::uint64_t id, Mount::Server server);
  void add_folder(const std::string& path) { folders_.insert(path); }

  pid_t start_process();
  void end_process(pid_t pid) { processes_.erase(pid); }
  bool alive(pid_t pid) const { return processes_.contains(pid); }
  ProcessIdentity identity(pid_t pid) const;
  // The engine's own process.
  void be(pid_t pid) { self_ = pid; }
  pid_t self() const { return self_; }

  void reboot();
  std::function<void(std::uint64_t id)> on_detach;  // the engine took a dead mount away
  std::function<void()> on_look;                    // the engine asks something: a place where it may crash

  Result<std::string> mount_table() override;
  Result<std::string> boot_id() override;
  Result<ProcessIdentity> identify(pid_t pid) override;
  Result<bool> runs(const ProcessIdentity& identity) override;
  Result<std::string> help(const Context& context, std::string_view what, HelperFunction function,
                           std::string_view request) override;

 private:
  Result<std::string> ask_server(const Context& context, std::string_view what, std::string_view request);

  std::vector<Mount> mounts_;
  std::set<std::string> folders_;
  std::optional<std::string> table_;  // as it is now
  std::uint64_t next_id_ = 100;
  std::uint32_t next_minor_ = 40;
  std::map<pid_t, std::uint64_t> processes_;
  pid_t next_pid_ = 1000, self_ = 0;
  std::uint64_t next_start_ = 5000;
  unsigned boot_ = 1;
};

}  // namespace dvdi::simulation
