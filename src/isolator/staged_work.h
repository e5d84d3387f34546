// The work on staged mounts that can block: run in helper processes (linux/helper_pool.h).
//
// STATE_DIR/staged/FOLDER/POSITION is a container volume's private mount. STATE_DIR/staged is a shared folder
// (linux/shared_folder.h), so that an agent in a mount namespace of its own sees what is mounted in it.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "dvdi/v1/launch.pb.h"

namespace dvdi::isolator {

inline constexpr std::string_view staged_folder = "staged";

struct StagedPlace {
  std::string state_dir;  // without links: the kernel's table is searched for it
  std::string folder;     // of the container
  unsigned position = 0;
  std::string folder_path() const;
  std::string path() const;
};

std::string encode(const StagedPlace& place, const v1::ContainerMountInfo& instruction);
// Opens and verifies the source, and attaches its copy, with its flags, at the place. What a killed helper
// left there is taken away first: nobody but us has the folder. Answers the identity of the mount (a
// serialized MountIdentity).
Result<std::string> make_staged(std::string_view work);

std::string encode(const std::string& state_dir, const std::string& folder);
// Unmounts everything in the folder of a container and removes it. All is tried: the first error.
// failed_precondition: a mount is busy.
Result<std::string> take_staged(std::string_view work);

}  // namespace dvdi::isolator
