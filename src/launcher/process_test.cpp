// The task as processes: exit codes, signals, descriptors, and that nothing of it outlives run().
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <set>

#include "launcher/test_support.h"

namespace dvdi::launcher {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class LaunchProcess : public Launching {};

TEST_F(LaunchProcess, TheExitCodeIsTheTasks) {
  for (const auto& [command, code] : std::vector<std::pair<std::string, int>>{{"true", 0},
                                                                              {"exit 7", 7},
                                                                              {"exit 255", 255},
                                                                              {"kill -KILL $$", 137},
                                                                              {"kill -SEGV $$", 139},
                                                                              {"no-such-program", 127}}) {
    for (const bool host_pid : {false, true}) {
      Task task = shell(command);
      task.host_pid = host_pid;
      auto ended = run_task(task);
      ASSERT_TRUE(ended) << command << ": " << ended.error().text();
      EXPECT_EQ(*ended, code) << command << " host_pid " << host_pid;
    }
  }
}

TEST_F(LaunchProcess, AProgramThatCannotBeExecuted) {
  std::ofstream(sandbox_ / "plain") << "no program";
  std::ofstream(sandbox_ / "noexec") << "no program either";
  fs::permissions(sandbox_ / "noexec", fs::perms::all);
  const auto code_of = [&](const std::string& program) {
    Task task = shell("");
    task.command.set_shell(false);
    task.command.add_arguments(program);
    auto ended = run_task(task);
    EXPECT_FALSE(ended) << program;
    return ended ? *ended : exit_code_of(ended.error());
  };
  EXPECT_EQ(code_of("/no/such/program"), 127);
  EXPECT_EQ(code_of("no-such-program-of-dvdi"), 127);
  EXPECT_EQ(code_of("./plain"), 126);
  EXPECT_EQ(code_of("./noexec"), 126);
  EXPECT_EQ(code_of("/tmp"), 126);
}

TEST_F(LaunchProcess, WhatFailsBeforeTheProgramIsNotItsNotFound) {
  Task task = shell("true");
  task.launch.set_sandbox(top_ / "gone");
  task.launch.set_sandbox_in_container(top_ / "gone");
  auto ended = run_task(task);
  ASSERT_FALSE(ended);
  EXPECT_EQ(exit_code_of(ended.error()), 125) << ended.error().text();

  auto refused = run(Context(), shell("touch ran"), [](pid_t) -> Status {
    return Error{.code = Code::not_found, .message = "the ledger says no"};
  });
  ASSERT_FALSE(refused);
  EXPECT_EQ(exit_code_of(refused.error()), 125);
  EXPECT_THAT(refused.error().message, HasSubstr("the ledger says no"));
  EXPECT_FALSE(fs::exists(sandbox_ / "ran"));
}

TEST_F(LaunchProcess, ArgumentsAreFoundInTheTasksPath) {
  fs::create_directories(sandbox_ / "tools");
  fs::copy_file("/bin/busybox", sandbox_ / "tools/touch");
  Task task = shell("");
  task.command.set_shell(false);
  task.command.add_arguments("touch");
  task.command.add_arguments("made");
  auto* path = task.command.mutable_environment()->add_variables();
  path->set_name("PATH");
  path->set_value("/nonexistent:" + (sandbox_ / "tools").string());
  auto ended = run_task(task);
  ASSERT_TRUE(ended) << ended.error().text();
  EXPECT_EQ(*ended, 0);
  EXPECT_TRUE(fs::exists(sandbox_ / "made"));
}

TEST_F(LaunchProcess, SandboxEnvironmentUmaskAndSignalsAreThoseOfAFreshProcess) {
  const mode_t before = ::umask(0027);
  ::signal(SIGPIPE, SIG_IGN);  // as a caller that writes to sockets has it
  auto ended = run_task(shell("{ pwd; umask; env; grep -E 'Sig(Blk|Ign)|NSpid' /proc/self/status; } > out"));
  ::signal(SIGPIPE, SIG_DFL);
  EXPECT_EQ(::umask(before), mode_t{0027}) << "of the caller";
  ASSERT_TRUE(ended) << ended.error().text();
  EXPECT_THAT(output(), HasSubstr(sandbox_.string() + "\n0027\n"));
  EXPECT_THAT(output(), HasSubstr("\nHOME=/root\n"));
  EXPECT_THAT(output(), HasSubstr("SigBlk:\t0000000000000000\n"));
  EXPECT_THAT(output(), HasSubstr("SigIgn:\t0000000000000000\n"));
}

TEST_F(LaunchProcess, NohupStays) {
  ::signal(SIGHUP, SIG_IGN);
  auto ended = run_task(shell("kill -HUP $$; echo alive > out"));
  ::signal(SIGHUP, SIG_DFL);
  ASSERT_TRUE(ended) << ended.error().text();
  EXPECT_EQ(output(), "alive\n");
}

TEST_F(LaunchProcess, ItsOwnPidNamespaceUnlessTheHosts) {
  Task task = shell("echo $$ > out; ls -d /proc/[0-9]* | wc -l >> out");
  ASSERT_TRUE(run_task(task));
  EXPECT_EQ(output().substr(0, 2), "2\n") << output();
  EXPECT_LE(std::stoi(output().substr(2)), 5) << "sees only its own processes";
  task.host_pid = true;
  task.command.set_value("readlink /proc/self/ns/pid > out");
  ASSERT_TRUE(run_task(task));
  EXPECT_EQ(output(), fs::read_symlink("/proc/self/ns/pid").string() + "\n");
}

TEST_F(LaunchProcess, NoDescriptorOfTheCallerReachesTheTaskOrItsInit) {
  ASSERT_TRUE(std::ofstream(top_ / "locks") << "x");
  const auto take_lock = [&] {
    const int fd = ::open((top_ / "locks").c_str(), O_RDWR);  // no O_CLOEXEC: the worst case
    struct flock lock{};
    lock.l_type = F_WRLCK;
    EXPECT_EQ(::fcntl(fd, F_OFD_SETLK, &lock), 0);
    EXPECT_EQ(::dup2(fd, 50), 50);
  };
  Runner runner = start_runner(shell("ls /proc/$$/fd; echo end; read line"), take_lock);
  for (const char* line : {"0", "1", "2", "end"}) EXPECT_EQ(runner.line(), line);
  std::set<std::string> of_init;
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(runner.init) + "/fd"))
    of_init.insert(entry.path().filename());
  EXPECT_EQ(of_init, (std::set<std::string>{"0", "1", "2"}));

  // The task's init lives on, and the lock went with its holder.
  ASSERT_EQ(::kill(runner.pid, SIGKILL), 0);
  EXPECT_EQ(runner.wait(), 137);
  const UniqueFd ours(::open((top_ / "locks").c_str(), O_RDWR | O_CLOEXEC));
  struct flock lock{};
  lock.l_type = F_WRLCK;
  EXPECT_EQ(::fcntl(ours.get(), F_OFD_SETLK, &lock), 0) << "somebody still has the lock";
  EXPECT_EQ(::kill(runner.init, 0), 0) << "the init should live";
  runner.input.reset();
  reap_everything();
}

