#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "base/fake_clock_test.h"
#include "base/sha256.h"
#include "store/ledger.h"
#include "store/usage_test_support.h"

namespace dvdi {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/dvdi-store-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    path_ = folder_ + "/state.db";
    reopen();
  }
  void TearDown() override {
    ledger_.reset();
    std::filesystem::remove_all(folder_);
  }
  void reopen() {
    ledger_.reset();
    auto opened = Ledger::open(context(), path_);
    ASSERT_TRUE(opened) << opened.error().text();
    ledger_ = std::move(*opened);
  }
  Context context() const { return Context(clock_); }
  Status write(const std::function<Status(Transaction&)>& work) {
    return ledger_->write(context(), "test", work);
  }
  Status read(const std::function<Status(Reader&)>& work) { return ledger_->read(context(), "test", work); }

  FakeClock clock_;
  std::string folder_, path_;
  std::unique_ptr<Ledger> ledger_;
  const VolumeKey volume_{"local", "a"};
  const ContainerKey container_{"run", "c1"};
};

TEST_F(StoreTest, RowsComeBackAsTheyWereWritten) {
  ASSERT_TRUE(write([&](Transaction& tx) -> Status {
    ContainerRow container{.key = container_,
                           .state = ContainerState::prepared,
                           .digest = "d",
                           .attribution = {.role = "r", .labels = {{"k", "v"}}},
                           .directory = "/x",
                           .directory_is_ours = true,
                           .engine = {.pid = 7, .start_ticks = 8, .boot_id = tx.now().boot_id},
                           .init = ProcessIdentity{.pid = 9, .start_ticks = 10, .boot_id = tx.now().boot_id},
                           .since = tx.now(),
                           .note = "n"};
    DVDI_CHECK(tx.put(container));
    DVDI_CHECK(tx.put(MountRow{
        .volume = volume_,
        .mount_id = "m",
        .state = MountState::unknown,
        .pending = MountRow::Pending::unmount,
        .mount_point = "/m",
        .identity =
            StoredIdentity{.mount_id = 5, .major = 1, .minor = 2, .root = "/", .source = "s", .fs_type = "f"},
        .since = tx.now()}));
    return tx.put(ReferenceRow{.container = container_,
                               .volume = volume_,
                               .exclusive = true,
                               .uses = {{.container_path = "/p", .read_only = true}},
                               .since = tx.now()});
  }));
  reopen();
  ASSERT_TRUE(read([&](Reader& reader) -> Status {
    DVDI_TRY(const auto container, reader.container(container_));
    EXPECT_TRUE(container.has_value());
    EXPECT_EQ(container->state, ContainerState::prepared);
    EXPECT_EQ(container->attribution.role, "r");
    EXPECT_EQ(container->attribution.labels.at(0).second, "v");
    EXPECT_EQ(container->init->start_ticks, 10U);
    EXPECT_FALSE(container->ended);
    DVDI_TRY(const auto live, reader.live_containers());
    EXPECT_THAT(live, SizeIs(1));
    DVDI_TRY(const auto all, reader.containers());
    EXPECT_THAT(all, SizeIs(1));
    EXPECT_EQ(all.at(0).note, "n");
    EXPECT_EQ(live.at(0).note, "n");
    DVDI_TRY(const auto mount, reader.mount(volume_));
    EXPECT_EQ(mount->pending, MountRow::Pending::unmount);
    EXPECT_EQ(mount->identity->source, "s");
    EXPECT_FALSE(mount->mounted_since);
    DVDI_TRY(const auto references, reader.references_to(volume_));
    EXPECT_THAT(references, SizeIs(1));
    EXPECT_TRUE(references.at(0).uses.at(0).read_only);
    EXPECT_TRUE(references.at(0).exclusive);
    return {};
  }));
}

TEST_F(StoreTest, AReadThatEndsInItsMiddleDoesNotHoldLaterOnesAtItsState) {
  ASSERT_TRUE(write([&](Transaction& tx) {
    return begin_use(tx, {.kind = UsageInterval::Kind::mounted, .volume = volume_});
  }));
  EXPECT_THROW(static_cast<void>(read([&](Reader& reader) {
                 return reader.usage(ledger_->now(clock_), WallTime::min(), WallTime::max(), {},
                                     [](const UsageRecord&) -> bool { throw std::runtime_error("x"); });
               })),
               std::runtime_error);
  ASSERT_TRUE(write([&](Transaction& tx) { return tx.put_meta("later", "yes"); }));
  ASSERT_TRUE(read([&](Reader& reader) -> Status {
    DVDI_TRY(const std::string later, reader.meta("later"));
    EXPECT_EQ(later, "yes");
    return {};
  }));
}

