#include "driver/conformance_test.h"
#include "driver/docker/test_support.h"

namespace dvdi::driver {
namespace {

template <class... Arguments>
SubjectFactory faulty(Arguments... arguments) {
  return [=]() -> Result<std::unique_ptr<Subject>> {
    return std::make_unique<docker::testing::FaultySubject>(std::vector<std::string>{arguments...});
  };
}

// A plugin that behaves, in each way in which plugins count mounts.
INSTANTIATE_TEST_SUITE_P(PluginCountsIds, DriverConformance, testing::Values(faulty()));
INSTANTIATE_TEST_SUITE_P(PluginIsStrict, DriverConformance, testing::Values(faulty("--semantics", "strict")));
INSTANTIATE_TEST_SUITE_P(PluginCountsCalls, DriverConformance,
                         testing::Values(faulty("--semantics", "calls")));

}  // namespace
}  // namespace dvdi::driver
