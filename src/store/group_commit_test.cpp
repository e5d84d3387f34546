#include "store/group_commit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <stdlib.h>

#include <filesystem>
#include <latch>
#include <stdexcept>
#include <thread>

namespace dvdi {
namespace {

using testing::ElementsAre;

class GroupCommitTest : public testing::Test {
 protected:
  struct Done {
    Status status;
    GroupCommit::Times times;
  };

  void SetUp() override {
    std::string pattern = "/tmp/dvdi-group-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    auto opened = Connection::open(folder_ + "/db", false);
    ASSERT_TRUE(opened) << opened.error().text();
    (*opened)->database().exec("CREATE TABLE t (x INTEGER PRIMARY KEY)");
    handle_ = (*opened)->database().getHandle();
    commits_ = std::make_unique<GroupCommit>(std::move(*opened));
  }
  void TearDown() override {
    commits_.reset();
    std::filesystem::remove_all(folder_);
  }

  static void insert(Connection& connection, int x) {
    connection.database().exec("INSERT INTO t VALUES (" + std::to_string(x) + ")");
  }
  Done run(const std::function<Status(Connection&)>& work) {
    Done done;
    done.status = commits_->run(Context(), "test", work, [](Connection&) { return Status(); }, done.times);
    return done;
  }
  Done add(int x) {
    return run([x](Connection& connection) {
      insert(connection, x);
      return Status();
    });
  }

  // The first work waits, in its transaction, until all others have come; then they have their turns with it.
  std::vector<Done> together(const std::function<Status(Connection&)>& first,
                             const std::vector<std::function<Status(Connection&)>>& others) {
    std::vector<Done> done(others.size() + 1);
    std::latch begun(1);
    {
      std::vector<std::jthread> threads;
      threads.emplace_back([&] {
        done[0] = run([&](Connection& connection) {
          begun.count_down();
          while (commits_->coming() < others.size()) std::this_thread::yield();
          return first(connection);
        });
      });
      begun.wait();
      for (std::size_t i = 0; i < others.size(); ++i) {
        threads.emplace_back([&, i] { done[i + 1] = run(others[i]); });
      }
    }
    return done;
  }

  // As another connection sees it: what was committed.
  std::vector<int> rows() {
    std::vector<int> found;
    auto other = Connection::open(folder_ + "/db", true);
    SQLite::Statement all((*other)->database(), "SELECT x FROM t ORDER BY x");
    while (all.executeStep()) found.push_back(all.getColumn(0).getInt());
    return found;
  }

  static std::function<Status(Connection&)> adds(int x) {
    return [x](Connection& connection) {
      insert(connection, x);
      return Status();
    };
  }
  static std::function<Status(Connection&)> adds_and_refuses(int x) {
    return [x](Connection& connection) -> Status {
      insert(connection, x);
      return Error{.code = Code::conflict, .message = "no"};
    };
  }
  static long durable(const std::vector<Done>& done) {
    return std::ranges::count_if(done, [](const Done& one) { return one.times.durable; });
  }

