#include "daemon/engine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>

#include "base/random.h"
#include "base/sync.h"
#include "base/text.h"
#include "daemon/client.h"
#include "daemon/sandbox.h"
#include "daemon/views.h"
#include "isolator/external_volumes.h"
#include "isolator/shared_filesystem.h"
#include "store/damage.h"
#include "store/rebuilt.h"

namespace dvdi {

namespace {

constexpr Duration ask_a_driver =
    std::chrono::seconds(3);  // for a list: a driver that hangs delays it no longer
constexpr Duration look_for_events = std::chrono::milliseconds(200);
constexpr Duration look_for_lock = std::chrono::milliseconds(50);
constexpr Duration a_look_at_the_database = std::chrono::seconds(1);

// Tasks of other users reach their own sandbox through it, and nothing else in it is open to them.
Status make_state_dir(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (error) return os_error(fmt::format("make the folder of the state directory {}", path), error.value());
  if (::mkdir(path.c_str(), 0711) != 0 && errno != EEXIST) {
    Error failed = os_error(fmt::format("make the state directory {}", path), errno);
    failed.hint = "dvdi needs root, or a state directory of your own (--state-dir)";
    return failed;
  }
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0)
    return os_error(fmt::format("look at the state directory {}", path), errno);
  if (!S_ISDIR(status.st_mode)) {
    return Error{.code = Code::failed_precondition,
                 .message = fmt::format("the state directory {} is not a directory", path)};
  }
  if (status.st_uid != ::geteuid() || (status.st_mode & 022U) != 0) {
    return Error{.code = Code::permission_denied,
                 .message = fmt::format(
                     "the state directory {} belongs to somebody else or can be written by others", path),
                 .hint = "who can write there can have any path unmounted: chown it to root and chmod go-w"};
  }
  return {};
}

// SQLite makes its files as permissive as the umask says; those that belong to the database take its mode.
Status make_private_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) {
    Error failed = os_error(fmt::format("open {}", path), errno);
    failed.hint = "dvdi needs root, or a state directory of your own (--state-dir)";
    return failed;
  }
  return {};
}

std::string text_of(const v1::ContainerID& id) {
  return id.has_parent() ? text_of(id.parent()) + "." + id.value() : id.value();
}

}  // namespace

Engine::~Engine() = default;

// Shared by daemonless commands while they work, and a daemon's alone for its life: it waits for the commands
// that are at work. A command that is alone has it exclusively at first: only so can a damaged database be
// told and set aside; one that had it open before has looked. True if it is exclusive.
Result<bool> Engine::take_engine_lock(const Context& context) {
  const std::string path = config_.state_dir + "/engine.lock";
  const BootTime begin = context.clock().boot();
  for (;;) {
    if (mode_ != Mode::command_again) {
      DVDI_TRY(auto alone, try_lock_file(path, true));
      if (alone) {
        engine_lock_ = std::move(*alone);
        return true;
      }
    }
    if (mode_ != Mode::daemon) {
      DVDI_TRY(auto shared, try_lock_file(path, false));
      if (shared) {
        engine_lock_ = std::move(*shared);
        return false;
      }
      // Another command may be looking at the database just now.
      if (context.clock().boot() - begin > a_look_at_the_database) {
        Error error = daemon_away(fmt::format("a daemon owns the state directory {}", config_.state_dir),
                                  Outcome::not_sent);
        error.hint = "is it starting or ending? It is asked by way of its socket: --socket, DVDI_SOCKET";
        return error;
      }
    }
    DVDI_CHECK(pause(context, mode_ == Mode::daemon ? look_for_lock : look_for_lock / 10,
                     fmt::format("wait for dvdi commands that work on {}", config_.state_dir)));
  }
}

Status Engine::open_ledger(const Context& context, bool alone) {
  const std::string path = config_.state_dir + "/state.db";
  const OpenFor how_long = mode_ == Mode::daemon ? OpenFor::long_work : OpenFor::a_moment;
  if (!alone) {
    DVDI_CHECK(make_private_file(path));
    DVDI_TRY(ledger_, Ledger::open(context, path, how_long));
    return {};
  }
  DVDI_TRY(ledger_, open_whole(context, path, how_long));
  if (mode_ == Mode::command) DVDI_CHECK(share_file_lock(engine_lock_));
  return {};
}

