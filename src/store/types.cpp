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

std::string_view driver_state_name(DriverState state) {
  switch (state) {
    case DriverState::up:
      return "up";
    case DriverState::slow:
      return "slow";
    case DriverState::down:
      return "down";
  }
  return "down";
}

DriverState driver_state_of(std::string_view name) {
  if (name == "slow") return DriverState::slow;
  return name == "down" ? DriverState::down : DriverState::up;
}

}  // namespace dvdi
