// dvdid: the node daemon. Options, signals and systemd; the rest is in service.h.

#include <fcntl.h>
#include <fmt/format.h>
#include <getopt.h>
#include <malloc.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <thread>
#include <variant>

#include "base/kept_threads.h"
#include "base/random.h"
#include "daemon/config.h"
#include "daemon/log.h"
#include "daemon/service.h"
#include "linux/helper_pool.h"
#include "linux/wait.h"

namespace dvdi {

namespace {

constexpr std::string_view help_text =
    R"(Usage: dvdid [OPTIONS]

The node daemon of dvdi: owns the state directory, talks to volume drivers, and serves dvdi and other programs on a
Unix socket (HTTP/1.1 and JSON).

Options:
  --state-dir DIR   where the state is (default: DVDI_STATE_DIR, the configuration, /var/lib/dvdi)
  --socket PATH     where to listen (default: what systemd passes, DVDI_SOCKET, the configuration,
                    /run/dvdi/dvdid.sock)
  --config FILE     the configuration (default: DVDI_CONFIG, /etc/dvdi/dvdi.toml if it is there)
  --verbose         log every request, too
  --help, --version

Signals: SIGTERM, SIGINT: answer what is running, and end. SIGHUP: read the configuration again.

Examples:
  dvdid                                          # as root; usually systemd starts it
  dvdid --state-dir /tmp/s --socket /tmp/s.sock  # one to try, beside another
  curl --unix-socket /run/dvdi/dvdid.sock http://dvdi/v1/volumes

Exit code: 0 ended by a signal; 1 failed; 2 usage.
)";

constexpr int exit_failed = 1;
constexpr int exit_usage = 2;
constexpr auto silent_wait = std::chrono::seconds(1);  // for the state directory, before the log says so

struct Options {
  std::string state_dir, socket, config;
  bool verbose = false;
};

// The code to exit with, or the options.
std::variant<int, Options> parse(int argc, char** argv) {
  enum Long { state_dir = 1000, socket, config, verbose, help, version };
  static constexpr std::array<option, 7> long_options = {
      {{"state-dir", required_argument, nullptr, state_dir},
       {"socket", required_argument, nullptr, socket},
       {"config", required_argument, nullptr, config},
       {"verbose", no_argument, nullptr, verbose},
       {"help", no_argument, nullptr, help},
       {"version", no_argument, nullptr, version},
       {nullptr, 0, nullptr, 0}}};
  Options options;
  for (;;) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): before there are threads
    switch (::getopt_long(argc, argv, "h", long_options.data(), nullptr)) {
      case -1:
        if (optind == argc) return options;
        fmt::print(stderr, "dvdid: unexpected argument '{}' (see --help)\n", argv[optind]);
        return exit_usage;
      case state_dir:
        options.state_dir = optarg;
        break;
      case socket:
        options.socket = optarg;
        break;
      case config:
        options.config = optarg;
        break;
      case verbose:
        options.verbose = true;
        break;
      case 'h':
      case help:
        fmt::print("{}", help_text);
        return 0;
      case version:
        fmt::print("dvdid {}\n", DVDI_VERSION);
        return 0;
      default:
        return exit_usage;  // getopt has said why
    }
  }
}

// The socket that systemd listens on for us, or one of our own.
Result<UniqueFd> listening_socket(const Config& config, const SocketChoice& choice) {
  const int passed = ::sd_listen_fds(1);
  if (passed < 0) return os_error("take the socket from systemd", -passed);
  if (passed > 1)
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("systemd passes {} sockets: one is needed", passed)};
  if (passed == 1) {
    UniqueFd socket(SD_LISTEN_FDS_START);
    if (::sd_is_socket_unix(socket.get(), SOCK_STREAM, 1, nullptr, 0) <= 0)
      return Error{.code = Code::invalid_argument,
                   .message = "the socket that systemd passes is not a listening Unix stream socket"};
    return socket;
  }
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(choice.path).parent_path(), error);
  if (error) return os_error(fmt::format("make the folder of {}", choice.path), error.value());
  DVDI_TRY(const auto group, find_group(config.access.group));
  DVDI_TRY(UniqueFd socket, http::listen_unix(choice.path, group ? 0660 : 0600));
  if (group && ::chown(choice.path.c_str(), static_cast<uid_t>(-1), *group) != 0)
    return os_error(fmt::format("give {} to group {}", choice.path, config.access.group), errno);
  return socket;
}

class Daemon {
 public:
  Daemon(Options options, HelperPool& helpers, UniqueFd signals)
      : options_(std::move(options)), helpers_(helpers), signals_(std::move(signals)) {}

