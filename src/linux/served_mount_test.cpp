#include "linux/served_mount.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "linux/fuse_test_server.h"
#include "linux/holders.h"
#include "linux/mount_table.h"

namespace dvdi {
namespace {

using testing::HasSubstr;

// Once for the program, before it has threads: the namespace, then the helpers inside it.
struct Ground {
  const Clock& outlives_the_helpers = system_clock();
  bool entered =
      ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  Result<std::unique_ptr<HelperPool>> helpers = HelperPool::start();
};

Ground& ground() {
  static Ground the_ground;
  return the_ground;
}

class ServedMount : public testing::Test {
 protected:
  void SetUp() override {
    if (!ground().entered) GTEST_SKIP() << "mounting needs root";
    ASSERT_TRUE(ground().helpers);
    std::string pattern = "/tmp/dvdi-served-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    server = FuseTestServer::mount(folder, "test");
    if (server == nullptr) GTEST_SKIP() << "no FUSE: " << os_error("mount", errno).message;
    identity = at();
  }
  void TearDown() override {
    server.reset();
    while (!folder.empty() && ::umount2(folder.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
    }
    ::rmdir(folder.c_str());
  }

  v1::MountIdentity at() const {
    v1::MountIdentity out;
    const auto table = MountTable::read();
    const MountEntry* entry = table ? table->at(folder) : nullptr;
    if (entry == nullptr) return out;
    out.set_mount_id(entry->id);
    out.set_major(entry->major);
    out.set_minor(entry->minor);
    out.set_root(std::string(entry->root));
    out.set_source(std::string(entry->source));
    out.set_fs_type(std::string(entry->fs_type));
    out.set_mount_point(std::string(entry->mount_point));
    return out;
  }
  bool mounted() const { return at().mount_id() != 0; }
  HelperPool& helpers() { return **ground().helpers; }
  ServerState look(Duration patience = std::chrono::minutes(1)) {
    const auto found = look_at_server(Context().with_timeout(patience), helpers(), identity, "fake/a");
    EXPECT_TRUE(found) << found.error().text();
    text = found ? found->text : "";
    return found ? found->state : ServerState::answers;
  }
  ServerState detach() {
    const auto found =
        detach_if_gone(Context().with_timeout(std::chrono::minutes(1)), helpers(), identity, "fake/a");
    EXPECT_TRUE(found) << found.error().text();
    return found ? found->state : ServerState::answers;
  }

  std::string folder;
  std::unique_ptr<FuseTestServer> server;
  v1::MountIdentity identity;
  std::string text;
};

constexpr Duration short_patience = std::chrono::milliseconds(100);

TEST(HasServer, IsTrueForFuseAndTheNetworkOnly) {
  for (const char* type : {"fuse", "fuse.rclone", "fuse.sshfs", "fuseblk", "nfs", "nfs4", "cifs", "smb3",
                           "ceph", "9p", "lustre", "afs", "virtiofs"}) {
    EXPECT_TRUE(has_server(type)) << type;
  }
  for (const char* type :
       {"tmpfs", "ext4", "xfs", "btrfs", "overlay", "proc", "fusectl", "nfsd", "", "fus"}) {
    EXPECT_FALSE(has_server(type)) << type;
  }
}

TEST_F(ServedMount, AServerThatLivesIsAskedAndAnswers) {
  const unsigned before = server->requests();
  EXPECT_EQ(look(), ServerState::answers);
  EXPECT_GT(server->requests(), before) << "what the kernel remembers is no answer";
  EXPECT_EQ(look(), ServerState::answers);
  EXPECT_GT(server->requests(), before + 1);
  EXPECT_EQ(detach(), ServerState::answers);
  EXPECT_TRUE(mounted());
}

TEST_F(ServedMount, AServerThatDiedIsGoneAndItsMountDetached) {
  server.reset();
  EXPECT_TRUE(mounted()) << "the kernel keeps it";
  EXPECT_EQ(look(), ServerState::gone);
  EXPECT_THAT(text, HasSubstr("not connected"));
  EXPECT_TRUE(mounted()) << "looking changes nothing";
  EXPECT_EQ(detach(), ServerState::gone);
  EXPECT_FALSE(mounted());
  EXPECT_EQ(look(), ServerState::replaced);
  EXPECT_EQ(detach(), ServerState::replaced);
}

TEST_F(ServedMount, AnErrorThatMayPassIsNoReasonToDetach) {
  for (const int error : {EIO, ETIMEDOUT, EHOSTDOWN}) {
    server->fail(error);
    EXPECT_EQ(detach(), ServerState::failing) << error;
    EXPECT_TRUE(mounted());
  }
  server->fail(EACCES);
  EXPECT_EQ(detach(), ServerState::answers) << "it says no to us, so it lives";
  server->fail(0);
  EXPECT_EQ(look(), ServerState::answers);
  server->fail(ESTALE);
  EXPECT_EQ(detach(), ServerState::gone);
  EXPECT_FALSE(mounted());
}

TEST_F(ServedMount, OnlyThatVeryMountIsDetached) {
  server.reset();
  // Another dead mount on top of it, as after an unmount and a mount by somebody else.
  auto other = FuseTestServer::mount(folder, "test");
  if (other == nullptr) {
    // The kernel does not let a dead mount point be mounted over: let the number be another's instead.
    identity.set_mount_id(identity.mount_id() + 1'000'000);
  } else {
    other.reset();
  }
  EXPECT_EQ(look(), ServerState::replaced);
  EXPECT_EQ(detach(), ServerState::replaced);
  EXPECT_TRUE(mounted());
}

TEST_F(ServedMount, AnUnmountedOneIsReplaced) {
  ASSERT_EQ(::umount2(folder.c_str(), MNT_DETACH), 0);
  EXPECT_EQ(look(), ServerState::replaced);
  ASSERT_EQ(::mount("test", folder.c_str(), "tmpfs", 0, nullptr), 0);
  EXPECT_EQ(look(), ServerState::replaced);
  EXPECT_EQ(detach(), ServerState::replaced);
  EXPECT_TRUE(mounted());
}

TEST_F(ServedMount, AServerThatIsStoppedIsSilentAndFencesNothing) {
  server->ignore();
  EXPECT_EQ(look(short_patience), ServerState::silent);
  EXPECT_FALSE(helpers().fenced(Context(), "fake/a")) << "that helper could be killed";
  server->answer();
  EXPECT_EQ(look(), ServerState::answers);
}

TEST_F(ServedMount, AHelperThatCannotBeKilledFencesItsVolumeUntilItComesBack) {
  server->hold();
  EXPECT_EQ(look(short_patience), ServerState::silent);
  const auto stuck = helpers().fenced(Context(), "fake/a");
  ASSERT_TRUE(stuck);
  EXPECT_EQ(stuck->key, "fake/a");
  EXPECT_THAT(stuck->what, HasSubstr(folder));
  const unsigned asked = server->requests();
  EXPECT_EQ(look(), ServerState::silent) << "at once, however long it may take";
  EXPECT_THAT(text, HasSubstr("stuck in the kernel"));
  EXPECT_EQ(server->requests(), asked) << "no second helper is given to it";
  EXPECT_EQ(helpers().stuck(), 1U);
  const auto seen = find_stuck_helpers(Context(), 100);
  EXPECT_NE(std::ranges::find(seen, stuck->pid), seen.end());
  // Work of the same volume is refused, of others is not.
  const HelperFunction echo = [](std::string_view request) -> Result<std::string> {
    return std::string(request);
  };
  const auto same = helpers().run(Context(), "do it", echo, "x", "fake/a");
  ASSERT_FALSE(same);
  EXPECT_EQ(same.error().code, Code::unavailable);
  EXPECT_EQ(same.error().outcome, Outcome::not_sent);
  EXPECT_THAT(same.error().message, HasSubstr(std::to_string(stuck->pid)));
  EXPECT_TRUE(helpers().run(Context(), "do it", echo, "x", "fake/b"));
  EXPECT_TRUE(helpers().run(Context(), "do it", echo, "x"));
  server->answer();
  while (helpers().fenced(Context(), "fake/a")) std::this_thread::yield();
  EXPECT_EQ(std::ranges::count(find_stuck_helpers(Context(), 100), stuck->pid), 0);
  EXPECT_EQ(look(), ServerState::answers);
}

TEST_F(ServedMount, TheDeathOfTheServerFreesAStuckHelper) {
  server->hold();
  EXPECT_EQ(look(short_patience), ServerState::silent);
  EXPECT_TRUE(helpers().fenced(Context(), "fake/a"));
  server.reset();
  while (helpers().fenced(Context(), "fake/a")) std::this_thread::yield();
  EXPECT_EQ(look(), ServerState::gone);
}

TEST_F(ServedMount, ALookThatCannotBeginIsNoVerdict) {
  server.reset();
  const auto found = look_at_server(Context().with_timeout(Duration::zero()), helpers(), identity, "fake/a");
  EXPECT_FALSE(found);
}

}  // namespace
}  // namespace dvdi