TEST_F(LaunchProcess, SignalsArePassedOn) {
  for (const bool host_pid : {false, true}) {
    for (const auto& [name, number] : std::vector<std::pair<std::string, int>>{{"TERM", SIGTERM},
                                                                               {"HUP", SIGHUP},
                                                                               {"INT", SIGINT},
                                                                               {"QUIT", SIGQUIT},
                                                                               {"USR1", SIGUSR1},
                                                                               {"USR2", SIGUSR2}}) {
      Task task = shell("trap 'echo got; exit 33' " + name + "; echo ready; sleep 1000 & wait");
      task.host_pid = host_pid;
      Runner runner = start_runner(task);
      EXPECT_EQ(runner.line(), "ready");
      ASSERT_EQ(::kill(runner.pid, number), 0);
      EXPECT_EQ(runner.line(), "got") << name;
      EXPECT_EQ(runner.wait(), 33) << name << " host_pid " << host_pid;
    }
  }
}

TEST_F(LaunchProcess, ASignalThatEndsTheTaskIsItsExitCode) {
  Runner runner = start_runner(shell("echo ready; exec sleep 1000"));
  EXPECT_EQ(runner.line(), "ready");
  ASSERT_EQ(::kill(runner.pid, SIGTERM), 0);
  EXPECT_EQ(runner.wait(), 143);
}