TEST_F(StoreTest, AFailedTransactionWritesNothing) {
  EXPECT_FALSE(write([&](Transaction& tx) -> Status {
    DVDI_CHECK(tx.record(Event{.type = "dvdi.test"}));
    return Error{.code = Code::conflict, .message = "no"};
  }));
  ASSERT_TRUE(read([&](Reader& reader) -> Status {
    DVDI_TRY(const auto head, reader.head());
    EXPECT_EQ(head.first, 0U);
    return {};
  }));
}

TEST_F(StoreTest, AnEventNamesWhoAsked) {
  const auto record = [](Transaction& tx) { return tx.record(Event{.type = "dvdi.test", .volume = {}}); };
  ASSERT_TRUE(ledger_->write(context().with_caller({.uid = 1000, .gid = 1001, .pid = 7}), "test", record));
  ASSERT_TRUE(ledger_->write(context(), "test", record));
  ASSERT_TRUE(read([&](Reader& reader) -> Status {
    DVDI_TRY(const auto events, reader.events(0, 100));
    EXPECT_THAT(events.at(0).body, HasSubstr(R"("peer":{"uid":1000,"gid":1001,"pid":7})"));
    EXPECT_THAT(events.at(1).body, testing::Not(HasSubstr("peer"))) << "for nobody in particular";
    return {};
  }));
}

TEST_F(StoreTest, EventsAreChainedAndAChangeIsFound) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(write([&](Transaction& tx) -> Status {
      return tx.record(Event{.type = "dvdi.test", .volume = volume_, .details = {{"n", i}}});
    }));
  }
  std::vector<StoredEvent> events;
  ASSERT_TRUE(read([&](Reader& reader) -> Status {
    DVDI_TRY(events, reader.events(0, 100));
    return {};
  }));
  ASSERT_THAT(events, SizeIs(3));
  EXPECT_THAT(events[0].json(), HasSubstr("\"hash\":\"" + events[0].hash + "\"}"));
  EXPECT_THAT(events[1].body, HasSubstr(events[0].hash));

  const auto verify = [](const std::vector<StoredEvent>& list) -> Status {
    EventVerifier verifier;
    for (const auto& event : list) DVDI_CHECK(verifier.next(event));
    return {};
  };
  EXPECT_TRUE(verify(events));
  auto removed = events;
  removed.erase(removed.begin() + 1);
  EXPECT_THAT(verify(removed).error().text(), HasSubstr("1 missing"));
  auto changed = events;
  changed[1].body.replace(changed[1].body.find("\"n\":1"), 5, "\"n\":7");
  EXPECT_THAT(verify(changed).error().text(), HasSubstr("changed"));
  auto rehashed = changed;
  rehashed[1].hash = sha256_hex(rehashed[1].body);
  EXPECT_THAT(verify(rehashed).error().text(), HasSubstr("event 3"));
  auto swapped = events;
  std::swap(swapped[1].body, swapped[2].body);
  std::swap(swapped[1].hash, swapped[2].hash);
  EXPECT_THAT(verify(swapped).error().text(), HasSubstr("out of order"));
}

TEST_F(StoreTest, UsageIsMeasuredWithTheBootClockWhateverTheWallClockDoes) {
  using Kind = UsageInterval::Kind;
  const auto open = [&](Transaction& tx) {
    return begin_use(tx, {.kind = Kind::mounted, .volume = volume_});
  };
  const auto close = [&](Transaction& tx) { return end_use(tx, {.kind = Kind::mounted, .volume = volume_}); };
  ASSERT_TRUE(write(open));
  clock_.boot_now += std::chrono::seconds(10);
  clock_.wall_now -= std::chrono::hours(5);  // somebody set the clock back
  ASSERT_TRUE(write(close));
  ASSERT_TRUE(write(open));
  clock_.boot_now += std::chrono::seconds(3);
  Duration total{};
  int still_open = 0;
  ASSERT_TRUE(read([&](Reader& reader) -> Status {
    return reader.usage(ledger_->now(clock_), WallTime::min(), WallTime::max(), {},
                        [&](const UsageRecord& interval) {
                          total += interval.duration;
                          still_open += interval.open ? 1 : 0;
                          return true;
                        });
  }));
  EXPECT_EQ(total, std::chrono::seconds(13));
  EXPECT_EQ(still_open, 1);
}

