// Container paths by their text. dvdid compares real paths as well, of what it is told about; this comes
// first, and also for volumes that dvdid is not told about.
#pragma once

#include <string>
#include <vector>

namespace dvdi_mesos {

// What the container finds its sandbox as: `sandbox_directory` with a root file system, else the sandbox
// itself.
struct View {
  std::string sandbox;
  bool rootfs = false;
};

struct ContainerPath {
  std::string path;  // as it was given
  std::string what;  // for a person: "volume 'data' of driver 'nfs'"
  bool ours = false;
};

// An absolute path without `.` and repeated slashes; a relative one lies in the sandbox.
std::string place_in_container(const std::string& path, const View& view);

// "", or the first of ours that is the same as, lies in, or has in it one of another isolator: both are
// named.
std::string check_apart(const std::vector<ContainerPath>& paths, const View& view);

}  // namespace dvdi_mesos