// The launcher as the leader of a session with a terminal, so that the kernel signals its foreground group.
class LaunchTerminal : public Launching {
 protected:
  void start(const std::string& command) {
    const Task task = shell(command);
    int master = -1;
    pid_ = ::forkpty(&master, nullptr, nullptr, nullptr);
    ASSERT_GE(pid_, 0);
    if (pid_ == 0) {
      const auto code = run(Context(), task, {});
      ::_exit(code ? *code : 125);
    }
    terminal_.reset(master);
  }
  bool wait_for(const std::string& text) const {
    std::string seen;
    char one = 0;
    while (seen.find(text) == std::string::npos && ::read(terminal_.get(), &one, 1) == 1) seen += one;
    return seen.find(text) != std::string::npos;
  }
  int wait() const {
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  pid_t pid_ = 0;
  UniqueFd terminal_;
};

TEST_F(LaunchTerminal, AnInterruptComesOnce) {
  start(
      "trap 'echo INT >> out; echo woken' INT; trap 'exit 5' TERM; echo ready; "
      "while :; do sleep 1000 & wait $!; done");
  ASSERT_TRUE(wait_for("ready"));
  ASSERT_EQ(::write(terminal_.get(), "\x03", 1), 1);
  ASSERT_TRUE(wait_for("woken"));
  // Had it been passed on as well, it would be there before this one: the init hears in order.
  ASSERT_EQ(::kill(pid_, SIGTERM), 0);
  EXPECT_EQ(wait(), 5);
  EXPECT_EQ(output(), "INT\n");
}

TEST_F(LaunchTerminal, ItsEndReachesTheTask) {
  start("trap 'echo HUP >> out; exit 6' HUP; echo ready; while :; do sleep 1000 & wait $!; done");
  ASSERT_TRUE(wait_for("ready"));
  terminal_.reset();
  EXPECT_EQ(wait(), 6);
  EXPECT_EQ(output(), "HUP\n");
}

TEST_F(LaunchTerminal, ItIsTheTasksOwn) {
  start("test -t 0 && test -t 1 && test -t 2 && echo yes-a-terminal; read line; exit 3");
  ASSERT_TRUE(wait_for("yes-a-terminal"));
  ASSERT_EQ(::write(terminal_.get(), "\n", 1), 1);
  EXPECT_EQ(wait(), 3);
}

TEST_F(LaunchTerminal, StopAndContinueAsAJobOfAShell) {
  // What a shell does: a process group of its own for the job, in the foreground, watched for a stop.
  const Task task = shell("echo ready; read line; echo \"$line\" > out; exit 3");
  int master = -1;
  pid_ = ::forkpty(&master, nullptr, nullptr, nullptr);
  ASSERT_GE(pid_, 0);
  if (pid_ == 0) {
    ::signal(SIGTTOU, SIG_IGN);
    const pid_t job = ::fork();
    if (job == 0) {
      ::setpgid(0, 0);
      ::tcsetpgrp(0, ::getpid());
      ::signal(SIGTTOU, SIG_DFL);
      const auto code = run(Context(), task, {});
      ::_exit(code ? *code : 125);
    }
    int status = 0;
    if (::waitpid(job, &status, WUNTRACED) != job || !WIFSTOPPED(status)) ::_exit(90);
    ::kill(-job, SIGCONT);
    static_cast<void>(!::write(1, "continued\n", 10));
    if (::waitpid(job, &status, 0) != job || !WIFEXITED(status)) ::_exit(91);
    ::_exit(WEXITSTATUS(status));
  }
  terminal_.reset(master);
  ASSERT_TRUE(wait_for("ready"));
  ASSERT_EQ(::write(master, "\x1a", 1), 1);
  ASSERT_TRUE(wait_for("continued"));
  ASSERT_EQ(::write(master, "on\n", 3), 3);
  EXPECT_EQ(wait(), 3);
  EXPECT_EQ(output(), "on\n");
}

TEST_F(LaunchProcess, NothingRunsWithoutTheGoAhead) {
  Runner runner = start_runner(shell("touch ran"), {}, true);
  EXPECT_EQ(runner.wait(), 137);
  reap_everything();  // the init is ours now: it ends by itself
  EXPECT_FALSE(fs::exists(sandbox_ / "ran"));
}

TEST_F(LaunchProcess, TheTaskGoesOnWithoutItsLauncher) {
  Runner runner = start_runner(shell("echo ready; read line; echo \"$line\" > out"));
  EXPECT_EQ(runner.line(), "ready");
  ASSERT_EQ(::kill(runner.pid, SIGKILL), 0);
  EXPECT_EQ(runner.wait(), 137);
  ASSERT_EQ(::write(runner.input.get(), "still here\n", 11), 11);
  reap_everything();
  EXPECT_EQ(output(), "still here\n");
}

TEST_F(LaunchProcess, ADaemonOfTheTaskHasEndedToo) {
  for (const bool host_pid : {false, true}) {
    // The daemons hold the output's write end: its end shows that none is left.
    Task task = shell(
        "setsid sh -c 'sleep 1000 & (setsid sleep 1001 &) ; echo forked; wait' & "
        "read line; exit 4");
    task.host_pid = host_pid;
    Runner runner = start_runner(task);
    EXPECT_EQ(runner.line(), "forked");
    ASSERT_EQ(::write(runner.input.get(), "\n", 1), 1);
    EXPECT_EQ(runner.wait(), 4);
    pollfd end{runner.output.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&end, 1, 0), 1) << "a process of the task lives, host_pid " << host_pid;
    EXPECT_EQ(runner.line(), "");
  }
}

