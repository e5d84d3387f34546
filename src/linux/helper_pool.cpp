#include "linux/helper_pool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>

#include "base/sync.h"
#include "linux/helper_wire.h"
#include "linux/machine.h"
#include "linux/wait.h"

namespace dvdi {

namespace {

struct Helper {
  pid_t pid = 0;
  UniqueFd socket;
  UniqueFd pidfd;
};

// How long a helper that was told to end may take before it counts as stuck: to die takes a processor, too.
constexpr Duration time_to_die = std::chrono::milliseconds(250);

struct KilledHelper {
  Helper helper;
  HelperPool::Stuck work;
  BootTime killed_at;  // by the system's clock: dying takes real time
};

// Nobody's work: a helper that never began is killed, too.
struct Work {
  std::string_view key, what;
  BootTime since;
};

void kill_helper(const Helper& helper) {
  ::syscall(SYS_pidfd_send_signal, helper.pidfd.get(), SIGKILL, nullptr, 0);
}

Error with_outcome(Error error, Outcome outcome) {
  error.outcome = outcome;
  return error;
}

Status send_all(const Context& context, int socket, std::string_view bytes, std::string_view what) {
  while (!bytes.empty()) {
    const ssize_t put = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(put));
    } else if (errno == EAGAIN) {
      pollfd ready{.fd = socket, .events = POLLOUT, .revents = 0};
      DVDI_CHECK(wait_ready(context, {&ready, 1}, what));
    } else if (errno != EINTR) {
      return os_error(fmt::format("{}: send the work to a helper", what), errno);
    }
  }
  return {};
}

Status receive_all(const Context& context, int socket, void* into, std::size_t size, std::string_view what) {
  auto* at = static_cast<char*>(into);
  while (size > 0) {
    // NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection): MSG_DONTWAIT, and no lock is held
    const ssize_t got = ::recv(socket, at, size, MSG_DONTWAIT);
    if (got > 0) {
      at += got;
      size -= static_cast<std::size_t>(got);
    } else if (got < 0 && errno == EAGAIN) {
      pollfd ready{.fd = socket, .events = POLLIN, .revents = 0};
      DVDI_CHECK(wait_ready(context, {&ready, 1}, what));
    } else if (got == 0 || errno != EINTR) {
      return Error{.code = Code::internal,
                   .message = fmt::format("{}: the helper process ended in the middle of it", what),
                   .hint = "somebody killed it, or memory ran out: see the kernel's log"};
    }
  }
  return {};
}

Error ancestor_gone(std::string_view what) {
  return Error{.code = Code::unavailable,
               .message = fmt::format("{}: the process that starts helpers is gone", what),
               .hint = "start the program again",
               .outcome = Outcome::not_sent};
}

Error fence_error(const Context& context, std::string_view what, const HelperPool::Stuck& stuck) {
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(context.clock().boot() - stuck.since).count();
  return Error{
      .code = Code::unavailable,
      .message = fmt::format("{}: not begun, because helper process {}, which was to {}, has been stuck "
                             "in the kernel for {} s",
                             what, stuck.pid, stuck.what, seconds),
      .hint = "what serves that file system hangs: mend or end it, and the helper comes back",
      .outcome = Outcome::not_sent};
}

}  // namespace

struct HelperPool::State {
  Limits limits;
  UniqueFd control;
  pid_t ancestor = 0;
  UniqueFd ancestor_pidfd;

  Mutex mutex;
  Condition changed;
  std::vector<Helper> idle;
  std::vector<KilledHelper> killed;  // until the kernel lets go of them
  unsigned busy = 0;
  bool control_taken = false;     // one thread at a time talks to the ancestor
  unsigned answers_expected = 0;  // of forks whose caller gave up before the answer came

  // With the lock held.
  void forget_ended() {
    std::erase_if(killed, [](const KilledHelper& one) { return process_ended(one.helper.pidfd.get()); });
    std::erase_if(idle, [](const Helper& one) { return process_ended(one.pidfd.get()); });
  }

  Result<Helper> take(const Context& context, std::string_view what);
  Result<Helper> fork_helper(const Context& context, std::string_view what);
  Result<Helper> receive_helper(std::string_view what) const;
  void give_back(Helper helper, const Work* killed_in);
  std::optional<Stuck> fenced(const Context& context, std::string_view key);
};

