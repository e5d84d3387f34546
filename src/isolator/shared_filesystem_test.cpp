#include "isolator/shared_filesystem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "isolator/test_support.h"

namespace dvdi::isolator {
namespace {

using test::helpers;
using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

struct SharedFilesystemTest : testing::Test {
  TempDir dir;
  std::string sandbox = dir.make_folder("sandbox");
  std::string image;    // "": none
  bool staged = false;  // somebody else launches
  SharedFilesystem isolator{helpers(), {.sandbox_in_container = "/mnt/sandbox"}};
  v1::ContainerRequest request;
  std::map<std::string, HostPath> host_paths;
  v1::ContainerLaunchInfo launch;

  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "changes owners: needs root";
  }

  v1::Volume& add(const std::string& container_path, const std::string& host_path = {},
                  v1::Volume::Mode mode = v1::Volume::RW) {
    v1::Volume& volume = *request.mutable_container_info()->add_volumes();
    volume.set_container_path(container_path);
    if (!host_path.empty()) volume.set_host_path(host_path);
    volume.set_mode(mode);
    return volume;
  }
  // A volume that a provider mounted: a folder of its own, known to the preparation.
  std::string external(const std::string& name, const std::string& container_path,
                       v1::Volume::Mode mode = v1::Volume::RW) {
    const std::string path = dir.make_folder("vol/" + name);
    add(container_path, path, mode);
    host_paths[path].label = "d/" + name;
    return path;
  }
  // As the working copy has a volume that an isolator filled.
  std::string filled(const std::string& name, const std::string& container_path) {
    const std::string path = external(name, container_path);
    request.mutable_container_info()->mutable_volumes()->rbegin()->mutable_source()->set_type(
        v1::Volume::Source::DOCKER_VOLUME);
    return path;
  }
  void with_image() {
    image = dir.make_folder("image");
    request.set_rootfs(image);
  }
  Status prepare() {
    Preparation preparation{.key = {.owner = "run", .id = "c"},
                            .request = request,
                            .digest = "digest",
                            .directory = sandbox,
                            .directory_is_ours = true,
                            .staged = staged,
                            .working = request.container_info(),
                            .host_paths = host_paths,
                            .launch = {}};
    auto status = isolator.prepare(Context(), preparation);
    launch = preparation.launch;
    return status;
  }
  void must_prepare() {
    const auto status = prepare();
    ASSERT_TRUE(status) << status.error().text();
  }
  // The error's code and text.
  std::string refusal() {
    const auto status = prepare();
    if (status) return "prepared";
    return std::string(code_name(status.error().code)) + ": " + status.error().text();
  }
  std::vector<std::string> targets() const {
    std::vector<std::string> result;
    for (const auto& mount : launch.mounts()) result.push_back(mount.target());
    return result;
  }
  static struct stat look(const std::string& path) {
    struct stat status{};
    EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
    return status;
  }
};

constexpr std::uint32_t always = MS_BIND | MS_REC | MS_NOSUID | MS_NODEV;

TEST_F(SharedFilesystemTest, NeedsHostPaths) {
  EXPECT_THAT(isolator.needs(), ElementsAre(Property::host_paths));
}

TEST_F(SharedFilesystemTest, TurnsAHostPathIntoAMountInstruction) {
  const std::string path = external("a", "data", v1::Volume::RO);
  host_paths[path].identity.emplace().set_mount_id(17);
  must_prepare();
  ASSERT_EQ(launch.mounts_size(), 1);
  const auto& mount = launch.mounts(0);
  EXPECT_EQ(mount.source(), path);
  EXPECT_EQ(mount.target(), sandbox + "/data");
  EXPECT_EQ(mount.flags(), always | MS_RDONLY);
  EXPECT_EQ(mount.beneath(), v1::ContainerMountInfo::SANDBOX);
  EXPECT_EQ(mount.identity().mount_id(), 17U);
  EXPECT_EQ(mount.volume(), "d/a");
  EXPECT_EQ(launch.sandbox(), sandbox);
  EXPECT_EQ(launch.sandbox_in_container(), sandbox);
  EXPECT_FALSE(launch.has_rootfs());
  EXPECT_THAT(launch.clone_namespaces(), ElementsAre(CLONE_NEWNS));
}

TEST_F(SharedFilesystemTest, SetuidProgramsAndDevicesOnlyWhereTheProviderSaysSo) {
  const std::string path = external("a", "data");
  host_paths[path].suid = {"data"};
  host_paths[path].dev = {"elsewhere"};
  must_prepare();
  EXPECT_EQ(launch.mounts(0).flags(), MS_BIND | MS_REC | MS_NODEV);
}

TEST_F(SharedFilesystemTest, RelativePathsAreMadeInTheSandboxForTheTasksUser) {
  request.mutable_command()->set_user("1234:5678");
  external("a", "some/where");
  must_prepare();
  EXPECT_EQ(look(sandbox + "/some").st_uid, 1234U);
  EXPECT_EQ(look(sandbox + "/some/where").st_gid, 5678U);
  EXPECT_EQ(launch.mounts(0).flags(), always);
}

TEST_F(SharedFilesystemTest, WithARootFileSystemAbsolutePathsAreMadeInItAndRelativeOnesInTheSandbox) {
  with_image();
  request.mutable_command()->set_user("1234:5678");
  external("a", "/made/here");
  external("b", "data");
  external("c", "/mnt/sandbox/more");
  must_prepare();
  EXPECT_THAT(targets(), ElementsAre(image + "/made/here", sandbox + "/data", sandbox + "/more"));
  EXPECT_EQ(launch.mounts(0).beneath(), v1::ContainerMountInfo::ROOTFS);
  EXPECT_EQ(launch.mounts(1).beneath(), v1::ContainerMountInfo::SANDBOX);
  EXPECT_EQ(look(image + "/made").st_uid, 0U);
  EXPECT_EQ(look(sandbox + "/more").st_uid, 1234U);
  EXPECT_EQ(launch.rootfs(), image);
  EXPECT_EQ(launch.sandbox_in_container(), "/mnt/sandbox");
}

TEST_F(SharedFilesystemTest, WithoutOneAbsolutePathsMustExist) {
  const std::string there = dir.make_folder("there");
  external("a", there);
  must_prepare();
  EXPECT_EQ(launch.mounts(0).target(), there);
  EXPECT_EQ(launch.mounts(0).beneath(), v1::ContainerMountInfo::HOST);

  external("b", dir / "nowhere");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("failed_precondition"), HasSubstr("d/b"),
                               HasSubstr("does not exist"), HasSubstr("relative container path")));
  EXPECT_FALSE(std::filesystem::exists(dir / "nowhere"));
}

