// The suite that every driver::Driver passes. Include it in one test program of the driver and write
//
//   INSTANTIATE_TEST_SUITE_P(Local, DriverConformance, testing::Values(SubjectFactory{&make_subject}));
//
// Tolerant where volume plugins differ (a second Mount, a second Unmount, a second Create may be answered
// with a success or with an error), strict about what Driver promises: the fields of an Error, its Outcome,
// deadline and cancellation, and that what a mount or an unmount claims is true in the kernel. Runs in a
// mount namespace of its own and skips itself where it may not make one.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <fstream>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "driver/driver.h"
#include "driver/test_namespace.h"

namespace dvdi::driver {

// One driver, ready for use, with whatever it needs to live (a plugin's process, a state directory). What it
// made is gone with it.
class Subject {
 public:
  Subject() = default;
  Subject(const Subject&) = delete;
  Subject& operator=(const Subject&) = delete;
  virtual ~Subject() = default;
  virtual Driver& driver() = 0;
  // What create needs at least.
  virtual Options options() const { return {}; }
  // Legal for this driver, though odd. The default is the alphabet that Docker itself allows.
  virtual std::vector<std::string> odd_names() const {
    return {"0", "a.b-c_d", "UPPER.lower", "a..b", "a--", "x" + std::string(99, 'y')};
  }
  // What was written is there again at the next mount.
  virtual bool keeps_data() const { return true; }
  // Why this driver cannot be tested with mounts and unmounts at the same time: a bug that is not ours. ""
  // where it can.
  virtual std::string serial_because() const { return {}; }
};

// A new Subject for each test. Code::unsupported: the test is skipped with the message as its reason.
using SubjectFactory = std::function<Result<std::unique_ptr<Subject>>()>;

class DriverConformance : public testing::TestWithParam<SubjectFactory> {
 protected:
  void SetUp() override {
    if (auto entered = enter_private_mount_namespace(); !entered) {
      ASSERT_EQ(entered.error().code, Code::unsupported) << entered.error().text();
      GTEST_SKIP() << entered.error().text();
    }
    auto made = GetParam()();
    if (!made && made.error().code == Code::unsupported) GTEST_SKIP() << made.error().text();
    ASSERT_TRUE(made) << made.error().text();
    subject_ = *std::move(made);
  }

  Driver& driver() { return subject_->driver(); }

  // Every call of the suite ends in a minute, whatever the driver does.
  static Context context() {
    return Context(system_clock(), "conformance").with_timeout(std::chrono::minutes(1));
  }

  static bool is_mount(const std::string& path) {
    struct statx what{};
    if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_TYPE, &what) != 0) return false;
    return (what.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
  }

  // A failed call says who, what and which effect; never that nothing can be said of the effect of a call
  // that the driver answered.
  static void expect_answered_no(const Error& error, Operation operation, const Driver& by,
                                 const std::string& volume) {
    expect_names(error, operation, by, volume);
    EXPECT_EQ(error.outcome, Outcome::refused) << error.text();
  }

  static void expect_names(const Error& error, Operation operation, const Driver& by,
                           const std::string& volume) {
    EXPECT_FALSE(error.message.empty());
    EXPECT_EQ(error.driver, by.name()) << error.text();
    EXPECT_EQ(error.volume, volume) << error.text();
    EXPECT_EQ(error.operation, operation_name(operation)) << error.text();
  }

  void create(const std::string& volume) {
    const auto created = driver().create(context(), volume, subject_->options());
    ASSERT_TRUE(created) << created.error().text();
  }

  void mount(const std::string& volume, const std::string& id, std::string& mount_point) {
    const auto mounted = driver().mount(context(), volume, id);
    ASSERT_TRUE(mounted) << mounted.error().text();
    mount_point = *mounted;
    ASSERT_FALSE(mount_point.empty());
    ASSERT_EQ(mount_point.front(), '/') << mount_point;
    ASSERT_NE(mount_point, "/");
    EXPECT_TRUE(is_mount(mount_point) || driver().may_be_plain_directory(volume)) << mount_point;
  }

