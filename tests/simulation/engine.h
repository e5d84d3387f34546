// The engine under test, put together as src/daemon/engine.cpp does it, without what needs real files.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "isolator/chain.h"
#include "isolator/ledger_books.h"
#include "linux/file_lock.h"
#include "linux/helper_pool.h"
#include "random.h"
#include "store/ledger.h"
#include "volume/manager.h"

namespace dvdi::simulation {

// The database of every life of the engine, on the simulated disk.
inline constexpr const char* database = "/sim/state.db";

class SimulatedEngine {
 public:
  struct Parts {
    driver::Catalog& drivers;
    HelperPool& helpers;
    std::string lock_file;
    volume::Policy policy;
    Random& random;                   // for the stand-in of the filesystem isolator
    const unsigned& isolator_faults;  // so many of a hundred of its calls fail
  };
  static Result<std::unique_ptr<SimulatedEngine>> open(const Context& context, const Parts& parts);
  ~SimulatedEngine();

  // What every engine does after it was opened.
  void settle(const Context& context);

  isolator::Chain& chain() { return *chain_; }
  volume::Manager& volumes() { return *volumes_; }

 private:
  SimulatedEngine() = default;

  std::unique_ptr<KeyedLocks> locks_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<isolator::LedgerBooks> books_;
  std::unique_ptr<volume::Manager> volumes_;
  std::unique_ptr<isolator::Chain> chain_;
};

}  // namespace dvdi::simulation
