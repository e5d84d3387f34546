// The commands that look and change single things; `run` has a header of its own. Each writes its result to
// `screen` and returns its exit code, or the error that the caller shows (exit code 1).
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>

#include "cli/arguments.h"
#include "cli/output.h"
#include "daemon/api.h"
#include "daemon/open.h"
#include "daemon/policy_check.h"

namespace dvdi::cli {

struct Screen {
  Output& out;
  Format format = Format::table;
  std::optional<std::size_t> width;  // of the terminal; nullopt: nothing is shortened
};

Result<int> volume_list(const Context& context, Api& api, const VolumeListCommand& command, Screen& screen);
Result<int> volume_inspect(const Context& context, Api& api, const VolumeInspectCommand& command,
                           Screen& screen);
Result<int> volume_create(const Context& context, Api& api, const VolumeCreateCommand& command,
                          Screen& screen);
// Goes on after a volume that cannot be removed; each error is said where it happens.
Result<int> volume_remove(const Context& context, Api& api, const VolumeRemoveCommand& command,
                          Screen& screen);

// Asks a person: nullopt where there is none to ask.
using Confirm = std::function<std::optional<bool>(const std::string& question)>;
// Goes on after a volume that cannot be released, or that is left as it is.
Result<int> volume_release(const Context& context, Api& api, const VolumeReleaseCommand& command,
                           Screen& screen, const Confirm& confirm);

Result<int> sink_list(const Context& context, Api& api, Screen& screen);
Result<int> sink_change(const Context& context, Api& api, const SinkCommand& command, Screen& screen);

Result<int> ps(const Context& context, Api& api, const PsCommand& command, Screen& screen);
Result<int> inspect(const Context& context, Api& api, const InspectCommand& command, Screen& screen);

// With --follow it returns when the context ends or the reader has gone.
Result<int> events(const Context& context, Api& api, const EventsCommand& command, Screen& screen);
Result<int> events_verify(const Context& context, Api& api, const EventsVerifyCommand& command,
                          Screen& screen);

Result<int> usage(const Context& context, Api& api, const UsageCommand& command, Screen& screen,
                  const UsageProgress& progress = {});

Result<int> config_check(const Result<ConfigReport>& report, Screen& screen);
// Exit code 1 where the request is denied.
Result<int> policy_check(const PolicyAnswer& answer, Screen& screen);

Result<int> doctor(const std::vector<Finding>& findings, Screen& screen);
Result<int> version(Screen& screen);

}  // namespace dvdi::cli
