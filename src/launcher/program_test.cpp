#include "launcher/program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace dvdi::launcher {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Not;
using testing::StartsWith;

void set(v1::Environment* environment, const std::string& name, const std::string& value) {
  auto* variable = environment->add_variables();
  variable->set_name(name);
  variable->set_value(value);
}

const Identity& alice() {
  static const Identity identity{
      .change = true, .uid = 1000, .groups = {}, .name = "alice", .home = "/home/alice", .shell = "/bin/zsh"};
  return identity;
}

Task shell_task(const std::string& command) {
  Task task;
  task.command.set_value(command);
  return task;
}

TEST(MakeProgram, ShellIsTheDefault) {
  auto program = make_program(shell_task("echo hi"), alice(), "/s", {});
  ASSERT_TRUE(program) << program.error().text();
  EXPECT_EQ(program->file, "/bin/sh");
  EXPECT_THAT(program->arguments, ElementsAre("sh", "-c", "echo hi"));
}

TEST(MakeProgram, ArgumentsWithAndWithoutAValue) {
  Task task;
  task.command.set_shell(false);
  task.command.add_arguments("ls");
  task.command.add_arguments("-l");
  auto program = make_program(task, alice(), "/s", {});
  ASSERT_TRUE(program);
  EXPECT_EQ(program->file, "ls");
  EXPECT_THAT(program->arguments, ElementsAre("ls", "-l"));

  task.command.set_value("/bin/busybox");
  program = make_program(task, alice(), "/s", {});
  ASSERT_TRUE(program);
  EXPECT_EQ(program->file, "/bin/busybox");
  EXPECT_THAT(program->arguments, ElementsAre("ls", "-l"));

  task.command.clear_arguments();
  program = make_program(task, alice(), "/s", {});
  ASSERT_TRUE(program);
  EXPECT_THAT(program->arguments, ElementsAre("/bin/busybox"));
}

TEST(MakeProgram, NothingToRunIsAnError) {
  EXPECT_EQ(make_program(Task{}, alice(), "/", {}).error().code, Code::invalid_argument);
  Task task;
  task.command.set_shell(false);
  EXPECT_EQ(make_program(task, alice(), "/", {}).error().code, Code::invalid_argument);
  task.command.add_arguments("");
  EXPECT_EQ(make_program(task, alice(), "/", {}).error().code, Code::invalid_argument);
  EXPECT_EQ(make_program(shell_task(std::string("a\0b", 3)), alice(), "/", {}).error().code,
            Code::invalid_argument);
}

TEST(MakeProgram, TheMinimalEnvironment) {
  Task task = shell_task("x");
  set(task.launch.mutable_environment(), "A", "container");
  set(task.launch.mutable_environment(), "B", "container");
  set(task.command.mutable_environment(), "B", "command");
  set(task.command.mutable_environment(), "HOME", "/elsewhere");
  auto program = make_program(task, alice(), "/sandbox", {"SECRET=1", "TERM=xterm", "PATH=/odd"});
  ASSERT_TRUE(program) << program.error().text();
  EXPECT_THAT(program->environment,
              testing::UnorderedElementsAre(StartsWith("PATH=/usr/local/sbin:"), "TERM=xterm", "USER=alice",
                                            "LOGNAME=alice", "SHELL=/bin/zsh", "PWD=/sandbox", "A=container",
                                            "B=command", "HOME=/elsewhere"));
}

TEST(MakeProgram, TheInheritedEnvironmentHasNothingOfOurs) {
  Task task = shell_task("x");
  task.inherit_environment = true;
  const std::vector<std::string> caller = {
      "PATH=/odd", "HOME=/h",           "X=1=2",      "DVDI_VOLUME_OPTS=secret",
      "USER=bob",  "DVDI_STATE_DIR=/x", "DVDIX=kept", "PWD=/there"};
  Identity kept = alice();
  kept.change = false;
  auto program = make_program(task, kept, "/sandbox", caller);
  ASSERT_TRUE(program);
  EXPECT_THAT(program->environment,
              testing::UnorderedElementsAre("PATH=/odd", "HOME=/h", "X=1=2", "USER=bob", "DVDIX=kept",
                                            "LOGNAME=alice", "SHELL=/bin/zsh", "PWD=/sandbox"));
  program = make_program(task, alice(), "/sandbox", caller);
  ASSERT_TRUE(program);
  EXPECT_THAT(program->environment, Contains("HOME=/home/alice")) << "another user's";
  EXPECT_THAT(program->environment, Not(Contains("USER=bob")));
}

TEST(MakeProgram, RefusesVariablesThatAreNone) {
  for (const std::string& name : {std::string(), std::string("A=B"), std::string("A\0B", 3)}) {
    Task task = shell_task("x");
    set(task.command.mutable_environment(), name, "v");
    EXPECT_EQ(make_program(task, alice(), "/", {}).error().code, Code::invalid_argument) << name;
  }
  Task task = shell_task("x");
  task.command.mutable_environment()->add_variables()->set_name("SECRET");
  EXPECT_EQ(make_program(task, alice(), "/", {}).error().code, Code::invalid_argument);
}

TEST(ExecutionError, MapsToTheShellsExitCodes) {
  const Program program{.file = "p", .arguments = {"p"}, .environment = {}};
  EXPECT_EQ(exit_code_of(execution_error(program, ENOENT)), 127);
  EXPECT_EQ(exit_code_of(execution_error(program, ENOTDIR)), 127);
  EXPECT_EQ(exit_code_of(execution_error(program, EACCES)), 126);
  EXPECT_EQ(exit_code_of(execution_error(program, ENOEXEC)), 126);
  EXPECT_EQ(exit_code_of(execution_error(program, E2BIG)), 125);
}

}  // namespace
}  // namespace dvdi::launcher
