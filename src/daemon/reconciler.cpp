#include "daemon/reconciler.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <set>
#include <system_error>
#include <thread>

#include "linux/process_watch.h"
#include "linux/sleeper.h"

namespace dvdi {

namespace {

// It belongs to a command that works on it itself; others belong to whoever asked.
constexpr const char* commands = "run";
bool of_a_command(const ContainerRow& row) { return row.key.owner == commands; }
// Of all time, looks take a tenth at most, however often something changes and however much there is to look
// at; but what changed waits no longer than this.
constexpr int times_of_a_look = 10;
constexpr Duration longest_pace = std::chrono::seconds(5);
constexpr std::string_view task_ended = "whose task has ended";
// From an intent to the lock of whoever carries it out.
constexpr Duration to_begin = std::chrono::seconds(1);
constexpr Duration ask_drivers = std::chrono::seconds(10);  // each, when the books are rebuilt
// Beyond the deadlines of the driver calls in it: locks, the ledger, looks at paths.
constexpr Duration some_more = std::chrono::minutes(2);

void sooner(std::optional<BootTime>& next, std::optional<BootTime> then) {
  if (then) next = next ? std::min(*next, *then) : *then;
}

}  // namespace

struct Reconciler::State {
  State(Parts given_parts, Limits given_limits)
      : parts(std::move(given_parts)),
        limits(given_limits),
        most(parts.volumes.policy().longest(driver::Operation::unmount) + some_more),
        workers(limits.workers, parts.clock, [this] { wake(false); }, parts.say) {}

  void run();
  void wake(bool look_at_ledger);
  Result<std::vector<Workers::Task>> look_once(std::optional<BootTime>& next);
  // All that there is to do, and when to look again for what only time brings.
  Result<std::vector<Workers::Task>> look(std::optional<BootTime>& next);
  void look_at_volumes(const volume::Due& due, std::vector<Workers::Task>& tasks);
  void look_at_mounts(std::vector<Workers::Task>& tasks, std::optional<BootTime>& next);
  void look_at_rebuild(std::vector<Workers::Task>& tasks);
  void look_at_leftovers(const volume::Due& due, std::vector<Workers::Task>& tasks);
  Status look_at_containers(std::vector<Workers::Task>& tasks, std::optional<BootTime>& next);
  std::optional<std::string> why_to_clean_up(const ContainerRow& row, std::optional<BootTime>& next);
  bool runs(const ProcessIdentity& process, std::optional<BootTime>& next);
  Workers::Task cleanup_of(const ContainerKey& key, std::vector<std::string> drivers, std::string why);

  const Parts parts;
  const Limits limits;
  const Duration most;
  std::optional<Sleeper> sleeper;
  std::optional<ProcessWatch> processes;
  // A container that is being cleaned up: since when it was seen so. From before the start: at once.
  std::map<ContainerKey, BootTime> cleaning_since;
  bool first_look = true;
  // The mounts are to be held against the kernel's table, and their servers asked, once more.
  std::atomic<bool> compare_mounts = true, probe_mounts = true;
  std::atomic<bool> has_servers = false;  // at the last comparison or probe
  std::atomic<bool> tidied = false;       // after the start
  std::atomic<bool> rebuilding = true;    // a damaged ledger was replaced: not every driver has answered yet
  BootTime last_probe;                    // when it began; under the mutex
  Workers workers;
  std::thread thread;

