// What the task sees of the file system, and that the host sees none of it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "launcher/test_support.h"
#include "linux/mount_api.h"
#include "linux/mount_table.h"
#include "linux/process.h"

namespace dvdi::launcher {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class LaunchMounts : public Launching {
 protected:
  void SetUp() override {
    Launching::SetUp();
    if (IsSkipped()) return;
    mount_tmpfs(top_ / "vol", "vol-a");
    mount_tmpfs(top_ / "vol/sub", "vol-sub");
    std::ofstream(top_ / "vol/file") << "data\n";
    before_ = mountinfo();
  }
  void TearDown() override {
    if (!IsSkipped()) {
      EXPECT_EQ(mountinfo(), before_) << "the host's mounts have changed";
    }
    Launching::TearDown();
  }
  int run_to_end(const Task& task) {
    auto ended = run_task(task);
    EXPECT_TRUE(ended) << ended.error().text();
    return ended ? *ended : -1;
  }
  std::string before_;
};

TEST_F(LaunchMounts, AVolumeIsSeenAndWrittenTo) {
  Task task = shell("cat data/file > out; echo new > data/new; echo below > data/sub/below");
  add_mount(task, "vol", "data");
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_EQ(output(), "data\n");
  EXPECT_EQ(read_file(top_ / "vol/new"), "new\n");
  EXPECT_EQ(read_file(top_ / "vol/sub/below"), "below\n");
  EXPECT_TRUE(fs::is_empty(sandbox_ / "data")) << "only the mount point is there on the host";
}

TEST_F(LaunchMounts, ReadOnlyNosuidNodevWithSubmounts) {
  ASSERT_EQ(::mknod((top_ / "vol/sub/null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
  ASSERT_EQ(::chmod((top_ / "vol/sub/null").c_str(), 0666), 0);
  fs::copy_file("/usr/bin/id", top_ / "vol/sub/id");
  ASSERT_EQ(::chmod((top_ / "vol/sub/id").c_str(), 04755), 0);
  Task task = shell(
      "{ touch ro/x; touch ro/sub/x; touch rw/x; touch rw/sub/x; cat rw/sub/null; rw/sub/id -u; } "
      "> out 2>&1; grep \"$PWD/ro\" /proc/self/mountinfo | grep -c ' ro,nosuid,nodev' >> out");
  ASSERT_EQ(::chmod(sandbox_.c_str(), 0777), 0);
  ASSERT_EQ(::chmod((top_ / "vol").c_str(), 0777), 0);
  ASSERT_EQ(::chmod((top_ / "vol/sub").c_str(), 0777), 0);
  task.user = "6543:6543";
  add_mount(task, "vol", "ro", MS_RDONLY | MS_NOSUID | MS_NODEV);
  add_mount(task, "vol", "rw", MS_NOSUID | MS_NODEV);
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_FALSE(fs::exists(top_ / "out"));
  EXPECT_TRUE(fs::exists(top_ / "vol/x"));
  EXPECT_TRUE(fs::exists(top_ / "vol/sub/x"));
  const std::string said = output();
  EXPECT_THAT(said, HasSubstr("'ro/x': Read-only file system"));
  EXPECT_THAT(said, HasSubstr("'ro/sub/x': Read-only file system"));
  EXPECT_THAT(said, HasSubstr("rw/sub/null: Permission denied")) << "a device on a nodev mount";
  EXPECT_THAT(said, HasSubstr("\n6543\n")) << "a program with the setuid bit on a nosuid mount";
  EXPECT_THAT(said, HasSubstr("\n2\n")) << "both mounts of the read-only volume have the flags";
}

TEST_F(LaunchMounts, ATargetThatBecameALinkDoesNotEscape) {
  fs::create_directories(top_ / "outside");
  std::ofstream(top_ / "outside/precious") << "x";
  fs::create_directory_symlink(top_ / "outside", sandbox_ / "data");
  Task task = shell("touch ran");
  add_mount(task, "vol", "data");
  auto ended = run_task(task);
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, Code::failed_precondition);
  EXPECT_EQ(ended.error().volume, "local/vol");
  EXPECT_THAT(ended.error().text(), HasSubstr("symbolic link"));
  EXPECT_FALSE(fs::exists(sandbox_ / "ran"));

  // Nor is one that stays in the sandbox followed.
  fs::create_directories(sandbox_ / "mine");
  fs::create_directory_symlink("mine", sandbox_ / "inside");
  Task inside = shell("touch ran");
  add_mount(inside, "vol", "inside");
  EXPECT_EQ(run_task(inside).error().code, Code::failed_precondition);

  // The same on the way to it, on the host, and below a volume.
  for (const char* target : {"data/deeper", "../host/x"}) {
    fs::create_directories(top_ / "real/x");
    if (!fs::exists(top_ / "host")) fs::create_directory_symlink("real", top_ / "host");
    Task other = shell("touch ran");
    if (std::string_view(target).starts_with("..")) {
      add_mount(other, "vol", "host/x", 0, v1::ContainerMountInfo::HOST);
    } else {
      add_mount(other, "vol", target);
    }
    EXPECT_EQ(run_task(other).error().code, Code::failed_precondition) << target;
  }
  Task nested = shell("touch ran");
  fs::create_directory_symlink("sub", top_ / "vol/link");
  add_mount(nested, "vol", "real-target");
  add_mount(nested, "vol/sub", "real-target/link");
  EXPECT_EQ(run_task(nested).error().code, Code::failed_precondition);
  EXPECT_FALSE(fs::exists(sandbox_ / "ran"));
}

TEST_F(LaunchMounts, ATargetOutsideItsFolderIsRefused) {
  for (const char* target : {"../elsewhere", "a/../../elsewhere", ""}) {
    Task task = shell("touch ran");
    add_mount(task, "vol", target);
    auto ended = run_task(task);
    ASSERT_FALSE(ended) << target;
    EXPECT_EQ(ended.error().code, Code::invalid_argument) << target;
  }
  Task task = shell("touch ran");
  add_mount(task, "vol", "x").set_target(top_ / "elsewhere");
  EXPECT_EQ(run_task(task).error().code, Code::invalid_argument);
  Task no_rootfs = shell("touch ran");
  add_mount(no_rootfs, "vol", "x", 0, v1::ContainerMountInfo::ROOTFS);
  EXPECT_EQ(run_task(no_rootfs).error().code, Code::invalid_argument);
  EXPECT_FALSE(fs::exists(sandbox_ / "ran"));
  EXPECT_FALSE(fs::exists(top_ / "elsewhere"));
}

TEST_F(LaunchMounts, OnTheHostAnAbsoluteTargetMustExist) {
  Task task = shell("cat " + (top_ / "place/file").string() + " > out");
  add_mount(task, "vol", "place", 0, v1::ContainerMountInfo::HOST);
  EXPECT_EQ(run_task(task).error().code, Code::failed_precondition);
  fs::create_directories(top_ / "place");
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_EQ(output(), "data\n");
}

TEST_F(LaunchMounts, NestedTargets) {
  mount_tmpfs(top_ / "other", "vol-b");
  std::ofstream(top_ / "other/inner") << "inner\n";
  before_ = mountinfo();
  Task task = shell("cat data/file data/made/here/inner > out");
  add_mount(task, "vol", "data");
  add_mount(task, "other", "data/made/here");
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_EQ(output(), "data\ninner\n");
  EXPECT_TRUE(fs::is_directory(top_ / "vol/made/here")) << "made in the volume, which may be written to";

  Task read_only = shell("true");
  add_mount(read_only, "vol", "data", MS_RDONLY);
  add_mount(read_only, "other", "data/not/there");
  auto ended = run_task(read_only);
  ASSERT_FALSE(ended);
  EXPECT_THAT(ended.error().text(), HasSubstr("Read-only file system"));
  EXPECT_THAT(ended.error().text(), HasSubstr("make it in the volume first"));
  EXPECT_EQ(ended.error().volume, "local/other");
}

TEST_F(LaunchMounts, AFileOnAFile) {
  Task task = shell("cat config > out");
  add_mount(task, "vol/file", "config");
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_EQ(output(), "data\n");
}

TEST_F(LaunchMounts, ASourceThatIsNotTheMountItWasIsRefused) {
  auto fd = open_directory(top_ / "vol");
  ASSERT_TRUE(fd);
  auto identity = mount_identity(fd->get());
  fd->reset();
  ASSERT_TRUE(identity) << identity.error().text();
  Task task = shell("touch data/ran");
  *add_mount(task, "vol", "data").mutable_identity() = *identity;
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_TRUE(fs::exists(top_ / "vol/ran"));

  ASSERT_EQ(::umount2((top_ / "vol").c_str(), MNT_DETACH), 0);
  before_ = mountinfo();
  auto ended = run_task(task);
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, Code::failed_precondition);
  EXPECT_EQ(ended.error().volume, "local/vol");
  EXPECT_THAT(ended.error().text(), HasSubstr("'vol-a'"));
  EXPECT_THAT(ended.error().text(), HasSubstr("'top'")) << "what is there instead";
  EXPECT_FALSE(fs::exists(top_ / "vol/ran")) << "nothing lands on the folder beneath";
}

TEST_F(LaunchMounts, OtherMountsOfOursAreNotThere) {
  mount_tmpfs(top_ / "drivers/one", "foreign-1");
  mount_tmpfs(top_ / "drivers/two", "foreign-2");
  mount_tmpfs(top_ / "drivers/two/below", "foreign-3");
  mount_tmpfs(top_ / "drivers/two", "foreign-4");  // over it
  before_ = mountinfo();
  Task task = shell("grep -E 'foreign-|vol-' /proc/self/mountinfo > out; true");
  task.foreign_mount_points = {top_ / "drivers/one", top_ / "drivers/two", top_ / "vol", top_ / "not-there"};
  add_mount(task, "drivers/one", "mine");
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_THAT(output(), HasSubstr((sandbox_ / "mine").string()));
  const std::string said = output();
  EXPECT_EQ(std::ranges::count(said, '\n'), 1) << said;
}

TEST_F(LaunchMounts, NorInsideAHostPathOfTheTask) {
  mount_tmpfs(top_ / "drivers/one", "foreign-1");
  before_ = mountinfo();
  Task task = shell("grep -E 'foreign-' /proc/self/mountinfo > out; ls data/one >> out; true");
  task.foreign_mount_points = {top_ / "drivers/one"};
  fs::create_directories(top_ / "target");
  add_mount(task, "drivers", "data");
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_EQ(output(), "");
}

TEST_F(LaunchMounts, TheSandboxStaysThoughItLiesOnAMountOfOurs) {
  Task task = shell("echo here > out; grep -c vol-sub /proc/self/mountinfo >> out; true");
  task.foreign_mount_points = {top_};
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_EQ(output(), "here\n0\n");
}

TEST_F(LaunchMounts, ALoopDeviceElsewhereIsFreeWhileTheTaskRuns) {
  const fs::path image = top_ / "image";
  std::ofstream(image).close();
  fs::resize_file(image, 8U << 20);
  auto made = run_program(Context().with_timeout(std::chrono::seconds(30)), {"mkfs.ext4", "-q", "-F", image});
  ASSERT_TRUE(made) << made.error().text();
  ASSERT_EQ(made->exit_code, 0) << made->output;
  const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control) GTEST_SKIP() << "no loop devices here";
  UniqueFd loop;
  std::string device;
  for (int tries = 0; tries < 20; ++tries) {  // others look for a free one, too
    device = "/dev/loop" + std::to_string(::ioctl(control.get(), LOOP_CTL_GET_FREE));
    loop.reset(::open(device.c_str(), O_RDWR | O_CLOEXEC));
    const UniqueFd backing(::open(image.c_str(), O_RDWR | O_CLOEXEC));
    loop_config config{};
    config.fd = static_cast<unsigned>(backing.get());
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (loop && ::ioctl(loop.get(), LOOP_CONFIGURE, &config) == 0) break;
    loop.reset();
  }
  ASSERT_TRUE(loop);
  const fs::path point = top_ / "image-volume";
  fs::create_directories(point);
  ASSERT_EQ(::mount(device.c_str(), point.c_str(), "ext4", 0, nullptr), 0);
  loop.reset();

  Task task = shell("echo ready; read line");
  task.foreign_mount_points = {point};
  Runner runner = start_runner(task);
  EXPECT_EQ(runner.line(), "ready");
  ASSERT_EQ(::umount2(point.c_str(), 0), 0);
  const std::string name = fs::path(device).filename();
  EXPECT_NE(read_file("/sys/block/" + name + "/loop/backing_file"), image.string() + "\n")
      << "the running task holds the device";
  EXPECT_EQ(::kill(runner.init, 0), 0) << "and the task does run";
  runner.input.reset();
  EXPECT_NE(runner.wait(), 125);
}

TEST_F(LaunchMounts, TheVolumesAreFreeWhenRunReturns) {
  Task task = shell("setsid sh -c 'exec sleep 1000' < data/file & exit 0");
  add_mount(task, "vol/sub", "data");
  std::ofstream(top_ / "vol/sub/file") << "x";
  EXPECT_EQ(run_to_end(task), 0);
  ASSERT_EQ(::umount2((top_ / "vol/sub").c_str(), 0), 0);
  mount_tmpfs(top_ / "vol/sub", "vol-sub");
  before_ = mountinfo();
}

TEST_F(LaunchMounts, NothingLeaksToTheHostFromASharedMount) {
  mount_tmpfs(top_ / "early", "early");
  ASSERT_EQ(::mount(nullptr, top_.c_str(), nullptr, MS_SHARED | MS_REC, nullptr), 0);
  before_ = mountinfo();
  Runner runner = start_runner([&] {
    Task task = shell(
        "mount -t tmpfs leak data/sub; mount -t tmpfs leak-2 .; echo ready; read line; "
        "grep -c early /proc/self/mountinfo; grep -c later /proc/self/mountinfo; exit 8");
    add_mount(task, "vol", "data");
    return task;
  }());
  EXPECT_EQ(runner.line(), "ready");
  EXPECT_EQ(mountinfo(), before_);
  // The other way round: what the host unmounts goes from the task, what it mounts comes.
  ASSERT_EQ(::umount2((top_ / "early").c_str(), 0), 0);
  mount_tmpfs(top_ / "later", "later");
  before_ = mountinfo();
  runner.input.reset();
  EXPECT_EQ(runner.line(), "0");
  EXPECT_EQ(runner.line(), "1");
  EXPECT_EQ(runner.wait(), 8);
}

TEST_F(LaunchMounts, OwnersAreMappedWhereTheKernelCan) {
  ASSERT_EQ(::chmod(sandbox_.c_str(), 0777), 0);
  ASSERT_EQ(::umount2((top_ / "vol/sub").c_str(), 0), 0);
  before_ = mountinfo();
  Task task = shell("touch data/mine && stat -c %u:%g data/file data/mine > out");
  task.user = "6543:6544";
  auto* map = add_mount(task, "vol", "data").mutable_idmap();
  map->set_to_uid(6543);
  map->set_to_gid(6544);
  auto ended = run_task(task);
  if (!kernel_features().idmapped_tmpfs) {
    EXPECT_EQ(ended.error().code, Code::unsupported);
    return;
  }
  ASSERT_TRUE(ended) << ended.error().text();
  EXPECT_EQ(*ended, 0);
  EXPECT_EQ(output(), "6543:6544\n6543:6544\n");
  struct stat status{};
  ASSERT_EQ(::stat((top_ / "vol/mine").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 0U) << "on the volume it is root's";
}

TEST_F(LaunchMounts, ARootFileSystemOfItsOwn) {
  Task task = shell(
      "{ pwd; ls /; ls -d /proc/[0-9]* | grep -c .; echo x > /dev/null; cat data/file abs; "
      "cat /mnt/sandbox/data/file; touch /sys/x; ls /dev; readlink /proc/1/exe; env; } > out 2>&1");
  use_rootfs(task);
  add_mount(task, "vol", "data");
  add_mount(task, "vol/file", "abs");
  add_mount(task, "vol", "rootfs/srv/deep", MS_RDONLY, v1::ContainerMountInfo::ROOTFS);
  task.command.set_value(task.command.value() + "; cat /srv/deep/file >> out; touch /srv/deep/no 2>> out");
  EXPECT_EQ(run_to_end(task), 1);
  const std::string said = output();
  EXPECT_THAT(said, testing::StartsWith("/mnt/sandbox\nbin\ndev\netc\nmnt\nproc\nsrv\nsys\n"));
  EXPECT_THAT(said, HasSubstr("data\ndata\ndata\n"));
  EXPECT_THAT(said, HasSubstr("touch: /sys/x: Read-only file system"));
  for (const char* device :
       {"\nfull\n", "\nnull\n", "\nptmx\n", "\npts\n", "\nshm\n", "\nurandom\n", "\nzero\n"})
    EXPECT_THAT(said, HasSubstr(device));
  EXPECT_THAT(said, HasSubstr("PWD=/mnt/sandbox\n"));
  EXPECT_THAT(said, HasSubstr("/srv/deep/no: Read-only file system"));
  EXPECT_THAT(said, Not(HasSubstr(top_.string()))) << "a path of the host";
}

TEST_F(LaunchMounts, TheUserIsTheRootFileSystems) {
  ASSERT_EQ(::chmod(sandbox_.c_str(), 0777), 0);
  Task task = shell("{ id -u; id -G; echo $HOME; } > out");
  use_rootfs(task);
  task.user = "carol";
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_EQ(output(), "4321\n4322 4400\n/home/carol\n");
  task.user = "daemon";  // of the host
  EXPECT_EQ(run_task(task).error().code, Code::invalid_argument);
}

TEST_F(LaunchMounts, OfTheHostNothingIsLeftInARootFileSystemOfItsOwn) {
  Task task = shell("cat /proc/self/mountinfo > out");
  use_rootfs(task);
  EXPECT_EQ(run_to_end(task), 0);
  for (const auto& line : {"vol-a", "vol-sub"}) EXPECT_THAT(output(), Not(HasSubstr(line)));
  const auto table = MountTable::parse(output());
  ASSERT_TRUE(table) << table.error().text();
  for (const MountEntry& entry : table->entries()) EXPECT_FALSE(entry.shared) << entry.mount_point;
}

TEST_F(LaunchMounts, AVolumeThatTheSandboxesPlaceLiesIn) {
  Task task = shell("echo here > out; cat /mnt/file >> out; cat /mnt/sandbox/out > seen-by-path");
  use_rootfs(task);
  add_mount(task, "vol", "inner");
  add_mount(task, "vol", "rootfs/mnt", 0, v1::ContainerMountInfo::ROOTFS);
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_EQ(read_file(sandbox_ / "seen-by-path"), "here\ndata\n");
}

TEST_F(LaunchMounts, ALinkInARootFileSystemStaysInIt) {
  Task task = shell("cat /var/run/app/file > out");
  use_rootfs(task);
  fs::create_directories(top_ / "rootfs/var");
  fs::create_directories(top_ / "rootfs/run");
  fs::create_directory_symlink("/run", top_ / "rootfs/var/run");
  add_mount(task, "vol", "rootfs/var/run/app", 0, v1::ContainerMountInfo::ROOTFS);
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_EQ(output(), "data\n");
  EXPECT_TRUE(fs::exists(top_ / "rootfs/run/app"));
}

TEST_F(LaunchMounts, ManyMountsWorkAndTooManyAreRefused) {
  Task task = shell("ls d199 > out");
  for (int i = 0; i < 200; ++i) add_mount(task, "vol", "d" + std::to_string(i));
  EXPECT_EQ(run_to_end(task), 0);
  EXPECT_THAT(output(), HasSubstr("file"));
  for (int i = 200; i < 1100; ++i) add_mount(task, "vol", "d" + std::to_string(i));
  EXPECT_EQ(run_task(task).error().code, Code::resource_exhausted);
}

}  // namespace
}  // namespace dvdi::launcher
