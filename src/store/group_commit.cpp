#include "store/group_commit.h"

#include <sqlite3.h>

#include "base/failpoint.h"

namespace dvdi {

namespace {

// Beyond it the next one begins a group of its own: those that wait for the sync do not wait for ever.
constexpr unsigned most_works = 64;

constexpr const char* begin_sql = "BEGIN IMMEDIATE";
constexpr const char* commit_sql = "COMMIT";
constexpr const char* roll_back_sql = "ROLLBACK";
constexpr const char* save_sql = "SAVEPOINT work";
constexpr const char* release_sql = "RELEASE work";
constexpr const char* take_back_sql = "ROLLBACK TO work";

}  // namespace

// SQLite does so by itself where it cannot go on: no space, no memory, the disk fails.
bool GroupCommit::was_rolled_back() const {
  return sqlite3_get_autocommit(writer_->database().getHandle()) != 0;
}

void GroupCommit::end(Status result) {
  if (!was_rolled_back()) {
    // What it cannot take back now is taken back when the database is opened next.
    static_cast<void>(guarded("roll back", [&] { writer_->statement(roll_back_sql).exec(); }));
  }
  group_->result = std::move(result);
  group_->ended = true;
  group_.reset();
  ended_.notify_all();
}

void GroupCommit::commit(std::string_view what, const std::function<Status(Connection&)>& finish) {
  end(guarded(what, [&]() -> Status {
    DVDI_CHECK(finish(*writer_));
    writer_->statement(commit_sql).exec();
    return {};
  }));
}

Status GroupCommit::in_savepoint(std::string_view what, const std::function<Status(Connection&)>& work,
                                 bool alone) {
  return guarded(what, [&]() -> Status {
    if (!alone) writer_->statement(save_sql).exec();
    Status done = [&] {
      const EndStatements statements(*writer_);
      return guarded(what, [&] { return work(*writer_); });
    }();
    if (alone || was_rolled_back()) return done;
    if (!done) writer_->statement(take_back_sql).exec();
    writer_->statement(release_sql).exec();
    return done;
  });
}

Status GroupCommit::run(const Context& context, std::string_view what,
                        const std::function<Status(Connection&)>& work,
                        const std::function<Status(Connection&)>& finish, Times& times) {
  const Clock& clock = system_clock();
  const BootTime asked = clock.boot();
  coming_.fetch_add(1);
  Lock lock(mutex_);
  coming_.fetch_sub(1);
  writer_->wait_for_locks(context);
  const bool alone = !group_;
  if (alone) {
    DVDI_CHECK(guarded(what, [&] { writer_->statement(begin_sql).exec(); }));
    group_ = std::make_shared<Group>();
  }
  times.wait = clock.boot() - asked;
  const std::shared_ptr<Group> group = group_;
  try {
    const Status done = in_savepoint(what, work, alone);
    times.refused = !done;
    if (done) failpoint("store.commit.before", what);
    if (!done && (alone || was_rolled_back())) {
      end(done);  // nobody else is in it, or nothing is left of it
      return done;
    }
    ++group->works;
    if (coming_.load() == 0 || group->works >= most_works) {
      const BootTime begun = clock.boot();
      commit(what, finish);
      times.commit = clock.boot() - begun;
      times.durable = group->result.has_value();
    } else {
      // Whoever comes last commits: without a deadline, as what it was is known very soon.
      DVDI_CHECK(ended_.wait(Context(context.clock()), lock, [&] { return group->ended; }, what));
    }
    // What was refused may have been so for something that is not there now.
    if (!group->result) {
      times.refused = false;
      return group->result;
    }
    if (done) failpoint("store.commit.after", what);
    return done;
  } catch (...) {
    if (!group->ended) end(Error{.code = Code::internal, .message = "the transaction was given up"});
    throw;
  }
}

}  // namespace dvdi
