// Locks that hold between processes and die with their process: open-file-description locks (fcntl(2),
// F_OFD_SETLK).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/context.h"
#include "linux/fd.h"

namespace dvdi {

// A lock for each key, in one file: the byte at the key's hash (63 bits; two keys that share a byte only wait
// for each other). Threads of this process wait on a condition, other processes are polled (the kernel has no
// timed wait for such locks): 1 ms at first, 50 ms at most. Thread-safe.
class KeyedLocks {
 public:
  static Result<std::unique_ptr<KeyedLocks>> open(const std::string& path);
  // Between the threads of this process only, for whoever keeps all other processes away: no system call, and
  // no list of the kernel's, which each of its calls goes through from the beginning.
  static std::unique_ptr<KeyedLocks> of_this_process();
  ~KeyedLocks();

  // Releases on destruction. Not to be held across the life of its KeyedLocks.
  class Held {
   public:
    Held(Held&& other) noexcept;
    Held& operator=(Held&&) = delete;
    ~Held();

   private:
    friend class KeyedLocks;
    Held(KeyedLocks* locks, std::string key) : locks_(locks), key_(std::move(key)) {}
    KeyedLocks* locks_;
    std::string key_;
  };

  Result<Held> acquire(const Context& context, const std::string& key, std::string_view what);
  // nullopt if somebody has it.
  Result<std::optional<Held>> try_acquire(const std::string& key);

 private:
  struct State;
  explicit KeyedLocks(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// A lock on a whole file, shared or exclusive; released when the descriptor closes. nullopt if it is held
// otherwise.
Result<std::optional<UniqueFd>> try_lock_file(const std::string& path, bool exclusive);
// Of an exclusive lock makes a shared one; nobody can have it in between.
Status share_file_lock(const UniqueFd& lock);

}  // namespace dvdi
