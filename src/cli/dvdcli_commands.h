// What `dvdcli` does, against Api only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cli/dvdcli_arguments.h"
#include "cli/output.h"
#include "daemon/api.h"

namespace dvdi::cli {

// The stock isolator kills a mount after 120 s and an unmount after 10 min, and then has no error to show:
// ours, which says what hangs, has to come before.
inline constexpr Duration dvdcli_mount_timeout = std::chrono::seconds(110);
inline constexpr Duration dvdcli_unmount_timeout = std::chrono::seconds(590);

// What it needs from elsewhere, so that a test can stand in for it.
struct DvdcliServices {
  std::function<Result<std::unique_ptr<Api>>(const Context& context)> open;
  std::function<void(std::string_view text)> say;  // to a person: standard error
  // To standard error as it is: what `create` answers.
  std::function<void(std::string_view line)> write_error_line;
};

// The container that stands for a volume which is mounted by dvdcli.
isolator::ContainerKey dvdcli_container(const std::string& driver, const std::string& name);

// The result goes to `out`; an error is for the caller to show, with exit code 1.
Status dvdcli(const Context& context, const DvdcliCommand& command, const DvdcliServices& services,
              Output& out);

}  // namespace dvdi::cli
