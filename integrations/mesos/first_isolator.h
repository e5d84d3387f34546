// What mesos-module-dvdi, the first DVDI isolator, left on this node: its list of the mounts that it made,
// for whom. Read once, when an agent comes up with this module in its place.
#pragma once

#include <string>
#include <vector>

namespace dvdi_mesos {

// One ExternalMount of its ExternalMountList.
struct FormerMount {
  std::string container;  // a ContainerID's value; it knew no nested ones
  std::string driver;
  std::string volume;
  std::string mount_point;  // "": the list does not say
  std::string options;      // "k=v,k=v"
  std::string container_path;
};

// At most that large: some ten thousand mounts.
constexpr std::size_t max_former_state_bytes = 16U << 20U;

// Is there such a file?
bool has_former_state(const std::string& path);

// Its mounts, in their order. Before the message Mesos' checkpoint() puts its length, 4 bytes as the machine
// has them; a bare message is read, too. False: it cannot be read, or is damaged; `error` says what is wrong
// with it. Fields that are not known are ignored.
bool read_former_state(const std::string& path, std::vector<FormerMount>& mounts, std::string& error);

// So that it is not read again: renamed to PATH.adopted. False: `error` says why it could not be.
bool set_former_state_aside(const std::string& path, std::string& error);

}  // namespace dvdi_mesos
