#include "linux/helper_pool.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <thread>

#include "linux/helper_wire.h"
#include "linux/mount_table.h"
#include "linux/process.h"
#include "linux/wait.h"

namespace dvdi {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

Result<std::string> echo(std::string_view request) { return std::string(request); }
Result<std::string> own_pid(std::string_view) { return std::to_string(::getpid()); }
Result<std::string> forever(std::string_view) {
  for (;;) ::pause();
}
Result<std::string> refuse(std::string_view request) {
  return Error{.code = Code::failed_precondition,
               .message = std::string(request),
               .driver = "d",
               .volume = "v",
               .operation = "unmount",
               .attempt = 3,
               .hint = "h",
               .outcome = Outcome::refused,
               .attached = {Error{.code = Code::io, .message = "inner"}}};
}
Result<std::string> too_much(std::string_view) { return std::string(helper::message_limit + 1, 'x'); }
Result<std::string> throws(std::string_view) { throw std::runtime_error("bang"); }
Result<std::string> dies(std::string_view) { ::_exit(1); }

pid_t to_pid(const std::string& text) {
  pid_t pid = 0;
  std::from_chars(text.data(), text.data() + text.size(), pid);
  return pid;
}

// Waits for the end of any process; false if it is still there after 20 s.
bool ends(pid_t pid) {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return errno == ESRCH;
  pollfd one{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
  return wait_ready(Context().with_timeout(std::chrono::seconds(20)), {&one, 1}, "the end").has_value();
}

std::unique_ptr<HelperPool> pool(HelperPool::Limits limits = {}) {
  auto started = HelperPool::start(limits);
  EXPECT_TRUE(started);
  return started ? *std::move(started) : nullptr;
}

TEST(HelperPool, CountsItsHelpers) {
  const auto helpers = pool();
  EXPECT_EQ(helpers->counts().idle, 0U);
  ASSERT_TRUE(helpers->run(Context(), "echo", echo, ""));
  EXPECT_EQ(helpers->counts().idle, 1U);
  std::stop_source stop;
  std::thread works([&] {
    static_cast<void>(helpers->run(Context().with_stop(stop.get_token()), "wait", forever, "", "d/v"));
  });
  while (helpers->counts().busy == 0) std::this_thread::yield();
  EXPECT_EQ(helpers->counts().idle, 0U);
  stop.request_stop();
  works.join();
  const auto counts = helpers->counts();
  EXPECT_EQ(counts.busy, 0U);
  // It was killed just now: to die takes a moment, and is no reason for alarm.
  EXPECT_EQ(counts.stuck, 0U);
  EXPECT_EQ(counts.fenced, 0U);
}

TEST(HelperPool, RunsAFunctionInAnotherProcess) {
  const auto helpers = pool();
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "hello").value(), "hello");
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "").value(), "");
  EXPECT_NE(helpers->run(Context(), "pid", own_pid, "").value(), std::to_string(::getpid()));
  EXPECT_EQ(helpers->stuck(), 0U);
}

TEST(HelperPool, AHelperIsUsedAgain) {
  const auto helpers = pool();
  const std::string first = helpers->run(Context(), "pid", own_pid, "").value();
  EXPECT_EQ(helpers->run(Context(), "pid", own_pid, "").value(), first);
}

TEST(HelperPool, CarriesAnErrorWhole) {
  const auto helpers = pool();
  const auto result = helpers->run(Context(), "refuse", refuse, "why");
  ASSERT_FALSE(result);
  const Error& error = result.error();
  EXPECT_EQ(error.code, Code::failed_precondition);
  EXPECT_EQ(error.outcome, Outcome::refused);
  EXPECT_EQ(error.text(), refuse("why").error().text());
}

TEST(HelperPool, LimitsBothDirections) {
  const auto helpers = pool();
  const std::string most(helper::message_limit, 'a');
  EXPECT_EQ(helpers
                ->run(
                    Context(), "refuse",
                    [](std::string_view r) -> Result<std::string> { return std::to_string(r.size()); }, most)
                .value(),
            std::to_string(most.size()));
  const auto larger = helpers->run(Context(), "echo", echo, most + "a");
  EXPECT_EQ(larger.error().code, Code::resource_exhausted);
  EXPECT_EQ(larger.error().outcome, Outcome::not_sent);
  const auto answer = helpers->run(Context(), "answer", too_much, "");
  EXPECT_EQ(answer.error().code, Code::resource_exhausted);
  EXPECT_EQ(answer.error().outcome, Outcome::unknown);
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "still").value(), "still");
}

