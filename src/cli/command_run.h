// `dvdi run`: prepare, launch, wait, clean up, whatever happens on the way.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "cli/arguments.h"
#include "daemon/api.h"
#include "launcher/launch.h"

namespace dvdi::cli {

// Exit codes of `dvdi run` apart from the task's own and launcher::exit_code_of().
inline constexpr int exit_run_failed = 125;  // dvdi failed before the task ran
inline constexpr int exit_signal = 128;      // + n: signal n interrupted dvdi before the task

// What `dvdi run` needs from elsewhere, so that a test can stand in for it.
struct RunServices {
  // An Api; with `settle`, at first, after a look at the database and at what killed commands left behind.
  std::function<Result<std::unique_ptr<Api>>(const Context& context, bool settle)> open;
  // launcher::run
  std::function<Result<int>(const Context& context, const launcher::Task& task,
                            const launcher::OnCreated& on_created)>
      launch;
  std::function<void(std::string_view text)> say;  // to a person
  std::function<void(const Error& error)> say_error;
};

// The exit code. Nothing is written to standard output: that is the task's.
int run(const Context& context, const RunCommand& command, const v1::ContainerRequest& request,
        const RunServices& services);

}  // namespace dvdi::cli