TEST_F(SharedFilesystemTest, TheOldFormMakesPathsUnderTmpForRoot) {
  request.mutable_command()->set_user("1234:5678");
  const std::string made = dir / "old/form";  // temp folders of these tests lie in /tmp
  ASSERT_TRUE(made.starts_with("/tmp/"));
  external("a", made);
  request.mutable_container_info()->mutable_volumes(0)->set_create_under_tmp(true);
  must_prepare();
  EXPECT_EQ(launch.mounts(0).target(), made);
  EXPECT_EQ(launch.mounts(0).beneath(), v1::ContainerMountInfo::HOST);
  EXPECT_EQ(look(made).st_uid, 0U);
  EXPECT_EQ(look(made).st_mode & 07777U, 0755U);

  request.mutable_container_info()->mutable_volumes(0)->set_container_path("/dvdi-test-not-there");
  EXPECT_THAT(refusal(), HasSubstr("does not exist"));
  EXPECT_FALSE(std::filesystem::exists("/dvdi-test-not-there"));
}

TEST_F(SharedFilesystemTest, TheOldFormFollowsNoLinkUnderTmp) {
  const std::string victim = dir.make_folder("victim");
  std::filesystem::create_symlink(victim, dir / "link");
  external("a", dir / "link/x");
  request.mutable_container_info()->mutable_volumes(0)->set_create_under_tmp(true);
  EXPECT_THAT(refusal(), HasSubstr("symbolic link"));
  EXPECT_TRUE(std::filesystem::is_empty(victim));
}

TEST_F(SharedFilesystemTest, LinksInTheSandboxAreRefused) {
  const std::string victim = dir.make_folder("victim");
  std::filesystem::create_symlink(victim, sandbox + "/link");
  external("a", "link/x");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("d/a"), HasSubstr("link/x"), HasSubstr("symbolic link")));
  EXPECT_TRUE(std::filesystem::is_empty(victim));
}