TEST(HelperPool, AnExceptionIsAnError) {
  const auto helpers = pool();
  const auto result = helpers->run(Context(), "throws", throws, "");
  EXPECT_EQ(result.error().code, Code::internal);
  EXPECT_THAT(result.error().message, HasSubstr("bang"));
}

TEST(HelperPool, AHelperThatDiesLeavesAnUnknownOutcomeAndTheNextCallWorks) {
  const auto helpers = pool();
  const auto result = helpers->run(Context(), "dies", dies, "");
  EXPECT_EQ(result.error().code, Code::internal);
  EXPECT_EQ(result.error().outcome, Outcome::unknown);
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "next").value(), "next");
}

TEST(HelperPool, AnIdleHelperThatWasKilledIsReplaced) {
  const auto helpers = pool();
  const pid_t idle = to_pid(helpers->run(Context(), "pid", own_pid, "").value());
  ::kill(idle, SIGKILL);
  ASSERT_TRUE(ends(idle));
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "next").value(), "next");
}

TEST(HelperPool, TheDeadlineEndsACallAndItsHelper) {
  const auto helpers = pool({.idle = 1, .running = 1});
  const auto result =
      helpers->run(Context().with_timeout(std::chrono::milliseconds(30)), "wait for ever", forever, "");
  EXPECT_EQ(result.error().code, Code::deadline_exceeded);
  EXPECT_EQ(result.error().outcome, Outcome::unknown);
  EXPECT_THAT(result.error().message, HasSubstr("wait for ever"));
  // The only place is free again once the killed helper has gone.
  EXPECT_EQ(helpers->run(Context(), "echo", echo, "next").value(), "next");
  EXPECT_EQ(helpers->stuck(), 0U);
}

TEST(HelperPool, ACancellationEndsACallAtOnce) {
  const auto helpers = pool();
  ASSERT_TRUE(helpers->run(Context(), "echo", echo, ""));
  std::stop_source source;
  std::jthread canceller([&] { source.request_stop(); });
  const auto result = helpers->run(Context().with_stop(source.get_token()), "wait", forever, "");
  EXPECT_EQ(result.error().code, Code::cancelled);
}

TEST(HelperPool, WhatNeverBeganSaysSo) {
  const auto helpers = pool({.idle = 1, .running = 1});
  EXPECT_EQ(helpers->run(Context().with_timeout(Duration::zero()), "late", echo, "").error().outcome,
            Outcome::not_sent);
  std::stop_source source;
  std::jthread occupant(
      [&] { (void)helpers->run(Context().with_stop(source.get_token()), "occupy", forever, ""); });
  while (helpers->counts().busy == 0) std::this_thread::yield();
  // The only place is taken: no other call gets in before its deadline.
  const auto second =
      helpers->run(Context().with_timeout(std::chrono::milliseconds(20)), "second", echo, "x");
  EXPECT_EQ(second.error().code, Code::deadline_exceeded);
  EXPECT_EQ(second.error().outcome, Outcome::not_sent);
  source.request_stop();
}

TEST(HelperPool, ManyThreadsAtOnce) {
  const auto helpers = pool({.idle = 2, .running = 4});
  std::vector<std::jthread> threads;
  std::array<std::atomic<int>, 1> wrong{};
  for (int thread = 0; thread < 12; ++thread) {
    threads.emplace_back([&, thread] {
      for (int call = 0; call < 20; ++call) {
        const std::string text = std::to_string(thread * 1000 + call);
        if (call % 7 == 3) {
          (void)helpers->run(Context().with_timeout(std::chrono::milliseconds(1)), "wait", forever, "");
        }
        const auto result = helpers->run(Context(), "echo", echo, text);
        if (!result || *result != text) ++wrong[0];
      }
    });
  }
  threads.clear();
  EXPECT_EQ(wrong[0], 0);
}

