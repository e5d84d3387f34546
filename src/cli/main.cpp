// dvdi: external volumes for the tasks of a Linux node.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <exception>

#include "base/random.h"
#include "cli/command_run.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/run_request.h"
#include "cli/table.h"
#include "daemon/open.h"
#include "daemon/price_file.h"
#include "isolator/ownership.h"
#include "launcher/launch.h"
#include "linux/helper_pool.h"

namespace dvdi::cli {

namespace {

// Longer than the longest driver call by default (an unmount, 10 minutes): the driver's own deadline is the
// better error.
constexpr Duration command_timeout = std::chrono::minutes(15);

// A reader or a driver that went away is an error of write(2), not the end of the process. A task gets what
// was there before.
class IgnoredBrokenPipes {
 public:
  IgnoredBrokenPipes() {
    struct sigaction ignore{};
    ignore.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &ignore, &before_);
  }
  ~IgnoredBrokenPipes() { ::sigaction(SIGPIPE, &before_, nullptr); }
  IgnoredBrokenPipes(const IgnoredBrokenPipes&) = delete;
  IgnoredBrokenPipes& operator=(const IgnoredBrokenPipes&) = delete;

  template <class Work>
  auto as_before(Work work) {
    ::sigaction(SIGPIPE, &before_, nullptr);
    auto result = work();
    struct sigaction ignore{};
    ignore.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &ignore, nullptr);
    return result;
  }

 private:
  struct sigaction before_{};
};

class Program {
 public:
  explicit Program(Arguments arguments) : arguments_(std::move(arguments)) {}

  int main() {
    if (const auto* command = std::get_if<RunCommand>(&arguments_.command)) return main_run(*command);
    Screen screen{.out = out_, .format = arguments_.format, .width = terminal_width()};
    Result<int> code = perform(screen);
    // Also after a failure: what was found before it is shown.
    if (const Status flushed = out_.flush(); !flushed && code) code = fail(flushed.error());
    if (code) return *code;
    if (out_.reader_gone()) return 0;
    say_error(code.error(), arguments_.format);
    return exit_failed;
  }

 private:
  int main_run(const RunCommand& command) {
    std::unique_ptr<HelperPool> helpers;
    auto request = run_request(command, environ);
    if (!request) return run_failed(request.error());
    const RunServices services{
        .open = [&](const Context& context,
                    bool settle) { return open_api(context, options(settle), helpers); },
        .launch =
            [&](const Context& context, const launcher::Task& task, const launcher::OnCreated& on_created) {
              return pipes_.as_before([&] { return launcher::run(context, task, on_created); });
            },
        .say = say,
        .say_error = [&](const Error& error) { say_error(error, arguments_.format); }};
    return run(context_, command, *request, services);
  }

  int run_failed(const Error& error) const {
    say_error(error, arguments_.format);
    return exit_run_failed;
  }

  Result<int> perform(Screen& screen) {
    if (std::holds_alternative<VersionCommand>(arguments_.command)) return version(screen);
    if (std::holds_alternative<ConfigCheckCommand>(arguments_.command)) {
      return config_check(check_config(options(false)), screen);
    }
    if (auto* command = std::get_if<UsageCommand>(&arguments_.command);
        command != nullptr && !command->price_file.empty()) {
      auto prices = load_prices(command->price_file);
      if (!prices) {
        say_error(prices.error(), arguments_.format);
        return exit_usage;
      }
      command->prices = *std::move(prices);
    }
    std::unique_ptr<HelperPool> helpers;
    const Context bounded = context_.with_timeout(command_timeout);
    if (const auto* command = std::get_if<PolicyCheckCommand>(&arguments_.command)) {
      DVDI_TRY(helpers, HelperPool::start());
      auto answer = explain(bounded, *command, *helpers);
      if (answer) return policy_check(*answer, screen);
      say_error(answer.error(), arguments_.format);
      return exit_usage;
    }
    if (std::holds_alternative<DoctorCommand>(arguments_.command)) {
      DVDI_TRY(helpers, HelperPool::start());
      return doctor(diagnose(bounded, options(false), *helpers), screen);
    }
    DVDI_TRY(const auto api, open_api(bounded, options(true), helpers));
    for (const std::string& notice : api->notices()) say(notice);
    if (const auto* command = std::get_if<EventsCommand>(&arguments_.command)) {
      return events(context_, *api, *command, screen);  // --follow has no end
    }
    if (const auto* command = std::get_if<EventsVerifyCommand>(&arguments_.command)) {
      return events_verify(context_, *api, *command, screen);  // as long as the record is
    }
    return look(bounded, *api, screen);
  }

