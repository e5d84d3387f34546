#include "driver/local/image.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/text.h"
#include "linux/process.h"

namespace dvdi::driver::local {

namespace {

// The kernel's own form of a device number in LOOP_GET_STATUS64 (huge_encode_dev).
std::uint64_t encoded(dev_t device) {
  const std::uint64_t low = minor(device) & 0xffU;
  const std::uint64_t high = minor(device) & ~0xffU;
  return low | (std::uint64_t{major(device)} << 8) | (high << 12);
}

bool shows(int loop, const struct stat& image) {
  loop_info64 info{};
  return ::ioctl(loop, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == image.st_ino &&
         info.lo_device == encoded(image.st_dev);
}

// While our descriptor is open the device cannot go, so what it shows stays true.
Result<std::optional<LoopDevice>> find_loop(const struct stat& image, const std::string& what) {
  std::error_code error;
  const std::filesystem::directory_iterator devices("/sys/block", error);
  // Without that list nobody can tell that the image is not attached already.
  if (error) return os_error(what + ": list /sys/block", error.value());
  for (const auto& one : devices) {
    const std::string name = one.path().filename();
    if (!name.starts_with("loop")) continue;
    if (!std::filesystem::exists(one.path() / "loop", error)) continue;  // shows nothing
    LoopDevice device{.fd = {}, .path = "/dev/" + name};
    device.fd.reset(::open(device.path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (device.fd && shows(device.fd.get(), image)) return std::optional(std::move(device));
  }
  return std::optional<LoopDevice>();
}

// A file that was made a moment ago has no file system; if blkid sees one all the same, hands off.
Status expect_empty(const Context& context, const std::string& path) {
  DVDI_TRY(const ProgramResult seen, run_program(context, {"blkid", "-p", path}));
  constexpr int nothing_found = 2;
  if (seen.exit_code == nothing_found) return {};
  return Error{.code = Code::failed_precondition,
               .message = fmt::format("{} is not formatted: blkid ended with {} and says '{}'", path,
                                      seen.exit_code, printable(trim(seen.output)))};
}

}  // namespace

Status make_image(const Context& context, int folder, const std::string& path, const VolumeOptions& options) {
  const UniqueFd image(::openat(folder, "image", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!image) return os_error("make the image " + path, errno);
  const std::uint64_t size = options.size_bytes.value_or(0);
  if (::ftruncate(image.get(), static_cast<off_t>(size)) < 0) {
    Error error = os_error(fmt::format("make the image {} of {} bytes", path, size), errno);
    error.hint = "the file system of the state directory may not take files of that size";
    return error;
  }
  DVDI_CHECK(expect_empty(context, path));
  const bool xfs = options.file_system == FileSystem::xfs;
  // -m 0: no blocks kept back for root, the size is all the user's.
  const std::vector<std::string> format = xfs ? std::vector<std::string>{"mkfs.xfs", "-q", path}
                                              : std::vector<std::string>{"mkfs.ext4", "-q", "-m", "0", path};
  DVDI_TRY(const ProgramResult formatted, run_program(context, format));
  if (formatted.exit_code != 0) {
    return Error{.code = Code::io,
                 .message = fmt::format("{} of {} ended with {}: {}", format[0], path, formatted.exit_code,
                                        printable(trim(formatted.output)))};
  }
  if (::fsync(image.get()) < 0) return os_error("sync the image " + path, errno);
  return {};
}

Result<LoopDevice> attach_loop(int image, const std::string& path) {
  const std::string what = "attach a loop device to " + path;
  struct stat file{};
  if (::fstat(image, &file) < 0) return os_error(what, errno);
  DVDI_TRY(auto attached, find_loop(file, what));
  if (attached) return *std::move(attached);
  const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control) {
    Error error = os_error(what + ": open /dev/loop-control", errno);
    error.hint = "load the kernel's module `loop`";
    return error;
  }
  // Others take loop devices at the same time: whoever configures one first has it.
  constexpr int attempts = 128;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return os_error(what + ": find a free one", errno);
    LoopDevice device{.fd = {}, .path = fmt::format("/dev/loop{}", number)};
    device.fd.reset(::open(device.path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (!device.fd) return os_error(fmt::format("{}: open {}", what, device.path), errno);
    loop_config config{};
    config.fd = static_cast<__u32>(image);
    // Autoclear: gone with its last user, whoever that is. Direct: the page cache holds the data once only;
    // the kernel falls back by itself where the host's file system cannot.
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    const std::size_t length = std::min(path.size(), sizeof config.info.lo_file_name - 1);
    std::copy_n(path.end() - static_cast<std::ptrdiff_t>(length), length,
                reinterpret_cast<char*>(config.info.lo_file_name));
    if (::ioctl(device.fd.get(), LOOP_CONFIGURE, &config) == 0) return device;
    if (errno != EBUSY) return os_error(fmt::format("{}: set up {}", what, device.path), errno);
  }
  return Error{.code = Code::resource_exhausted,
               .message = fmt::format("{}: others took every free one, {} times", what, attempts),
               .hint = "try again"};
}

}  // namespace dvdi::driver::local
