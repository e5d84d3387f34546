// Waiting for the end of many processes at once, by pidfds.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "linux/fd.h"
#include "linux/process.h"

namespace dvdi {

// Not thread-safe.
class ProcessWatch {
 public:
  static Result<ProcessWatch> open();

  // Readable once one of the watched processes has ended, until runs() was asked of it or it is dropped.
  int fd() const { return epoll_.get(); }
  // Does that very process run? Then it is watched. False only with proof; an error if it cannot be told or
  // watched (no more descriptors).
  Result<bool> runs(const ProcessIdentity& identity);
  // Watches those no longer that runs() was not asked of since the last call.
  void drop_others();
  std::size_t size() const { return watched_.size(); }

 private:
  struct Watched {
    UniqueFd pidfd;
    bool wanted = true;
  };
  explicit ProcessWatch(UniqueFd epoll) : epoll_(std::move(epoll)) {}

  UniqueFd epoll_;
  std::map<std::pair<pid_t, std::uint64_t>, Watched> watched_;
};

}  // namespace dvdi
