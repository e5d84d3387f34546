// A sleep that ends when there is something to do: the kernel's mount table changed, a descriptor is ready, a
// time has come, or another thread says so. Nothing wakes it otherwise.
#pragma once

#include <optional>

#include "base/clock.h"
#include "base/result.h"
#include "linux/fd.h"

namespace dvdi {

class Sleeper {
 public:
  static Result<Sleeper> open();

  struct Woken {
    bool by_call = false;    // wake()
    bool by_mounts = false;  // the mount table of this process's namespace
    bool by_descriptor = false;
  };
  // Until `until` at the latest, which is a time of `clock`; without it as long as nothing happens. What
  // happened since the last sleep counts. One thread at a time.
  struct Also {
    bool mounts = true;   // the mount table ends it, too; if not, its changes wait for the next sleep
    int descriptor = -1;  // so does this one, once it is readable
  };
  Result<Woken> sleep(const Clock& clock, std::optional<BootTime> until, Also also);
  // Any thread may call it.
  void wake();

 private:
  Sleeper(UniqueFd mounts, UniqueFd timer, UniqueFd call)
      : mounts_(std::move(mounts)), timer_(std::move(timer)), call_(std::move(call)) {}

  UniqueFd mounts_, timer_, call_;
};

}  // namespace dvdi
