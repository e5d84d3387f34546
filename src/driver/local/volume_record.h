// What is remembered of a volume: `volume.json` in its folder.
#pragma once

#include <string>
#include <string_view>

#include "driver/local/options.h"

namespace dvdi::driver::local {

struct VolumeRecord {
  std::string name;
  VolumeOptions options;
  std::string created_at;
  // The root of an image's file system has got its owner and mode: done once, at the first mount, so that a
  // later change by its user stays.
  bool owner_set = false;
};

// The name of the folder of a volume: safe whatever the volume's name is, readable where that is plain, at
// most 140 bytes, never with a leading dot. Different for different names.
std::string folder_name(std::string_view volume);

// Reversible: letters, digits, `_`, `-` and `.` (not the first) stay, every other byte becomes %XX.
std::string escape(std::string_view text);
Result<std::string> unescape(std::string_view text);

std::string to_json(const VolumeRecord& record);
Result<VolumeRecord> from_json(std::string_view text, std::string_view what);

}  // namespace dvdi::driver::local
