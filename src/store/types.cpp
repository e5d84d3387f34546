#include "store/types.h"

namespace dvdi {

std::string_view mount_state_name(MountState state) {
  switch (state) {
    case MountState::absent:
      return "absent";
    case MountState::mounting:
      return "mounting";
    case MountState::mounted:
      return "mounted";
    case MountState::unmounting:
      return "unmounting";
    case MountState::unknown:
      return "unknown";
  }
  return "unknown";
}

std::string_view container_state_name(ContainerState state) {
  switch (state) {
    case ContainerState::preparing:
      return "preparing";
    case ContainerState::prepared:
      return "prepared";
    case ContainerState::running:
      return "running";
    case ContainerState::cleaning:
      return "cleaning";
    case ContainerState::ended:
      return "ended";
  }
  return "ended";
}

}  // namespace dvdi
