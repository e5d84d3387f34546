// What a volume of the `local` driver is made as.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "driver/driver.h"

namespace dvdi::driver::local {

enum class Type { dir, tmpfs, image };
enum class FileSystem { ext4, xfs };

std::string_view type_name(Type type);
std::string_view file_system_name(FileSystem file_system);

struct VolumeOptions {
  Type type = Type::dir;
  std::optional<std::uint64_t> size_bytes;    // enforced by tmpfs and image, only recorded by dir
  FileSystem file_system = FileSystem::ext4;  // of an image
  mode_t mode = 0755;
  uid_t uid = 0;
  gid_t gid = 0;

  bool operator==(const VolumeOptions&) const = default;
};

// What a request says; the rest is left open.
struct StatedOptions {
  std::optional<Type> type;
  std::optional<std::uint64_t> size_bytes;
  std::optional<FileSystem> file_system;
  std::optional<mode_t> mode;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
};

// invalid_argument with everything that is wrong, and what is known.
Result<StatedOptions> parse_options(const Options& options);

// With the defaults for what is not stated; invalid_argument where the result makes no sense.
Result<VolumeOptions> complete(const StatedOptions& stated);

// What the request states and the volume is not, in words: "size is 1073741824 bytes, not 2147483648".
std::vector<std::string> differences(const StatedOptions& stated, const VolumeOptions& volume);

// As options that parse_options() reads back.
Options to_options(const VolumeOptions& volume);

// "100" is 100 GiB, as other drivers and Marathon have it; else with a suffix: B, or K, M, G, T (powers of
// 1024), which may be written KiB and so on; case does not matter.
std::optional<std::uint64_t> parse_size(std::string_view text);

}  // namespace dvdi::driver::local
