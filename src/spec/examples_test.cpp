// The files of examples/ are requests that work as their pages say.
#include <fstream>
#include <sstream>

#include "spec/request_test_support.h"

namespace dvdi::spec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

std::string example_file(const std::string& name) {
  std::ifstream file(std::string(DVDI_EXAMPLES) + "/" + name);
  EXPECT_TRUE(file) << name;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Examples, MarathonHello) {
  const Input input = of_file(example_file("marathon-hello.json"), {});
  const ExternalVolume volume = only_volume_of(input);
  EXPECT_EQ(volume.driver, "local");
  EXPECT_FALSE(volume.read_only);
  // It writes to and reads from the volume, not beside it.
  EXPECT_THAT(accepted(input).command().value(), HasSubstr("date >> " + volume.container_path + "/"));
  EXPECT_THAT(accepted(input).command().value(), HasSubstr("cat " + volume.container_path + "/"));
  EXPECT_TRUE(accepted(input).warnings().empty());
}

TEST(Examples, Volumes) {
  const ExternalVolume volume = only_volume_of(of_file(example_file("volumes.json")));
  EXPECT_EQ(volume.driver, "rc");
  EXPECT_THAT(volume.options, ElementsAre(Pair("remote", "loc:")));
}

TEST(Examples, ContainerInfo) {
  const auto request = accepted(of_file(example_file("container-info.json")));
  EXPECT_THAT(request.forms(), ElementsAre(v1::ContainerRequest::MESOS_CONTAINER_INFO));
  EXPECT_EQ(volumes_of(of_file(example_file("container-info.json"))).size(), 2U);
}

}  // namespace
}  // namespace dvdi::spec
