// Simulated volume plugins: programs of their own beside the engine, with books of their own, over the
// simulated kernel's mount table. They outlive the engine, and answer late what a crashed engine asked.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "driver/driver.h"
#include "kernel.h"
#include "scheduler.h"

namespace dvdi::simulation {

// What drivers do to the world, for whoever keeps watch.
class Witness {
 public:
  virtual ~Witness() = default;
  // The engine has the driver mount for `id`: at the moment when it sends the call.
  virtual void mount_sent(const std::string& driver, const std::string& volume, const std::string& id) = 0;
  // The driver took the kernel's mount away because `id` was its last user.
  virtual void unmounted(const std::string& driver, const std::string& volume, const std::string& id,
                         std::uint64_t kernel_id) = 0;
};

class SimulatedDriver final : public driver::Driver {
 public:
  struct Manner {
    bool refuses_second_mount = false;  // of the same id
    bool counts_calls = false;          // every Mount needs an Unmount, whatever the id
    bool unmounting_nothing_succeeds = false;
    bool one_at_a_time = true;  // works on one call of a volume after the other
    bool refuses_to_create_what_exists = false;
    bool serves = false;             // its mounts have a server behind them, which may die
    bool plain_directories = false;  // its mounts are none: directories that are always there
  };
  struct Volume {
    std::multiset<std::string> users;
    std::uint64_t kernel_id = 0;  // 0: not mounted, as far as the driver knows
    BootTime busy_until{};
    bool forgotten = false;  // the driver lost its books while it was mounted
    bool busy = false;       // a process keeps it from being unmounted
  };
  struct Parts {
    SimulatedScheduler& scheduler;
    SimulatedClock& clock;
    Kernel& kernel;
    Trace& trace;
    Witness& witness;
  };

  SimulatedDriver(std::string name, Parts parts, Random random, Manner manner);

  unsigned faults = 0;  // so many of a hundred calls go wrong in some way
  bool away = false;    // nobody listens
  void go_away() {
    away = true;
    ++times_away_;
  }

  void forget();  // it is restarted and remembers no users
  void reboot();
  // Somebody else's calls, which are not the engine's.
  void foreign_mount(const std::string& volume, const std::string& id);
  void foreign_unmount(const std::string& volume, const std::string& id);

  std::map<std::string, Volume>& volumes() { return volumes_; }
  const Manner& manner() const { return manner_; }
  std::string mount_point(const std::string& volume) const { return "/sim/" + name_ + "/" + volume; }
  std::uint64_t calls() const { return calls_; }

  const std::string& name() const override { return name_; }
  Status create(const Context& context, const std::string& volume, const driver::Options& options) override;
  Status remove(const Context& context, const std::string& volume) override;
  Result<driver::VolumeInfo> get(const Context& context, const std::string& volume) override;
  Result<std::vector<driver::VolumeInfo>> list(const Context& context) override;
  Result<std::string> path(const Context& context, const std::string& volume) override;
  Result<std::string> mount(const Context& context, const std::string& volume,
                            const std::string& mount_id) override;
  Status unmount(const Context& context, const std::string& volume, const std::string& mount_id) override;
  Result<driver::Capabilities> capabilities(const Context& context) override;
  bool may_be_plain_directory(const std::string&) const override { return manner_.plain_directories; }

 private:
  template <class T>
  Result<T> call(const Context& context, driver::Operation operation, const std::string& volume,
                 std::function<Result<T>()> effect);
  bool is_mounted(const Volume& volume) const {
    return volume.kernel_id != 0 || (manner_.plain_directories && !volume.users.empty());
  }
  Error no(driver::Operation operation, const std::string& volume, std::string message) const;
  bool in_time(driver::Operation operation, const std::string& volume, std::uint64_t number,
               std::optional<BootTime> given_up, bool waited_behind);
  Result<std::string> do_mount(const std::string& volume, const std::string& id);
  Status do_unmount(const std::string& volume, const std::string& id);

  const std::string name_;
  std::uint64_t times_away_ = 0;
  Parts parts_;
  Random random_;
  const Manner manner_;
  std::map<std::string, Volume> volumes_;
  std::map<std::string, std::uint64_t> done_;  // by volume: the newest Mount or Unmount that was done
  std::uint64_t calls_ = 0;
};

class SimulatedCatalog final : public driver::Catalog {
 public:
  void add(std::shared_ptr<SimulatedDriver> driver) { drivers_[driver->name()] = std::move(driver); }
  Result<std::shared_ptr<driver::Driver>> find(const Context& context, const std::string& name) override;
  std::vector<std::string> names() override;
  const std::map<std::string, std::shared_ptr<SimulatedDriver>>& all() const { return drivers_; }

 private:
  std::map<std::string, std::shared_ptr<SimulatedDriver>> drivers_;
};

}  // namespace dvdi::simulation
