#include "isolator/test_support.h"

#include <sched.h>
#include <sys/mount.h>

namespace dvdi::isolator::test {

namespace {

std::unique_ptr<HelperPool> pool;  // NOLINT: lives as long as the test program

class Namespace final : public testing::Environment {
 public:
  void SetUp() override {
    // Mounts of these tests stay theirs; where it is not allowed, the tests that mount skip themselves.
    if (::unshare(CLONE_NEWNS) == 0)
      static_cast<void>(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
    auto started = HelperPool::start();
    ASSERT_TRUE(started) << started.error().text();
    pool = *std::move(started);
  }
  void TearDown() override { pool.reset(); }
};

// gtest owns it.
[[maybe_unused]] const testing::Environment* const registered =
    testing::AddGlobalTestEnvironment(new Namespace);

}  // namespace

HelperPool& helpers() { return *pool; }

}  // namespace dvdi::isolator::test
