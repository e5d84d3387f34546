#include "driver/conformance_test.h"
#include "driver/docker/test_support.h"

namespace dvdi::driver {
namespace {

class FaultySubject final : public Subject {
 public:
  explicit FaultySubject(std::vector<std::string> arguments)
      : plugin_(std::move(arguments)), driver_(plugin_.make_driver()) {}
  Driver& driver() override { return *driver_; }
  Options options() const override { return {{"kind", "bind"}}; }
  std::vector<std::string> odd_names() const override {
    std::vector<std::string> names = Subject::odd_names();
    names.insert(names.end(), {"with space", "quote\"back\\slash", "größe", "percent%2Fname", "a/b", "-x",
                               std::string(255, 'n')});
    return names;
  }

 private:
  docker::testing::FaultyPlugin plugin_;
  std::unique_ptr<docker::DockerDriver> driver_;
};

template <class... Arguments>
SubjectFactory faulty(Arguments... arguments) {
  return [=]() -> Result<std::unique_ptr<Subject>> {
    return std::make_unique<FaultySubject>(std::vector<std::string>{arguments...});
  };
}

// A plugin that behaves, in each way in which plugins count mounts.
INSTANTIATE_TEST_SUITE_P(PluginCountsIds, DriverConformance, testing::Values(faulty()));
INSTANTIATE_TEST_SUITE_P(PluginIsStrict, DriverConformance, testing::Values(faulty("--semantics", "strict")));
INSTANTIATE_TEST_SUITE_P(PluginCountsCalls, DriverConformance,
                         testing::Values(faulty("--semantics", "calls")));

}  // namespace
}  // namespace dvdi::driver