TEST_F(StoreTest, ALongReadKeepsNoOtherWaiting) {
  // Within one: short reads, writes, and one more long read; it goes on with what it saw when it began.
  ASSERT_TRUE(ledger_->read_long(context(), "test", [&](Reader& reader) -> Status {
    DVDI_TRY(const std::string before, reader.meta("later"));
    EXPECT_EQ(before, "");
    DVDI_CHECK(write([&](Transaction& tx) { return tx.put_meta("later", "yes"); }));
    DVDI_CHECK(read([&](Reader& other) -> Status {
      DVDI_TRY(const std::string seen, other.meta("later"));
      EXPECT_EQ(seen, "yes");
      return {};
    }));
    DVDI_CHECK(ledger_->read_long(context(), "test", [&](Reader&) -> Status {
      // A third waits, and no longer than its context.
      const auto third =
          ledger_->read_long(context().with_timeout(Duration(0)), "test", [](Reader&) { return Status(); });
      EXPECT_FALSE(third);
      return {};
    }));
    DVDI_TRY(const std::string after, reader.meta("later"));
    EXPECT_EQ(after, "");
    return {};
  }));
  EXPECT_THROW(static_cast<void>(ledger_->read_long(
                   context(), "test", [](Reader&) -> Status { throw std::runtime_error("x"); })),
               std::runtime_error);
  for (int i = 0; i < 3; ++i)
    EXPECT_TRUE(ledger_->read_long(context(), "test", [](Reader&) { return Status(); }));
}

TEST_F(StoreTest, ALongReadInPartsSeesOneStateInAll) {
  std::jthread writer([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      EXPECT_TRUE(write([](Transaction& tx) { return tx.record(Event{.type = "dvdi.test"}); }));
    }
  });
  constexpr unsigned parts = 16;
  unsigned together = 0;
  while (together < 100) {
    std::array<std::uint64_t, parts> heads{};
    std::atomic<unsigned> ran = 0;
    ASSERT_TRUE(ledger_->read_long(context(), "test", parts, [&](Reader& reader, ReadPart part) -> Status {
      EXPECT_LT(part.number, part.of);
      DVDI_TRY(const auto head, reader.head());
      heads.at(part.number) = head.first;
      ++ran;
      return {};
    }));
    if (ran == 1) continue;  // no state lasted long enough
    ASSERT_EQ(ran, parts);
    ASSERT_THAT(heads, testing::Each(heads[0]));
    ++together;
  }
}

TEST_F(StoreTest, ALongReadInPartsFailsWithOneOfThem) {
  const auto done = ledger_->read_long(context(), "test", 3, [&](Reader&, ReadPart part) -> Status {
    if (part.number == 1) return Error{.code = Code::conflict, .message = "no"};
    return {};
  });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::conflict);
}

TEST_F(StoreTest, PartsOfTheUsageHaveEachIntervalOnce) {
  using Kind = UsageInterval::Kind;
  for (int i = 0; i < 11; ++i) {
    const VolumeKey volume{"local", std::to_string(i)};
    ASSERT_TRUE(
        write([&](Transaction& tx) { return begin_use(tx, {.kind = Kind::mounted, .volume = volume}); }));
    if (i == 10) break;  // stays open
    clock_.boot_now += std::chrono::seconds(1);
    ASSERT_TRUE(
        write([&](Transaction& tx) { return end_use(tx, {.kind = Kind::mounted, .volume = volume}); }));
  }
  ASSERT_TRUE(write([&](Transaction& tx) -> Status {  // the ids begin with 4
    DVDI_TRY(const auto erased, tx.erase_usage(clock_.wall_now + std::chrono::hours(1), 3));
    EXPECT_EQ(erased, 3U);
    return {};
  }));
  for (const unsigned parts : {1U, 2U, 3U, 7U, 12U}) {
    std::vector<std::string> seen;
    for (unsigned number = 0; number < parts; ++number) {
      ASSERT_TRUE(read([&](Reader& reader) {
        return reader.usage(ledger_->now(clock_), WallTime::min(), WallTime::max(), {.volume = true},
                            [&](const UsageRecord& record) {
                              seen.emplace_back(record.volume);
                              return true;
                            },
                            {}, {.number = number, .of = parts});
      }));
    }
    EXPECT_THAT(seen, testing::UnorderedElementsAre("3", "4", "5", "6", "7", "8", "9", "10")) << parts;
  }
}

