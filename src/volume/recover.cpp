// Manager::recover: the books of one owner, held against what that owner says is alive.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/sync.h"
#include "linux/mount_holders.h"
#include "volume/books.h"
#include "volume/manager_state.h"
#include "volume/work.h"

namespace dvdi::volume {

namespace {

// Of containers in one transaction: others that want to write wait no longer than these take.
constexpr std::size_t batch = 500;
constexpr std::size_t unmounts_at_once = 64;
constexpr std::size_t unmounts_at_once_of_a_driver = 8;

std::string dead_reason() { return "its owner does not know it, and it is proved dead"; }

std::size_t depth(const std::string& id) { return static_cast<std::size_t>(std::ranges::count(id, '.')); }

// Why a container may be alive; "" if its processes prove that it is not. `self` is this process.
std::string may_live(const ContainerRow& row, const ProcessIdentity& self) {
  // Only proof counts: a process that cannot be looked at is alive. Whether this process works on it, its
  // lock tells.
  if (row.engine != self && process_runs(row.engine).value_or(true)) {
    return fmt::format("process {} works on it", row.engine.pid);
  }
  if (row.init && process_runs(*row.init).value_or(true)) {
    return fmt::format("its first process {} runs", row.init->pid);
  }
  if (!row.init && row.state == ContainerState::running) return "its first process is not known";
  return {};
}

bool same(const ContainerRow& one, const ContainerRow& other) {
  return one.state == other.state && one.engine == other.engine && one.init == other.init;
}

}  // namespace

class Recovery {
 public:
  Recovery(Manager::State& state, const Context& context, const RecoverRequest& request, bool may_drop)
      : state_(state), context_(context), request_(request), may_drop_(may_drop) {}

  Result<Recovered> run() {
    DVDI_TRY(self_, identify_process(::getpid()));
    DVDI_CHECK(read());
    DVDI_CHECK(note_live());
    DVDI_CHECK(take_in_unknown());
    DVDI_CHECK(find_dead());
    DVDI_CHECK(drop());
    DVDI_CHECK(note_kept());
    unmount();
    return std::move(recovered_);
  }

 private:
  struct Candidate {
    ContainerRow row;
    std::string alive;  // why it is, or may be
    std::vector<ReferenceRow> references;
    bool staged = false;
  };

  Status read();
  Status note_live();
  Status take_in_unknown();
  Status take_in(Transaction& transaction, const LiveContainer& live, const MountTable& table,
                 std::map<VolumeKey, std::string>& doubtful, const std::set<VolumeKey>& locked,
                 std::vector<Recovered::Missing>& missing);
  Result<std::string> adopt(Transaction& transaction, const VolumeKey& volume, const MountTable& table,
                            bool locked);
  Status find_dead();
  Status look_into_namespaces();
  Status drop();
  Result<std::string> drop_one(Transaction& transaction, const Candidate& one);
  Status note_kept();
  void unmount();

  // Ancestors of a container that stays, stay.
  void keep_ancestors(const std::string& id, const std::string& why) {
    for (auto dot = id.rfind('.'); dot != std::string::npos && dot > 0; dot = id.rfind('.', dot - 1)) {
      blocked_.try_emplace(id.substr(0, dot), why);
    }
  }
  void keep(const std::string& id, std::string reason) {
    keep_ancestors(id, fmt::format("container {} in it is kept", id));
    recovered_.kept.push_back({id, std::move(reason)});
  }