  // Success, or a complete answer that says no.
  void unmount_tolerantly(const std::string& volume, const std::string& id) {
    const auto unmounted = driver().unmount(context(), volume, id);
    if (!unmounted) expect_answered_no(unmounted.error(), Operation::unmount, driver(), volume);
  }

  void unmount(const std::string& volume, const std::string& id, const std::string& mount_point) {
    const auto unmounted = driver().unmount(context(), volume, id);
    ASSERT_TRUE(unmounted) << unmounted.error().text();
    EXPECT_FALSE(is_mount(mount_point)) << mount_point << " is still mounted";
  }

  bool listed(const std::string& volume) {
    const auto all = driver().list(context());
    EXPECT_TRUE(all) << all.error().text();
    return all &&
           std::any_of(all->begin(), all->end(), [&](const VolumeInfo& one) { return one.name == volume; });
  }

  // Each of the eight operations, in a context that has ended before the call.
  void expect_nothing_sent(const Context& ended, Code code) {
    const std::string volume = "never";
    const auto check = [&](const Error& error, Operation operation, const std::string& named) {
      expect_names(error, operation, driver(), named);
      EXPECT_EQ(error.code, code) << error.text();
      EXPECT_EQ(error.outcome, Outcome::not_sent) << error.text();
    };
    const auto failed = [&](const auto& result, Operation operation, const std::string& named) {
      ASSERT_FALSE(result) << operation_name(operation);
      check(result.error(), operation, named);
    };
    failed(driver().create(ended, volume, subject_->options()), Operation::create, volume);
    failed(driver().remove(ended, volume), Operation::remove, volume);
    failed(driver().get(ended, volume), Operation::get, volume);
    failed(driver().list(ended), Operation::list, "");
    failed(driver().path(ended, volume), Operation::path, volume);
    failed(driver().mount(ended, volume, random_uuid()), Operation::mount, volume);
    failed(driver().unmount(ended, volume, random_uuid()), Operation::unmount, volume);
    failed(driver().capabilities(ended), Operation::capabilities, "");
    EXPECT_FALSE(listed(volume));
  }

  std::unique_ptr<Subject> subject_;
};

TEST_P(DriverConformance, HasANameAndCapabilities) {
  EXPECT_FALSE(driver().name().empty());
  const auto capabilities = driver().capabilities(context());
  EXPECT_TRUE(capabilities) << capabilities.error().text();
}

TEST_P(DriverConformance, ACreatedVolumeIsShown) {
  ASSERT_FALSE(listed("one"));
  ASSERT_NO_FATAL_FAILURE(create("one"));
  const auto shown = driver().get(context(), "one");
  ASSERT_TRUE(shown) << shown.error().text();
  EXPECT_EQ(shown->name, "one");
  EXPECT_TRUE(listed("one"));
  EXPECT_FALSE(listed("two"));
}

TEST_P(DriverConformance, CreatingAgainHarmsNothing) {
  ASSERT_NO_FATAL_FAILURE(create("again"));
  std::string mount_point;
  ASSERT_NO_FATAL_FAILURE(mount("again", "id-1", mount_point));
  const auto created = driver().create(context(), "again", subject_->options());
  if (!created) expect_answered_no(created.error(), Operation::create, driver(), "again");
  EXPECT_TRUE(is_mount(mount_point) || driver().may_be_plain_directory("again"));
  EXPECT_TRUE(driver().get(context(), "again"));
  unmount("again", "id-1", mount_point);
}