TEST_F(LaunchProcess, WithTheHostsPidsTheTaskEndsWithItsSupervisor) {
  Task task = shell("echo ready; exec sleep 1000");
  task.host_pid = true;
  Runner runner = start_runner(task);
  EXPECT_EQ(runner.line(), "ready");
  ASSERT_EQ(::kill(runner.init, SIGKILL), 0);
  // The task may say that it is ready before its supervisor has said that it started it: then the launch
  // failed.
  const int code = runner.wait();
  EXPECT_TRUE(code == 137 || code == 125) << code;
  EXPECT_EQ(runner.line(), "") << "the end of the output: nobody holds it";
  reap_everything();
}

TEST_F(LaunchProcess, TheEndOfTheContextEndsTheTask) {
  auto ended = run(Context().with_timeout(std::chrono::milliseconds(300)), shell("exec sleep 1000"), {});
  ASSERT_TRUE(ended) << ended.error().text();
  EXPECT_EQ(*ended, 143);

  std::stop_source stop;
  stop.request_stop();
  auto cancelled = run(Context().with_stop(stop.get_token()), shell("touch ran"), {});
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code, Code::cancelled);
  EXPECT_FALSE(fs::exists(sandbox_ / "ran"));
}

TEST_F(LaunchProcess, ATaskThatIgnoresItsEndIsKilled) {
  for (const bool host_pid : {false, true}) {
    Task task = shell("trap '' TERM; while :; do sleep 1000; done");
    task.host_pid = host_pid;
    auto ended = run(Context().with_timeout(std::chrono::seconds(1)), task, {});
    ASSERT_TRUE(ended) << ended.error().text();
    EXPECT_EQ(*ended, 137) << "host_pid " << host_pid;
  }
}

TEST_F(LaunchProcess, UserAndGroups) {
  ASSERT_TRUE(run_task(shell("id -u > out")));
  EXPECT_EQ(output(), "0\n") << "without a user root stays root";
  ASSERT_EQ(::chmod(sandbox_.c_str(), 0777), 0);
  fs::remove(sandbox_ / "out");
  Task task = shell("{ id -u; id -G; grep CapEff /proc/self/status; echo $HOME $USER; } > out");
  task.user = "6543:6544";
  const gid_t callers = 7777;  // a supplementary group that the task must not keep
  ASSERT_EQ(::setgroups(1, &callers), 0);
  auto ended = run_task(task);
  ASSERT_EQ(::setgroups(0, nullptr), 0);
  ASSERT_TRUE(ended) << ended.error().text();
  EXPECT_EQ(output(), "6543\n6544\nCapEff:\t0000000000000000\n/ 6543\n");
  task.user = "no-such-user-of-dvdi";
  EXPECT_EQ(run_task(task).error().code, Code::invalid_argument);
}

}  // namespace
}  // namespace dvdi::launcher
