// One volume of a request, whatever form it is written in, on its way to a v1::Volume.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spec/request.h"
#include "spec/rules.h"

namespace dvdi::spec {

// The options that are dvdi's own start with this, and are never sent to a driver.
inline constexpr std::string_view reserved_prefix = "dvdi.";
inline constexpr std::string_view option_explicit_create = "dvdi.explicit-create";
inline constexpr std::string_view option_exclusive = "dvdi.exclusive";
inline constexpr std::string_view option_host_only = "dvdi.host-only";
inline constexpr std::string_view option_ownership = "dvdi.ownership";
inline constexpr std::string_view option_suid = "dvdi.suid";
inline constexpr std::string_view option_dev = "dvdi.dev";

// An external volume as a form has it: texts that nobody has checked.
struct VolumeDraft {
  struct Option {
    std::string key;
    std::string value;
    std::string place;
  };

  std::string place;  // of the volume as a whole
  Text driver;
  Text name;
  Text container_path;
  std::string options_place;
  std::vector<Option> options;
  bool read_only = false;
  bool create_under_tmp = false;
};

// A volume that was read, and what is needed to compare it with the others of the request.
struct ReadVolume {
  std::string place;
  std::string container_path;  // normal form; "": none, or it is wrong
  std::string container_path_place;
  std::optional<ExternalVolume> external;  // nullopt: a host volume, or it is wrong
  v1::Volume message;                      // of no use where there are problems
  bool of_the_file = false;                // of form 4: the variable is one of a Marathon app
};

// Reports whether there are more options than a volume may have.
bool too_many_options(std::size_t count, std::string_view place, Problems& problems);

// Checks everything that can be said of one volume alone, and reports all of it.
ReadVolume read_external(const VolumeDraft& draft, Problems& problems);
ReadVolume read_host(const Text& host_path, const Text& container_path, bool read_only, std::string place,
                     Problems& problems);

// What holds between volumes: no path twice, and one volume is the same volume everywhere.
void check_together(const std::vector<ReadVolume>& volumes, Problems& problems);

// The draft of a message whose source is DOCKER_VOLUME; `place` is that of the message, "" at the top.
VolumeDraft draft_of(const v1::Volume& volume, std::string_view place);

}  // namespace dvdi::spec