Result<Helper> HelperPool::State::take(const Context& context, std::string_view what) {
  {
    Lock lock(mutex);
    const auto is_free = [this] {
      forget_ended();
      return !idle.empty() || busy + killed.size() < limits.running;
    };
    // Nobody tells when a helper that was killed goes: ask again.
    constexpr Duration slice = std::chrono::milliseconds(100);
    while (!changed.wait(context.with_timeout(slice), lock, is_free, what)) {
      if (auto ended = context.check(what); !ended) {
        return with_outcome(std::move(ended).error(), Outcome::not_sent);
      }
    }
    ++busy;
    if (!idle.empty()) {
      Helper helper = std::move(idle.back());
      idle.pop_back();
      return helper;
    }
  }
  auto helper = fork_helper(context, what);
  if (!helper) {
    const Lock lock(mutex);
    --busy;
    changed.notify_all();
    helper.error().outcome = Outcome::not_sent;
  }
  return helper;
}

Result<Helper> HelperPool::State::fork_helper(const Context& context, std::string_view what) {
  Lock lock(mutex);
  DVDI_CHECK(changed.wait(context, lock, [this] { return !control_taken; }, what));
  control_taken = true;
  // The answer to a request that was given up is a helper like any other.
  const bool ask = answers_expected == 0;
  lock.unlock();

  bool asked = !ask;
  if (ask) {
    const char request = 'f';
    asked = ::send(control.get(), &request, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
  }
  pollfd ready{.fd = control.get(), .events = POLLIN, .revents = 0};
  Status waited = asked ? wait_ready(context, {&ready, 1}, what) : Status(ancestor_gone(what));
  Result<Helper> helper = waited ? receive_helper(what) : Result<Helper>(std::move(waited).error());

  lock.lock();
  if (ask && asked) ++answers_expected;
  if (ready.revents != 0) --answers_expected;
  control_taken = false;
  changed.notify_all();
  return helper;
}

Result<Helper> HelperPool::State::receive_helper(std::string_view what) const {
  helper::Forked body;
  std::array<int, 2> descriptors{};
  iovec part{.iov_base = &body, .iov_len = sizeof body};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof descriptors)> ancillary{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = ancillary.data();
  message.msg_controllen = ancillary.size();
  const ssize_t got = ::recvmsg(control.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got != static_cast<ssize_t>(sizeof body)) return ancestor_gone(what);
  if (body.error != 0) return os_error(fmt::format("{}: start a helper process", what), body.error);
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_len != CMSG_LEN(sizeof descriptors) ||
      (message.msg_flags & MSG_CTRUNC) != 0) {
    // The kernel drops descriptors that do not fit under the limit of this process.
    if (header != nullptr && header->cmsg_len == CMSG_LEN(sizeof(int))) {
      std::memcpy(descriptors.data(), CMSG_DATA(header), sizeof(int));
      ::close(descriptors[0]);
    }
    return os_error(fmt::format("{}: take over a helper process", what), EMFILE);
  }
  std::memcpy(descriptors.data(), CMSG_DATA(header), sizeof descriptors);
  return Helper{.pid = body.pid, .socket = UniqueFd(descriptors[0]), .pidfd = UniqueFd(descriptors[1])};
}

// With `killed_in`, the helper is killed in that work.
void HelperPool::State::give_back(Helper helper, const Work* killed_in) {
  const Lock lock(mutex);
  --busy;
  if (killed_in != nullptr) {
    kill_helper(helper);
    helper.socket.reset();
    const pid_t pid = helper.pid;
    killed.push_back({.helper = std::move(helper),
                      .work = {.key = std::string(killed_in->key),
                               .what = std::string(killed_in->what),
                               .pid = pid,
                               .since = killed_in->since},
                      .killed_at = system_clock().boot()});
  } else if (idle.size() < limits.idle) {
    idle.push_back(std::move(helper));
  }  // else: closing its socket ends it
  changed.notify_all();
}

std::optional<HelperPool::Stuck> HelperPool::State::fenced(const Context& context, std::string_view key) {
  if (key.empty()) return std::nullopt;
  const auto youngest = [&] {
    forget_ended();
    return std::ranges::find_if(killed.rbegin(), killed.rend(),
                                [&](const KilledHelper& one) { return one.work.key == key; });
  };
  UniqueFd dying;
  Duration left{};
  {
    const Lock lock(mutex);
    const auto found = youngest();
    if (found == killed.rend()) return std::nullopt;
    left = time_to_die - (system_clock().boot() - found->killed_at);
    if (left > Duration::zero()) dying.reset(::fcntl(found->helper.pidfd.get(), F_DUPFD_CLOEXEC, 0));
  }
  if (dying) {
    pollfd ended{.fd = dying.get(), .events = POLLIN, .revents = 0};
    static_cast<void>(wait_ready(context.with_timeout(left), {&ended, 1}, "the end of a helper"));
  }
  const Lock lock(mutex);
  const auto found = youngest();
  if (found == killed.rend()) return std::nullopt;
  return found->work;
}