TEST_F(SharedFilesystemTest, LinksInARootFileSystemStayInIt) {
  with_image();
  const std::string victim = dir.make_folder("victim");
  std::filesystem::create_symlink("/run", image + "/var-run");
  dir.make_folder("image/run");
  std::filesystem::create_symlink(victim, image + "/out");
  external("a", "/var-run/x");
  must_prepare();
  EXPECT_EQ(launch.mounts(0).target(), image + "/run/x");
  external("b", "/out/y");
  EXPECT_THAT(refusal(), HasSubstr("d/b"));
  EXPECT_TRUE(std::filesystem::is_empty(victim));
}

TEST_F(SharedFilesystemTest, ALinkInARootFileSystemMustNotLeadToTheSandboxesPlace) {
  with_image();
  dir.make_folder("image/mnt/sandbox");
  std::filesystem::create_symlink("/mnt/sandbox", image + "/alias");
  external("a", "/alias/x");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("invalid_argument"), HasSubstr("way of the sandbox")));
}

TEST_F(SharedFilesystemTest, ParentsComeFirstAndNestedPlacesAreMadeInTheVolumeThatIsSeenThere) {
  external("deep", "data/sub/deep");
  const std::string parent = external("parent", "data");
  const std::string sub = external("sub", "data/sub");
  external("other", "data-2");
  must_prepare();
  EXPECT_THAT(targets(), ElementsAre(sandbox + "/data", sandbox + "/data/sub", sandbox + "/data/sub/deep",
                                     sandbox + "/data-2"));
  EXPECT_TRUE(std::filesystem::is_directory(parent + "/sub"));
  EXPECT_TRUE(std::filesystem::is_directory(sub + "/deep"));
  EXPECT_FALSE(std::filesystem::exists(sandbox + "/data/sub"));
}

TEST_F(SharedFilesystemTest, NothingIsMadeInAReadOnlyParent) {
  const std::string parent = external("parent", "data", v1::Volume::RO);
  external("sub", "data/sub");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("failed_precondition"), HasSubstr("d/sub"), HasSubstr("d/parent"),
                               HasSubstr("read-only")));
  EXPECT_TRUE(std::filesystem::is_empty(parent));
  std::filesystem::create_directory(parent + "/sub");
  must_prepare();
}

TEST_F(SharedFilesystemTest, ALinkInTheParentVolumeIsRefused) {
  const std::string parent = external("parent", "data");
  std::filesystem::create_symlink("/etc", parent + "/sub");
  external("sub", "data/sub");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("d/sub"), HasSubstr("symbolic link")));
}

TEST_F(SharedFilesystemTest, EqualPathsAreAnErrorThatNamesBoth) {
  external("a", "data");
  external("b", "./data/");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("invalid_argument"), HasSubstr("d/a"), HasSubstr("d/b"),
                               HasSubstr("'data'"), HasSubstr("'./data/'")));
  request.mutable_container_info()->mutable_volumes(1)->set_container_path(sandbox + "/data");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("invalid_argument"), HasSubstr("d/a"), HasSubstr("d/b")));
}

TEST_F(SharedFilesystemTest, PathsThatOnlyLinksMakeEqualOrNestedAreErrors) {
  dir.make_folder("there/inner");
  std::filesystem::create_symlink(dir / "there", dir / "alias");
  external("a", dir / "there");
  external("b", dir / "alias");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("invalid_argument"), HasSubstr("d/a"), HasSubstr("d/b")));
  request.mutable_container_info()->mutable_volumes(1)->set_container_path(dir / "alias/inner");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("invalid_argument"), HasSubstr("real path"), HasSubstr("d/a")));
}

TEST_F(SharedFilesystemTest, ALinkMustNotHideTheSandbox) {
  std::filesystem::create_symlink(dir.text(), dir / "alias");
  external("a", dir / "alias");
  EXPECT_THAT(refusal(), HasSubstr("hide the sandbox"));
}

TEST_F(SharedFilesystemTest, AHostPathMustExistAndIsNamedByItself) {
  add("data", dir / "nothing");
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("failed_precondition"), HasSubstr("nothing"), HasSubstr("must exist")));
  dir.make_folder("nothing");
  must_prepare();
  EXPECT_EQ(launch.mounts(0).volume(), dir / "nothing");
  EXPECT_FALSE(launch.mounts(0).has_identity());
}

