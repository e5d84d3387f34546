// Group commit: transactions that come while another one of this process is made durable become one
// transaction of the database together, with one sync. Each is in a savepoint of its own, so what one of them
// refuses is none of the others' business. Only for this folder.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string_view>

#include "base/sync.h"
#include "store/database.h"

namespace dvdi {

// Thread-safe.
class GroupCommit {
 public:
  // What is of interest to whoever keeps figures.
  struct Times {
    Duration wait{};  // until the work could begin: for other threads, and for other processes' transactions
    Duration commit{};  // of the whole group; 0 for all but the one who made it durable
    bool durable = false;
    bool refused = false;  // it is the work that failed, and not the database
  };

  explicit GroupCommit(std::unique_ptr<Connection> writer) : writer_(std::move(writer)) {}

  // Success: what `work` wrote is durable. An error: nothing of it was written. A work sees what those before
  // it in the group wrote, which is durable when it is, or not at all. `finish` is run once a group, at its
  // end.
  Status run(const Context& context, std::string_view what, const std::function<Status(Connection&)>& work,
             const std::function<Status(Connection&)>& finish, Times& times);

  unsigned coming() const { return coming_.load(); }  // that have asked and have no turn yet

 private:
  struct Group {
    unsigned works = 0;
    bool ended = false;
    Status result;
  };

  Status begin();
  Status in_savepoint(std::string_view what, const std::function<Status(Connection&)>& work, bool alone);
  void commit(std::string_view what, const std::function<Status(Connection&)>& finish);
  void end(Status result);
  bool was_rolled_back() const;

  Mutex mutex_;
  Condition ended_;
  std::atomic<unsigned> coming_{0};
  std::unique_ptr<Connection> writer_;
  std::shared_ptr<Group> group_;  // the open one
};

}  // namespace dvdi