  static Result<PolicyAnswer> explain(const Context& context, const PolicyCheckCommand& command,
                                      HelperPool& helpers) {
    DVDI_TRY(Policy policy, read_policy(command.policy_file));
    DVDI_TRY(v1::ContainerRequest request, file_request(command.request_file, environ));
    const auto find_user = [&](const std::string& user, const std::string& rootfs) -> Result<MemberUser> {
      DVDI_TRY(const isolator::Owner owner, isolator::find_owner(context, helpers, user, rootfs));
      return MemberUser{.uid = owner.uid, .gid = owner.gid};
    };
    return check_policy(std::move(policy), std::move(request),
                        {.as = command.as, .role = command.role, .principal = command.principal}, find_user);
  }

  Result<int> look(const Context& context, Api& api, Screen& screen) const {
    const Command& any = arguments_.command;
    if (const auto* command = std::get_if<VolumeListCommand>(&any))
      return volume_list(context, api, *command, screen);
    if (const auto* command = std::get_if<VolumeInspectCommand>(&any)) {
      return volume_inspect(context, api, *command, screen);
    }
    if (const auto* command = std::get_if<VolumeCreateCommand>(&any)) {
      return volume_create(context, api, *command, screen);
    }
    if (const auto* command = std::get_if<VolumeRemoveCommand>(&any)) {
      return volume_remove(context, api, *command, screen);
    }
    if (const auto* command = std::get_if<VolumeReleaseCommand>(&any)) {
      return volume_release(context, api, *command, screen, ask);
    }
    if (const auto* command = std::get_if<PsCommand>(&any)) return ps(context, api, *command, screen);
    if (const auto* command = std::get_if<InspectCommand>(&any))
      return inspect(context, api, *command, screen);
    if (std::holds_alternative<SinkListCommand>(any)) return sink_list(context, api, screen);
    if (const auto* command = std::get_if<SinkCommand>(&any))
      return sink_change(context, api, *command, screen);
    Progress progress("dvdi: adding up the usage");
    return usage(context, api, std::get<UsageCommand>(any), screen,
                 [&](std::uint64_t done, std::uint64_t all) { progress.at(done, all); });
  }

  OpenOptions options(bool settle) const {
    return {.state_dir = arguments_.state_dir,
            .config_file = arguments_.config_file,
            .socket = arguments_.socket,
            .settle = settle};
  }

  Arguments arguments_;
  IgnoredBrokenPipes pipes_;
  Output out_{STDOUT_FILENO};
  const Context context_{system_clock(), random_uuid()};
};

int answer(const Answer& answer) {
  if (answer.exit_code != 0) {
    fmt::print(stderr, "{}", answer.text);
    return answer.exit_code;
  }
  Output out(STDOUT_FILENO);
  if (out.write(answer.text) && out.flush()) return 0;
  if (out.reader_gone()) return 0;
  return exit_failed;
}

int main(const std::vector<std::string>& words) {
  auto parsed = parse_arguments(words, system_clock().wall());
  if (const auto* only = std::get_if<Answer>(&parsed)) return answer(*only);
  return Program(std::get<Arguments>(std::move(parsed))).main();
}

}  // namespace

}  // namespace dvdi::cli

int main(int argc, char** argv) {
  if (!dvdi::cli::have_standard_descriptors()) return dvdi::cli::exit_run_failed;
  const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  try {
    return dvdi::cli::main(words);
  } catch (const std::exception& error) {
    // Out of memory, or a bug. What was begun is settled by the next command.
    dvdi::cli::say(std::string("internal: ") + error.what());
    const bool run = std::find(words.begin(), words.end(), "run") != words.end();
    return run ? dvdi::cli::exit_run_failed : dvdi::cli::exit_failed;
  }
}
