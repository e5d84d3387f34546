// The fake driver is a driver as the real ones are, as long as it is told nothing.
#include "volume/fake_driver.h"

#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver/conformance_test.h"

namespace dvdi::driver {
namespace {

class FakeSubject final : public Subject {
 public:
  explicit FakeSubject(volume::FakeDriver::Manner manner) {
    if (::mkdtemp(folder_.data()) == nullptr || ::mount("t", folder_.c_str(), "tmpfs", 0, nullptr) != 0) {
      throw std::runtime_error("no folder");
    }
    driver_.emplace("fake", folder_, clock_, kill_);
    driver_->manner = manner;
  }
  ~FakeSubject() override {
    ::umount2(folder_.c_str(), MNT_DETACH);
    ::rmdir(folder_.c_str());
  }
  Driver& driver() override { return *driver_; }
  bool keeps_data() const override { return driver_->manner.plain_directories; }

 private:
  volume::KillSwitch kill_;
  volume::JumpingClock clock_{kill_};
  std::string folder_ = "/tmp/dvdi-fake-XXXXXX";
  std::optional<volume::FakeDriver> driver_;
};

SubjectFactory with(volume::FakeDriver::Manner manner) {
  return [manner]() -> Result<std::unique_ptr<Subject>> { return std::make_unique<FakeSubject>(manner); };
}

INSTANTIATE_TEST_SUITE_P(Fake, DriverConformance, testing::Values(with({})));
INSTANTIATE_TEST_SUITE_P(LikeRclone, DriverConformance,
                         testing::Values(with({.refuses_second_mount = true})));
INSTANTIATE_TEST_SUITE_P(Counting, DriverConformance, testing::Values(with({.counts_calls = true})));
INSTANTIATE_TEST_SUITE_P(Lenient, DriverConformance,
                         testing::Values(with({.unmounting_nothing_succeeds = true})));
INSTANTIATE_TEST_SUITE_P(PlainDirectories, DriverConformance,
                         testing::Values(with({.plain_directories = true})));

}  // namespace
}  // namespace dvdi::driver
