// Scenario 15: the database file is empty, cut short, or has flipped bits.
#include "store/damage.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "store/rebuilt.h"

namespace dvdi {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

namespace fs = std::filesystem;

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

void flip(const std::string& path, std::size_t at, unsigned bit = 3) {
  std::string bytes = bytes_of(path);
  ASSERT_LT(at, bytes.size());
  bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ (1U << bit));
  write_bytes(path, bytes);
}

class Damage : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/dvdi-damage-XXXXXX";
    folder = ::mkdtemp(pattern.data());
    path = folder + "/state.db";
  }
  void TearDown() override { fs::remove_all(folder); }

  // A ledger with rows in every table; the log holds all of it, or nothing after a checkpoint.
  void fill(bool checkpoint) {
    auto ledger = open_whole(Context(), path);
    ASSERT_TRUE(ledger) << ledger.error().text();
    for (int i = 0; i < 20; ++i) {
      const std::string n = std::to_string(i);
      ASSERT_TRUE((*ledger)->write(Context(), "test", [&](Transaction& tx) -> Status {
        const ContainerKey container{"run", "c" + n};
        const VolumeKey volume{"local", "v" + n};
        DVDI_CHECK(tx.put(ContainerRow{
            .key = container, .digest = "d", .engine = {.pid = 7, .start_ticks = 8}, .since = tx.now()}));
        DVDI_CHECK(
            tx.put(MountRow{.volume = volume,
                            .mount_id = "m" + n,
                            .state = MountState::mounted,
                            .mount_point = "/mnt/" + n,
                            .identity = StoredIdentity{.mount_id = 5, .major = 1, .minor = 2, .root = "/"},
                            .since = tx.now()}));
        DVDI_CHECK(tx.put(ReferenceRow{.container = container, .volume = volume, .since = tx.now()}));
        DVDI_CHECK(tx.put(VolumeRow{.volume = volume, .since = tx.now()}));
        return tx.record(
            Event{.type = "dvdi.test", .volume = volume, .details = {{"n", std::string(200, 'x')}}});
      }));
    }
    ledger->reset();
    if (!checkpoint) return;
    SQLite::Database database(path, SQLite::OPEN_READWRITE);
    database.execAndGet("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  std::optional<RebuiltBooks> books_after_open() {
    auto ledger = open_whole(Context(), path);
    EXPECT_TRUE(ledger) << ledger.error().text();
    if (!ledger) return std::nullopt;
    std::optional<RebuiltBooks> books;
    EXPECT_TRUE((*ledger)->read(Context(), "test", [&](Reader& reader) -> Status {
      DVDI_TRY(books, rebuilt_books(reader));
      DVDI_TRY(const auto events, reader.events(0, 1000));
      if (!books) return {};
      EXPECT_THAT(events, SizeIs(1));
      if (events.size() == 1) {
        EXPECT_EQ(events[0].sequence, 1U);
        EXPECT_THAT(events[0].body, HasSubstr("dvdi.ledger.rebuilt"));
        EXPECT_THAT(events[0].body, HasSubstr(books->aside));
      }
      DVDI_TRY(const auto mounts, reader.mounts());
      EXPECT_THAT(mounts, IsEmpty());
      return {};
    }));
    return books;
  }
  void expect_rebuilt(std::string_view why) {
    const auto books = books_after_open();
    ASSERT_TRUE(books) << why;
    EXPECT_THAT(books->why, HasSubstr(why));
    EXPECT_THAT(books->aside, StartsWith(path + ".damaged-2"));
  }
  void expect_whole() { EXPECT_FALSE(books_after_open()); }

  std::string folder, path;
};

TEST_F(Damage, AFreshDirectoryAndAWholeDatabaseAreNone) {
  expect_whole();
  expect_whole();
  fill(false);
  expect_whole();
  fs::remove_all(folder);
  fs::create_directory(folder);
  fill(true);
  expect_whole();
  write_bytes(folder + "/empty.db", "");
  EXPECT_FALSE(*find_damage(Context(), folder + "/empty.db"));
  EXPECT_THAT(databases_set_aside(path), IsEmpty());
}

