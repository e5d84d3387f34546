// The driver against a plugin that others wrote.
#include <sys/stat.h>

#include "driver/conformance_test.h"
#include "driver/docker/test_support.h"

namespace dvdi::driver {
namespace {

class RcloneSubject final : public Subject {
 public:
  Driver& driver() override { return *driver_; }
  Options options() const override { return {{"remote", "loc:"}}; }
  // Seen in the stacks of all its goroutines: Mount sends to the channel of its monitor while it holds the
  // driver's lock; the monitor, woken by the end of another volume's mount, waits for that lock.
  std::string serial_because() const override {
    return "rclone 1.60 locks itself up when a Mount meets the end of another volume's mount";
  }

 private:
  docker::testing::RclonePlugin plugin_;
  std::unique_ptr<docker::DockerDriver> driver_ = plugin_.make_driver();
};

Result<std::unique_ptr<Subject>> rclone() {
  const auto missing = [](const char* what) {
    return Error{.code = Code::unsupported, .message = fmt::format("{} is not there", what)};
  };
  if (::access("/usr/bin/rclone", X_OK) != 0) return missing("/usr/bin/rclone");
  if (::access("/usr/bin/fusermount3", X_OK) != 0) return missing("/usr/bin/fusermount3");
  if (::access("/dev/fuse", R_OK | W_OK) != 0) return missing("/dev/fuse");
  return std::make_unique<RcloneSubject>();
}

INSTANTIATE_TEST_SUITE_P(Rclone, DriverConformance, testing::Values(SubjectFactory(&rclone)));

}  // namespace
}  // namespace dvdi::driver
