// Whatever comes in, parse_request() answers with a request that keeps its promises or with problems.
//
// An input is readable: the request's file, then after a line `---` one line for each other part:
//   -v FLAG   a --volume     -u USER   --user     -d DIR, -r DIR, -i ID   directory, rootfs, container id
//   NAME=VALUE   a DVDI_VOLUME_* variable          anything else   a word of the command
#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>

#include "base/text.h"
#include "spec/request.h"

namespace {

using dvdi::spec::Input;

void require(bool holds, std::string_view what) {
  if (holds) return;
  fmt::print(stderr, "broken promise: {}\n", what);
  std::abort();
}

Input input_of(std::string_view data) {
  Input input;
  input.file_name = "request.json";
  constexpr std::string_view mark = "\n---\n";
  const auto end = data.find(mark);
  if (end == std::string_view::npos) {
    input.file_text = std::string(data);
    input.command = {"true"};
    return input;
  }
  if (end > 0) input.file_text = std::string(data.substr(0, end));
  for (const std::string_view line : dvdi::split(data.substr(end + mark.size()), '\n')) {
    const std::string rest(line.size() > 3 ? line.substr(3) : std::string_view());
    if (line.starts_with("-v ")) {
      input.volume_flags.push_back(rest);
    } else if (line.starts_with("-u ")) {
      input.user = rest;
    } else if (line.starts_with("-d ")) {
      input.directory = rest;
    } else if (line.starts_with("-r ")) {
      input.rootfs = rest;
    } else if (line.starts_with("-i ")) {
      input.container_id = rest;
    } else if (const auto equal = line.find('='); equal != std::string_view::npos) {
      input.environment.emplace_back(line.substr(0, equal), line.substr(equal + 1));
    } else if (!line.empty()) {
      input.command.emplace_back(line);
    }
  }
  return input;
}

void check_container_path(const std::string& path) {
  require(!path.empty() && path.size() <= dvdi::spec::max_path_bytes, "a container path has a length");
  require(path.find('\0') == std::string::npos, "a container path has no NUL");
  const std::string_view relative = std::string_view(path).substr(path.front() == '/' ? 1 : 0);
  for (const std::string_view component : dvdi::split(relative, '/')) {
    require(!component.empty() && component != "." && component != "..", "a container path stays inside");
  }
}

void check_accepted(const dvdi::v1::ContainerRequest& request) {
  require(request.container_info().volumes_size() <= static_cast<int>(dvdi::spec::max_volumes),
          "few volumes");
  require(!request.command().value().empty(), "there is a command");
  std::set<std::string> paths;
  for (const dvdi::v1::Volume& volume : request.container_info().volumes()) {
    const auto external = dvdi::spec::external_volume(volume);
    require(external.has_value(), "external_volume() takes what parse_request() made");
    if (*external) {
      for (const auto& [key, value] : (*external)->options) {
        require(!key.empty() && !key.starts_with("dvdi."), "no reserved option is for the driver");
      }
      require((*external)->container_path == volume.container_path(), "the path is in its normal form");
    } else {
      require(volume.host_path().starts_with('/'), "a volume is external or has an absolute host path");
    }
    if (volume.container_path().empty()) {
      require(*external && (*external)->host_only, "only a host-only volume has no container path");
      continue;
    }
    check_container_path(volume.container_path());
    require(paths.insert(volume.container_path()).second, "no container path is there twice");
  }
  // A text that is not UTF-8 would be refused here.
  dvdi::v1::ContainerRequest again;
  require(again.ParseFromString(request.SerializeAsString()), "the request can be stored and read back");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto request =
      dvdi::spec::parse_request(input_of(std::string_view(reinterpret_cast<const char*>(data), size)));
  if (request) {
    check_accepted(*request);
    return 0;
  }
  require(request.error().code == dvdi::Code::invalid_argument, "a wrong request is an invalid argument");
  require(!request.error().attached.empty(), "an error says what is wrong");
  for (const dvdi::Error& one : request.error().attached) {
    require(!one.message.empty() && one.message.size() < 8192, "a message has a length that people read");
  }
  return 0;
}
