#include "driver/local/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/text.h"
#include "linux/user_id.h"

namespace dvdi::driver::local {

namespace {

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = kib * kib;
constexpr std::uint64_t gib = kib * mib;
constexpr std::uint64_t tib = kib * gib;
constexpr std::uint64_t largest_size = 1024 * tib;
constexpr std::uint64_t smallest_ext4 = 4 * mib;
constexpr std::uint64_t smallest_xfs = 300 * mib;  // mkfs.xfs makes no smaller one

constexpr std::string_view known =
    "known are type=dir|tmpfs|image, size=NUMBER[B|K|M|G|T] (without a suffix: GiB), fstype=ext4|xfs, "
    "mode=OCTAL, uid=NUMBER, gid=NUMBER";

Error invalid(const std::vector<std::string>& problems) {
  return Error{.code = Code::invalid_argument,
               .message = fmt::format("{}", fmt::join(problems, "; ")),
               .hint = std::string(known)};
}

std::optional<Type> parse_type(std::string_view text) {
  for (const Type one : {Type::dir, Type::tmpfs, Type::image}) {
    if (text == type_name(one)) return one;
  }
  return std::nullopt;
}

std::optional<FileSystem> parse_file_system(std::string_view text) {
  for (const FileSystem one : {FileSystem::ext4, FileSystem::xfs}) {
    if (text == file_system_name(one)) return one;
  }
  return std::nullopt;
}

std::optional<mode_t> parse_mode(std::string_view text) {
  const auto mode = parse_number<mode_t>(text, 8);
  return mode && *mode <= 07777 ? mode : std::nullopt;
}

}  // namespace

std::string_view type_name(Type type) {
  switch (type) {
    case Type::dir:
      return "dir";
    case Type::tmpfs:
      return "tmpfs";
    case Type::image:
      return "image";
  }
  return "?";
}

std::string_view file_system_name(FileSystem file_system) {
  return file_system == FileSystem::xfs ? "xfs" : "ext4";
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  const auto digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto count = parse_number<std::uint64_t>(text.substr(0, digits));
  std::string suffix(text.substr(digits));
  std::ranges::transform(suffix, suffix.begin(), [](char c) { return c >= 'a' && c <= 'z' ? c - 32 : c; });
  std::uint64_t unit = 0;
  if (suffix == "B") unit = 1;
  if (suffix == "K" || suffix == "KIB") unit = kib;
  if (suffix == "M" || suffix == "MIB") unit = mib;
  if (suffix.empty() || suffix == "G" || suffix == "GIB") unit = gib;
  if (suffix == "T" || suffix == "TIB") unit = tib;
  if (!count || *count == 0 || unit == 0 || *count > largest_size / unit) return std::nullopt;
  return *count * unit;
}

Result<StatedOptions> parse_options(const Options& options) {
  StatedOptions stated;
  std::vector<std::string> problems;
  for (const auto& [name, text] : options) {
    const auto take = [&, &option = name, &value = text](auto& into, auto parsed, std::string_view expected) {
      into = parsed;
      if (!parsed) {
        problems.push_back(fmt::format("option {}={} is not {}", option, printable(value), expected));
      }
    };
    if (name == "type") {
      take(stated.type, parse_type(text), "dir, tmpfs or image");
    } else if (name == "size") {
      take(stated.size_bytes, parse_size(text), "a size between 1B and 1024T");
    } else if (name == "fstype") {
      take(stated.file_system, parse_file_system(text), "ext4 or xfs");
    } else if (name == "mode") {
      take(stated.mode, parse_mode(text), "an octal mode up to 7777");
    } else if (name == "uid") {
      take(stated.uid, parse_id(text), "the number of a user");
    } else if (name == "gid") {
      take(stated.gid, parse_id(text), "the number of a group");
    } else {
      problems.push_back(fmt::format("there is no option '{}'", printable(name)));
    }
  }
  if (!problems.empty()) return invalid(problems);
  return stated;
}

Result<VolumeOptions> complete(const StatedOptions& stated) {
  VolumeOptions volume;
  volume.type = stated.type.value_or(volume.type);
  volume.size_bytes = stated.size_bytes;
  volume.file_system = stated.file_system.value_or(volume.file_system);
  volume.mode = stated.mode.value_or(volume.mode);
  volume.uid = stated.uid.value_or(volume.uid);
  volume.gid = stated.gid.value_or(volume.gid);
  std::vector<std::string> problems;
  if (stated.file_system && volume.type != Type::image) {
    problems.emplace_back("fstype is only for type=image");
  }
  if (volume.type != Type::dir && !volume.size_bytes) {
    problems.push_back(fmt::format("type={} needs a size", type_name(volume.type)));
  }
  if (volume.type == Type::image && volume.size_bytes) {
    const bool xfs = volume.file_system == FileSystem::xfs;
    const std::uint64_t smallest = xfs ? smallest_xfs : smallest_ext4;
    if (*volume.size_bytes < smallest) {
      problems.push_back(fmt::format("size is {} bytes; {} needs at least {}M", *volume.size_bytes,
                                     file_system_name(volume.file_system), smallest / mib));
    }
  }
  if (!problems.empty()) return invalid(problems);
  return volume;
}

std::vector<std::string> differences(const StatedOptions& stated, const VolumeOptions& volume) {
  std::vector<std::string> found;
  if (stated.type && *stated.type != volume.type) {
    found.push_back(fmt::format("type is {}, not {}", type_name(volume.type), type_name(*stated.type)));
  }
  if (stated.size_bytes && stated.size_bytes != volume.size_bytes) {
    const std::string is =
        volume.size_bytes ? fmt::format("{} bytes", *volume.size_bytes) : std::string("not set");
    found.push_back(fmt::format("size is {}, not {}", is, *stated.size_bytes));
  }
  if (stated.file_system && (volume.type != Type::image || *stated.file_system != volume.file_system)) {
    found.push_back(fmt::format(
        "fstype is {}, not {}",
        volume.type == Type::image ? file_system_name(volume.file_system) : std::string_view("not set"),
        file_system_name(*stated.file_system)));
  }
  if (stated.mode && *stated.mode != volume.mode) {
    found.push_back(fmt::format("mode is {:o}, not {:o}", volume.mode, *stated.mode));
  }
  if (stated.uid && *stated.uid != volume.uid) {
    found.push_back(fmt::format("uid is {}, not {}", volume.uid, *stated.uid));
  }
  if (stated.gid && *stated.gid != volume.gid) {
    found.push_back(fmt::format("gid is {}, not {}", volume.gid, *stated.gid));
  }
  return found;
}

Options to_options(const VolumeOptions& volume) {
  Options options{{"type", std::string(type_name(volume.type))},
                  {"mode", fmt::format("{:o}", volume.mode)},
                  {"uid", fmt::format("{}", volume.uid)},
                  {"gid", fmt::format("{}", volume.gid)}};
  if (volume.size_bytes) options["size"] = fmt::format("{}B", *volume.size_bytes);
  if (volume.type == Type::image) options["fstype"] = file_system_name(volume.file_system);
  return options;
}

}  // namespace dvdi::driver::local