  Manager::State& state_;
  const Context& context_;
  const RecoverRequest& request_;
  const bool may_drop_;
  ProcessIdentity self_;
  std::unordered_map<std::string, ContainerRow> known_;  // of this owner, by id; ended ones are not in it
  std::vector<Candidate> candidates_;                    // children before their parents
  std::unordered_map<std::string, std::string> blocked_;
  std::unordered_set<std::string> chain_first_;  // ids below which the chain has something to clean up
  std::vector<Manager::State::TakeDown> to_take_down_;
  Recovered recovered_;
};

Status Recovery::read() {
  std::unordered_set<std::string_view> named;
  for (const LiveContainer& one : request_.live) named.insert(one.id);
  for (const std::string& id : request_.orphans) named.insert(id);
  for (const std::string_view id : named)
    keep_ancestors(std::string(id), fmt::format("container {} in it is alive", id));
  return state_.read(context_, "read the containers", [&](Reader& reader) -> Status {
    DVDI_TRY(auto containers, reader.live_containers_of(request_.owner));
    DVDI_TRY(const auto staged, reader.staged());
    std::set<ContainerKey> with_staged;
    for (const StagedRow& row : staged) with_staged.insert(row.container);
    for (ContainerRow& row : containers) {
      if (!named.contains(row.key.id)) {
        Candidate one{.row = row, .alive = {}, .references = {}, .staged = with_staged.contains(row.key)};
        DVDI_TRY(one.references, reader.references_of(row.key));
        candidates_.push_back(std::move(one));
      }
      std::string id = row.key.id;
      known_.emplace(std::move(id), std::move(row));
    }
    std::ranges::stable_sort(candidates_, std::greater(),
                             [](const Candidate& one) { return depth(one.row.key.id); });
    return {};
  });
}

// Containers that the ledger knows keep what they have. What their owner says of their process is recorded.
Status Recovery::note_live() {
  std::vector<ContainerRow> changed;
  const auto look = [&](const std::string& id, pid_t pid) {
    const auto found = known_.find(id);
    if (found == known_.end() || found->second.state == ContainerState::cleaning) return;
    ContainerRow row = found->second;
    bool differs = !row.note.empty();
    row.note.clear();
    const bool started = row.state == ContainerState::prepared || row.state == ContainerState::running;
    if (pid > 0 && started && (!row.init || row.init->pid != pid)) {
      if (const auto init = identify_process(pid)) {
        row.init = *init;
        differs = true;
      }
    }
    if (differs) changed.push_back(std::move(row));
  };
  for (const LiveContainer& one : request_.live) look(one.id, one.init);
  for (const std::string& id : request_.orphans) look(id, 0);
  for (std::size_t begin = 0; begin < changed.size(); begin += batch) {
    DVDI_CHECK(state_.write(context_, "record what is alive", [&](Transaction& transaction) -> Status {
      for (std::size_t i = begin; i < std::min(begin + batch, changed.size()); ++i) {
        ContainerRow row = changed[i];
        const ContainerRow& before = known_.at(row.key.id);
        DVDI_TRY(const auto now, transaction.container(row.key));
        if (!now || !same(*now, before)) continue;  // somebody works on it
        if (row.init == before.init) {
          DVDI_CHECK(transaction.put(row));
        } else {
          DVDI_CHECK(change_container(transaction, row, ContainerState::running, context_.trace_id(),
                                      "its owner names its process"));
        }
      }
      return {};
    }));
  }
  return {};
}

// The mount of a volume that a live container has, as far as the books tell. What is wrong with it; "": it is
// mounted.
Result<std::string> Recovery::adopt(Transaction& transaction, const VolumeKey& volume,
                                    const MountTable& table, bool locked) {
  using Pending = MountRow::Pending;
  DVDI_TRY(auto row, transaction.mount(volume));
  if (!row) return std::string("no mount of it is known");
  const MountEntry* entry = row->mount_point.empty() ? nullptr : table.at(row->mounted_at());
  const bool whole = row->identity ? entry != nullptr && identity_of(*entry) == *row->identity
                                   : row->pending != Pending::found;
  if (row->state == MountState::mounted) {
    return whole ? std::string() : fmt::format("nothing of it is mounted at {}", row->mount_point);
  }
  const bool may_adopt = row->pending == Pending::found || row->pending == Pending::refused;
  if (row->state != MountState::unknown || !may_adopt || !locked) {
    return fmt::format("its mount is {}", mount_state_name(row->state));
  }
  if (!whole) return fmt::format("nothing of it is mounted at {}", row->mount_point);
  DVDI_CHECK(note_volume(transaction, volume, false, {}, context_.trace_id()));
  DVDI_CHECK(transition(transaction, *row, MountState::mounted,
                        {.reason = "a live container has it", .trace_id = context_.trace_id()}));
  DVDI_CHECK(settle_debt(transaction, volume, context_.trace_id(), true));
  return std::string();
}

Status Recovery::take_in(Transaction& transaction, const LiveContainer& live, const MountTable& table,
                         std::map<VolumeKey, std::string>& doubtful, const std::set<VolumeKey>& locked,
                         std::vector<Recovered::Missing>& missing) {
  ContainerRow row{.key = {request_.owner, live.id},
                   .digest = "recovered",
                   .attribution = live.attribution,
                   .directory = live.directory,
                   .engine = self_,
                   .since = transaction.now()};
  if (live.init > 0) {
    if (const auto init = identify_process(live.init)) row.init = *init;
  }
  DVDI_TRY(const auto before, transaction.container(row.key));
  if (before && before->state != ContainerState::ended && before->state != ContainerState::cleaning)
    return {};
  if (before) {
    // Not forgotten but cleaned up, as somebody asked: the list is older than that.
    for (const Request& request : live.volumes) {
      missing.push_back(
          {live.id, request.volume.driver, request.volume.name, "the container was cleaned up already"});
    }
    return {};
  }
  DVDI_CHECK(change_container(transaction, row, ContainerState::running, context_.trace_id(),
                              "its owner says that it lives, and the ledger did not know it"));
  std::set<VolumeKey> once;
  for (const Request& request : live.volumes) {
    if (!once.insert(request.volume).second) continue;
    auto known = doubtful.find(request.volume);
    if (known == doubtful.end()) {
      DVDI_TRY(std::string doubt, adopt(transaction, request.volume, table, locked.contains(request.volume)));
      known = doubtful.emplace(request.volume, std::move(doubt)).first;
    }
    // Also where no mount is found: nobody must take the volume away from under it.
    DVDI_CHECK(add_reference(transaction, row, request, state_.policy, context_.trace_id()));
    if (!known->second.empty()) {
      missing.push_back({live.id, request.volume.driver, request.volume.name, known->second});
    }
  }
  return {};
}

Status Recovery::take_in_unknown() {
  std::vector<const LiveContainer*> unknown;
  std::unordered_set<std::string_view> once;
  for (const LiveContainer& one : request_.live) {
    const auto found = known_.find(one.id);
    const bool known = found != known_.end() && found->second.state != ContainerState::cleaning;
    if (!known && once.insert(one.id).second) unknown.push_back(&one);
  }
  if (unknown.empty()) return {};
  DVDI_TRY(const auto table, state_.mounts.now());
  std::map<VolumeKey, std::string> doubtful;  // what is wrong with it, or ""
  for (std::size_t begin = 0; begin < unknown.size(); begin += batch) {
    const std::size_t end = std::min(begin + batch, unknown.size());
    // Nobody may be at work on a volume while it is taken over. One that is taken is left as it is.
    std::map<VolumeKey, KeyedLocks::Held> locks;
    std::set<VolumeKey> locked;
    for (std::size_t i = begin; i < end; ++i) {
      for (const Request& request : unknown[i]->volumes) {
        if (doubtful.contains(request.volume) || locked.contains(request.volume)) continue;
        DVDI_TRY(auto lock, state_.parts.volume_locks.try_acquire(lock_name(request.volume)));
        if (!lock) continue;
        locks.emplace(request.volume, std::move(*lock));
        locked.insert(request.volume);
      }
    }
    std::map<VolumeKey, std::string> seen;
    std::vector<Recovered::Missing> missing;
    DVDI_CHECK(state_.write(context_, "take in live containers", [&](Transaction& transaction) -> Status {
      seen = doubtful;
      missing.clear();
      for (std::size_t i = begin; i < end; ++i) {
        DVDI_CHECK(take_in(transaction, *unknown[i], *table, seen, locked, missing));
      }
      return {};
    }));
    doubtful = std::move(seen);
    std::ranges::move(missing, std::back_inserter(recovered_.missing));
  }
  return {};
}

Status Recovery::find_dead() {
  if (!may_drop_) {
    for (Candidate& one : candidates_) {
      one.alive = request_.complete ? "something else could not be recovered: nothing is dropped now"
                                    : "its owner's list is not complete: nothing is dropped";
    }
    return {};
  }
  for (Candidate& one : candidates_) {
    DVDI_CHECK(context_.check("look for dead containers"));
    one.alive = may_live(one.row, self_);
  }
  return look_into_namespaces();
}

// A task's processes may outlive its first one: as long as one has the mounts in a namespace, they are used.
Status Recovery::look_into_namespaces() {
  std::vector<MountedTree> trees;
  std::vector<VolumeKey> volumes;
  std::map<VolumeKey, std::size_t> number;
  std::set<ContainerKey> dead;
  DVDI_CHECK(state_.read(context_, "read the mounts of dead containers", [&](Reader& reader) -> Status {
    for (const Candidate& one : candidates_) {
      if (!one.alive.empty()) continue;
      dead.insert(one.row.key);
      if (!one.row.init) continue;
      for (const ReferenceRow& reference : one.references) {
        if (number.contains(reference.volume)) continue;
        DVDI_TRY(const auto row, reader.mount(reference.volume));
        if (!row || !row->identity) continue;
        number[reference.volume] = trees.size();
        volumes.push_back(reference.volume);
        trees.push_back({.major = row->identity->major,
                         .minor = row->identity->minor,
                         .root = row->identity->root,
                         .mount_point = row->mounted_at()});
      }
    }
    return {};
  }));
  if (trees.empty()) return {};

  // Other containers that use the same volume have it in their namespaces by right.
  std::set<std::pair<std::size_t, std::uint64_t>> by_right;
  DVDI_CHECK(state_.read(context_, "read who else uses the volumes", [&](Reader& reader) -> Status {
    std::map<ContainerKey, std::optional<std::uint64_t>> namespaces;
    for (std::size_t i = 0; i < volumes.size(); ++i) {
      DVDI_TRY(const auto references, reader.references_to(volumes[i]));
      for (const ReferenceRow& reference : references) {
        if (dead.contains(reference.container)) continue;
        auto known = namespaces.find(reference.container);
        if (known == namespaces.end()) {
          DVDI_TRY(const auto other, reader.container(reference.container));
          std::optional<std::uint64_t> own;
          if (other && other->init && process_runs(*other->init).value_or(false)) {
            if (const auto found = mount_namespace_of(other->init->pid)) own = *found;
          }
          known = namespaces.emplace(reference.container, own).first;
        }
        if (known->second) by_right.emplace(i, *known->second);
      }
    }
    return {};
  }));
  const auto holders = find_mount_holders(
      context_, trees, [&](std::size_t tree, std::uint64_t one) { return by_right.contains({tree, one}); });
  for (Candidate& one : candidates_) {
    if (!one.alive.empty() || !one.row.init) continue;
    for (const ReferenceRow& reference : one.references) {
      const auto found = number.find(reference.volume);
      if (found == number.end()) continue;
      if (!holders) {
        one.alive = "whether its mounts are still in use cannot be told: " + holders.error().message;
      } else if ((*holders)[found->second].pid != 0) {
        one.alive = fmt::format("volume {}: {}", reference.volume.text(), (*holders)[found->second].text());
      }
      if (!one.alive.empty()) break;
    }
  }
  return {};
}

// Why it was kept after all; "": it has ended.
Result<std::string> Recovery::drop_one(Transaction& transaction, const Candidate& one) {
  DVDI_TRY(auto row, transaction.container(one.row.key));
  if (!row || row->state == ContainerState::ended) return std::string();
  if (!same(*row, one.row)) return std::string("it changed just now");
  DVDI_TRY(const auto references, transaction.references_of(row->key));
  for (const ReferenceRow& reference : references) {
    DVDI_CHECK(unrefer(transaction, *row, reference, context_.trace_id(), dead_reason()));
    DVDI_TRY(const bool others, transaction.is_referenced(reference.volume));
    if (others) continue;
    DVDI_CHECK(state_.let_go(transaction, reference.volume, {}, context_.trace_id(), to_take_down_,
                             recovered_.owed));
  }
  DVDI_CHECK(change_container(transaction, *row, ContainerState::ended, context_.trace_id(), dead_reason()));
  return std::string();
}

Status Recovery::drop() {
  for (std::size_t begin = 0; begin < candidates_.size(); begin += batch) {
    const std::size_t end = std::min(begin + batch, candidates_.size());
    std::vector<KeyedLocks::Held> locks;
    std::vector<const Candidate*> ready;
    for (std::size_t i = begin; i < end; ++i) {
      const Candidate& one = candidates_[i];
      const std::string& id = one.row.key.id;
      if (!one.alive.empty()) {
        keep(id, one.alive);
        continue;
      }
      if (const auto blocked = blocked_.find(id); blocked != blocked_.end()) {
        keep(id, blocked->second);
        continue;
      }
      if (one.staged || chain_first_.contains(id)) {
        for (auto dot = id.rfind('.'); dot != std::string::npos && dot > 0; dot = id.rfind('.', dot - 1)) {
          chain_first_.insert(id.substr(0, dot));
        }
        recovered_.to_clean_up.push_back(id);
        continue;
      }
      // A prepare, isolate or cleanup of it that runs just now has its lock; none begins while we have it.
      DVDI_TRY(auto lock, state_.parts.volume_locks.try_acquire(container_lock_name(one.row.key)));
      if (!lock) {
        keep(id, "a call for it is running");
        continue;
      }
      locks.push_back(std::move(*lock));
      ready.push_back(&one);
    }
    if (ready.empty()) continue;
    const auto take_down_before = to_take_down_.size();
    const auto owed_before = recovered_.owed.size();
    std::vector<std::pair<std::string, std::string>> kept;
    DVDI_CHECK(state_.write(context_, "drop dead containers", [&](Transaction& transaction) -> Status {
      to_take_down_.resize(take_down_before);
      recovered_.owed.resize(owed_before);
      kept.clear();
      for (const Candidate* one : ready) {
        // One of the same batch may have kept its parent.
        const std::string& id = one->row.key.id;
        const bool child_kept =
            std::ranges::any_of(kept, [&](const auto& other) { return other.first.starts_with(id + "."); });
        DVDI_TRY(std::string why,
                 child_kept ? Result<std::string>("a container in it is kept") : drop_one(transaction, *one));
        if (!why.empty()) kept.emplace_back(id, std::move(why));
      }
      return {};
    }));
    for (const Candidate* one : ready) {
      const std::string& id = one->row.key.id;
      const auto found = std::ranges::find(kept, id, &std::pair<std::string, std::string>::first);
      if (found == kept.end()) {
        recovered_.dropped.push_back(id);
      } else {
        keep(id, found->second);
      }
    }
  }
  return {};
}

// Visible in `dvdi inspect`, and an event where it is news.
Status Recovery::note_kept() {
  std::vector<const Recovered::Kept*> news;
  for (const Recovered::Kept& one : recovered_.kept) {
    const auto known = known_.find(one.id);
    if (known != known_.end() && known->second.note != one.reason) news.push_back(&one);
  }
  for (std::size_t begin = 0; begin < news.size(); begin += batch) {
    DVDI_CHECK(state_.write(context_, "record what is kept", [&](Transaction& transaction) -> Status {
      for (std::size_t i = begin; i < std::min(begin + batch, news.size()); ++i) {
        DVDI_TRY(auto row, transaction.container({request_.owner, news[i]->id}));
        if (!row || row->state == ContainerState::ended) continue;
        row->note = news[i]->reason;
        DVDI_CHECK(transaction.put(*row));
        Event event;
        event.type = "dvdi.container.kept";
        event.container = row->key;
        event.attribution = row->attribution;
        event.reason = row->note;
        event.trace_id = context_.trace_id();
        DVDI_CHECK(transaction.record(std::move(event)));
      }
      return {};
    }));
  }
  return {};
}

// A driver that hangs holds nobody up: its volumes have workers of their own, and what is not unmounted in
// time is owed, or still intended; either is settled later.
void Recovery::unmount() {
  if (to_take_down_.empty()) return;
  const Context bounded =
      context_.detached(std::min<Duration>(context_.remaining(), state_.policy.recover_wait));
  struct Queue {
    std::vector<const Manager::State::TakeDown*> volumes;
    std::size_t next = 0;
  };
  std::map<std::string, Queue> queues;
  for (const auto& one : to_take_down_) queues[one.volume.driver].volumes.push_back(&one);
  const std::size_t share = std::max<std::size_t>(1, unmounts_at_once / queues.size());
  Mutex mutex;
  std::vector<std::function<void()>> workers;
  for (auto& one_driver : queues) {
    Queue& queue = one_driver.second;
    const std::size_t count = std::min({share, unmounts_at_once_of_a_driver, queue.volumes.size()});
    for (std::size_t i = 0; i < count; ++i) {
      workers.emplace_back([&] {
        for (;;) {
          const Manager::State::TakeDown* one = nullptr;
          {
            const Lock lock(mutex);
            if (queue.next == queue.volumes.size()) return;
            one = queue.volumes[queue.next++];
          }
          std::string why = "there was no time to unmount it";
          if (bounded.check("unmount")) {
            auto lock = state_.parts.volume_locks.acquire(
                bounded, lock_name(one->volume),
                fmt::format("wait for the call that is running for volume {}", one->volume.text()));
            Result<std::optional<std::string>> done = std::optional<std::string>();
            if (!lock) {
              done = fail(std::move(lock).error());
            } else {
              Work work(state_.parts, state_.policy, state_.calls, state_.mounts, bounded, one->volume);
              done = work.take_down(one->mount_id, [](Transaction&) { return Status(); });
            }
            why = !done ? done.error().text() : done->value_or("");
          }
          if (why.empty()) continue;
          const Lock lock(mutex);
          recovered_.owed.push_back({one->volume.driver, one->volume.name, std::move(why)});
        }
      });
    }
  }
  run_parallel(std::move(workers));
}

Result<Recovered> Manager::recover(const Context& context, const RecoverRequest& request, bool may_unmount) {
  return Recovery(*state_, context, request, may_unmount && request.complete).run();
}

}  // namespace dvdi::volume