TEST_P(DriverConformance, MountsAndUnmounts) {
  ASSERT_NO_FATAL_FAILURE(create("data"));
  std::string mount_point;
  const std::string id = random_uuid();
  ASSERT_NO_FATAL_FAILURE(mount("data", id, mount_point));
  std::ofstream(mount_point + "/file") << "kept";
  const auto path = driver().path(context(), "data");
  ASSERT_TRUE(path) << path.error().text();
  EXPECT_EQ(*path, mount_point);
  const auto shown = driver().get(context(), "data");
  ASSERT_TRUE(shown) << shown.error().text();
  EXPECT_TRUE(shown->mount_point.empty() || shown->mount_point == mount_point) << shown->mount_point;
  ASSERT_NO_FATAL_FAILURE(unmount("data", id, mount_point));

  // A plugin may tell where a volume would be mounted; it must not be there.
  const auto after = driver().path(context(), "data");
  if (after) {
    EXPECT_FALSE(is_mount(*after));
  } else {
    expect_answered_no(after.error(), Operation::path, driver(), "data");
  }

  const std::string other = random_uuid();
  ASSERT_NO_FATAL_FAILURE(mount("data", other, mount_point));
  std::string text;
  std::ifstream(mount_point + "/file") >> text;
  EXPECT_EQ(text, subject_->keeps_data() ? "kept" : "");
  ASSERT_NO_FATAL_FAILURE(unmount("data", other, mount_point));
}

TEST_P(DriverConformance, MountingAgainWithTheSameIdIsTheSameMount) {
  ASSERT_NO_FATAL_FAILURE(create("twice"));
  std::string first;
  ASSERT_NO_FATAL_FAILURE(mount("twice", "id-1", first));
  const auto second = driver().mount(context(), "twice", "id-1");
  if (second) {
    EXPECT_EQ(*second, first);
  } else {
    expect_answered_no(second.error(), Operation::mount, driver(), "twice");
  }
  EXPECT_TRUE(is_mount(first) || driver().may_be_plain_directory("twice"));
  unmount_tolerantly("twice", "id-1");
  if (is_mount(first)) unmount_tolerantly("twice", "id-1");  // a plugin that counts calls
  EXPECT_FALSE(is_mount(first));
}

TEST_P(DriverConformance, ASecondMounterSharesTheMount) {
  ASSERT_NO_FATAL_FAILURE(create("shared"));
  std::string first;
  ASSERT_NO_FATAL_FAILURE(mount("shared", "id-1", first));
  const auto second = driver().mount(context(), "shared", "id-2");
  if (second) {
    EXPECT_EQ(*second, first);
  } else {
    expect_answered_no(second.error(), Operation::mount, driver(), "shared");
  }
  unmount_tolerantly("shared", "id-1");
  if (second) unmount_tolerantly("shared", "id-2");
  EXPECT_FALSE(is_mount(first));
}

TEST_P(DriverConformance, UnmountingWhatIsNotMountedIsASuccessOrAPlainNo) {
  ASSERT_NO_FATAL_FAILURE(create("idle"));
  unmount_tolerantly("idle", "id-1");
  std::string mount_point;
  ASSERT_NO_FATAL_FAILURE(mount("idle", "id-1", mount_point));
  ASSERT_NO_FATAL_FAILURE(unmount("idle", "id-1", mount_point));
  unmount_tolerantly("idle", "id-1");
  EXPECT_FALSE(is_mount(mount_point));
}

TEST_P(DriverConformance, ARemovedVolumeIsGone) {
  ASSERT_NO_FATAL_FAILURE(create("gone"));
  ASSERT_NO_FATAL_FAILURE(create("stays"));
  const auto removed = driver().remove(context(), "gone");
  ASSERT_TRUE(removed) << removed.error().text();
  const auto shown = driver().get(context(), "gone");
  ASSERT_FALSE(shown);
  expect_answered_no(shown.error(), Operation::get, driver(), "gone");
  EXPECT_FALSE(listed("gone"));
  EXPECT_TRUE(listed("stays"));
  ASSERT_NO_FATAL_FAILURE(create("gone"));
  EXPECT_TRUE(listed("gone"));
}

