// What must hold at every moment of a simulation: between what the engine has acknowledged, its ledger, the
// events, the drivers' books and the kernel's mount table.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "drivers.h"
#include "dvdi/v1/container.pb.h"
#include "store/ledger.h"

namespace dvdi::simulation {

// A container, as its user knows it.
struct Container {
  ContainerKey key;
  v1::ContainerRequest request;
  std::vector<VolumeKey> volumes;
  std::optional<ProcessIdentity> worker;  // the client that asked for it, where that is not the engine
  pid_t engine = 0;                       // that worked on it first
  pid_t init = 0;
  bool prepared = false;  // acknowledged, in this boot
  BootTime prepared_at{};
  bool running = false;                     // isolate was acknowledged
  bool ending = false;                      // somebody has asked for its end, or may take it for dead
  bool over = false;                        // the end was acknowledged
  unsigned calls = 0;                       // for it, at this moment
  std::map<VolumeKey, std::uint64_t> held;  // the kernel's mounts that it was given

  bool live() const { return prepared && !ending && !over; }
};

class Invariants final : public Witness {
 public:
  struct Parts {
    SimulatedScheduler& scheduler;
    SimulatedClock& clock;
    Kernel& kernel;
    SimulatedCatalog& drivers;
    Trace& trace;
  };
  explicit Invariants(Parts parts) : parts_(parts) {}

  std::map<ContainerKey, Container> containers;

  // The ledger of the engine that was opened, through a connection of its own.
  void attach(std::unique_ptr<Ledger> ledger) { ledger_ = std::move(ledger); }
  void detach() { ledger_.reset(); }
  bool attached() const { return ledger_ != nullptr; }

  void check();
  // Nothing is left: everybody has gone and everything that was owed is paid.
  void check_end();
  // That mount of the kernel's was taken away by nobody of ours.
  void taken_away(std::uint64_t kernel_id) { taken_away_.insert(kernel_id); }
  void reboot();

  void mount_sent(const std::string& driver, const std::string& volume, const std::string& id) override;
  void unmounted(const std::string& driver, const std::string& volume, const std::string& id,
                 std::uint64_t kernel_id) override;

  std::uint64_t checks() const { return checks_; }
  std::uint64_t events() const { return verifier_.last(); }
  std::vector<DebtRow> debts() { return read() ? now_.debts : std::vector<DebtRow>(); }

 private:
  struct Snapshot {
    std::vector<ContainerRow> containers;
    std::vector<ReferenceRow> references;
    std::vector<MountRow> mounts;
    std::vector<DebtRow> debts;
    std::vector<ForeignRow> foreigns;
    std::vector<VolumeRow> volumes;
    std::vector<StoredEvent> events;  // since the last look
    std::uint64_t head = 0;
    std::string boot_id;
    const MountRow* mount(const VolumeKey& volume) const;
  };
  // What the events say the tables must be.
  struct Replayed {
    std::map<VolumeKey, std::pair<std::string, std::string>> mounts;  // state, mount id
    std::map<ContainerKey, std::string> containers;
    std::set<std::pair<ContainerKey, VolumeKey>> references;
    std::map<VolumeKey, bool> debts;  // parked?
    std::set<VolumeKey> foreigns, volumes;
  };

  bool read();
  void check_events();
  void apply(const StoredEvent& event);
  void check_replay();
  void check_mounts();
  void check_containers();
  void check_drivers();
  [[noreturn]] void broken(const std::string& what) { parts_.trace.violation(what); }

  Parts parts_;
  std::unique_ptr<Ledger> ledger_;
  EventVerifier verifier_;
  std::optional<StoredEvent> last_;
  Snapshot now_;
  Replayed replayed_;
  std::set<std::uint64_t> taken_away_;
  std::uint64_t checks_ = 0;
};

}  // namespace dvdi::simulation
