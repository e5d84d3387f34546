// For tests of the manager: an engine that can be killed and started again, on a ledger, locks and fake
// drivers in a folder of the test's own; and what must hold of all of it together.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "linux/mount_table.h"
#include "store/ledger.h"
#include "volume/fake_driver.h"
#include "volume/manager.h"

namespace dvdi::volume {

class ManagerTest : public testing::Test {
 protected:
  using Operation = driver::Operation;

  void SetUp() override;
  void TearDown() override;

  // A manager with a ledger and locks of its own, as another process would have: the old one is gone.
  void restart();
  // What an engine does when it starts; containers of dead processes go.
  std::vector<std::string> recover();
  // The process that worked on the container is dead.
  void bury(const std::string& id);
  // Lets enough time pass that every debt is due and no Mount is answered late, and settles; so often that
  // whatever can be settled is.
  void settle_all();

  std::shared_ptr<FakeDriver> add_driver(const std::string& name);
  static Request want(const std::string& volume, bool exclusive = false);
  static Request want_of(const std::string& driver, const std::string& volume);
  static Holder holder(const std::string& id, const std::string& digest = "digest");
  static ContainerKey container(const std::string& id) { return {"run", id}; }
  static VolumeKey volume(const std::string& name) { return {"fake", name}; }

  Context context() const { return Context(clock, "trace").with_timeout(std::chrono::minutes(30)); }
  Result<std::vector<Mounted>> acquire(const std::string& id, const std::vector<Request>& requests);
  Result<std::vector<Owed>> release(const std::string& id, const std::string& keep_mounted = {});

  std::optional<MountRow> row(const std::string& name) const;
  std::optional<DebtRow> debt(const std::string& name) const;
  std::optional<ForeignRow> foreign(const std::string& name) const;
  std::optional<ContainerRow> container_row(const std::string& id) const;
  std::vector<std::string> references_to(const std::string& name) const;
  struct SeenUsage : UsageInterval {
    WallTime start = {};
    Duration duration = {};
    bool open = false;
  };
  std::vector<SeenUsage> usage() const;
  // "open" or "closed" for each interval of that kind and volume, in the order of their start.
  std::vector<std::string> intervals(UsageInterval::Kind kind, const std::string& name) const;
  // Types of all events, without "dvdi."; those of one volume or container where a name is given.
  std::vector<std::string> events(const std::string& subject = {}) const;
  std::vector<json::value> event_bodies() const;
  bool mounted_in_kernel(const std::string& name) const;
  std::size_t kernel_mounts() const;
  // Transactions that were committed, by any connection, since the test began.
  std::int64_t transactions() const;
  std::int64_t rows_in(const std::string& table) const;
  void put(const std::function<Status(Transaction&)>& work);

  // Holds at any time when nobody is at work: events form the chain, follow the table of states and end in
  // the rows; intervals are open exactly where rows say so; what is mounted is known and what is known to
  // be mounted is.
  void expect_consistent() const;
  // And nothing is left of any container: no row, no debt, no mount, no user in a driver's books.
  void expect_nothing_left() const;

  KillSwitch kill;
  JumpingClock clock{kill};
  Policy policy;
  std::string folder;
  FakeCatalog catalog;
  std::map<std::string, std::shared_ptr<FakeDriver>> drivers;
  std::shared_ptr<FakeDriver> fake;  // the driver "fake"
  std::unique_ptr<Ledger> ledger;
  std::unique_ptr<KeyedLocks> locks;
  std::unique_ptr<Manager> manager;

 private:
  void expect_events_consistent() const;
  void expect_usage_consistent() const;
  void expect_mounts_consistent() const;
};

}  // namespace dvdi::volume
