#include "cli/output.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <thread>

#include "base/json.h"
#include "daemon/wire.h"
#include "linux/fd.h"

namespace dvdi::cli {
namespace {

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    reader.reset(ends[0]);
    writer.reset(ends[1]);
  }
  UniqueFd reader, writer;
};

class OutputTest : public testing::Test {
 protected:
  void SetUp() override { old_ = std::signal(SIGPIPE, SIG_IGN); }
  void TearDown() override { std::signal(SIGPIPE, old_); }
  void (*old_)(int) = SIG_DFL;
};

TEST_F(OutputTest, WritesWhatItWasGivenWhenFlushed) {
  Pipe pipe;
  Output out(pipe.writer.get());
  ASSERT_TRUE(out.write("a\n"));
  ASSERT_TRUE(out.write_json(json::object{{"k", 1}}));
  ASSERT_TRUE(out.flush());
  std::array<char, 64> text{};
  const ssize_t count = ::read(pipe.reader.get(), text.data(), text.size());
  EXPECT_EQ(std::string(text.data(), static_cast<std::size_t>(count)), "a\n{\"k\":1}\n");
  EXPECT_FALSE(out.reader_gone());
}

TEST_F(OutputTest, TellsAReaderThatWentAwayFromAFailure) {
  Pipe pipe;
  Output out(pipe.writer.get());
  pipe.reader.reset();
  EXPECT_TRUE(out.write("x"));
  EXPECT_FALSE(out.flush());
  EXPECT_TRUE(out.reader_gone());
}

TEST_F(OutputTest, FindsAReaderThatWentAwayWithoutWriting) {
  Pipe pipe;
  Output out(pipe.writer.get());
  EXPECT_FALSE(out.reader_gone());
  pipe.reader.reset();
  EXPECT_TRUE(out.reader_gone());
}

TEST_F(OutputTest, ReportsAFullDisk) {
  const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  if (!full) GTEST_SKIP() << "no /dev/full";
  Output out(full.get());
  EXPECT_TRUE(out.write("x"));
  const Status status = out.flush();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::io);
  EXPECT_FALSE(out.reader_gone());
}

TEST_F(OutputTest, FlushesByItselfWhenThereIsMuch) {
  const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  if (!full) GTEST_SKIP() << "no /dev/full";
  Output out(full.get());
  EXPECT_FALSE(out.write(std::string(1 << 17, 'x')));
}

TEST_F(OutputTest, WritesAllToANonBlockingPipe) {
  Pipe pipe;
  ASSERT_EQ(::fcntl(pipe.writer.get(), F_SETFL, O_NONBLOCK), 0);
  const std::string text(1 << 20, 'y');  // more than a pipe holds
  std::size_t read_bytes = 0;
  std::thread reader([&] {
    std::array<char, 4096> piece{};
    for (;;) {
      const ssize_t count = ::read(pipe.reader.get(), piece.data(), piece.size());
      if (count <= 0) return;
      read_bytes += static_cast<std::size_t>(count);
    }
  });
  Output out(pipe.writer.get());
  EXPECT_TRUE(out.write(text));
  EXPECT_TRUE(out.flush());
  pipe.writer.reset();
  reader.join();
  EXPECT_EQ(read_bytes, text.size());
}

TEST(ErrorJson, HasEveryMember) {
  const Error error{.code = Code::driver_error,
                    .message = "it said no",
                    .driver = "rc",
                    .volume = "v",
                    .operation = "Mount",
                    .attempt = 2,
                    .hint = "ask it",
                    .outcome = Outcome::refused,
                    .attached = {Error{.code = Code::io, .message = "and that"}}};
  EXPECT_EQ(
      json::serialize(wire::to_json(error)),
      R"({"code":"driver_error","message":"it said no","driver":"rc","volume":"v","operation":"Mount",)"
      R"("attempt":2,"hint":"ask it","outcome":"refused","attached":[{"code":"io","message":"and that",)"
      R"("driver":"","volume":"","operation":"","attempt":0,"hint":"","outcome":"none","attached":[]}]})");
}

TEST(SayError, BeginsEachLineWithTheProgram) {
  testing::internal::CaptureStderr();
  say_error(
      Error{.code = Code::io, .message = "one", .attached = {Error{.code = Code::io, .message = "two"}}},
      Format::table);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "dvdi: io: one\ndvdi:   two\n");
}

TEST(SayError, IsOneObjectForPrograms) {
  testing::internal::CaptureStderr();
  say_error(Error{.code = Code::io, .message = "one"}, Format::json);
  const auto parsed = json::parse(testing::internal::GetCapturedStderr(), "stderr");
  ASSERT_TRUE(parsed);
  const json::value* error = json::find(*parsed, "error");
  ASSERT_NE(error, nullptr);
  EXPECT_EQ(json::text_or_empty(*error, "code"), "io");
}

}  // namespace
}  // namespace dvdi::cli
