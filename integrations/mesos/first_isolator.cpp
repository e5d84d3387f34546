#include "first_isolator.h"

#include <fcntl.h>
#include <google/protobuf/unknown_field_set.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <system_error>

namespace dvdi_mesos {

namespace {

using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

std::string error_text(int error) { return std::generic_category().message(error); }

struct File {
  explicit File(int opened) : fd(opened) {}
  ~File() {
    if (fd >= 0) ::close(fd);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const int fd;
};

bool read_all(const std::string& path, std::string& bytes, std::string& error) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.fd < 0) {
    error = "cannot be opened: " + error_text(errno);
    return false;
  }
  struct stat status{};
  if (::fstat(file.fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    error = "is no regular file";
    return false;
  }
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t count = ::read(file.fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      error = "cannot be read: " + error_text(errno);
      return false;
    }
    if (count == 0) return true;
    bytes.append(buffer.data(), static_cast<std::size_t>(count));
    if (bytes.size() > max_former_state_bytes) {
      error = "is larger than " + std::to_string(max_former_state_bytes) + " bytes";
      return false;
    }
  }
}

// message ExternalMount: strings of these numbers.
std::string* member(FormerMount& mount, int number) {
  switch (number) {
    case 1:
      return &mount.container;
    case 2:
      return &mount.driver;
    case 3:
      return &mount.volume;
    case 4:
      return &mount.mount_point;
    case 5:
      return &mount.options;
    case 6:
      return &mount.container_path;
    default:
      return nullptr;
  }
}

// What is wrong with it; "": nothing is.
std::string read_mount(const std::string& bytes, FormerMount& mount) {
  UnknownFieldSet fields;
  if (!fields.ParseFromString(bytes)) return "is cut short";
  for (int i = 0; i < fields.field_count(); ++i) {
    const UnknownField& field = fields.field(i);
    std::string* const text = member(mount, field.number());
    if (text == nullptr) continue;
    if (field.type() != UnknownField::TYPE_LENGTH_DELIMITED) {
      return "has no text in field " + std::to_string(field.number());
    }
    *text = field.length_delimited();
  }
  if (mount.container.empty()) return "names no container";
  if (mount.driver.empty() || mount.volume.empty()) return "names no volume and driver";
  return {};
}

}  // namespace

bool has_former_state(const std::string& path) { return !path.empty() && ::access(path.c_str(), F_OK) == 0; }

bool read_former_state(const std::string& path, std::vector<FormerMount>& mounts, std::string& error) {
  std::string bytes;
  if (!read_all(path, bytes, error)) return false;
  std::uint32_t length = 0;
  if (bytes.size() >= sizeof length) std::memcpy(&length, bytes.data(), sizeof length);
  if (bytes.size() >= sizeof length && length == bytes.size() - sizeof length) bytes.erase(0, sizeof length);
  UnknownFieldSet list;
  if (!list.ParseFromString(bytes)) {
    error = "is damaged, or no list of mounts";
    return false;
  }
  std::vector<FormerMount> read;
  for (int i = 0; i < list.field_count(); ++i) {
    const UnknownField& field = list.field(i);
    if (field.number() != 1) continue;  // ExternalMountList.mount
    FormerMount mount;
    std::string wrong = field.type() == UnknownField::TYPE_LENGTH_DELIMITED
                            ? read_mount(field.length_delimited(), mount)
                            : std::string("is no message");
    if (!wrong.empty()) {
      error = "is damaged: its mount " + std::to_string(read.size() + 1) + " " + wrong;
      return false;
    }
    read.push_back(std::move(mount));
  }
  mounts = std::move(read);
  return true;
}

bool set_former_state_aside(const std::string& path, std::string& error) {
  if (::rename(path.c_str(), (path + ".adopted").c_str()) == 0) return true;
  error = error_text(errno);
  return false;
}

}  // namespace dvdi_mesos