Result<std::unique_ptr<Engine>> Engine::open(const Context& context, const Config& config,
                                             HelperPool& helpers, Mode mode) {
  const std::string& dir = config.state_dir;
  DVDI_CHECK(make_state_dir(dir));
  std::unique_ptr<Engine> engine(new Engine(config, helpers, mode));
  DVDI_TRY(const bool alone, engine->take_engine_lock(context));
  if (mode == Mode::daemon) {
    engine->locks_ = KeyedLocks::of_this_process();
  } else {
    DVDI_TRY(engine->locks_, KeyedLocks::open(dir + "/locks"));
  }
  DVDI_CHECK(engine->open_ledger(context, alone));
  engine->books_ = std::make_unique<isolator::LedgerBooks>(*engine->ledger_);
  engine->sinks_ = std::make_unique<Sinks>(*engine->ledger_, config.sinks);
  engine->admission_ = std::make_unique<Admission>(Admission::Parts{helpers, *engine->ledger_});
  DVDI_CHECK(engine->admission_->load(config.access.policy_file));
  engine->drivers_ = std::make_unique<NodeCatalog>(dir, helpers, config.docker);
  engine->volumes_ = std::make_unique<volume::Manager>(
      volume::Manager::Parts{*engine->ledger_, *engine->drivers_, *engine->locks_, helpers}, config.volumes);
  std::vector<std::unique_ptr<isolator::Isolator>> isolators;
  isolators.push_back(std::make_unique<isolator::ExternalVolumes>(*engine->volumes_));
  isolators.push_back(std::make_unique<isolator::SharedFilesystem>(
      helpers, isolator::SharedFilesystem::Options{
                   .sandbox_in_container = config.sandbox_in_container,
                   .path_timeout = config.volumes.call_deadline,
                   .may_bind = std::bind_front(&Admission::may_bind, engine->admission_.get())}));
  auto staged = std::make_unique<isolator::StagedMounts>(
      isolator::StagedMounts::Parts{*engine->ledger_, helpers, *engine->locks_},
      isolator::StagedMounts::Options{.state_dir = dir,
                                      .mount_timeout = config.volumes.call_deadline,
                                      .unmount_timeout = config.volumes.call_deadline});
  engine->staged_ = staged.get();
  isolators.push_back(std::move(staged));
  DVDI_TRY(engine->chain_,
           isolator::Chain::build(std::move(isolators),
                                  {.container_locks = *engine->locks_,
                                   .books = *engine->books_,
                                   .roll_back_timeout = config.volumes.longest(driver::Operation::unmount) +
                                                        std::chrono::minutes(1)}));
  DVDI_CHECK(engine->volumes_->forget_other_boots(context));
  return engine;
}

void Engine::settle(const Context& context) {
  const auto note = [&](std::string sentence) { notices_.push_back(std::move(sentence)); };
  auto dead = volumes_->dead_containers(context, "run");
  if (!dead) return note("killed commands could not be looked for: " + dead.error().text());
  Mutex mutex;
  std::vector<std::function<void()>> work;
  for (const ContainerKey& key : *dead) {
    work.emplace_back([&, key] {
      auto owed = cleanup(context, key);
      const Lock lock(mutex);
      if (!owed) {
        note(fmt::format("container {}, whose command was killed, could not be cleaned up: {}", key.id,
                         owed.error().text()));
      } else {
        note(fmt::format("container {}, whose command was killed, was cleaned up{}", key.id,
                         owed->empty() ? "" : ", unmounts of it are owed"));
      }
    });
    if (work.size() == 16) run_parallel(std::exchange(work, {}));
  }
  run_parallel(std::move(work));
  if (const auto ended = volumes_->end_interrupted_unmounts(context); !ended)
    note("interrupted unmounts could not be ended: " + ended.error().text());
  // Before debts are paid: a volume must not be unmounted below a mount of ours.
  for (std::string& sentence : tidy(context)) note(std::move(sentence));
  if (const auto rebuilt = volumes_->rebuild(context)) {
    for (const VolumeKey& volume : rebuilt->found)
      note(fmt::format("volume {} was found mounted: the books were rebuilt, see `dvdi doctor`",
                       volume.text()));
    for (const std::string& one : rebuilt->unanswered)
      note("what a driver has mounted could not be asked, it is tried again: " + one);
  } else {
    note("the books could not be rebuilt: " + rebuilt.error().text());
  }
  for (std::string& sentence : volumes_->settle(context)) note(std::move(sentence));
  if (mode_ == Mode::daemon) return;  // its Housekeeper does it
  const auto kept = retain(context, *ledger_, config_.retention, sink_names(config_.sinks));
  if (!kept) note("old events could not be taken away: " + kept.error().text());
}

