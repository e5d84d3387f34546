// Forms 1 and 2: Mesos volumes as JSON. Names as Mesos writes them (snake_case); fields that dvdi does not
// know are ignored.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "spec/problems.h"
#include "spec/volume.h"

namespace dvdi::spec {

// What a request's file holds, whichever of the forms 1 to 3 it is.
struct FileContents {
  std::vector<ReadVolume> volumes;
  std::optional<v1::CommandInfo> command;  // a Marathon app's
  v1::Attribution attribution;
  // A Marathon app's `env` where it has DVDI_VOLUME_* variables: form 4 in form 3.
  std::vector<std::pair<std::string, std::string>> environment;
  std::string environment_place;
  std::vector<std::string> warnings;
};

// An array of Volume at `place` ("" where it is the whole document).
std::vector<ReadVolume> read_mesos_volumes(const json::array& volumes, std::string_view place,
                                           Problems& problems);

// One Volume whose source is of the type DOCKER_VOLUME.
VolumeDraft read_docker_volume(const json::object& volume, const std::string& place, Problems& problems);

FileContents read_container_info(const json::object& info, Problems& problems);

// Reports whether there are more volumes than a container may have.
bool too_many_volumes(std::size_t count, std::string_view place, Problems& problems);

}  // namespace dvdi::spec
