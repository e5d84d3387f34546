#include "linux/served_mount.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include "base/text.h"
#include "linux/mount_api.h"
#include "linux/mount_table.h"

namespace dvdi {

namespace {

// In the network, or another machine's kernel: a lost connection or a dead peer does not unmount them. Block
// devices of the network (iSCSI, RBD, DRBD) are not told by the type of the file system on them: the kernel
// answers for those, with EIO, when something is read.
constexpr std::array network = {
    "9p",                                                                 // virtual machines, diod
    "afs",      "auristorfs",                                             //
    "beegfs",   "ceph",                                                   //
    "cifs",     "smb3",       "smbfs",                                    //
    "coda",     "davfs",      "gpfs",  "lustre", "ncpfs", "nfs", "nfs4",  //
    "orangefs", "pvfs2",                                                  //
    "virtiofs",  // the server is a process on the host of this virtual machine
};

// What an answer of the file system says of its server.
ServerState state_of(int error) {
  switch (error) {
    case ENOTCONN:      // FUSE: the connection is gone, and a new server gets a new one; 9p
    case ECONNABORTED:  // FUSE: it was aborted by hand
    case ESTALE:        // NFS, FUSE: the server does not know the root of this mount any more
    case ESHUTDOWN:
      return ServerState::gone;
    case EIO:
    case EREMOTEIO:
    case ENODEV:
    case ENXIO:
    case ETIMEDOUT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
    case ECONNREFUSED:
    case ECONNRESET:
      return ServerState::failing;
    default:  // EACCES, for one: a FUSE mount of another user without allow_other
      return ServerState::answers;
  }
}

ServerLook verdict(ServerState state, int error) {
  if (state == ServerState::answers) return {};
  return {.state = state, .text = std::generic_category().message(error)};
}

// The root of that very mount, opened without asking its server: O_PATH. `failed` is the errno where the open
// itself failed, which it does where the kernel asks all the same (NFS).
struct Opened {
  UniqueFd fd;
  int failed = 0;
};

Opened open_root(const v1::MountIdentity& identity) {
  Opened opened;
  opened.fd.reset(::open(identity.mount_point().c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!opened.fd) opened.failed = errno;
  return opened;
}

Result<ServerLook> look(const v1::MountIdentity& identity, const Opened& opened) {
  if (!opened.fd) {
    if (opened.failed == ENOENT || opened.failed == ENOTDIR)
      return verdict(ServerState::replaced, opened.failed);
    const ServerState state = state_of(opened.failed);
    // No verdict: we have no descriptor left, or no memory.
    if (state == ServerState::answers) return os_error("open the mount point", opened.failed);
    return verdict(state, opened.failed);
  }
  if (const auto same = check_mount_identity(opened.fd.get(), identity); !same) {
    if (same.error().code != Code::failed_precondition) return same.error();
    return ServerLook{.state = ServerState::replaced, .text = same.error().message};
  }
  struct statx status{};
  // Not what the kernel remembers: what the server says.
  if (::statx(opened.fd.get(), "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_TYPE, &status) == 0)
    return ServerLook();
  const int error = errno;
  return verdict(state_of(error), error);
}

Status detach(const v1::MountIdentity& identity, const Opened& opened) {
  if (opened.fd) {
    // By the descriptor: that mount and no other, whatever lies at the path by now.
    if (::umount2(fmt::format("/proc/self/fd/{}", opened.fd.get()).c_str(), MNT_DETACH) == 0) return {};
    return os_error("detach the dead mount", errno);
  }
  // A root that cannot even be opened: the table says that it is still the one, and the path is followed
  // without asking the server.
  DVDI_TRY(const MountTable table, MountTable::read());
  const MountEntry* entry = table.at(identity.mount_point());
  if (entry == nullptr || entry->id != identity.mount_id() || entry->major != identity.major() ||
      entry->minor != identity.minor() || entry->root != identity.root() ||
      entry->source != identity.source() || entry->fs_type != identity.fs_type()) {
    return Error{.code = Code::failed_precondition, .message = "the dead mount is not there any more"};
  }
  if (::umount2(identity.mount_point().c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return {};
  return os_error("detach the dead mount", errno);
}

std::string encode(const ServerLook& look) {
  return std::to_string(static_cast<int>(look.state)) + look.text;
}

Result<std::string> in_helper(std::string_view request, bool may_detach) {
  v1::MountIdentity identity;
  if (!identity.ParseFromArray(request.data(), static_cast<int>(request.size())))
    return Error{.code = Code::internal, .message = "no identity of a mount"};
  const Opened opened = open_root(identity);
  DVDI_TRY(const ServerLook found, look(identity, opened));
  if (may_detach && found.state == ServerState::gone) DVDI_CHECK(detach(identity, opened));
  return encode(found);
}

Result<std::string> look_in_helper(std::string_view request) { return in_helper(request, false); }
Result<std::string> detach_in_helper(std::string_view request) { return in_helper(request, true); }

Result<ServerLook> ask(const Context& context, HelperPool& helpers, const v1::MountIdentity& identity,
                       std::string_view key, std::string_view what, HelperFunction function) {
  const BootTime start = context.clock().boot();
  auto answer = helpers.run(context, what, function, identity.SerializeAsString(), key);
  if (answer) {
    if (answer->empty() || answer->front() < '0' || answer->front() > '4')
      return Error{.code = Code::internal, .message = "a helper's answer cannot be understood"};
    return ServerLook{.state = static_cast<ServerState>(answer->front() - '0'), .text = answer->substr(1)};
  }
  Error error = std::move(answer).error();
  if (error.code == Code::deadline_exceeded && error.outcome == Outcome::unknown) {
    const auto waited = std::chrono::duration<double>(context.clock().boot() - start).count();
    return ServerLook{.state = ServerState::silent, .text = fmt::format("no answer in {:.1f} s", waited)};
  }
  if (error.code == Code::unavailable && error.outcome == Outcome::not_sent && helpers.fenced(context, key)) {
    return ServerLook{.state = ServerState::silent, .text = error.message};
  }
  return error;
}

}  // namespace

bool has_server(std::string_view fs_type) {
  return fs_type == "fuse" || fs_type == "fuseblk" || fs_type.starts_with("fuse.") ||
         std::ranges::find(network, fs_type) != network.end();
}

Result<ServerLook> look_at_server(const Context& context, HelperPool& helpers,
                                  const v1::MountIdentity& identity, std::string_view key) {
  return ask(context, helpers, identity, key, fmt::format("look at {}", printable(identity.mount_point())),
             look_in_helper);
}

Result<ServerLook> detach_if_gone(const Context& context, HelperPool& helpers,
                                  const v1::MountIdentity& identity, std::string_view key) {
  return ask(context, helpers, identity, key,
             fmt::format("take the dead mount at {} away", printable(identity.mount_point())),
             detach_in_helper);
}

}  // namespace dvdi