std::vector<std::string> Engine::tidy(const Context& context) {
  std::vector<std::string> said = staged_->settle(context);
  remove_stray_sandboxes(context, helpers_, config_.state_dir, [&]() -> Result<std::set<std::string>> {
    std::set<std::string> ids;
    DVDI_CHECK(ledger_->read(context, "look whose the sandboxes are", [&](Reader& reader) -> Status {
      // After a rebuild a task may run that the books do not know: what is nobody's by them may be its
      // sandbox.
      DVDI_TRY(const auto books, rebuilt_books(reader));
      if (books && books->when.boot_id == ledger_->boot_id())
        return Error{.code = Code::failed_precondition, .message = "the books are rebuilt ones"};
      DVDI_TRY(ids, reader.live_ids());
      return {};
    }));
    return ids;
  });
  return said;
}

Result<Api::Prepared> Engine::prepare(const Context& context, const PrepareOptions& options,
                                      const v1::ContainerRequest& asked) {
  Prepared prepared;
  prepared.key = {.owner = options.owner,
                  .id = asked.has_container_id() ? text_of(asked.container_id()) : random_uuid()};
  DVDI_TRY(const v1::ContainerRequest request, admission_->admit(context, prepared.key, asked));
  std::string directory = request.directory();
  const bool ours = directory.empty();
  if (ours) {
    DVDI_TRY(directory, make_sandbox(context, helpers_, config_.state_dir, prepared.key.id,
                                     request.command().user(), request.rootfs()));
  }
  auto launch =
      chain_->prepare(context, prepared.key, request, directory, ours, options.worker, options.staged);
  if (!launch) {
    // Whether the sandbox is in use by a container of the same id that was there before, the ledger knows.
    const Context after = context.detached(std::chrono::minutes(1));
    const auto row = books_->find(after, prepared.key);
    if (ours && row && !*row)
      static_cast<void>(remove_sandbox(after, helpers_, config_.state_dir, prepared.key.id));
    return fail(std::move(launch).error());
  }
  prepared.launch = *std::move(launch);
  // Who launches otherwise has nothing to do with other containers' mounts.
  if (options.staged || options.owner != PrepareOptions().owner) return prepared;
  DVDI_CHECK(ledger_->read(context, "read the mounts", [&](Reader& reader) -> Status {
    DVDI_TRY(const auto mounts, reader.mounts());
    for (const MountRow& row : mounts) {
      if (!row.mount_point.empty() && row.identity) prepared.foreign_mount_points.push_back(row.mounted_at());
    }
    return {};
  }));
  // Mounts of the local driver that are on their way in or out just now.
  prepared.foreign_mount_points.push_back(config_.state_dir);
  return prepared;
}

Status Engine::isolate(const Context& context, const ContainerKey& key, pid_t pid, bool watch) {
  return chain_->isolate(context, key, pid, watch);
}

Result<volume::Recovered> Engine::recover(const Context& context, const volume::RecoverRequest& request) {
  if (ContainerKey{.owner = request.owner, .id = {}}.lives_until_unmount()) {
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("recovering the containers of '{}': they have no agent that could "
                                        "know which of them live",
                                        printable(request.owner)),
                 .hint = "`dvdcli unmount` ends one; an agent's owner is its work directory"};
  }
  const BootTime start = context.clock().boot();
  DVDI_TRY(auto recovered, chain_->recover(context, request));
  Event event{.type = "dvdi.agent.recovered", .subject = "agent/" + request.owner};
  event.duration = context.clock().boot() - start;
  event.trace_id = context.trace_id();
  event.details = {{"owner", request.owner},
                   {"live", request.live.size()},
                   {"dropped", recovered.dropped.size()},
                   {"kept", recovered.kept.size()},
                   {"missing", recovered.missing.size()}};
  DVDI_CHECK(ledger_->write(context.detached(std::chrono::minutes(1)), "record a recovery",
                            [&](Transaction& transaction) { return transaction.record(event); }));
  return recovered;
}

Result<std::vector<volume::Adopted>> Engine::adopt(const Context& context, const std::string& from,
                                                   const std::vector<volume::LeftBehind>& mounts) {
  return volumes_->adopt(context, from, mounts);
}

Result<std::vector<isolator::Owed>> Engine::cleanup(const Context& context, const ContainerKey& key) {
  // Whose the sandbox of that name is, the books say, as long as they know the container.
  std::optional<ContainerRow> row;
  if (has_sandbox(config_.state_dir, key.id)) {
    if (auto found = books_->find(context, key)) row = *std::move(found);
  }
  DVDI_TRY(auto owed, chain_->cleanup(context, key));
  remove_own_sandbox(context.detached(std::chrono::minutes(5)), row);
  return owed;
}