TEST_P(DriverConformance, AVolumeThatIsNotThereCannotBeUsed) {
  const std::string volume = "missing";
  const auto mounted = driver().mount(context(), volume, "id-1");
  ASSERT_FALSE(mounted);
  expect_answered_no(mounted.error(), Operation::mount, driver(), volume);
  const auto shown = driver().get(context(), volume);
  ASSERT_FALSE(shown);
  expect_answered_no(shown.error(), Operation::get, driver(), volume);
  EXPECT_TRUE(shown.error().code == Code::not_found || shown.error().code == Code::driver_error);
  const auto path = driver().path(context(), volume);
  if (path) {
    EXPECT_EQ(*path, "");
  } else {
    expect_answered_no(path.error(), Operation::path, driver(), volume);
  }
  unmount_tolerantly(volume, "id-1");
  const auto removed = driver().remove(context(), volume);
  if (!removed) expect_answered_no(removed.error(), Operation::remove, driver(), volume);
  EXPECT_FALSE(listed(volume));
}

TEST_P(DriverConformance, OddNamesAreNames) {
  const std::vector<std::string> names = subject_->odd_names();
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    ASSERT_NO_FATAL_FAILURE(create(name));
  }
  std::vector<std::string> mount_points(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    SCOPED_TRACE(names[i]);
    EXPECT_TRUE(listed(names[i]));
    const auto shown = driver().get(context(), names[i]);
    ASSERT_TRUE(shown) << shown.error().text();
    EXPECT_EQ(shown->name, names[i]);
    ASSERT_NO_FATAL_FAILURE(mount(names[i], "id-1", mount_points[i]));
    EXPECT_EQ(std::count(mount_points.begin(), mount_points.end(), mount_points[i]), 1);
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    SCOPED_TRACE(names[i]);
    ASSERT_NO_FATAL_FAILURE(unmount(names[i], "id-1", mount_points[i]));
    const auto removed = driver().remove(context(), names[i]);
    ASSERT_TRUE(removed) << removed.error().text();
  }
}

TEST_P(DriverConformance, ThreadsWorkOnVolumesAtTheSameTime) {
  if (const std::string reason = subject_->serial_because(); !reason.empty()) GTEST_SKIP() << reason;
  constexpr int threads = 4;
  std::barrier together(threads);
  std::vector<std::jthread> running;
  running.reserve(threads);
  for (int i = 0; i < threads; ++i) {
    running.emplace_back([&, volume = "thread-" + std::to_string(i)] {
      together.arrive_and_wait();
      for (int round = 0; round < 3; ++round) {
        const auto created = driver().create(context(), volume, subject_->options());
        ASSERT_TRUE(created) << created.error().text();
        std::string mount_point;
        ASSERT_NO_FATAL_FAILURE(mount(volume, "id-1", mount_point));
        ASSERT_TRUE(listed(volume));
        ASSERT_NO_FATAL_FAILURE(unmount(volume, "id-1", mount_point));
        const auto removed = driver().remove(context(), volume);
        ASSERT_TRUE(removed) << removed.error().text();
      }
    });
  }
}

TEST_P(DriverConformance, ThreadsThatCreateOneVolumeMakeOne) {
  constexpr int threads = 4;
  std::barrier together(threads);
  std::atomic<int> succeeded = 0;
  {
    std::vector<std::jthread> running;
    running.reserve(threads);
    for (int i = 0; i < threads; ++i) {
      running.emplace_back([&] {
        together.arrive_and_wait();
        const auto created = driver().create(context(), "contended", subject_->options());
        if (created) {
          ++succeeded;
        } else {
          expect_answered_no(created.error(), Operation::create, driver(), "contended");
        }
      });
    }
  }
  EXPECT_GE(succeeded, 1);
  const auto all = driver().list(context());
  ASSERT_TRUE(all) << all.error().text();
  EXPECT_EQ(
      std::count_if(all->begin(), all->end(), [](const VolumeInfo& one) { return one.name == "contended"; }),
      1);
}

TEST_P(DriverConformance, NothingIsSentAfterTheDeadline) {
  expect_nothing_sent(Context().with_timeout(Duration::zero()), Code::deadline_exceeded);
}

TEST_P(DriverConformance, NothingIsSentOnceCancelled) {
  std::stop_source stop;
  stop.request_stop();
  expect_nothing_sent(context().with_stop(stop.get_token()), Code::cancelled);
}

}  // namespace dvdi::driver