TEST_F(StoreTest, WhoIsInTheWayOfAnExclusiveUser) {
  const auto refer = [&](const std::string& id, bool exclusive) {
    return write([&](Transaction& tx) -> Status {
      const ContainerKey key{"run", id};
      DVDI_CHECK(tx.put(ContainerRow{.key = key, .since = tx.now()}));
      return tx.put(
          ReferenceRow{.container = key, .volume = volume_, .exclusive = exclusive, .since = tx.now()});
    });
  };
  const auto in_the_way = [&](const std::string& id, bool exclusive) {
    std::optional<ReferenceRow> found;
    EXPECT_TRUE(read([&](Reader& reader) -> Status {
      DVDI_TRY(found, reader.reference_in_the_way({"run", id}, volume_, exclusive));
      return {};
    }));
    return found ? found->container.id : "";
  };
  EXPECT_EQ(in_the_way("c1", true), "");
  ASSERT_TRUE(refer("c1", false));
  EXPECT_EQ(in_the_way("c1", true), "") << "itself";
  EXPECT_EQ(in_the_way("c2", false), "");
  EXPECT_EQ(in_the_way("c2", true), "c1");
  ASSERT_TRUE(refer("c3", true));
  EXPECT_EQ(in_the_way("c2", false), "c3");
  EXPECT_EQ(in_the_way("c3", false), "");
  EXPECT_EQ(in_the_way("c3", true), "c1");
  ASSERT_TRUE(write([&](Transaction& tx) { return tx.erase_reference({"run", "c3"}, volume_); }));
  EXPECT_EQ(in_the_way("c2", false), "");
}

TEST_F(StoreTest, RowsOfAnotherBootAreSeenInEveryTable) {
  const auto others = [&] {
    bool found = false;
    EXPECT_TRUE(read([&](Reader& reader) -> Status {
      DVDI_TRY(found, reader.has_rows_of_other_boots(ledger_->boot_id()));
      return {};
    }));
    return found;
  };
  Moment old = ledger_->now(clock_);
  old.boot_id = "another";
  const auto seen = [&](const std::function<Status(Transaction&)>& put,
                        const std::function<Status(Transaction&)>& erase) {
    EXPECT_FALSE(others());
    EXPECT_TRUE(write(put));
    const bool found = others();
    EXPECT_TRUE(write(erase));
    return found;
  };
  EXPECT_TRUE(seen([&](Transaction& tx) { return tx.put(ContainerRow{.key = container_, .since = old}); },
                   [&](Transaction& tx) { return tx.erase(container_); }));
  EXPECT_TRUE(seen([&](Transaction& tx) { return tx.put(MountRow{.volume = volume_, .since = old}); },
                   [&](Transaction& tx) { return tx.erase_mount(volume_); }));
  EXPECT_TRUE(seen([&](Transaction& tx) { return tx.put(DebtRow{.volume = volume_, .since = old}); },
                   [&](Transaction& tx) { return tx.erase_debt(volume_); }));
  EXPECT_TRUE(seen([&](Transaction& tx) { return tx.put(ForeignRow{.volume = volume_, .since = old}); },
                   [&](Transaction& tx) { return tx.erase_foreign(volume_); }));
  EXPECT_TRUE(seen([&](Transaction& tx) { return tx.put(VolumeRow{.volume = volume_, .since = old}); },
                   [&](Transaction& tx) { return tx.erase_volume(volume_); }));
  EXPECT_TRUE(seen([&](Transaction& tx) { return tx.put(StagedRow{.container = container_, .since = old}); },
                   [&](Transaction& tx) { return tx.erase_staged(container_, 0); }));
  const auto refer = [&](Transaction& tx) -> Status {
    DVDI_CHECK(tx.put(ContainerRow{.key = container_, .since = tx.now()}));
    return tx.put(ReferenceRow{.container = container_, .volume = volume_, .since = old});
  };
  EXPECT_TRUE(seen(refer, [&](Transaction& tx) { return tx.erase_reference(container_, volume_); }));
  // One that has ended is remembered, whatever its boot.
  EXPECT_FALSE(seen(
      [&](Transaction& tx) {
        return tx.put(
            ContainerRow{.key = container_, .state = ContainerState::ended, .since = old, .ended = old});
      },
      [&](Transaction& tx) { return tx.erase(container_); }));
}

