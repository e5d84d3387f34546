#include "volume/claim.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "base/text.h"
#include "spec/request.h"

namespace dvdi::volume {

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

std::optional<Claim> folder_of_own_mount(const MountTable& table, const VolumeKey& volume,
                                         const std::string& path) {
  const std::string own = path.substr(0, path.rfind('/'));
  if (!own.ends_with("/" + volume.name)) return std::nullopt;
  const MountEntry* entry = table.containing(path);
  if (entry == nullptr || entry->mount_point != own) return std::nullopt;
  return Claim{.mount_point = path, .folder = path.substr(own.size() + 1), .identity = identity_of(*entry)};
}

}  // namespace

StoredIdentity identity_of(const MountEntry& entry) {
  return {.mount_id = entry.id,
          .major = entry.major,
          .minor = entry.minor,
          .root = entry.root,
          .source = entry.source,
          .fs_type = entry.fs_type};
}

Result<Claim> verify_claim(const Context& context, HelperPool& helpers, const VolumeKey& volume,
                           const std::string& path, bool plain_directory) {
  if (path.empty())
    return violation(volume, "the driver said that it mounted the volume and gave no mount point");
  if (path.front() != '/' || path.size() > spec::max_path_bytes || path.find('\0') != std::string::npos) {
    return violation(
        volume, fmt::format("the driver gave a mount point that is no absolute path: '{}'", printable(path)));
  }
  if (path.find_first_not_of('/') == std::string::npos) {
    return violation(volume, "the driver gave the root directory as the mount point");
  }
  DVDI_TRY(const MountTable table, MountTable::read());
  if (const MountEntry* entry = table.at(path)) {
    return Claim{.mount_point = entry->mount_point, .folder = {}, .identity = identity_of(*entry)};
  }
  // Perhaps behind symbolic links: looking at them may block on a file system, so a helper does.
  auto real = helpers.run(context, "look at the mount point", real_path, path, volume.text());
  if (!real) {
    if (real.error().code == Code::deadline_exceeded || real.error().code == Code::cancelled) {
      return fail(std::move(real).error());
    }
    return violation(volume, fmt::format("the driver said that it mounted the volume at {}: {}",
                                         printable(path), real.error().message));
  }
  if (*real == "/") return violation(volume, "the driver gave the root directory as the mount point");
  if (const MountEntry* entry = table.at(*real)) {
    return Claim{.mount_point = entry->mount_point, .folder = {}, .identity = identity_of(*entry)};
  }
  if (auto claim = folder_of_own_mount(table, volume, *real)) return *std::move(claim);
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
