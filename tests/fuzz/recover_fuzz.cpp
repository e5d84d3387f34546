// Whatever arrives as the body of a recover call, in whatever pieces: the same entries and the same end.
#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "spec/recover_reader.h"

namespace {

using dvdi::spec::ContainerState;
using dvdi::spec::RecoverReader;

void require(bool holds, std::string_view what) {
  if (holds) return;
  fmt::print(stderr, "broken promise: {}\n", what);
  std::abort();
}

void check_id(const std::string& id) {
  require(!id.empty() && id.size() <= dvdi::spec::max_nested_id_bytes, "an id has a length");
  require(id.find('/') == std::string::npos && id.find('\0') == std::string::npos, "an id is safe");
}

std::vector<std::string> read(std::string_view data, std::size_t piece) {
  std::vector<std::string> seen;
  RecoverReader reader({}, {.container = [&](const ContainerState& state) -> dvdi::Status {
                              check_id(state.id);
                              require(state.pid >= 0, "a pid is one");
                              dvdi::v1::ContainerRequest again;
                              require(again.ParseFromString(state.request.SerializeAsString()),
                                      "the request can be stored and read back");
                              seen.push_back("container " + state.request.SerializeAsString());
                              return {};
                            },
                            .orphan = [&](const std::string& id) -> dvdi::Status {
                              check_id(id);
                              seen.push_back("orphan " + id);
                              return {};
                            }});
  for (std::size_t at = 0; at < data.size(); at += piece) {
    if (!reader.feed(data.substr(at, piece))) break;
  }
  const auto head = reader.finish();
  if (head) require(!head->owner.empty(), "there is an owner");
  seen.push_back(head ? fmt::format("head {} {} {}", head->owner, head->work_dir, head->complete)
                      : head.error().text());
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto whole = read(text, size + 1);
  require(read(text, 1) == whole, "pieces of one byte make no difference");
  require(read(text, 13) == whole, "pieces of thirteen bytes make no difference");
  return 0;
}