TEST_F(SharedFilesystemTest, AFileNeedsAFile) {
  std::ofstream(dir / "file") << "x";
  add("etc/file", dir / "file");
  must_prepare();
  EXPECT_TRUE(std::filesystem::is_regular_file(sandbox + "/etc/file"));

  request.Clear();
  add("etc", dir / "file");
  EXPECT_THAT(refusal(), HasSubstr("folder"));
  request.Clear();
  external("a", "etc/file");
  EXPECT_NE(refusal(), "prepared");
  request.Clear();
  add("f", dir / "file");
  external("b", "f/x");
  EXPECT_THAT(refusal(), HasSubstr("is a file"));
}

TEST_F(SharedFilesystemTest, ARelativeHostPathIsMadeInTheSandboxLikeTheContainerPath) {
  const std::string target = dir.make_folder("target");
  ASSERT_EQ(::chown(target.c_str(), 1234, 5678), 0);
  ASSERT_EQ(::chmod(target.c_str(), 01770), 0);
  add(target, "mine/tmp");
  must_prepare();
  EXPECT_EQ(launch.mounts(0).source(), sandbox + "/mine/tmp");
  const auto made = look(sandbox + "/mine/tmp");
  EXPECT_EQ(made.st_uid, 1234U);
  EXPECT_EQ(made.st_gid, 5678U);
  EXPECT_EQ(made.st_mode & 07777U, 01770U);

  // What is there is the user's: it stays as it is.
  ASSERT_EQ(::chmod((sandbox + "/mine/tmp").c_str(), 0700), 0);
  must_prepare();
  EXPECT_EQ(look(sandbox + "/mine/tmp").st_mode & 07777U, 0700U);

  request.Clear();
  add(target, "../escape");
  EXPECT_THAT(refusal(), HasSubstr("'..'"));
}

TEST_F(SharedFilesystemTest, SourcesOfMesosThatAreOnTheHost) {
  request.mutable_command()->set_user("1234:5678");
  const std::string path = dir.make_folder("host");
  auto& from_host = *add("a").mutable_source();
  from_host.set_type(v1::Volume::Source::HOST_PATH);
  from_host.mutable_host_path()->set_path(path);
  auto& from_sandbox = *add("b").mutable_source();
  from_sandbox.set_type(v1::Volume::Source::SANDBOX_PATH);
  from_sandbox.mutable_sandbox_path()->set_type(v1::Volume::Source::SandboxPath::SELF);
  from_sandbox.mutable_sandbox_path()->set_path("own");
  must_prepare();
  EXPECT_EQ(launch.mounts(0).source(), path);
  EXPECT_EQ(launch.mounts(1).source(), sandbox + "/own");
  EXPECT_EQ(look(sandbox + "/own").st_uid, 1234U);

  from_sandbox.mutable_sandbox_path()->set_type(v1::Volume::Source::SandboxPath::PARENT);
  EXPECT_THAT(refusal(), HasSubstr("unsupported"));
}

TEST_F(SharedFilesystemTest, AVolumeThatNobodyProvidedIsAnErrorAndNotForgotten) {
  add("data").mutable_source()->set_type(v1::Volume::Source::DOCKER_VOLUME);
  EXPECT_THAT(refusal(), AllOf(HasSubstr("invalid_argument"), HasSubstr("no host path")));
}

TEST_F(SharedFilesystemTest, OwnershipIsAppliedWhereTheProviderSaysSo) {
  request.mutable_command()->set_user("1234:5678");
  const std::string none = external("none", "none");
  const std::string user = external("user", "user", v1::Volume::RO);
  const std::string idmap = external("idmap", "idmap");
  const std::string target = dir.make_folder("target");
  ASSERT_EQ(::chown(target.c_str(), 77, 88), 0);
  ASSERT_EQ(::chmod(target.c_str(), 0710), 0);
  const std::string match = external("match", target);
  host_paths[user].ownership["user"] = spec::Ownership::user;
  host_paths[idmap].ownership["idmap"] = spec::Ownership::idmap;
  host_paths[match].ownership[target] = spec::Ownership::match_target;
  must_prepare();
  EXPECT_EQ(look(none).st_uid, 0U);
  EXPECT_EQ(look(user).st_uid, 1234U);  // read-only for the task, and yet its request's to give
  EXPECT_EQ(look(idmap).st_uid, 0U);
  EXPECT_EQ(look(match).st_uid, 77U);
  EXPECT_EQ(look(match).st_mode & 07777U, 0710U);
  for (const auto& mount : launch.mounts()) EXPECT_EQ(mount.has_idmap(), mount.volume() == "d/idmap");
}

