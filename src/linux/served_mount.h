// Mounts with a server behind them, a FUSE process or a machine in the network: the server may be gone while
// the mount is still in the kernel's table. Then whatever touches the mount fails, or hangs.
#pragma once

#include <string>
#include <string_view>

#include "base/context.h"
#include "dvdi/v1/launch.pb.h"
#include "linux/helper_pool.h"

namespace dvdi {

// Is there a server behind mounts of this type of file system, as the mount table names it?
bool has_server(std::string_view fs_type);

enum class ServerState {
  answers,   // or the mount refuses us for a reason that says nothing against its server
  gone,      // for good, and the kernel says so: nobody will ever reach anything through this mount
  failing,   // it, or the way to it, fails; that may pass
  silent,    // no answer in time, or a helper that touched it is stuck
  replaced,  // that very mount is not there any more
};

struct ServerLook {
  ServerState state = ServerState::answers;
  std::string text;  // what is wrong: half a sentence; "" where it answers
};

// Asks the server behind the mount `identity` at `identity.mount_point()` for the attributes of its root, in
// a helper under `key`, until the context ends. An error is no verdict: the server could not be asked.
Result<ServerLook> look_at_server(const Context& context, HelperPool& helpers,
                                  const v1::MountIdentity& identity, std::string_view key);

// The same, and where the server is gone for good, that mount is detached (MNT_DETACH): nothing can be
// reached through it any more. The identity is checked on the descriptor that is detached, right before.
Result<ServerLook> detach_if_gone(const Context& context, HelperPool& helpers,
                                  const v1::MountIdentity& identity, std::string_view key);

}  // namespace dvdi