TEST_F(StoreTest, ContainersThatLiveByOwner) {
  const auto add = [&](const std::string& owner, const std::string& id, bool ended) {
    ASSERT_TRUE(write([&](Transaction& tx) {
      ContainerRow row{.key = {owner, id}, .since = tx.now()};
      if (ended) {
        row.state = ContainerState::ended;
        row.ended = tx.now();
      }
      return tx.put(row);
    }));
  };
  add("run", "c1", false);
  add("run", "c2", true);
  add("agent", "c3", false);
  ASSERT_TRUE(read([&](Reader& reader) -> Status {
    DVDI_TRY(const auto of_run, reader.live_containers_of("run"));
    EXPECT_EQ(of_run.size(), 1U);
    EXPECT_EQ(of_run.at(0).key.id, "c1");
    DVDI_TRY(const auto ids, reader.live_ids());
    EXPECT_THAT(ids, testing::ElementsAre("c1", "c3"));
    return {};
  }));
}

TEST_F(StoreTest, TwoProcessesWriteOneChain) {
  auto other = Ledger::open(context(), path_);
  ASSERT_TRUE(other);
  const auto twenty = [&](Ledger& ledger) {
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(ledger.write(Context(), "test",
                               [](Transaction& tx) { return tx.record(Event{.type = "dvdi.test"}); }));
    }
  };
  {
    std::jthread first([&] { twenty(*ledger_); });
    std::jthread second([&] { twenty(**other); });
  }
  ASSERT_TRUE(read([&](Reader& reader) -> Status {
    DVDI_TRY(const auto events, reader.events(0, 100));
    EXPECT_THAT(events, SizeIs(40));
    EventVerifier verifier;
    for (const auto& event : events) DVDI_CHECK(verifier.next(event));
    return {};
  }));
}

TEST_F(StoreTest, WhatIsOpenedForAMomentKeepsItsLogShort) {
  const auto log_after_writes = [&](OpenFor how_long) {
    const std::string path = folder_ + (how_long == OpenFor::a_moment ? "/moment.db" : "/long.db");
    auto ledger = Ledger::open(context(), path, how_long);
    EXPECT_TRUE(ledger);
    for (int i = 0; i < 200; ++i) {
      EXPECT_TRUE((*ledger)->write(context(), "test",
                                   [](Transaction& tx) { return tx.record(Event{.type = "dvdi.test"}); }));
    }
    return (*ledger)->size().log_bytes;
  };
  constexpr std::uint64_t enough = 150U * 4120;  // 128 pages, and those of a transaction
  EXPECT_LT(log_after_writes(OpenFor::a_moment), enough);
  EXPECT_GT(log_after_writes(OpenFor::long_work), 2 * enough);
}

TEST_F(StoreTest, AYoungerSchemaIsRefusedAndNoDatabaseIsAnError) {
  ledger_.reset();
  {
    auto opened = Ledger::open(context(), "/nonexistent/state.db");
    EXPECT_FALSE(opened);
  }
  std::filesystem::resize_file(path_, 0);
  {
    FILE* file = fopen(path_.c_str(), "we");
    ASSERT_NE(file, nullptr);
    for (int i = 0; i < 100; ++i) fputs("this is no database ", file);
    ASSERT_EQ(fclose(file), 0);
  }
  std::filesystem::remove(path_ + "-wal");
  auto damaged = Ledger::open(context(), path_);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, Code::corrupted) << damaged.error().text();
}

}  // namespace
}  // namespace dvdi
