#include "cli/run_request.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/text.h"
#include "linux/fd.h"
#include "spec/request.h"

namespace dvdi::cli {

Result<std::string> read_bounded(const std::string& file, std::size_t limit) {
  const bool standard_input = file == "-";
  const std::string what = standard_input ? "reading the request from standard input"
                                          : fmt::format("reading the request '{}'", printable(file, 4096));
  UniqueFd opened;
  if (!standard_input) {
    opened.reset(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (!opened) return os_error(what, errno);
  }
  const int fd = standard_input ? STDIN_FILENO : opened.get();
  std::string text;
  std::array<char, std::size_t{16} << 10> piece;
  for (;;) {
    const ssize_t count = ::read(fd, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return os_error(what, errno);
    if (count == 0) return text;
    text.append(piece.data(), static_cast<std::size_t>(count));
    if (text.size() > limit) {
      return Error{.code = Code::invalid_argument,
                   .message = fmt::format("{}: it is larger than {} bytes", what, limit)};
    }
  }
}

namespace {

Result<spec::Input> input_of(const std::optional<std::string>& file, const char* const* environment) {
  spec::Input input;
  if (file) {
    DVDI_TRY(input.file_text, read_bounded(*file, spec::max_request_bytes));
    input.file_name = *file == "-" ? "standard input" : *file;
  }
  for (const char* const* one = environment; one != nullptr && *one != nullptr; ++one) {
    const std::string_view text(*one);
    const auto equals = text.find('=');
    if (!text.starts_with("DVDI_VOLUME_") || equals == std::string_view::npos) continue;
    input.environment.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  return input;
}

}  // namespace

Result<v1::ContainerRequest> file_request(const std::string& file, const char* const* environment) {
  DVDI_TRY(spec::Input input, input_of(file, environment));
  input.needs_command = false;
  return spec::parse_request(input);
}

Result<v1::ContainerRequest> run_request(const RunCommand& command, const char* const* environment) {
  DVDI_TRY(spec::Input input, input_of(command.file, environment));
  input.volume_flags = command.volumes;
  input.command = command.command;
  input.user = command.user;
  input.rootfs = command.rootfs;
  input.directory = command.directory;
  input.container_id = command.id;
  input.labels = command.labels;
  DVDI_TRY(v1::ContainerRequest request, spec::parse_request(input));
  if (request.command().value().empty() && request.command().arguments().empty()) {
    return Error{.code = Code::invalid_argument,
                 .message = "there is nothing to run: neither the request nor the command line has a command",
                 .hint = "write `-- COMMAND [ARG...]` at the end"};
  }
  for (const auto& [name, value] : command.environment) {
    auto* variable = request.mutable_command()->mutable_environment()->add_variables();
    variable->set_name(name);
    variable->set_value(value);
  }
  return request;
}

}  // namespace dvdi::cli