TEST_F(Damage, WhatIsNoDatabaseIsSetAsideWithItsLogAndNothingIsDeleted) {
  fill(false);
  const std::string log = bytes_of(path + "-wal");
  write_bytes(path, std::string(10'000, 'x'));
  expect_rebuilt("");
  const auto aside = databases_set_aside(path);
  ASSERT_THAT(aside, SizeIs(1));
  EXPECT_EQ(bytes_of(aside[0]), std::string(10'000, 'x'));
  EXPECT_EQ(bytes_of(aside[0] + "-wal"), log);
  struct stat status{};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  // It stays what it is: a new ledger, which says so, once.
  auto again = open_whole(Context(), path);
  ASSERT_TRUE(again);
  EXPECT_THAT(databases_set_aside(path), SizeIs(1));
}

TEST_F(Damage, ANewDatabaseIsANewNode) {
  fill(true);
  auto before = open_whole(Context(), path);
  ASSERT_TRUE(before);
  const std::string node = (*before)->node_id();
  before->reset();
  flip(path, 0);
  auto after = open_whole(Context(), path);
  ASSERT_TRUE(after) << after.error().text();
  EXPECT_NE((*after)->node_id(), node);
}

TEST_F(Damage, AnEmptyFileBesideItsLogIsFound) {
  fill(false);
  fs::resize_file(path, 0);
  const std::string log = bytes_of(path + "-wal");
  expect_rebuilt("is empty");
  EXPECT_EQ(bytes_of(databases_set_aside(path)[0] + "-wal"), log) << "SQLite would have deleted it";
}

TEST_F(Damage, AnEmptyFileInADirectoryThatWasInUseIsFound) {
  fill(true);
  for (const char* part : {"-wal", "-shm"}) fs::remove(path + part);
  fs::resize_file(path, 0);
  EXPECT_FALSE(*find_damage(Context(), path)) << "a fresh one looks so";
  fs::create_directory(folder + "/local");
  expect_rebuilt("was in use");
}

TEST_F(Damage, ACutDatabaseIsFound) {
  fill(true);
  const auto size = fs::file_size(path);
  const std::string whole = bytes_of(path);
  for (std::uintmax_t left = 1; left < size; left += size / 13) {
    for (const std::string& one : databases_set_aside(path)) fs::remove(one);
    for (const char* part : {"-wal", "-shm", "-boot"}) fs::remove(path + part);
    write_bytes(path, whole.substr(0, left));
    const auto found = find_damage(Context(), path);
    ASSERT_TRUE(found) << found.error().text();
    EXPECT_TRUE(*found) << "cut to " << left << " of " << size;
  }
}

TEST_F(Damage, ACutLogIsFoundWhereverItIsCut) {
  fill(false);
  const std::string whole = bytes_of(path + "-wal");
  const std::string index = bytes_of(path + "-shm");
  const std::string database = bytes_of(path);
  ASSERT_GT(whole.size(), 2U * 64 * 4120) << "less than is read at once";
  for (std::size_t left = 0; left < whole.size(); left += 4120) {
    write_bytes(path, database);
    write_bytes(path + "-wal", whole.substr(0, left));
    write_bytes(path + "-shm", index);
    const auto found = find_damage(Context(), path);
    ASSERT_TRUE(found) << found.error().text();
    ASSERT_TRUE(*found) << "cut to " << left;
    EXPECT_THAT(**found, HasSubstr("cut short"));
  }
  fs::remove(path + "-wal");
  write_bytes(path + "-shm", index);
  expect_rebuilt("is not there");
}

TEST_F(Damage, AFlippedBitInTheLogIsFound) {
  fill(false);
  const std::string whole = bytes_of(path + "-wal");
  const std::string index = bytes_of(path + "-shm");
  const std::string database = bytes_of(path);
  std::minstd_rand random(1);
  for (int i = 0; i < 60; ++i) {
    write_bytes(path, database);
    write_bytes(path + "-wal", whole);
    write_bytes(path + "-shm", index);
    const std::size_t at = random() % whole.size();
    flip(path + "-wal", at, static_cast<unsigned>(random() % 8));
    if (at % (4096 + 24) == 32 + 4) continue;
    const auto found = find_damage(Context(), path);
    ASSERT_TRUE(found) << found.error().text();
    EXPECT_TRUE(*found) << "a bit of byte " << at;
  }
}

// A writer that was killed leaves a piece of a transaction that never was.
TEST_F(Damage, TheRestOfAKilledWriterIsNone) {
  fill(false);
  std::ofstream(path + "-wal", std::ios::binary | std::ios::app) << std::string(6000, 'y');
  expect_whole();
}

// After a power cut the index may be older than the log.
TEST_F(Damage, TheIndexOfAnotherBootProvesNothing) {
  fill(false);
  write_bytes(path + "-boot", "another");
  fs::resize_file(path + "-wal", fs::file_size(path + "-wal") - 100);
  expect_whole();
}

TEST_F(Damage, EveryFlippedBitInTheDatabaseIsFoundOrChangesNoStructure) {
  fill(true);
  const std::string whole = bytes_of(path);
  std::minstd_rand random(7);
  unsigned found_count = 0;
  for (int i = 0; i < 150; ++i) {
    for (const char* part : {"-wal", "-shm"}) fs::remove(path + part);
    write_bytes(path, whole);
    flip(path, i < 40 ? static_cast<std::size_t>(i) * 5 : random() % whole.size(),
         static_cast<unsigned>(random() % 8));
    const auto found = find_damage(Context(), path);
    ASSERT_TRUE(found) << found.error().text();
    if (*found) ++found_count;
    if (*found) continue;
    // What is not found can be read and written.
    auto ledger = Ledger::open(Context(), path);
    if (!ledger) {
      EXPECT_EQ(ledger.error().code, Code::failed_precondition)
          << ledger.error().text() << ": a younger schema";
      continue;
    }
    EXPECT_TRUE((*ledger)->read(Context(), "test", [&](Reader& reader) -> Status {
      DVDI_CHECK(reader.containers());
      DVDI_CHECK(reader.mounts());
      return {};
    }));
    EXPECT_TRUE((*ledger)->write(Context(), "test",
                                 [](Transaction& tx) { return tx.record(Event{.type = "dvdi.test"}); }));
  }
  EXPECT_GT(found_count, 15U);
}

TEST_F(Damage, RowsThatNobodyWritesAreFound) {
  const std::vector<std::string> nonsense = {
      "UPDATE containers SET state = 'runnimg' WHERE id = 'c3'",
      "UPDATE containers SET engine_pid = -7 WHERE id = 'c3'",
      "UPDATE containers SET boot_id = 'x' || boot_id WHERE id = 'c3'",
      "UPDATE containers SET attribution = '{' WHERE id = 'c3'",
      "UPDATE mounts SET state = 'nounted' WHERE volume = 'v3'",
      "UPDATE mounts SET pending = '?' WHERE volume = 'v3'",
      "UPDATE mounts SET mount_point = '/' WHERE volume = 'v3'",
      "UPDATE mounts SET mount_point = 'mnt' WHERE volume = 'v3'",
      "UPDATE mounts SET identity = '[]' WHERE volume = 'v3'",
      "UPDATE mounts SET boot_id = '' WHERE volume = 'v3'",
      "UPDATE refs SET uses = 'x' WHERE volume = 'v3'",
      "UPDATE refs SET container = 'nobody' WHERE volume = 'v3'",
      "UPDATE volumes SET since_wall = -1 WHERE volume = 'v3'",
      "DROP TABLE debts",
      "PRAGMA application_id=7",
      "PRAGMA user_version=0",
      "PRAGMA user_version=1073741827",
  };
  fill(true);
  const std::string whole = bytes_of(path);
  for (const std::string& sql : nonsense) {
    for (const char* part : {"-wal", "-shm"}) fs::remove(path + part);
    write_bytes(path, whole);
    {
      SQLite::Database database(path, SQLite::OPEN_READWRITE);
      database.exec(sql);
    }
    const auto found = find_damage(Context(), path);
    ASSERT_TRUE(found) << found.error().text();
    EXPECT_TRUE(*found) << sql;
  }
}

TEST_F(Damage, AYoungerSchemaIsRefusedAndNotSetAside) {
  fill(true);
  {
    SQLite::Database database(path, SQLite::OPEN_READWRITE);
    database.exec("PRAGMA user_version=99");
  }
  const auto opened = open_whole(Context(), path);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::failed_precondition);
  EXPECT_THAT(databases_set_aside(path), IsEmpty());
}

TEST_F(Damage, ACrashInTheMiddleOfSettingAsideIsCompleted) {
  fill(false);
  const std::string log = bytes_of(path + "-wal");
  const std::string aside = path + ".damaged-20260101T000000Z";
  fs::rename(path, aside);  // and then it was killed
  expect_rebuilt("log is there");
  EXPECT_THAT(databases_set_aside(path), ElementsAre(aside));
  EXPECT_EQ(bytes_of(aside + "-wal"), log);
}

TEST_F(Damage, ACrashBeforeTheNewLedgerSaysSoIsCompleted) {
  fill(true);
  flip(path, 0);
  ASSERT_TRUE(set_aside(path, WallTime(std::chrono::days(20000))));
  ASSERT_TRUE(Ledger::open(Context(), path));  // and then it was killed
  expect_rebuilt("earlier start");
  EXPECT_THAT(databases_set_aside(path), ElementsAre(path + ".damaged-20241004T000000Z"));
}

TEST_F(Damage, TwoInOneSecondHaveNamesOfTheirOwn) {
  const WallTime now(std::chrono::days(20000));
  write_bytes(path, "one");
  const auto first = set_aside(path, now);
  write_bytes(path, "two");
  const auto second = set_aside(path, now);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(bytes_of(*first), "one");
  EXPECT_EQ(bytes_of(*second), "two");
}

// While it is in use: an error that says what to do, and a thorough check at the next start.
TEST_F(Damage, DamageAtRunTimeIsAnErrorAndFoundAtTheNextStart) {
  fill(true);
  {
    auto ledger = Ledger::open(Context(), path);
    ASSERT_TRUE(ledger);
    std::string bytes = bytes_of(path);
    for (std::size_t page = 1; page * 4096 < bytes.size(); ++page) bytes.replace(page * 4096, 64, 64, '\xff');
    {
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    const auto read = (*ledger)->read(Context(), "read it", [](Reader& reader) -> Status {
      DVDI_CHECK(reader.events(0, 100));
      return {};
    });
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, Code::corrupted) << read.error().text();
    EXPECT_THAT(read.error().hint, HasSubstr("start again"));
    const auto written = (*ledger)->write(
        Context(), "write it", [](Transaction& tx) { return tx.record(Event{.type = "dvdi.test"}); });
    EXPECT_FALSE(written);
  }
  EXPECT_TRUE(fs::exists(path + "-suspect"));
  expect_rebuilt("");
  EXPECT_FALSE(fs::exists(path + "-suspect"));
}

TEST_F(Damage, ASuspicionWithoutCauseIsCleared) {
  fill(true);
  write_bytes(path + "-suspect", "");
  expect_whole();
  EXPECT_FALSE(fs::exists(path + "-suspect"));
}

}  // namespace
}  // namespace dvdi