void Engine::remove_own_sandbox(const Context& context, const std::optional<ContainerRow>& row) {
  if (!row || !row->directory_is_ours) return;
  static_cast<void>(remove_sandbox(context, helpers_, config_.state_dir, row->key.id));
}

Result<std::vector<ContainerView>> Engine::containers(const Context& context, bool ended) {
  std::vector<ContainerView> views;
  DVDI_CHECK(ledger_->read(context, "list containers", [&](Reader& reader) -> Status {
    DVDI_TRY(views, container_views(reader, ended));
    return {};
  }));
  return views;
}

Result<ContainerView> Engine::find_container(const Context& context, const ContainerKey& key) {
  std::optional<ContainerView> view;
  DVDI_CHECK(ledger_->read(context, "look for a container", [&](Reader& reader) -> Status {
    DVDI_TRY(view, container_view(reader, key));
    return {};
  }));
  if (!view) return no_container(key);
  return *std::move(view);
}

Result<ContainerView> Engine::container(const Context& context, const std::string& id) {
  DVDI_TRY(const auto all, containers(context, true));
  return pick_container(all, id);
}

Result<Api::Volumes> Engine::volumes(const Context& context, bool ask_drivers) {
  Volumes out;
  DVDI_CHECK(ledger_->read(context, "list volumes", [&](Reader& reader) -> Status {
    DVDI_TRY(out.volumes, volume_views(reader));
    return {};
  }));
  const auto fenced = volumes_->fenced(context);
  for (VolumeView& view : out.volumes) {
    const auto found = fenced.find(VolumeKey{view.driver, view.name}.text());
    if (found != fenced.end()) view.fenced = found->second;
  }
  if (!ask_drivers) return out;
  Mutex mutex;
  std::vector<std::function<void()>> work;
  for (const std::string& name : drivers_->names()) {
    work.emplace_back([&, name] {
      const Context bounded = context.with_timeout(ask_a_driver);
      auto listed = volumes_->list_volumes(bounded, name);
      const Lock lock(mutex);
      if (!listed) {
        out.warnings.push_back(
            fmt::format("driver {} did not list its volumes: {}", name, listed.error().text()));
        return;
      }
      for (const driver::VolumeInfo& info : *listed) {
        auto known = std::ranges::find_if(out.volumes, [&](const VolumeView& view) {
          return view.driver == name && view.name == info.name;
        });
        if (known == out.volumes.end()) {
          out.volumes.push_back({.driver = name, .name = info.name});
          known = std::prev(out.volumes.end());
        }
        if (info.size_bytes) known->size_bytes = info.size_bytes;
      }
    });
  }
  run_parallel(std::move(work));
  std::ranges::sort(out.volumes, {},
                    [](const VolumeView& view) { return std::pair(view.driver, view.name); });
  std::ranges::sort(out.warnings);
  return out;
}

Result<VolumeView> Engine::volume(const Context& context, const std::string& driver,
                                  const std::string& name) {
  DVDI_TRY(const auto known, volumes(context, false));
  for (const VolumeView& view : known.volumes) {
    if (view.driver == driver && view.name == name) return view;
  }
  DVDI_TRY(const auto info, volumes_->look_up_volume(context, {driver, name}));
  return VolumeView{
      .driver = driver, .name = name, .mount_point = info.mount_point, .size_bytes = info.size_bytes};
}

Result<std::vector<std::string>> Engine::driver_volumes(const Context& context, const std::string& driver) {
  DVDI_TRY(const auto listed, volumes_->list_volumes(context, driver));
  std::vector<std::string> names;
  names.reserve(listed.size());
  for (const driver::VolumeInfo& info : listed) names.push_back(info.name);
  return names;
}

Status Engine::create_volume(const Context& context, const std::string& driver, const std::string& name,
                             const std::vector<std::pair<std::string, std::string>>& options) {
  return volumes_->create_volume(context, {driver, name}, driver::Options(options.begin(), options.end()));
}

Status Engine::remove_volume(const Context& context, const std::string& driver, const std::string& name) {
  return volumes_->remove_volume(context, {driver, name});
}

Result<volume::Release> Engine::release_volume(const Context& context, const std::string& driver,
                                               const std::string& name, bool dry_run) {
  return volumes_->release_volume(context, {driver, name}, dry_run);
}

