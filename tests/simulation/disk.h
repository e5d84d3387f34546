// The simulated disk: a SQLite VFS in memory, the default one of this program, so that the store runs on it
// unchanged. What was written and not yet synced may be lost at a crash, whole or in part.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "random.h"

namespace dvdi::simulation {

class Disk {
 public:
  explicit Disk(Random random) : random_(random) {}

  enum class Loss {
    nothing,   // the process died: what it wrote is in the kernel's hands
    unsynced,  // each write that was not synced is kept, lost, or torn at a sector's border
  };
  // What has files open has dead handles from now on.
  void crash(Loss loss);

  // Makes this the disk of all databases that are opened from now on, until the next is installed; null:
  // none, and every opening fails.
  static void install(Disk* disk);

  bool full = false;    // what would make a file larger fails with "disk full"
  unsigned errors = 0;  // so many of a thousand writes and syncs fail
  // Called before and after each sync: a place where other threads may run, and where the crash may come.
  std::function<void(const char* when, const std::string& file)> at_sync;
  std::function<void()> at_sleep;  // SQLite waits for a lock

  // What was lost in all crashes so far: writes dropped, writes torn.
  std::uint64_t dropped() const { return dropped_; }
  std::uint64_t torn() const { return torn_; }

  // The rest is for the VFS (disk.cpp).
  struct Write {
    std::uint64_t offset = 0;
    std::vector<std::uint8_t> bytes;
    bool truncate = false;  // to `offset`
  };
  struct Shared {  // the WAL's index
    static constexpr int locks = 8;
    std::vector<std::unique_ptr<std::vector<std::uint8_t>>> regions;
    int holders[locks] = {};  // -1: one, exclusively
    unsigned users = 0;
  };
  struct File {
    std::string name;
    std::vector<std::uint8_t> now, synced;
    std::vector<Write> unsynced;
    int shared_locks = 0;
    const void* reserved = nullptr;
    const void* exclusive = nullptr;
    std::shared_ptr<Shared> index;
  };
  std::shared_ptr<File> open(const std::string& name, bool create);
  bool exists(const std::string& name) const { return files_.contains(name); }
  void remove(const std::string& name) { files_.erase(name); }
  std::uint64_t life() const { return life_; }
  Random& random() { return random_; }
  bool fails() { return errors > 0 && random_.below(1000) < errors; }

 private:
  void lose(File& file);

  Random random_;
  std::map<std::string, std::shared_ptr<File>> files_;
  std::uint64_t life_ = 1;
  std::uint64_t dropped_ = 0, torn_ = 0;
};

}  // namespace dvdi::simulation