TEST_F(SharedFilesystemTest, RepeatedItGivesTheSameAnswer) {
  with_image();
  external("a", "/x/y");
  external("b", "data");
  external("c", "data/sub");
  must_prepare();
  const std::string first = launch.SerializeAsString();
  must_prepare();
  EXPECT_EQ(launch.SerializeAsString(), first);
}

TEST_F(SharedFilesystemTest, TheSandboxAndTheRootFileSystemMustBeThere) {
  external("a", "data");
  sandbox = dir / "nowhere";
  EXPECT_THAT(refusal(), AllOf(HasSubstr("the sandbox"), HasSubstr("nowhere")));
  sandbox = "relative";
  EXPECT_THAT(refusal(), HasSubstr("not an absolute path"));
  sandbox = dir / "sandbox";
  request.set_rootfs("/");
  EXPECT_THAT(refusal(), HasSubstr("root of the host"));
}

TEST_F(SharedFilesystemTest, CleanupRemovesNothing) {
  external("a", "data");
  must_prepare();
  EXPECT_TRUE(isolator.cleanup(Context(), {"run", "c"}, {}));
  EXPECT_TRUE(std::filesystem::is_directory(sandbox + "/data"));
}

TEST_F(SharedFilesystemTest, ForAnotherLauncherOnlyFilledVolumesBecomeInstructions) {
  staged = true;
  const std::string path = filled("a", "data");
  add("other", dir.make_folder("host"));
  add("missing", dir / "not-there");
  add("own").mutable_source()->set_type(v1::Volume::Source::SANDBOX_PATH);
  must_prepare();
  EXPECT_THAT(targets(), ElementsAre(sandbox + "/data"));
  EXPECT_EQ(launch.mounts(0).source(), path);
  EXPECT_NE(::access((sandbox + "/other").c_str(), F_OK), 0);  // nothing is made for the others
}

TEST_F(SharedFilesystemTest, ForAnotherLauncherNothingIsTouchedWithoutFilledVolumes) {
  staged = true;
  sandbox = dir / "not-there";
  add("other", dir / "not-there");
  must_prepare();
  EXPECT_EQ(launch.ByteSizeLong(), 0U);
}

TEST_F(SharedFilesystemTest, ForAnotherLauncherTheSandboxIsNamedInTheRootfs) {
  staged = true;
  with_image();
  filled("a", "data");
  filled("b", "data/inner");
  filled("c", "/mnt/c");
  filled("d", "/mnt/sandbox/d");
  must_prepare();
  EXPECT_THAT(targets(),
              testing::UnorderedElementsAre(image + "/mnt/sandbox/data", image + "/mnt/sandbox/data/inner",
                                            image + "/mnt/c", image + "/mnt/sandbox/d"));
  EXPECT_TRUE(S_ISDIR(look(sandbox + "/data").st_mode));  // made where the launcher takes the sandbox from
  EXPECT_TRUE(S_ISDIR(look(sandbox + "/d").st_mode));
}

TEST_F(SharedFilesystemTest, ForAnotherLauncherUsersAreTheHostsAlsoWithARootfs) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give folders away";
  staged = true;
  with_image();
  std::filesystem::create_directories(image + "/etc");
  std::ofstream(image + "/etc/passwd") << "daemon:x:4711:4711::/:/bin/sh\n";
  request.mutable_command()->set_user("daemon");
  filled("a", "data");
  must_prepare();
  EXPECT_EQ(look(sandbox + "/data").st_uid, 1U);  // Debian's daemon
}

TEST_F(SharedFilesystemTest, ForAnotherLauncherPathsThatLieInOneAnotherAreRefused) {
  staged = true;
  filled("a", "data/a");
  add("data", dir.make_folder("host"));
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("volume 'd/a' at container path 'data/a': it lies in container path 'data'"),
                    HasSubstr("host path " + (dir / "host"))));
  request.mutable_container_info()->mutable_volumes()->at(1).set_container_path("data/a/b");
  EXPECT_THAT(refusal(), HasSubstr("it has in it container path 'data/a/b'"));
  request.mutable_container_info()->mutable_volumes()->at(1).set_container_path(sandbox + "/data/./a");
  EXPECT_THAT(refusal(), HasSubstr("it is the same as container path"));
  request.mutable_container_info()->mutable_volumes()->at(1).set_container_path("data/ab");
  EXPECT_EQ(refusal(), "prepared");
}

}  // namespace
}  // namespace dvdi::isolator