  mutable Mutex mutex;
  mutable Condition changed;
  std::uint64_t asked = 1, seen = 0;  // wake() calls
  bool stopping = false, stopped = false;
  bool asleep = false;  // with nothing left to do now
  Now shown;
};

Reconciler::Reconciler(Parts parts, Limits limits)
    : state_(std::make_unique<State>(std::move(parts), limits)) {}

Reconciler::~Reconciler() { stop(Context().with_timeout(Duration::zero())); }

Status Reconciler::start() {
  DVDI_TRY(auto sleeper, Sleeper::open());
  DVDI_TRY(auto processes, ProcessWatch::open());
  state_->sleeper.emplace(std::move(sleeper));
  state_->processes.emplace(std::move(processes));
  try {
    state_->thread = std::thread([state = state_.get()] { state->run(); });
  } catch (const std::system_error& error) {
    return Error{.code = Code::resource_exhausted,
                 .message = fmt::format("start a thread: {}", error.what())};
  }
  return {};
}

void Reconciler::wake() { state_->wake(true); }

void Reconciler::State::wake(bool look_at_ledger) {
  bool is_known = false;  // that there is something to look at
  {
    const Lock lock(mutex);
    if (look_at_ledger) {
      is_known = asked != seen;
      ++asked;
      // A mount that was not in the books when the table changed may be now.
      compare_mounts = probe_mounts = true;
    }
    asleep = false;
  }
  if (sleeper && !is_known) sleeper->wake();
}

void Reconciler::stop(const Context& context) {
  State& state = *state_;
  if (!state.thread.joinable()) return;
  {
    const Lock lock(state.mutex);
    state.stopping = true;
  }
  state.sleeper->wake();
  {
    Lock lock(state.mutex);
    const auto ended =
        state.changed.wait(context, lock, [&] { return state.stopped; }, "wait for the reconciler");
    if (!ended) state.workers.cancel();
  }
  state.thread.join();
}

Reconciler::Now Reconciler::now() const {
  const Lock lock(state_->mutex);
  return state_->shown;
}

Status Reconciler::wait_until_quiet(const Context& context) const {
  Lock lock(state_->mutex);
  return state_->changed.wait(
      context, lock, [&] { return state_->asleep && state_->asked == state_->seen; },
      "wait until the reconciler is quiet");
}

void Reconciler::State::run() {
  bool to_look = true;  // something changed since the last look
  bool blind = false;   // the last look failed
  BootTime last_look;
  Duration pace = limits.pace;
  unsigned failures = 0;
  std::optional<BootTime> next;
  for (;;) {
    if (workers.reap()) to_look = true;
    bool stop = false;
    {
      const Lock lock(mutex);
      stop = stopping;
      if (asked != seen) to_look = true;
    }
    if (stop && workers.running() == 0) break;
    const BootTime time = parts.clock.boot();
    if (next && *next <= time) to_look = true;
    std::optional<BootTime> until = next;
    if (stop) {
      until.reset();
    } else if (to_look && !first_look && time - last_look < pace) {
      until = last_look + pace;
    } else if (to_look && blind && next && time < *next) {
      // Whatever happens, the ledger is not asked more often than the backoff says.
    } else if (to_look) {
      to_look = false;
      last_look = time;
      next.reset();
      auto tasks = look_once(next);
      pace = std::max(limits.pace, std::min((parts.clock.boot() - time) * times_of_a_look, longest_pace));
      blind = !tasks;
      if (tasks) {
        failures = 0;
        sooner(next, workers.start(*std::move(tasks)));
      } else {
        if (failures == 0) parts.say(fmt::format("what is to do is not known: {}", tasks.error().text()));
        next = time + std::min<Duration>(limits.workers.backoff * (1U << std::min(failures++, 10U)),
                                         limits.workers.backoff_cap);
      }
      until = next;
    }
    {
      const Lock lock(mutex);
      shown.running = workers.running();
      shown.watched = processes->size();
      shown.next = until;
      asleep = !to_look && shown.running == 0 && asked == seen;
      changed.notify_all();
    }
    // An end that is known already does not wake it again before it was looked at.
    // Nor does a mount table that changes again and again.
    const bool changes_are_known = to_look && compare_mounts && probe_mounts;
    const auto woken = sleeper->sleep(
        parts.clock, until,
        {.mounts = !changes_are_known, .descriptor = to_look || blind || stop ? -1 : processes->fd()});
    if (!woken) {
      parts.say("the reconciler cannot sleep: " + woken.error().text());
      static_cast<void>(pause(Context(parts.clock), limits.workers.backoff, "wait"));
      to_look = true;
    } else {
      if (woken->by_mounts) compare_mounts = probe_mounts = true;
      if (woken->by_mounts || woken->by_descriptor) to_look = true;
    }
  }
  const Lock lock(mutex);
  stopped = true;
  changed.notify_all();
}

Result<std::vector<Workers::Task>> Reconciler::State::look_once(std::optional<BootTime>& next) {
  {
    const Lock lock(mutex);
    seen = asked;
    ++shown.looks;
  }
  try {
    auto tasks = look(next);
    first_look = false;
    return tasks;
  } catch (const std::exception& error) {
    return Error{.code = Code::resource_exhausted, .message = error.what()};
  }
}

Result<std::vector<Workers::Task>> Reconciler::State::look(std::optional<BootTime>& next) {
  std::vector<Workers::Task> tasks;
  look_at_rebuild(tasks);
  look_at_mounts(tasks, next);
  DVDI_CHECK(look_at_containers(tasks, next));
  const Context context = Context(parts.clock).with_timeout(some_more);
  DVDI_TRY(const volume::Due due, parts.volumes.due(context, to_begin));
  look_at_leftovers(due, tasks);
  look_at_volumes(due, tasks);
  sooner(next, due.next);
  return tasks;
}

void Reconciler::State::look_at_volumes(const volume::Due& due, std::vector<Workers::Task>& tasks) {
  for (const VolumeKey& volume : due.volumes) {
    tasks.push_back(
        {.name = "volume " + volume.text(),
         .drivers = {volume.driver},
         .most = most,
         .work = [this, volume](const Context& context) -> Workers::Outcome {
           if (const auto free = parts.let_go ? parts.let_go(context, volume) : Status(); !free) {
             return {.again = true, .sentence = fmt::format("{}: {}", volume.text(), free.error().text())};
           }
           auto settled = parts.volumes.settle_volume(context, volume);
           if (!settled) {
             return {.again = true, .sentence = fmt::format("{}: {}", volume.text(), settled.error().text())};
           }
           return {.again = settled->busy, .sentence = std::move(settled->sentence)};
         }});
  }
  if (due.books) {
    tasks.push_back({.name = "books",
                     .drivers = {},
                     .most = some_more,
                     .work = [this](const Context& context) -> Workers::Outcome {
                       const auto done = parts.volumes.tidy_books(context);
                       if (done) return {};
                       return {.again = true, .sentence = done.error().text()};
                     }});
  }
}

void Reconciler::State::look_at_leftovers(const volume::Due& due, std::vector<Workers::Task>& tasks) {
  if (!parts.tidy || (tidied && !due.staged)) return;
  tasks.push_back({.name = "leftovers",
                   .drivers = {},
                   .most = most,
                   .work = [this](const Context& context) -> Workers::Outcome {
                     std::string said;
                     for (const std::string& one : parts.tidy(context))
                       said += fmt::format("{}{}", said.empty() ? "" : "; ", one);
                     tidied = true;
                     const auto after = parts.volumes.due(context);
                     return {.again = !after || after->staged, .sentence = std::move(said)};
                   }});
}

// Finished at the first call, unless a damaged ledger was replaced.
void Reconciler::State::look_at_rebuild(std::vector<Workers::Task>& tasks) {
  if (!rebuilding) return;
  tasks.push_back({.name = "rebuild",
                   .drivers = {},
                   .most = some_more,
                   .work = [this](const Context& context) -> Workers::Outcome {
                     const auto rebuilt = parts.volumes.rebuild(context.with_timeout(ask_drivers));
                     if (!rebuilt) return {.again = true, .sentence = rebuilt.error().text()};
                     if (rebuilt->finished) rebuilding = false;
                     std::string found;
                     for (const VolumeKey& one : rebuilt->found)
                       found += fmt::format(
                           "{}{}", found.empty() ? "mounts were found for the books: " : ", ", one.text());
                     return {.again = !rebuilt->finished, .sentence = std::move(found)};
                   }});
}

void Reconciler::State::look_at_mounts(std::vector<Workers::Task>& tasks, std::optional<BootTime>& next) {
  const auto lost = [](const std::vector<VolumeKey>& volumes) {
    std::string sentence;
    for (const VolumeKey& one : volumes) {
      sentence += fmt::format("{}{}", sentence.empty() ? "mounts are lost: " : ", ", one.text());
    }
    return sentence;
  };
  if (compare_mounts) {
    tasks.push_back({.name = "mounts",
                     .drivers = {},
                     .most = some_more,
                     .work = [this, lost](const Context& context) -> Workers::Outcome {
                       compare_mounts = false;  // what changes from here on counts anew
                       const auto compared = parts.volumes.note_vanished(context);
                       if (!compared) {
                         compare_mounts = true;
                         return {.again = true, .sentence = compared.error().text()};
                       }
                       // Most nodes have none: then nobody is sent to ask them.
                       if (compared->served) has_servers = true;
                       return {.again = false, .sentence = lost(compared->lost)};
                     }});
  }
  BootTime due;
  {
    const Lock lock(mutex);
    due = last_probe + limits.probe_every;
  }
  const bool again = has_servers && due <= parts.clock.boot();
  if (has_servers && !again) sooner(next, due);
  if (!again && !(has_servers && probe_mounts)) return;
  tasks.push_back({.name = "servers",
                   .drivers = {},
                   .most = some_more,
                   .work = [this, lost](const Context& context) -> Workers::Outcome {
                     probe_mounts = false;
                     {
                       const Lock lock(mutex);
                       last_probe = parts.clock.boot();
                     }
                     const auto probed = parts.volumes.probe(context);
                     if (!probed) {
                       probe_mounts = true;
                       return {.again = true, .sentence = probed.error().text()};
                     }
                     has_servers = probed->anything;
                     std::string sentence = lost(probed->lost);
                     for (const VolumeKey& one : probed->found) {
                       sentence +=
                           fmt::format("{}{} answers again", sentence.empty() ? "" : "; ", one.text());
                     }
                     return {.again = false, .sentence = std::move(sentence)};
                   }});
}

// True where it cannot be told: only proof counts.
bool Reconciler::State::runs(const ProcessIdentity& process, std::optional<BootTime>& next) {
  if (process.pid == ::getpid()) return process_runs(process).value_or(true);
  const auto running = processes->runs(process);
  if (running) return *running;
  sooner(next, parts.clock.boot() + limits.look_again);
  return process_runs(process).value_or(true);
}

std::optional<std::string> Reconciler::State::why_to_clean_up(const ContainerRow& row,
                                                              std::optional<BootTime>& next) {
  if (row.state == ContainerState::cleaning) {
    // Whoever is at it works within the drivers' deadlines; beyond them, or from before this process, it is
    // left over.
    const BootTime time = parts.clock.boot();
    const auto [since, is_new] = cleaning_since.try_emplace(row.key, first_look ? time - most : time);
    if (time - since->second >= most) return "whose cleanup was interrupted";
    sooner(next, since->second + most);
    return std::nullopt;
  }
  if (row.init && row.watch && row.state == ContainerState::running) {
    if (!runs(*row.init, next)) return std::string(task_ended);
    return std::nullopt;
  }
  if (!of_a_command(row)) return std::nullopt;
  if (row.init && runs(*row.init, next)) return std::nullopt;
  if (runs(row.engine, next)) return std::nullopt;
  return "whose command was killed";
}

Status Reconciler::State::look_at_containers(std::vector<Workers::Task>& tasks,
                                             std::optional<BootTime>& next) {
  const Context context = Context(parts.clock).with_timeout(some_more);
  std::vector<ContainerRow> containers;
  DVDI_CHECK(parts.ledger.read(context, "look at the containers", [&](Reader& reader) -> Status {
    DVDI_TRY(containers, reader.containers_to_look_after(commands));
    return {};
  }));
  std::set<ContainerKey> cleaning;
  std::vector<std::pair<ContainerKey, std::string>> dead;
  for (const ContainerRow& row : containers) {
    if (row.state == ContainerState::cleaning) cleaning.insert(row.key);
    if (const auto why = why_to_clean_up(row, next)) dead.emplace_back(row.key, *why);
  }
  std::erase_if(cleaning_since, [&](const auto& one) { return !cleaning.contains(one.first); });
  processes->drop_others();
  if (dead.empty()) return {};
  return parts.ledger.read(context, "look at what they use", [&](Reader& reader) -> Status {
    for (const auto& [key, why] : dead) {
      DVDI_TRY(const auto references, reader.references_of(key));
      std::set<std::string> drivers;
      for (const ReferenceRow& one : references) drivers.insert(one.volume.driver);
      tasks.push_back(cleanup_of(key, {drivers.begin(), drivers.end()}, why));
    }
    return {};
  });
}

Workers::Task Reconciler::State::cleanup_of(const ContainerKey& key, std::vector<std::string> drivers,
                                            std::string why) {
  if (key.lives_until_unmount()) {
    return {.name = "container " + key.text(),
            .drivers = {},
            .most = some_more,
            .work = [this](const Context& context) -> Workers::Outcome {
              const auto done = parts.volumes.end_interrupted_unmounts(context);
              if (done) return {};
              return {.again = true, .sentence = done.error().text()};
            }};
  }
  return {.name = "container " + key.text(),
          .drivers = std::move(drivers),
          .most = most,
          .work = [this, key, why = std::move(why)](const Context& context) -> Workers::Outcome {
            const auto owed = parts.cleanup(context, key);
            if (!owed) {
              return {.again = true,
                      .sentence = fmt::format("container {}, {}, could not be cleaned up: {}", key.text(),
                                              why, owed.error().text())};
            }
            if (owed->empty() && why == task_ended) return {};  // as it should be
            std::string sentence = fmt::format("container {}, {}, was cleaned up", key.text(), why);
            for (const auto& one : *owed) {
              sentence += one.volume.empty() ? fmt::format("; not all of it: {}", one.reason)
                                             : fmt::format("; the unmount of {}/{} is owed: {}", one.driver,
                                                           one.volume, one.reason);
            }
            return {.again = false, .sentence = std::move(sentence)};
          }};
}

}  // namespace dvdi