HelperPool::HelperPool(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<HelperPool>> HelperPool::start(Limits limits) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) < 0) {
    return os_error("start the helper pool", errno);
  }
  auto state = std::make_unique<State>();
  state->limits = limits;
  state->control.reset(ends[0]);
  UniqueFd ancestors(ends[1]);
  const pid_t program = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return os_error("start the helper pool", errno);
  if (pid == 0) helper::run_ancestor(ancestors.get(), program);
  state->ancestor = pid;
  state->ancestor_pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!state->ancestor_pidfd) {
    const int error = errno;
    state->control.reset();  // ends it
    ancestors.reset();
    ::waitpid(pid, nullptr, 0);
    return os_error("start the helper pool", error);
  }
  return std::unique_ptr<HelperPool>(new HelperPool(std::move(state)));
}

HelperPool::~HelperPool() {
  // Told so, the ancestor ends its helpers and takes their exit codes, in half a second. It is never stuck:
  // it touches no volume. Should it be stopped, its helpers end with it all the same.
  state_->control.reset();
  pollfd ended{.fd = state_->ancestor_pidfd.get(), .events = POLLIN, .revents = 0};
  (void)wait_ready(Context().with_timeout(std::chrono::seconds(2)), {&ended, 1}, "the end of the helpers");
  ::syscall(SYS_pidfd_send_signal, state_->ancestor_pidfd.get(), SIGKILL, nullptr, 0);
  while (::waitpid(state_->ancestor, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<std::string> HelperPool::run(const Context& context, std::string_view what, HelperFunction function,
                                    std::string_view request, std::string_view key) {
  if (SimulatedMachine* simulated = simulated_machine(); simulated != nullptr) {
    return simulated->help(context, what, function, request);
  }
  if (auto ended = context.check(what); !ended) {
    return with_outcome(std::move(ended).error(), Outcome::not_sent);
  }
  if (request.size() > helper::message_limit) {
    return Error{
        .code = Code::resource_exhausted,
        .message = fmt::format("{}: more than {} bytes of work for a helper", what, helper::message_limit),
        .outcome = Outcome::not_sent};
  }
  if (const auto stuck = state_->fenced(context, key)) return fence_error(context, what, *stuck);
  DVDI_TRY(Helper helper, state_->take(context, what));
  const Work work{.key = key, .what = what, .since = context.clock().boot()};
  const int socket = helper.socket.get();

  std::string bytes(sizeof(helper::Header), '\0');
  const helper::Header header{.function = function, .size = request.size()};
  std::memcpy(bytes.data(), &header, sizeof header);
  bytes += request;
  if (auto sent = send_all(context, socket, bytes, what); !sent) {
    // It never had the whole request, so it did not begin.
    state_->give_back(std::move(helper), &work);
    return with_outcome(std::move(sent).error(), Outcome::not_sent);
  }

  helper::Header reply;
  std::string text;
  auto received = receive_all(context, socket, &reply, sizeof reply, what);
  if (received && reply.size > helper::message_limit) {
    received =
        Error{.code = Code::internal, .message = fmt::format("{}: the helper's answer is broken", what)};
  }
  if (received) {
    text.resize(reply.size);
    received = receive_all(context, socket, text.data(), text.size(), what);
  }
  if (!received) {
    Error error = with_outcome(std::move(received).error(), Outcome::unknown);
    if (error.hint.empty()) {
      error.hint = fmt::format(
          "helper process {} was told to end; if it is still there, it is stuck in the kernel", helper.pid);
    }
    state_->give_back(std::move(helper), &work);
    return error;
  }
  state_->give_back(std::move(helper), nullptr);
  return helper::decode(text);
}

std::vector<HelperPool::Stuck> HelperPool::stuck_helpers() const {
  const Lock lock(state_->mutex);
  state_->forget_ended();
  std::vector<Stuck> all;
  all.reserve(state_->killed.size());
  for (const KilledHelper& one : state_->killed) all.push_back(one.work);
  return all;
}

unsigned HelperPool::stuck() const {
  const Lock lock(state_->mutex);
  state_->forget_ended();
  return static_cast<unsigned>(state_->killed.size());
}

HelperPool::Counts HelperPool::counts() const {
  const BootTime now = system_clock().boot();
  const Lock lock(state_->mutex);
  state_->forget_ended();
  Counts counts{.idle = static_cast<unsigned>(state_->idle.size()), .busy = state_->busy};
  std::set<std::string_view> keys;
  for (const KilledHelper& one : state_->killed) {
    if (now - one.killed_at < time_to_die) continue;
    ++counts.stuck;
    if (!one.work.key.empty()) keys.insert(one.work.key);
  }
  counts.fenced = static_cast<unsigned>(keys.size());
  return counts;
}

std::optional<HelperPool::Stuck> HelperPool::fenced(const Context& context, std::string_view key) const {
  return state_->fenced(context, key);
}

}  // namespace dvdi
