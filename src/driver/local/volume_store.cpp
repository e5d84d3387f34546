#include "driver/local/volume_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>

#include "base/text.h"
#include "driver/local/image.h"
#include "linux/fd.h"
#include "linux/remove_tree.h"

namespace dvdi::driver::local {

namespace {

constexpr std::size_t record_limit = std::size_t{64} * 1024;
constexpr int open_folder = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

// Makes a folder for root only; one that is there must be a folder.
Status ensure_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) < 0 && errno != EEXIST) {
    return os_error("make the folder " + path, errno);
  }
  struct stat found{};
  if (::lstat(path.c_str(), &found) < 0) return os_error("look at " + path, errno);
  if (!S_ISDIR(found.st_mode)) {
    return Error{.code = Code::failed_precondition,
                 .message = path + " is no folder",
                 .hint = "the local driver keeps its volumes there; move it away"};
  }
  return {};
}

Result<std::string> read_record(int folder, const std::string& what) {
  const UniqueFd file(::openat(folder, "volume.json", O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file) return os_error("read " + what, errno);
  std::string text(record_limit, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(file.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error("read " + what, errno);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

// Another file under the final name, or the old one: never half of either.
Status write_record(int folder, const VolumeRecord& record, const std::string& what) {
  const UniqueFd file(
      ::openat(folder, "volume.json.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return os_error("write " + what, errno);
  const std::string text = to_json(record);
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t put = ::write(file.get(), rest.data(), rest.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return os_error("write " + what, errno);
    rest.remove_prefix(static_cast<std::size_t>(put));
  }
  if (::fsync(file.get()) < 0 || ::renameat(folder, "volume.json.new", folder, "volume.json") < 0 ||
      ::fsync(folder) < 0) {
    return os_error("write " + what, errno);
  }
  return {};
}

Result<std::vector<std::string>> names_in(int folder, const std::string& what) {
  UniqueFd again(::openat(folder, ".", open_folder));
  if (!again) return os_error("list " + what, errno);
  const UniqueDir dir(::fdopendir(again.get()));
  if (!dir) return os_error("list " + what, errno);
  (void)again.release();
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) return os_error("list " + what, errno);
  std::ranges::sort(names);
  return names;
}

}  // namespace

Result<std::unique_ptr<VolumeStore>> VolumeStore::open(const std::string& directory) {
  DVDI_CHECK(ensure_folder(directory));
  const std::unique_ptr<char, decltype(&std::free)> resolved(::realpath(directory.c_str(), nullptr),
                                                             &std::free);
  if (!resolved) return os_error("resolve " + directory, errno);
  const std::string path = resolved.get();
  DVDI_CHECK(ensure_folder(path + "/volumes"));
  DVDI_CHECK(ensure_folder(path + "/mnt"));
  UniqueFd volumes(::open((path + "/volumes").c_str(), open_folder));
  if (!volumes) return os_error("open " + path + "/volumes", errno);
  return std::unique_ptr<VolumeStore>(new VolumeStore(path, std::move(volumes)));
}

std::string VolumeStore::mount_point(const std::string& folder) const {
  return fmt::format("{}/mnt/{}", directory_, folder);
}

Result<std::optional<VolumeRecord>> VolumeStore::load(const std::string& name) const {
  const std::string folder = folder_name(name);
  const std::string what = fmt::format("{}/volumes/{}/volume.json", directory_, folder);
  const UniqueFd fd(::openat(volumes_.get(), folder.c_str(), open_folder));
  if (!fd && errno == ENOENT) return std::nullopt;
  if (!fd) return os_error("open " + what, errno);
  auto text = read_record(fd.get(), what);
  if (!text && text.error().code == Code::not_found) {
    return Error{
        .code = Code::corrupted,
        .message = what + " is missing",
        .hint = "the folder is not a volume of this driver, or was damaged; nothing in it was touched"};
  }
  if (!text) return fail(std::move(text).error());
  DVDI_TRY(VolumeRecord record, from_json(*text, what));
  if (record.name != name) {
    return Error{.code = Code::corrupted,
                 .message = fmt::format("{} is the record of volume '{}'", what, printable(record.name))};
  }
  return record;
}

Result<std::vector<VolumeRecord>> VolumeStore::list(std::vector<Error>& damaged) const {
  DVDI_TRY(const auto folders, names_in(volumes_.get(), directory_ + "/volumes"));
  std::vector<VolumeRecord> records;
  for (const std::string& folder : folders) {
    if (folder.starts_with('.')) continue;
    const std::string what = fmt::format("{}/volumes/{}/volume.json", directory_, folder);
    const UniqueFd fd(::openat(volumes_.get(), folder.c_str(), open_folder));
    if (!fd && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
      continue;  // removed meanwhile; a file
    auto text = fd ? read_record(fd.get(), what) : Result<std::string>(os_error("open " + what, errno));
    auto record = text ? from_json(*text, what) : Result<VolumeRecord>(text.error());
    if (record) {
      records.push_back(*std::move(record));
    } else {
      damaged.push_back(std::move(record).error());
      damaged.back().volume = unescape(folder).value_or(folder);
    }
  }
  std::ranges::sort(records, {}, &VolumeRecord::name);
  return records;
}

Status VolumeStore::fill(const Context& context, int folder, const std::string& path,
                         const VolumeRecord& record) const {
  const VolumeOptions& options = record.options;
  if (options.type == Type::dir) {
    if (::mkdirat(folder, "data", 0700) < 0) return os_error("make " + path + "/data", errno);
    const UniqueFd data(::openat(folder, "data", open_folder));
    if (!data || ::fchown(data.get(), options.uid, options.gid) < 0 ||
        ::fchmod(data.get(), options.mode) < 0 || ::fsync(data.get()) < 0) {
      return os_error("make " + path + "/data", errno);
    }
  }
  if (options.type == Type::image) {
    DVDI_CHECK(make_image(context, folder, path + "/image", options));
  }
  return write_record(folder, record, path + "/volume.json");
}

Status VolumeStore::create(const Context& context, const VolumeRecord& record) const {
  const std::string folder = folder_name(record.name);
  const std::string temporary = ".new-" + folder;
  const std::string path = fmt::format("{}/volumes/{}", directory_, temporary);
  DVDI_CHECK(remove_tree(volumes_.get(), temporary));  // what a crash left: never yet a volume
  if (::mkdirat(volumes_.get(), temporary.c_str(), 0700) < 0) return os_error("make " + path, errno);
  Status made = [&]() -> Status {
    const UniqueFd fd(::openat(volumes_.get(), temporary.c_str(), open_folder));
    if (!fd) return os_error("open " + path, errno);
    DVDI_CHECK(fill(context, fd.get(), path, record));
    DVDI_CHECK(context.check("create the volume"));
    // Never over anything that is there.
    if (::renameat2(volumes_.get(), temporary.c_str(), volumes_.get(), folder.c_str(), RENAME_NOREPLACE) <
        0) {
      return os_error(fmt::format("rename {} to {}", path, folder), errno);
    }
    if (::fsync(volumes_.get()) < 0) return os_error("sync " + directory_ + "/volumes", errno);
    return {};
  }();
  if (!made) {
    if (auto removed = remove_tree(volumes_.get(), temporary); !removed) {
      made.error().attached.push_back(std::move(removed).error());
    }
  }
  return made;
}

Status VolumeStore::update(const VolumeRecord& record) const {
  const std::string folder = folder_name(record.name);
  const std::string what = fmt::format("{}/volumes/{}/volume.json", directory_, folder);
  const UniqueFd fd(::openat(volumes_.get(), folder.c_str(), open_folder));
  if (!fd) return os_error("write " + what, errno);
  return write_record(fd.get(), record, what);
}

Status VolumeStore::retire(const std::string& name) const {
  const std::string folder = folder_name(name);
  const std::string old = ".old-" + folder;
  if (::renameat2(volumes_.get(), folder.c_str(), volumes_.get(), old.c_str(), RENAME_NOREPLACE) < 0 ||
      ::fsync(volumes_.get()) < 0) {
    return os_error(fmt::format("rename {}/volumes/{} to {}", directory_, folder, old), errno);
  }
  return {};
}

Result<std::vector<std::string>> VolumeStore::remainders() const {
  DVDI_TRY(auto names, names_in(volumes_.get(), directory_ + "/volumes"));
  std::erase_if(names, [](const std::string& name) {
    return !name.starts_with(".new-") && !name.starts_with(".old-");
  });
  return names;
}

}  // namespace dvdi::driver::local