TEST(HelperPool, HelpersHaveNoDescriptorOfTheProgramAndIgnoreSignalsOfTheTerminal) {
  const UniqueFd first(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
  const UniqueFd inherited(::fcntl(first.get(), F_DUPFD, 100));  // beyond those that are replaced
  const auto helpers = pool();
  const auto files = helpers->run(
      Context(), "descriptors",
      [](std::string_view) -> Result<std::string> {
        std::string all;
        for (const auto& one : std::filesystem::directory_iterator("/proc/self/fd")) {
          std::error_code gone;
          all += std::filesystem::read_symlink(one.path(), gone).string() + "\n";
        }
        return all;
      },
      "");
  EXPECT_THAT(files.value(), Not(HasSubstr("passwd")));
  EXPECT_THAT(files.value(), Not(HasSubstr("pidfd")));
  EXPECT_THAT(files.value(), HasSubstr("/dev/null"));
  const auto survived = helpers->run(
      Context(), "signals",
      [](std::string_view) -> Result<std::string> {
        for (const int one : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::raise(one);
        return std::to_string(::getsid(0));
      },
      "");
  ASSERT_TRUE(survived) << survived.error().text();
  EXPECT_NE(*survived, std::to_string(::getsid(0)));
}

TEST(HelperPool, TheDestructorEndsAllHelpersAndLeavesNoZombie) {
  auto helpers = pool();
  const pid_t idle = to_pid(helpers->run(Context(), "pid", own_pid, "").value());
  helpers.reset();
  EXPECT_EQ(::kill(idle, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST(HelperPool, WithoutTheAncestorCallsFailAndSaySo) {
  const auto helpers = pool({.idle = 0, .running = 8});
  const pid_t ancestor =
      to_pid(helpers
                 ->run(
                     Context(), "parent",
                     [](std::string_view) -> Result<std::string> { return std::to_string(::getppid()); }, "")
                 .value());
  ::kill(ancestor, SIGKILL);
  ASSERT_TRUE(ends(ancestor));
  const auto result = helpers->run(Context(), "echo", echo, "");
  EXPECT_EQ(result.error().code, Code::unavailable);
  EXPECT_EQ(result.error().outcome, Outcome::not_sent);
}

// A mount namespace of this program's own; a helper started before it does not see it.
bool enter_namespace() {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = testing::TempDir() + "dvdi-helper-XXXXXX";
    path_ = std::filesystem::canonical(::mkdtemp(pattern.data()));
  }
  ~TemporaryFolder() {
    ::umount2(path_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    std::filesystem::remove_all(path_);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Tells who it is, then hangs.
Result<std::string> report_and_hang(std::string_view fifo) {
  const int fd = ::open(std::string(fifo).c_str(), O_WRONLY | O_CLOEXEC);
  const std::string text = std::to_string(::getpid()) + " " + std::to_string(::getppid()) + "\n";
  if (::write(fd, text.data(), text.size()) < 0) ::_exit(1);
  ::close(fd);
  return forever("");
}

TEST(HelperPool, AKilledProgramLeavesNoHelperBehindNotEvenABusyOne) {
  const TemporaryFolder folder;
  const std::string fifo = folder.path() + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const pid_t program = ::fork();
  if (program == 0) {
    auto started = HelperPool::start();
    if (started) (void)(*started)->run(Context(), "hang", report_and_hang, fifo);
    ::_exit(1);
  }
  pid_t helper = 0;
  pid_t ancestor = 0;
  std::ifstream(fifo) >> helper >> ancestor;
  ASSERT_GT(helper, 1);
  ASSERT_GT(ancestor, 1);
  ASSERT_NE(ancestor, program);
  EXPECT_EQ(::kill(helper, 0), 0);
  ::kill(program, SIGKILL);
  ::waitpid(program, nullptr, 0);
  EXPECT_TRUE(ends(ancestor));
  EXPECT_TRUE(ends(helper));
}

Result<std::string> mount_tmpfs(std::string_view request) {
  if (::mount("test", std::string(request).c_str(), "tmpfs", 0, nullptr) < 0) return os_error("mount", errno);
  return std::string();
}

TEST(HelperPool, WhatAHelperMountsIsMountedForTheProgramAlsoInANamespaceOfItsOwn) {
  if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
  ASSERT_TRUE(enter_namespace());
  const auto helpers = pool();
  const TemporaryFolder folder;
  const auto mounted = helpers->run(Context(), "mount", mount_tmpfs, folder.path());
  ASSERT_TRUE(mounted) << mounted.error().text();
  EXPECT_NE(MountTable::read()->at(folder.path()), nullptr);
}

// Stuck as on a dead device: the kernel lets a write to a frozen file system wait, and no signal ends it.
TEST(HelperPool, AHelperThatIsStuckInTheKernelIsAbandonedCountedAndForgottenWhenItGoes) {
  if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
  ASSERT_TRUE(enter_namespace());
  const TemporaryFolder images;
  const TemporaryFolder folder;
  const std::string image = images.path() + "/image";
  std::ofstream(image).close();
  std::filesystem::resize_file(image, 16 << 20);
  const Context context = Context().with_timeout(std::chrono::minutes(1));
  for (const std::vector<std::string>& argv :
       {std::vector<std::string>{"mkfs.ext4", "-q", image},
        std::vector<std::string>{"mount", "-o", "loop", image, folder.path()}}) {
    const auto done = run_program(context, argv);
    ASSERT_TRUE(done) << done.error().text();
    if (done->exit_code != 0) GTEST_SKIP() << argv[0] << ": " << done->output;
  }
  const auto helpers = pool({.idle = 1, .running = 2});
  const UniqueFd root(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(root);
  ASSERT_EQ(::ioctl(root.get(), FIFREEZE, 0), 0);
  const auto result = helpers->run(
      Context().with_timeout(std::chrono::milliseconds(200)), "write to a frozen file system",
      [](std::string_view path) -> Result<std::string> {
        const int fd = ::open(path.data(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        return std::to_string(fd);
      },
      folder.path() + "/file", "fake/a");
  const unsigned stuck = helpers->stuck();
  const auto fenced = helpers->fenced(Context(), "fake/a");
  const auto same = helpers->run(Context(), "same", echo, "x", "fake/a");
  const auto other = helpers->run(Context(), "other", echo, "x", "fake/b");
  // It takes a place, of which there are two.
  std::stop_source stop;
  std::jthread occupant(
      [&] { (void)helpers->run(Context().with_stop(stop.get_token()), "wait", forever, ""); });
  Result<std::string> next = std::string();
  while (next) next = helpers->run(Context().with_timeout(std::chrono::milliseconds(50)), "next", echo, "x");
  stop.request_stop();
  ASSERT_EQ(::ioctl(root.get(), FITHAW, 0), 0);
  EXPECT_EQ(result.error().code, Code::deadline_exceeded);
  EXPECT_EQ(result.error().outcome, Outcome::unknown);
  EXPECT_EQ(stuck, 1U);
  ASSERT_TRUE(fenced);
  EXPECT_EQ(fenced->key, "fake/a");
  EXPECT_EQ(fenced->what, "write to a frozen file system");
  ASSERT_FALSE(same) << "further work of that volume would be stuck, too";
  EXPECT_EQ(same.error().code, Code::unavailable);
  EXPECT_EQ(same.error().outcome, Outcome::not_sent);
  EXPECT_THAT(same.error().message, HasSubstr("write to a frozen file system"));
  EXPECT_TRUE(other);
  EXPECT_EQ(next.error().outcome, Outcome::not_sent);
  while (helpers->stuck() > 0) std::this_thread::yield();
  EXPECT_EQ(helpers->run(context, "after", echo, "x", "fake/a").value(), "x");
}

TEST(HelperWire, RefusesWhatItDidNotWrite) {
  for (const std::string& bytes :
       {std::string(), std::string("x"), std::string(8, '\1'), std::string(100, '\0'),
        helper::encode(std::string("a")) + "b", helper::encode(refuse("a")) + "b"}) {
    if (bytes == std::string(100, '\0')) continue;
    EXPECT_EQ(helper::decode(bytes).error().code, Code::internal);
  }
  const std::string good = helper::encode(refuse("a"));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(helper::decode(std::string_view(good).substr(0, size)).error().code, Code::internal);
  }
}

}  // namespace
}  // namespace dvdi
