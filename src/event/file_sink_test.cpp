#include "event/file_sink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "event/sink_conformance_test.h"

namespace dvdi {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class FileReceiver final : public Receiver {
 public:
  std::unique_ptr<Sink> sink() override { return std::make_unique<FileSink>(FileSinkSettings{path_}); }
  std::vector<std::string> received() override { return lines_in(path_); }
  void break_it() override {
    std::filesystem::rename(path_, path_ + ".away");
    std::filesystem::create_directory(path_);
  }
  void mend() override {
    std::filesystem::remove(path_);
    std::filesystem::rename(path_ + ".away", path_);
  }
  bool can_be_asked() const override { return true; }

 private:
  const TestFolder folder_;
  const std::string path_ = folder_ / "events.jsonl";
};

Result<std::unique_ptr<Receiver>> make_receiver() {
  return std::unique_ptr<Receiver>(std::make_unique<FileReceiver>());
}
INSTANTIATE_TEST_SUITE_P(File, SinkConformance, testing::Values(ReceiverFactory{&make_receiver}));

class FileSinkTest : public testing::Test {
 protected:
  void restart() { sink_ = std::make_unique<FileSink>(FileSinkSettings{path_}); }
  Status deliver(const std::vector<StoredEvent>& batch) { return sink_->deliver(Context(), batch); }
  std::string refusal(const std::vector<StoredEvent>& batch) {
    const auto done = deliver(batch);
    return done ? "delivered" : done.error().text();
  }
  void append_text(const std::string& text) {
    std::ofstream(path_, std::ios::app | std::ios::binary) << text;
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "events.jsonl";
  std::unique_ptr<FileSink> sink_ = std::make_unique<FileSink>(FileSinkSettings{path_});
  EventMaker maker_;
};

TEST_F(FileSinkTest, ANewFileIsForItsOwnerAlone) {
  ASSERT_TRUE(deliver(maker_.some(1)));
  struct stat status{};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
}

TEST_F(FileSinkTest, AfterACrashLinesThatAreThereAreNotAppendedAgain) {
  const auto all = maker_.some(6);
  ASSERT_TRUE(deliver({all[0], all[1], all[2], all[3]}));
  restart();
  ASSERT_TRUE(deliver({all[1], all[2], all[3], all[4]}));
  ASSERT_TRUE(deliver({all[5]}));
  EXPECT_EQ(lines_in(path_), lines_of(all));
}

TEST_F(FileSinkTest, WhatAReplayAsksForIsAppendedAgain) {
  const auto all = maker_.some(3);
  ASSERT_TRUE(deliver(all));
  restart();
  sink_->sent_again_until(2);
  ASSERT_TRUE(deliver(all));
  EXPECT_EQ(lines_in(path_), lines_of({all[0], all[1], all[2], all[0], all[1]}));
}

TEST_F(FileSinkTest, ATornEndIsCut) {
  const auto all = maker_.some(3);
  ASSERT_TRUE(deliver({all[0]}));
  for (const std::size_t size : {std::size_t{1}, std::size_t{20}, all[1].json().size()}) {
    append_text(all[1].json().substr(0, size));
    restart();
    ASSERT_TRUE(deliver({all[1]}));
    EXPECT_EQ(lines_in(path_), lines_of({all[0], all[1]})) << size;
    std::filesystem::resize_file(path_, all[0].json().size() + 1);
  }
  append_text(all[1].json().substr(0, 30) + std::string(10, '\0') + "\n" + std::string(50, '\0'));
  restart();
  ASSERT_TRUE(deliver({all[1], all[2]}));
  EXPECT_EQ(content_of(path_), all[0].json() + "\n" + all[1].json() + "\n" + all[2].json() + "\n");
}

TEST_F(FileSinkTest, SomebodyElsesTextStays) {
  const auto all = maker_.some(2);
  write_file(path_, "a note\nand its rest");
  ASSERT_TRUE(deliver({all[0]}));
  EXPECT_EQ(content_of(path_), "a note\nand its rest\n" + all[0].json() + "\n");
}

TEST_F(FileSinkTest, EventsOfAnotherNodeAreNotTakenForOurs) {
  EventMaker other("99999999-2222-4333-8444-555555555555");
  const auto theirs = other.some(5);
  ASSERT_TRUE(deliver(theirs));
  restart();
  const auto ours = maker_.some(2);
  ASSERT_TRUE(deliver(ours));
  EXPECT_EQ(lines_in(path_).size(), 7U);
}

TEST_F(FileSinkTest, ARotatedFileIsLetGoOf) {
  const auto all = maker_.some(5);
  ASSERT_TRUE(deliver({all[0], all[1]}));
  std::filesystem::rename(path_, path_ + ".1");
  ASSERT_TRUE(deliver({all[2]}));
  EXPECT_EQ(lines_in(path_ + ".1"), lines_of({all[0], all[1]}));
  EXPECT_EQ(lines_in(path_), lines_of({all[2]}));
  std::filesystem::remove(path_);
  write_file(path_, "");  // logrotate's `create`
  ASSERT_TRUE(deliver({all[3]}));
  std::filesystem::remove(path_);
  ASSERT_TRUE(deliver({all[4]}));
  EXPECT_EQ(lines_in(path_), lines_of({all[4]}));
}

TEST_F(FileSinkTest, ItAppendsToNothingButAFileOfItsOwn) {
  const auto one = maker_.some(1);
  const std::string target = folder_ / "target";
  write_file(target, "");
  std::filesystem::create_symlink(target, path_);
  EXPECT_THAT(refusal(one), HasSubstr("symbolic link"));
  EXPECT_THAT(content_of(target), IsEmpty());
  std::filesystem::remove(path_);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THAT(refusal(one), HasSubstr("no regular file"));
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_NE(refusal(one), "delivered");
  EXPECT_FALSE(sink_->test(Context()));
  std::filesystem::remove(path_);
  if (::geteuid() == 0) {
    write_file(path_, "");
    ASSERT_EQ(::chown(path_.c_str(), 12345, 0), 0);
    EXPECT_THAT(refusal(one), HasSubstr("belongs to uid 12345"));
    EXPECT_THAT(content_of(path_), IsEmpty());
  }
}

TEST_F(FileSinkTest, TheFolderMustBeThere) {
  FileSink sink(FileSinkSettings{folder_ / "none/events"});
  EXPECT_FALSE(sink.test(Context()));
  EXPECT_FALSE(sink.deliver(Context(), maker_.some(1)));
  EXPECT_TRUE(sink_->test(Context()));  // the file need not
  EXPECT_FALSE(std::filesystem::exists(path_));
}

// No process may make a file longer than that; on a full disk a write ends in the same way.
class ShortFiles {
 public:
  explicit ShortFiles(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~ShortFiles() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  ShortFiles(const ShortFiles&) = delete;
  ShortFiles& operator=(const ShortFiles&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

TEST_F(FileSinkTest, WhereTheDiskIsFullNoHalfLineStaysAndNothingIsLostOrTwice) {
  const auto all = maker_.some(5);
  ASSERT_TRUE(deliver({all[0]}));
  const std::size_t line = all[0].json().size() + 1;
  const std::vector<StoredEvent> rest(all.begin() + 1, all.end());
  {
    const ShortFiles full(line * 3 + line / 2);
    EXPECT_FALSE(deliver(rest));
    EXPECT_EQ(content_of(path_), all[0].json() + "\n" + all[1].json() + "\n" + all[2].json() + "\n");
    EXPECT_FALSE(deliver(rest));
  }
  ASSERT_TRUE(deliver(rest));
  EXPECT_EQ(lines_in(path_), lines_of(all));
}

TEST_F(FileSinkTest, ALineThatWasChangedHasNoHead) {
  ASSERT_TRUE(deliver(maker_.some(3)));
  auto lines = lines_in(path_);
  lines[1].replace(lines[1].find("dvdi.test.event"), 15, "dvdi.fake.event");
  write_file(path_, lines[0] + "\n" + lines[1] + "\n" + lines[2] + "\n");
  const auto head = sink_->head(Context(), test_node());
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().code, Code::corrupted);
  EXPECT_THAT(head.error().message, HasSubstr("events.jsonl:2: event 2 was changed"));
}

TEST_F(FileSinkTest, WhatIsMissingInTheMiddleIsMissingInTheCount) {
  ASSERT_TRUE(deliver(maker_.some(5)));
  const auto lines = lines_in(path_);
  write_file(path_,
             "a note\n" + lines[0] + "\n" + lines[2] + "\n" + lines[4] + "\n" + lines[3] + "\n" + "torn");
  const auto head = sink_->head(Context(), test_node());
  ASSERT_TRUE(head) << head.error().text();
  EXPECT_EQ(head->sequence, 5U);
  EXPECT_EQ(head->count, 4U);
}

}  // namespace
}  // namespace dvdi
