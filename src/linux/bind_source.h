// What a bind mount shows: opened, verified, copied and given its attributes before it is attached anywhere.
#pragma once

#include "dvdi/v1/launch.pb.h"
#include "linux/mount_api.h"

namespace dvdi {

struct BindSource {
  UniqueFd mount;  // attached nowhere: attach_mount()
  Leaf kind = Leaf::directory;
  std::string real_path;  // of the source, without the links on its way
};

// Opens `instruction.source`, verifies from that very descriptor that it lies in the mount that `identity`
// says, and copies the mount with the instruction's flags: read-only, nosuid and nodev hold for what is
// mounted below it, too. Without nosuid or nodev the copy has them not, whatever the source has; what is
// mounted below it keeps its own. The copy is private: what is mounted below the source later would come
// without those flags. Must be called in the mount namespace that the identity was taken in: mount ids are a
// namespace's own.
Result<BindSource> open_bind_source(const v1::ContainerMountInfo& instruction);

}  // namespace dvdi
