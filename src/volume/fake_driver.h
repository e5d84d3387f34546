// For tests: a driver in this process that makes real tmpfs mounts (in the test's own mount namespace) and
// fails the way real plugins do, when told to.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/sync.h"
#include "driver/driver.h"

namespace dvdi::volume {

// The engine ends here, as by SIGKILL: thrown from the middle of its work, so that nothing after it happens.
struct Killed {};

// Counts the places where a process can be killed, and kills it at one of them.
class KillSwitch {
 public:
  // At the nth place from now; 0 disarms.
  void arm(unsigned nth) { left_ = nth; }
  bool armed() const { return left_ > 0; }
  void place() {
    if (left_ == 0) return;
    const unsigned left = --left_;
    if (left == 0) throw Killed{};
  }

 private:
  std::atomic<unsigned> left_ = 0;
};

// The machine's clocks, and time that a test lets pass at once. Reading the wall clock is a place to be
// killed: the ledger does it at the start of every transaction, and nothing else does.
class JumpingClock final : public Clock {
 public:
  explicit JumpingClock(KillSwitch& kill) : kill_(kill) {}
  BootTime boot() const override { return system_clock().boot() + Duration(skipped_.load()); }
  WallTime wall() const override {
    kill_.place();
    return system_clock().wall() + Duration(skipped_.load());
  }
  void advance(Duration by) { skipped_ += by.count(); }

 private:
  KillSwitch& kill_;
  std::atomic<std::int64_t> skipped_ = 0;
};

enum class Fault {
  none,
  refuse,               // a complete answer that says no
  refuse_after_effect,  // the same, although it was done
  time_out,             // no answer before the deadline; never done
  time_out_late,        // no answer before the deadline; done when the test calls finish_late()
  time_out_done,        // no answer before the deadline; done
  not_sent,
  kill_before,  // the engine is killed before the driver did it
  kill_after,   // the engine is killed before it could record the answer
};

// Thread-safe.
class FakeDriver final : public driver::Driver {
 public:
  struct Manner {
    bool refuses_second_mount = false;  // of the same id, as rclone: "already mounted by this id"
    bool counts_calls = false;          // every Mount needs an Unmount, whatever the id
    bool plain_directories = false;
    bool unmounting_nothing_succeeds = false;
    std::string refusal = "told to refuse";  // what it says then
    std::string folder = {};  // of each mount: Mount and Path answer with that, as REX-Ray does
    // Mounts the volume there instead of a tmpfs.
    std::function<bool(const std::string& volume, const std::string& at)> mounts = {};
  };

  FakeDriver(std::string name, std::string folder, JumpingClock& clock, KillSwitch& kill)
      : name_(std::move(name)), folder_(std::move(folder)), clock_(clock), kill_(kill) {}

  Manner manner;  // set before use

  // The next `times` calls of that operation on that volume ("": any) end so.
  void fail(driver::Operation operation, const std::string& volume, Fault fault, unsigned times = 1);
  // Mounts of the volume are answered with that mount point; they take effect all the same.
  void lie(const std::string& volume, const std::string& mount_point);
  // Path is answered with that.
  void lie_about_path(const std::string& volume, const std::string& path);
  // The next such call waits inside the driver until let_go().
  void hold(driver::Operation operation, const std::string& volume);
  void wait_until_held(unsigned calls = 1);
  void let_go();
  void finish_late();
  // Forgets faults and lies that were not used up.
  void behave();
  // Was restarted, and forgot what it did: its books are empty, its mounts stay.
  void forget();

  unsigned calls(driver::Operation operation, const std::string& volume = {}) const;
  // "mount a", "unmount a", … in the order in which the calls came.
  std::vector<std::string> log() const;
  // The ids that hold the volume, in the driver's own books.
  std::multiset<std::string> users(const std::string& volume) const;
  std::string mount_point(const std::string& volume) const { return folder_ + "/" + volume; }
  // What Mount answers.
  std::string handed_out(const std::string& volume) const {
    return mount_point(volume) + (manner.folder.empty() ? "" : "/" + manner.folder);
  }
  unsigned most_at_once() const;
  unsigned kernel_mounts() const { return kernel_mounts_; }
  unsigned kernel_unmounts() const { return kernel_unmounts_; }

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
  bool may_be_plain_directory(const std::string&) const override { return manner.plain_directories; }

 private:
  using Key = std::pair<driver::Operation, std::string>;

  template <class T>
  Result<T> call(const Context& context, driver::Operation operation, const std::string& volume,
                 const std::function<Result<T>()>& effect);
  Fault begin(driver::Operation operation, const std::string& volume);
  void wait_if_held(driver::Operation operation, const std::string& volume);
  Error error(driver::Operation operation, const std::string& volume, Code code, std::string message,
              Outcome outcome) const;
  Error no(driver::Operation operation, const std::string& volume, std::string message) const {
    return error(operation, volume, Code::driver_error, std::move(message), Outcome::refused);
  }

  const std::string name_, folder_;
  JumpingClock& clock_;
  KillSwitch& kill_;
  mutable Mutex mutex_;
  Condition changed_;
  std::map<std::string, std::multiset<std::string>> volumes_;
  std::map<Key, std::vector<Fault>> faults_;
  std::map<std::string, std::string> lies_, path_lies_;
  std::set<Key> to_hold_;
  unsigned held_ = 0, inside_ = 0, most_inside_ = 0;
  bool holding_ = false;
  std::vector<std::function<void()>> late_;
  std::vector<std::pair<driver::Operation, std::string>> log_;
  std::atomic<unsigned> kernel_mounts_ = 0, kernel_unmounts_ = 0;
};

class FakeCatalog final : public driver::Catalog {
 public:
  void add(std::shared_ptr<FakeDriver> driver);
  void remove(const std::string& name) { drivers_.erase(name); }
  Result<std::shared_ptr<driver::Driver>> find(const Context& context, const std::string& name) override;
  std::vector<std::string> names() override;

 private:
  std::map<std::string, std::shared_ptr<FakeDriver>> drivers_;
};

}  // namespace dvdi::volume
