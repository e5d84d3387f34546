// The folders of the `local` driver on disk. A volume exists when its folder does: it is prepared under
// another name and renamed into place, complete and synced, so a crash leaves no half of one.
//
//   DIR/volumes/FOLDER/volume.json   the record
//   DIR/volumes/FOLDER/data          the content (type=dir)
//   DIR/volumes/FOLDER/image         the content (type=image)
//   DIR/volumes/.new-FOLDER          being made, or the remainder of a crash
//   DIR/volumes/.old-FOLDER          being deleted, or the remainder of a crash
//   DIR/mnt/FOLDER                   the mount point, there while the volume is mounted
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"
#include "driver/local/volume_record.h"
#include "linux/fd.h"

namespace dvdi::driver::local {

// Thread-safe. Callers hold the lock of the volume that they change.
class VolumeStore {
 public:
  // Makes what is missing. `directory` is absolute.
  static Result<std::unique_ptr<VolumeStore>> open(const std::string& directory);

  const std::string& directory() const { return directory_; }  // resolved: no links in it
  std::string mount_point(const std::string& folder) const;

  // nullopt where there is no such volume.
  Result<std::optional<VolumeRecord>> load(const std::string& name) const;
  // Volumes in the order of their names; `damaged` gets an error for each whose record cannot be read;
  // its `volume` is what the folder's name tells.
  Result<std::vector<VolumeRecord>> list(std::vector<Error>& damaged) const;

  // Makes the volume, formats its image.
  Status create(const Context& context, const VolumeRecord& record) const;
  // Writes the record of a volume that is there anew.
  Status update(const VolumeRecord& record) const;
  // Takes the volume away, as `.old-FOLDER`, whose deletion is left to the caller.
  Status retire(const std::string& name) const;
  // Remainders of crashes and of deletions that did not finish: names of folders in DIR/volumes.
  Result<std::vector<std::string>> remainders() const;

 private:
  VolumeStore(std::string directory, UniqueFd volumes)
      : directory_(std::move(directory)), volumes_(std::move(volumes)) {}
  Status fill(const Context& context, int folder, const std::string& path, const VolumeRecord& record) const;

  std::string directory_;
  UniqueFd volumes_;
};

}  // namespace dvdi::driver::local