  std::string folder_;
  sqlite3* handle_ = nullptr;
  std::unique_ptr<GroupCommit> commits_;
};

TEST_F(GroupCommitTest, OneAloneIsDurableWhenItReturns) {
  const Done done = add(1);
  EXPECT_TRUE(done.status);
  EXPECT_TRUE(done.times.durable);
  EXPECT_THAT(rows(), ElementsAre(1));
}

TEST_F(GroupCommitTest, ThoseThatComeMeanwhileAreOneTransaction) {
  const auto done = together(adds(1), {adds(2), adds(3), adds(4)});
  for (const Done& one : done) EXPECT_TRUE(one.status);
  EXPECT_EQ(durable(done), 1);
  EXPECT_THAT(rows(), ElementsAre(1, 2, 3, 4));
}

TEST_F(GroupCommitTest, NoneReturnsBeforeItIsDurable) {
  std::vector<int> seen;
  std::mutex mutex;
  std::latch begun(1);
  std::jthread first([&] {
    const Done done = run([&](Connection& connection) {
      begun.count_down();
      while (commits_->coming() < 1) std::this_thread::yield();
      insert(connection, 1);
      return Status();
    });
    const std::lock_guard lock(mutex);
    seen = rows();
  });
  begun.wait();
  const Done second = run([&](Connection& connection) {
    insert(connection, 2);
    // The first one's work is done, and not to be seen yet.
    EXPECT_THAT(rows(), ElementsAre());
    return Status();
  });
  first.join();
  EXPECT_TRUE(second.status);
  EXPECT_THAT(seen, ElementsAre(1, 2));
}

TEST_F(GroupCommitTest, WhatOneRefusesIsNoneOfTheOthersBusiness) {
  const auto done = together(adds(1), {adds_and_refuses(2), adds(3), adds_and_refuses(4)});
  EXPECT_TRUE(done[0].status);
  EXPECT_FALSE(done[1].status);
  EXPECT_TRUE(done[1].times.refused);
  EXPECT_TRUE(done[2].status);
  EXPECT_FALSE(done[3].status);
  EXPECT_EQ(durable(done), 1);
  EXPECT_THAT(rows(), ElementsAre(1, 3));
}

TEST_F(GroupCommitTest, AFirstOneThatRefusesLeavesTheOthersTheirOwnTransaction) {
  const auto done = together(adds_and_refuses(1), {adds(2), adds(3)});
  EXPECT_FALSE(done[0].status);
  EXPECT_TRUE(done[1].status);
  EXPECT_TRUE(done[2].status);
  EXPECT_THAT(rows(), ElementsAre(2, 3));
}

TEST_F(GroupCommitTest, AnExceptionOfTheDatabaseIsARefusalToo) {
  const auto done = together(adds(1), {adds(1), adds(2)});
  EXPECT_TRUE(done[0].status);
  ASSERT_FALSE(done[1].status);
  EXPECT_EQ(done[1].status.error().code, Code::internal);  // a constraint
  EXPECT_TRUE(done[2].status);
  EXPECT_THAT(rows(), ElementsAre(1, 2));
}

TEST_F(GroupCommitTest, ACommitThatFailsFailsAllOfThem) {
  sqlite3_commit_hook(handle_, [](void*) { return 1; }, nullptr);
  const auto done = together(adds(1), {adds(2), adds_and_refuses(3)});
  for (const Done& one : done) {
    ASSERT_FALSE(one.status);
    // Also the one that would have been refused: it may have seen what is not there now.
    EXPECT_NE(one.status.error().code, Code::conflict);
    EXPECT_FALSE(one.times.refused);
  }
  EXPECT_EQ(durable(done), 0);
  EXPECT_THAT(rows(), ElementsAre());
  sqlite3_commit_hook(handle_, nullptr, nullptr);
  EXPECT_TRUE(add(5).status);
  EXPECT_THAT(rows(), ElementsAre(5));
}

TEST_F(GroupCommitTest, ATransactionThatTheDatabaseGaveUpIsNobodys) {
  const auto gives_up = [](Connection& connection) -> Status {
    connection.database().exec("ROLLBACK");  // as it does by itself without space
    return Error{.code = Code::resource_exhausted, .message = "full"};
  };
  const auto done = together(adds(1), {gives_up});
  for (const Done& one : done) {
    ASSERT_FALSE(one.status);
    EXPECT_EQ(one.status.error().code, Code::resource_exhausted);
  }
  EXPECT_THAT(rows(), ElementsAre());
  EXPECT_TRUE(add(5).status);
}

TEST_F(GroupCommitTest, AnExceptionOfAnotherKindTakesTheGroupWithIt) {
  Status first;
  std::latch begun(1);
  std::jthread thread([&] {
    first = run([&](Connection& connection) {
              begun.count_down();
              while (commits_->coming() < 1) std::this_thread::yield();
              insert(connection, 1);
              return Status();
            }).status;
  });
  begun.wait();
  EXPECT_THROW(run([](Connection&) -> Status { throw std::runtime_error("no"); }), std::runtime_error);
  thread.join();
  EXPECT_FALSE(first);
  EXPECT_THAT(rows(), ElementsAre());
  EXPECT_TRUE(add(5).status);
}

TEST_F(GroupCommitTest, ManyThreadsKeepEachOfTheirRows) {
  constexpr int threads = 16, each = 50;
  std::atomic<int> groups{0};
  {
    std::vector<std::jthread> all;
    for (int t = 0; t < threads; ++t) {
      all.emplace_back([&, t] {
        for (int i = 0; i < each; ++i) {
          const Done done = add((t * each) + i);
          EXPECT_TRUE(done.status);
          groups += done.times.durable ? 1 : 0;
        }
      });
    }
  }
  EXPECT_EQ(rows().size(), threads * each);
  EXPECT_LT(groups, threads * each);
}

}  // namespace
}  // namespace dvdi
