#include "cli/command_run.h"

#include <fmt/format.h>
#include <string.h>

#include <optional>
#include <stop_token>

#include "base/random.h"
#include "base/sync.h"
#include "base/text.h"
#include "cli/interrupt.h"
#include "daemon/client.h"
#include "daemon/open.h"

namespace dvdi::cli {

namespace {

constexpr Duration isolate_timeout = std::chrono::seconds(30);
// Longer than one unmount may take by default: what was begun is better finished than owed.
constexpr Duration cleanup_timeout = std::chrono::minutes(15);

std::string_view signal_name(int number) {
  const char* name = ::sigabbrev_np(number);
  return name == nullptr ? "?" : name;
}

// One run of `dvdi run`. The engine is open while dvdi works and closed while the task runs: it holds
// engine.lock, and a task may run for months. A daemon's client stays: one that has gone is noticed.
class Run {
 public:
  Run(const Context& context, const RunCommand& command, const v1::ContainerRequest& request,
      const RunServices& services)
      : context_(context), command_(command), request_(request), services_(services) {
    // Chosen here, so that a prepare that is repeated is the same one.
    if (!request_.has_container_id()) request_.mutable_container_id()->set_value(random_uuid());
    // What the task runs and with which environment is nobody's business but ours.
    command_info_.Swap(request_.mutable_command());
    if (!command_info_.user().empty()) {
      request_.mutable_command()->set_user(command_info_.user());
    } else {
      request_.clear_command();
    }
  }

  int run() {
    for (const std::string& warning : request_.warnings()) services_.say("warning: " + warning);
    const Status prepared = prepare();
    if (!prepared) {
      // The engine rolled back what it had begun; there is no container that we could clean up. One of the
      // same id may be somebody else's.
      api_.reset();
      services_.say_error(prepared.error());
      return interrupted_ != 0 ? exit_signal + interrupted_ : exit_run_failed;
    }
    if (interrupted_ != 0) {  // just when everything was ready
      cleanup();
      return exit_signal + interrupted_;
    }
    const int code = launch();
    if (ours_) cleanup();
    return code;
  }

 private:
  Status prepare() {
    std::stop_source stop;
    Interrupt interrupt([&](int number, unsigned count) {
      services_.say(count == 1 ? fmt::format("SIG{}: giving up; what was prepared is released first",
                                             signal_name(number))
                               : std::string("still releasing what was prepared"));
      stop.request_stop();
    });
    const Status done = prepare(context_.with_stop(stop.get_token()).with_timeout(command_.timeout));
    interrupted_ = interrupt.finish();
    return done;
  }

  // A step of ours, asked of whoever has the state directory at the moment. A daemon that goes away in the
  // middle is no failure: each step may be repeated, with the next daemon or without one.
  template <class Step>
  auto ask(const Context& context, bool settle, Step step) -> decltype(step(std::declval<Api&>())) {
    for (;;) {
      if (api_ == nullptr) {
        DVDI_TRY(api_, services_.open(context, settle));
        if (settle) {
          for (const std::string& notice : api_->notices()) services_.say(notice);
        }
      }
      auto result = step(*api_);
      if (result || !daemon_is_away(result.error())) return result;
      api_.reset();
      if (!pause(context, between_looks_for_daemon, "wait for the daemon")) return result;
    }
  }

  Status prepare(const Context& context) {
    DVDI_TRY(prepared_,
             ask(context, true, [&](Api& api) { return api.prepare(context, {.owner = "run"}, request_); }));
    if (command_.verbose) {
      services_.say(fmt::format("container {} is prepared, {} mounts", prepared_.key.id,
                                prepared_.launch.mounts_size()));
    }
    return {};
  }

  int launch() {
    launcher::Task task;
    task.launch = prepared_.launch;
    task.command = command_info_;
    task.user = command_info_.user();
    task.host_pid = command_.host_pid;
    task.foreign_mount_points = prepared_.foreign_mount_points;
    task.inherit_environment = command_.inherit_environment;

    bool isolated = true;
    const Result<int> ended = services_.launch(context_, task, [&](pid_t pid) -> Status {
      const Context bounded = context_.detached(isolate_timeout);
      Status status =
          ask(bounded, false, [&](Api& api) { return api.isolate(bounded, prepared_.key, pid, true); });
      if (status) {
        if (api_->holds_state()) api_.reset();
        return {};
      }
      isolated = false;
      // Somebody else prepared this very container as well (the same --id and request) and was first to start
      // it: its volumes are in use, and not ours to release.
      if (status.error().code == Code::conflict || status.error().code == Code::already_exists) ours_ = false;
      return status;
    });
    if (ended) return *ended;
    services_.say_error(ended.error());
    // 126 and 127 are for the task's program; an isolate that fails is ours, whatever its code.
    return isolated ? launcher::exit_code_of(ended.error()) : exit_run_failed;
  }

  // The exit code is decided by now and stays: what the task did matters more to a script than our trouble,
  // which the ledger has and the next command deals with.
  void cleanup() {
    Interrupt interrupt([&](int, unsigned) {
      services_.say(
          "still releasing volumes; this goes on (SIGQUIT would end it: the next dvdi command finishes it)");
    });
    const Context context = context_.detached(cleanup_timeout);
    auto owed = release(context);
    if (!owed) {
      services_.say_error(owed.error());
      services_.say(fmt::format(
          "THE VOLUMES OF CONTAINER {} ARE NOT RELEASED; the next dvdi command tries again, `dvdi "
          "volume ls` shows them",
          printable(prepared_.key.id)));
    } else {
      for (const isolator::Owed& one : *owed) {
        services_.say(
            fmt::format("volume '{}' of driver '{}' could not be unmounted: {} (the unmount is owed: later "
                        "dvdi commands try "
                        "again, `dvdi volume inspect {}/{}` shows it)",
                        printable(one.volume), printable(one.driver), one.reason, printable(one.driver),
                        printable(one.volume)));
      }
    }
    api_.reset();
  }

  Result<std::vector<isolator::Owed>> release(const Context& context) {
    // Settling what others left is for the start of a command: here it would only delay.
    return ask(context, false, [&](Api& api) -> Result<std::vector<isolator::Owed>> {
      // A cleanup of what is not known succeeds: here that would hide that somebody moved the state away
      // meanwhile.
      if (auto known = api.find_container(context, prepared_.key); !known)
        return fail(std::move(known).error());
      return api.cleanup(context, prepared_.key);
    });
  }

  const Context& context_;
  const RunCommand& command_;
  v1::ContainerRequest request_;  // without its command
  v1::CommandInfo command_info_;
  const RunServices& services_;
  std::unique_ptr<Api> api_;
  Api::Prepared prepared_;
  int interrupted_ = 0;  // the signal that came before the task was launched
  bool ours_ = true;     // the container is this command's to clean up
};

}  // namespace

int run(const Context& context, const RunCommand& command, const v1::ContainerRequest& request,
        const RunServices& services) {
  return Run(context, command, request, services).run();
}

}  // namespace dvdi::cli