Result<std::vector<volume::DriverStatus>> Engine::drivers(const Context& context) {
  auto all = volumes_->drivers(drivers_->names());
  DVDI_CHECK(ledger_->read(context, "read the drivers' states", [&](Reader& reader) -> Status {
    DVDI_TRY(const auto rows, reader.drivers());
    for (const DriverRow& row : rows) {
      auto found = std::ranges::find(all, row.name, &volume::DriverStatus::name);
      if (found == all.end()) found = all.insert(all.end(), volume::DriverStatus{.name = row.name});
      found->state = row.state;
      found->state_reason = row.reason;
      found->state_since = row.since.wall;
    }
    return {};
  }));
  return all;
}

Result<std::vector<EventView>> Engine::events(const Context& context, std::uint64_t after, std::size_t limit,
                                              Duration wait) {
  const Context patient = context.with_timeout(wait);
  for (;;) {
    std::vector<EventView> views;
    const std::uint64_t seen = ledger_->written();
    DVDI_CHECK(ledger_->read(context, "read events", [&](Reader& reader) -> Status {
      DVDI_TRY(const auto events, reader.events(after, limit));
      views.reserve(events.size());
      for (const StoredEvent& event : events) views.push_back({event.sequence, event.json()});
      return {};
    }));
    if (!views.empty() || patient.remaining() == Duration::zero()) return views;
    // Another process writes without our knowledge, unless the state directory is ours alone.
    const Context turn = mode_ == Mode::daemon ? patient : patient.with_timeout(look_for_events);
    static_cast<void>(ledger_->wait_written(turn, seen));
    DVDI_CHECK(context.check("wait for events"));
  }
}

Result<Api::Verified> Engine::verify_events(const Context& context,
                                            const std::function<void(std::uint64_t)>& progress) {
  constexpr std::size_t batch = 10'000;
  EventVerifier verifier;
  std::vector<StoredEvent> events;
  const auto read = [&](std::uint64_t after, std::vector<StoredEvent>& into) {
    return ledger_->read_long(context, "verify the events", [&](Reader& reader) -> Status {
      DVDI_TRY(into, reader.events(after, batch));
      return {};
    });
  };
  const auto verify = [&]() -> Status {
    for (const StoredEvent& event : events) DVDI_CHECK(verifier.next(event));
    return {};
  };
  DVDI_CHECK(read(0, events));
  while (!events.empty()) {
    DVDI_CHECK(context.check("verify the events"));
    // The next are read while these are held against one another.
    std::vector<StoredEvent> next;
    Status has_read, is_whole;
    const std::uint64_t last = events.back().sequence;
    run_parallel({[&] { is_whole = verify(); }, [&] { has_read = read(last, next); }});
    DVDI_CHECK(is_whole);
    DVDI_CHECK(has_read);
    if (progress) progress(verifier.count());
    events = std::move(next);
  }
  DVDI_CHECK(verifier.finish());
  std::uint64_t highest = 0;
  std::vector<StoredEvent> rest;  // one that was written after we had read the last
  DVDI_CHECK(ledger_->read(context, "read the newest event", [&](Reader& reader) -> Status {
    DVDI_TRY(highest, reader.highest_event());
    DVDI_TRY(rest, reader.events(verifier.last(), 1));
    return {};
  }));
  if (verifier.last() < highest && rest.empty()) {
    return Error{
        .code = Code::corrupted,
        .message = fmt::format("events {} to {} are missing at the end", verifier.last() + 1, highest),
        .hint = "somebody removed the newest events"};
  }
  return Verified{
      .count = verifier.count(), .first = verifier.first(), .last = verifier.last(), .head = verifier.head()};
}

Result<Compared> Engine::compare_events(const Context& context, const std::string& sink) {
  Confirmed confirmed;  // first: meanwhile the sink only gets more
  DVDI_CHECK(ledger_->read(context, "read how far a sink is", [&](Reader& reader) -> Status {
    DVDI_TRY(confirmed, confirmed_by(reader, sink));
    return {};
  }));
  DVDI_TRY(const SinkHead head, sinks_->head(context, sink));
  const bool rotates = std::ranges::any_of(config_.sinks, [&](const SinkSettings& one) {
    return one.name == sink && std::holds_alternative<FileSinkSettings>(one.kind);
  });
  Compared compared;
  DVDI_CHECK(ledger_->read_long(context, "compare events with a sink", [&](Reader& reader) -> Status {
    DVDI_TRY(compared, compare_with_sink(reader, sink, confirmed, head, rotates));
    return {};
  }));
  return compared;
}

Result<UsageReport> Engine::usage(const Context& context, const UsageQuery& query,
                                  const UsageProgress& progress) {
  return usage_report(context, *ledger_, query, progress);
}

}  // namespace dvdi