  Status run() {
    DVDI_TRY(const Config config, load_config(options_.config, options_.state_dir));
    const SocketChoice choice = choose_socket(config, options_.socket);
    DVDI_TRY(auto service, open(config));
    if (!service) return {};  // told to end meanwhile
    // Only now: whoever can connect is served, and whoever cannot sees by the state directory's lock that a
    // daemon is on its way.
    DVDI_TRY(UniqueFd socket, listening_socket(config, choice));
    DVDI_CHECK(service->serve(std::move(socket)));
    log::info(fmt::format("serving; state in {}", config.state_dir));
    ::sd_notify(0, "READY=1");
    for (;;) {
      DVDI_TRY(const int signal, next_signal(Context()));
      if (signal == SIGHUP) {
        reload(*service);
        continue;
      }
      const Duration drain_timeout = service->drain_timeout();
      log::info(fmt::format("signal {}: ending when what is running has ended, in {} s at most", signal,
                            drain_timeout / std::chrono::seconds(1)));
      ::sd_notify(0, "STOPPING=1");
      if (!service->drain(Context().with_timeout(drain_timeout)))
        log::warning("what was still running is cancelled: it is rolled back or settled");
      service.reset();
      log::info("ended");
      return {};
    }
  }

 private:
  // While it waits for commands that have the state directory, a signal may come.
  Result<std::unique_ptr<Service>> open(const Config& config) {
    std::stop_source stop;
    Result<std::unique_ptr<Service>> opened;
    const UniqueFd done(::eventfd(0, EFD_CLOEXEC));
    std::jthread worker([&] {
      opened = Service::open(Context(system_clock(), random_uuid()).with_stop(stop.get_token()), config,
                             {.helpers = helpers_,
                              .version = DVDI_VERSION,
                              .info = [](std::string_view text) { log::info(text); },
                              .warning = [](std::string_view text) { log::warning(text); },
                              .make_sink = make_sink});
      const std::uint64_t one = 1;
      static_cast<void>(!::write(done.get(), &one, sizeof one));
    });
    bool told_to_end = false;
    bool told_why = false;
    for (;;) {
      std::array<pollfd, 2> wait = {{{.fd = signals_.get(), .events = POLLIN, .revents = 0},
                                     {.fd = done.get(), .events = POLLIN, .revents = 0}}};
      const auto ready = wait_ready(told_why ? Context() : Context().with_timeout(silent_wait), wait,
                                    "wait for the state directory");
      if (!ready && ready.error().code == Code::deadline_exceeded) {
        told_why = true;
        log::info(fmt::format("waiting for {}: another dvdid has it, or dvdi commands work on it",
                              config.state_dir));
        continue;
      }
      DVDI_CHECK(ready);
      if (wait[1].revents != 0) break;
      DVDI_TRY(const int signal, next_signal(Context()));
      if (signal == SIGHUP) continue;  // the configuration is being read
      told_to_end = true;
      stop.request_stop();
    }
    worker.join();
    if (told_to_end) return std::unique_ptr<Service>();
    return opened;
  }

  Result<int> next_signal(const Context& context) const {
    std::array<pollfd, 1> wait = {{{.fd = signals_.get(), .events = POLLIN, .revents = 0}}};
    DVDI_CHECK(wait_ready(context, wait, "wait for a signal"));
    signalfd_siginfo info{};
    if (::read(signals_.get(), &info, sizeof info) != sizeof info) return os_error("read a signal", errno);
    return static_cast<int>(info.ssi_signo);
  }

  void reload(Service& service) const {
    ::sd_notify(0, "RELOADING=1");
    const auto config = load_config(options_.config, options_.state_dir);
    if (!config) {
      log::error("the configuration was not read again, the one before it holds: " + config.error().text());
    } else if (const auto rest = service.reload(*config); !rest) {
      log::error("the configuration was not taken over, the one before it holds: " + rest.error().text());
    } else {
      log::info("the configuration was read again");
      for (const std::string& key : *rest)
        log::warning(fmt::format("{} has changed: that needs a restart", key));
    }
    ::sd_notify(0, "READY=1");
  }

  const Options options_;
  HelperPool& helpers_;
  const UniqueFd signals_;
};

// Blocked in every thread, and read from one descriptor.
Result<UniqueFd> take_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  if (const int error = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); error != 0)
    return os_error("block signals", error);
  std::signal(SIGPIPE, SIG_IGN);
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!fd) return os_error("open a signalfd", errno);
  return fd;
}

Status run(const Options& options) {
  DVDI_TRY(const auto helpers, HelperPool::start());  // first: it forks
  DVDI_TRY(UniqueFd signals, take_signals());
  log::start(options.verbose ? log::Level::debug : log::Level::info);
  return Daemon(options, *helpers, std::move(signals)).run();
}

}  // namespace

}  // namespace dvdi

int main(int argc, char** argv) {
  // Each thread would get a heap of its own, which keeps what the largest piece of its work once needed. And
  // what is large goes back when it is freed, however often there was some of it.
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_MMAP_THRESHOLD, 256 << 10);
  dvdi::keep_threads_of_run_parallel();
  try {
    const auto parsed = dvdi::parse(argc, argv);
    if (const int* code = std::get_if<int>(&parsed)) return *code;
    const auto done = dvdi::run(std::get<dvdi::Options>(parsed));
    if (done) return 0;
    fmt::print(stderr, "dvdid: {}: {}\n", dvdi::code_name(done.error().code), done.error().text());
    return dvdi::exit_failed;
  } catch (const std::exception& error) {
    // Out of memory, or a bug. What was begun is settled by the next daemon.
    fmt::print(stderr, "dvdid: internal: {}\n", error.what());
    return dvdi::exit_failed;
  }
}
