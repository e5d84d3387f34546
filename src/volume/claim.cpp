#include "volume/claim.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "base/text.h"
#include "spec/request.h"

namespace dvdi::volume {

StoredIdentity identity_of(const MountEntry& entry) {
  return {.mount_id = entry.id,
          .major = entry.major,
          .minor = entry.minor,
          .root = std::string(entry.root),
          .source = std::string(entry.source),
          .fs_type = std::string(entry.fs_type)};
}

namespace {

// In a helper: the path without symbolic links, if it is a directory or a file.
Result<std::string> real_path(std::string_view request) {
  const std::string path(request);
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  if (!real) return os_error(fmt::format("look at {}", printable(path)), errno);
  return std::string(real.get());
}

Error violation(const VolumeKey& volume, std::string message) {
  return Error{.code = Code::driver_violation,
               .message = std::move(message),
               .driver = volume.driver,
               .volume = volume.name,
               .operation = "mount",
               .hint = "a fault of the driver: see its log",
               .outcome = Outcome::unknown};
}

// The volume's own mount, if `path` is a folder of it; else null.
const MountEntry* own_mount_of(const MountTable& table, const VolumeKey& volume, const std::string& path) {
  const std::string own = path.substr(0, path.rfind('/'));
  if (!own.ends_with("/" + volume.name)) return nullptr;
  const MountEntry* entry = table.containing(path);
  return entry != nullptr && entry->mount_point == own ? entry : nullptr;
}

std::optional<Claim> folder_of_own_mount(const MountTable& table, const VolumeKey& volume,
                                         const std::string& path, const MountTable* before) {
  const MountEntry* entry = own_mount_of(table, volume, path);
  if (entry == nullptr) return std::nullopt;
  const std::string_view own = entry->mount_point;
  if (path.ends_with("/" + volume.name)) {
    // A plain folder of a file system that is called like the volume by chance looks the same.
    const MountEntry* earlier = before == nullptr ? entry : before->containing(path);
    if (earlier != nullptr && identity_of(*earlier) == identity_of(*entry)) return std::nullopt;
  }
  return Claim{.mount_point = path, .folder = path.substr(own.size() + 1), .identity = identity_of(*entry)};
}

}  // namespace

Result<Claim> verify_claim(const Context& context, HelperPool& helpers, const MountTable& table,
                           const VolumeKey& volume, const std::string& path, bool plain_directory,
                           const MountTable* before) {
  if (path.empty())
    return violation(volume, "the driver said that it mounted the volume and gave no mount point");
  if (path.front() != '/' || path.size() > spec::max_path_bytes || path.find('\0') != std::string::npos) {
    return violation(
        volume, fmt::format("the driver gave a mount point that is no absolute path: '{}'", printable(path)));
  }
  if (path.find_first_not_of('/') == std::string::npos) {
    return violation(volume, "the driver gave the root directory as the mount point");
  }
  if (const MountEntry* entry = table.at(path)) {
    return Claim{
        .mount_point = std::string(entry->mount_point), .folder = {}, .identity = identity_of(*entry)};
  }
  // Perhaps behind symbolic links: looking at them may block on a file system, so a helper does.
  auto real = helpers.run(context, "look at the mount point", real_path, path, volume.text());
  if (!real) {
    const Code code = real.error().code;
    if (code == Code::deadline_exceeded || code == Code::cancelled || code == Code::unavailable) {
      return fail(std::move(real).error());
    }
    return violation(volume, fmt::format("the driver said that it mounted the volume at {}: {}",
                                         printable(path), real.error().message));
  }
  if (*real == "/") return violation(volume, "the driver gave the root directory as the mount point");
  // Whoever may write to the volume must not choose what of the host is taken for it.
  const MountEntry* own = own_mount_of(table, volume, path);
  if (own != nullptr && table.containing(*real) != own) {
    return violation(volume,
                     fmt::format("the driver gave {}, which is a link that leads out of the volume, to {}",
                                 printable(path), printable(*real)));
  }
  if (const MountEntry* entry = table.at(*real)) {
    return Claim{
        .mount_point = std::string(entry->mount_point), .folder = {}, .identity = identity_of(*entry)};
  }
  if (auto claim = folder_of_own_mount(table, volume, *real, before)) return *std::move(claim);
  if (plain_directory) return Claim{.mount_point = *real, .folder = {}, .identity = std::nullopt};
  return violation(
      volume, fmt::format("the driver said that it mounted the volume at {}, but nothing is mounted there",
                          printable(path)));
}

bool shows(const MountTable& table, const MountRow& row) {
  if (row.mount_point.empty()) return false;
  if (!row.identity) return table.at(row.mount_point) != nullptr;
  const MountEntry* entry = table.containing(row.mount_point);
  return entry != nullptr && identity_of(*entry) == *row.identity;
}

}  // namespace dvdi::volume
