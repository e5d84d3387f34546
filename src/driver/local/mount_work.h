// The work on mounts that can block: run in helper processes (linux/helper_pool.h).
//
// DIR/mnt is a shared folder (linux/shared_folder.h).
#pragma once

#include <string>
#include <string_view>

#include "driver/local/volume_record.h"

namespace dvdi::driver::local {

struct MountWork {
  std::string directory;  // DIR
  std::string folder;
  VolumeRecord record;
};
std::string encode(const MountWork& work);

// Mounts the volume on DIR/mnt/FOLDER; nothing is mounted there yet. Gives an image's root its owner and mode
// where `owner_set` is false.
Result<std::string> mount_volume(std::string_view work);

// What unmount_volume and delete_remainder need: DIR and FOLDER.
std::string encode(const std::string& directory, const std::string& folder);

// Unmounts DIR/mnt/FOLDER. failed_precondition: it is busy.
Result<std::string> unmount_volume(std::string_view work);
// Takes DIR/mnt's own mount away if nothing is mounted in it; of DIR alone.
Result<std::string> tidy(std::string_view directory);
// Deletes DIR/volumes/FOLDER, a remainder.
Result<std::string> delete_remainder(std::string_view work);

}  // namespace dvdi::driver::local
