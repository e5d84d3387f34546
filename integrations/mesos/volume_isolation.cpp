#include "volume_isolation.h"

#include <algorithm>
#include <utility>

namespace dvdi_mesos {

namespace {

constexpr std::size_t max_waiting = 10000;      // calls of one kind
constexpr std::size_t adopted_in_a_call = 100;  // mounts

Outcome failure(std::string text) {
  Outcome outcome;
  outcome.kind = Outcome::Kind::failed;
  outcome.text = std::move(text);
  return outcome;
}

Outcome discarded() {
  Outcome outcome;
  outcome.kind = Outcome::Kind::discarded;
  return outcome;
}

// Waiting can help: the daemon is away, starts, is at its limits, or went away in the middle.
bool may_pass(const Reply& reply) {
  return reply.code == DVDI_UNAVAILABLE || reply.code == DVDI_DEADLINE_EXCEEDED ||
         reply.code == DVDI_RESOURCE_EXHAUSTED || reply.outcome == DVDI_OUTCOME_UNKNOWN;
}

Reply good() { return {}; }

Reply bad_answer(const std::string& what) {
  Reply reply;
  reply.code = DVDI_INTERNAL;
  reply.text = what;
  return reply;
}

std::string number_of(std::size_t count, const char* one) {
  return std::to_string(count) + " " + one + (count == 1 ? "" : "s");
}

}  // namespace

struct VolumeIsolation::Recovery {
  Call call;
  Done done;                 // null: nobody waits
  std::string first;         // a container with external volumes
  std::size_t external = 0;  // so many have
  bool former = false;       // the first isolator's list is still to be read
  Time until;
  std::chrono::milliseconds wait;
  bool warned = false;
};

struct VolumeIsolation::Preparing {
  std::string key;
  std::string document;
  std::string config;
  bool fresh = false;  // it was not known before
  Call call;
  Done done;
};

struct VolumeIsolation::Cleanup {
  std::string key;
  std::string document;
  Done done;  // null: done for the caller, or nobody waits
  Call call;
  Time until;
  std::chrono::milliseconds wait;
  bool warned = false;
};

VolumeIsolation::VolumeIsolation(Parameters parameters, AgentFlags flags, std::unique_ptr<Daemon> daemon,
                                 Seams seams)
    : parameters_(std::move(parameters)),
      flags_(std::move(flags)),
      daemon_(std::move(daemon)),
      seams_(std::move(seams)),
      recovers_(1, max_waiting),
      prepares_(parameters_.threads, max_waiting),
      isolates_(parameters_.threads, max_waiting),
      cleanups_(parameters_.threads, max_waiting) {
  const std::string& work_dir = parameters_.work_dir.empty() ? flags_.work_dir : parameters_.work_dir;
  if (!work_dir.empty()) owner_ = real_path(work_dir);
}

VolumeIsolation::~VolumeIsolation() {
  // All before any goes: a job of one may queue in another.
  WorkerPool* const pools[] = {&recovers_, &prepares_, &isolates_, &cleanups_};
  for (WorkerPool* pool : pools) pool->close();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    for (const Call& one : running_) one->cancel();
  }
  for (WorkerPool* pool : pools) pool->stop();
}

Reply VolumeIsolation::ask(const char* method, const std::string& path, const std::string& body,
                           std::int64_t timeout_ms, const Call& call) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) call->cancel();
    running_.insert(call);
  }
  Reply reply = daemon_->call(method, path, body, timeout_ms, *call);
  const std::lock_guard<std::mutex> lock(mutex_);
  running_.erase(call);
  return reply;
}

// A daemon that is restarted in the middle of a call: the same call again has the same answer and no new
// effect.
Reply VolumeIsolation::ask_again_where_unknown(const std::string& path, const std::string& body,
                                               std::int64_t timeout_ms, const Call& call) {
  const Time until = seams_.now() + std::chrono::milliseconds(timeout_ms);
  Reply reply = ask("POST", path, body, timeout_ms, call);
  const std::int64_t left = left_until(until);
  if (reply.code != DVDI_UNAVAILABLE || reply.outcome != DVDI_OUTCOME_UNKNOWN || left == 0 ||
      call->cancelled()) {
    return reply;
  }
  reply = ask("POST", path, body, left, call);
  // Of the first one nothing is known, whatever became of the second.
  if (reply.code != DVDI_OK) reply.outcome = DVDI_OUTCOME_UNKNOWN;
  return reply;
}

std::string VolumeIsolation::explain(const Reply& reply) const {
  if (reply.code != DVDI_UNAVAILABLE) return "dvdid: " + reply.text;
  return "dvdid is away, or cannot serve, at '" + daemon_->where() + "': " + reply.text;
}

std::int64_t VolumeIsolation::left_until(Time until) const {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - seams_.now());
  return std::max<std::int64_t>(left.count(), 0);
}

std::chrono::milliseconds VolumeIsolation::longer(std::chrono::milliseconds wait) const {
  return std::min(wait * 2, seams_.longest_wait);
}

// The agent's work directory: of its flags, or of the first sandbox that is seen.
std::string VolumeIsolation::owner_of(const std::string& sandbox) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!owner_.empty()) return owner_;
  }
  const std::string work_dir = work_dir_of_sandbox(sandbox);
  const std::string real = work_dir.empty() ? std::string() : real_path(work_dir);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (owner_.empty()) owner_ = real;
  return owner_;
}

bool VolumeIsolation::owner_is_known() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return !owner_.empty();
}

bool VolumeIsolation::knows(const std::string& key) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return known_.count(key) != 0;
}

// --- recover ---

Call VolumeIsolation::recover(const std::vector<std::string>& states, const std::vector<std::string>& orphans,
                              const Done& done) {
  auto recovery = std::make_shared<Recovery>();
  recovery->call = std::make_shared<Cancellation>();
  recovery->wait = seams_.first_wait;
  recovery->until = seams_.now() + std::chrono::milliseconds(parameters_.recover_wait_ms);
  std::vector<LiveContainer> live;
  live.reserve(states.size());
  for (const std::string& state : states) live.push_back(live_container(state, parameters_.rules));
  if (!live.empty()) owner_of(live.front().directory);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const LiveContainer& one : live) {
      if (!one.external) continue;
      known_.insert(one.key);
      if (recovery->external++ == 0) recovery->first = one.key;
    }
    recovery_owed_ = true;
    live_ = std::move(live);
    orphans_.clear();
    for (const std::string& one : orphans) orphans_.emplace(container_key(one), one);
    asked_ = false;
  }
  // What the first isolator's list says of live containers, a thread of ours reads.
  recovery->former = has_former_state(parameters_.first_isolator_state);
  if (!recovery->former && parameters_.first_isolator_state_given &&
      !parameters_.first_isolator_state.empty()) {
    seams_.warn("there is no list of the first DVDI isolator's mounts at '" +
                parameters_.first_isolator_state + "'");
  }
  if (recovery->external != 0 || recovery->former) {
    recovery->done = done;
  } else {
    done({});
  }
  if (!recovers_.run([this, recovery] { recover_job(recovery); })) {
    let_go_of_waiting();
    if (recovery->done) recovery->done(failure("no thread can be made for recover"));
  }
  return recovery->call;
}

// False: it cannot be, which is the end of this recovery.
bool VolumeIsolation::read_former(Recovery& recovery) {
  const std::string& path = parameters_.first_isolator_state;
  std::vector<FormerMount> former;
  std::string error;
  if (!read_former_state(path, former, error)) {
    recovery.done(
        failure("the list of mounts that the first DVDI isolator left, '" + path + "', " + error +
                ". Volumes of live containers may be in it, so the agent does not come up. See "
                "what is mounted (/proc/mounts, the driver's own list), then move the file away, or "
                "set the module parameter first_isolator_state to none, and start the agent"));
    return false;
  }
  recovery.former = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (LiveContainer& one : live_) {
      const bool counted = one.external;
      if (!add_former_mounts(one, former)) continue;
      known_.insert(one.key);
      if (!counted && recovery.external++ == 0) recovery.first = one.key;
    }
    former_ = former;
    former_read_ = true;
  }
  seams_.warn("the first DVDI isolator's list '" + path + "' has " + number_of(former.size(), "mount"));
  if (recovery.external == 0) {
    recovery.done({});
    recovery.done = nullptr;
  }
  return true;
}

void VolumeIsolation::recover_job(const std::shared_ptr<Recovery>& recovery) {
  if (recovery->former && !read_former(*recovery)) return;
  if (recovery->done && !owner_is_known()) {
    recovery->done(failure("the agent's work directory is not known: set the module parameter work_dir"));
    return;
  }
  const Reply reply = recover_once(recovery->call, Time::max());
  if (reply.code == DVDI_OK) {
    if (recovery->done) recovery->done({});
    return;
  }
  if (recovery->call->cancelled()) {  // given up, or the end of the object
    if (recovery->done) recovery->done(discarded());
    return;
  }
  if (recovery->done && (!may_pass(reply) || seams_.now() >= recovery->until)) {
    recovery->done(failure(
        explain(reply) + ". " + number_of(recovery->external, "live container") + " of this agent (" +
        recovery->first + (recovery->external == 1 ? ")" : ", for example)") +
        " with external volumes cannot be recovered without it, so the agent does not come up. Start dvdid "
        "(systemctl start dvdid.socket; `dvdi doctor` says what is wrong), then the agent; the tasks go on "
        "meanwhile. How long the agent waits is the module parameter recover_wait"));
    return;
  }
  if (!recovery->warned) seams_.warn("recover is not complete and is tried again: " + explain(reply));
  recovery->warned = true;
  const std::chrono::milliseconds wait = recovery->wait;
  recovery->wait = longer(wait);
  recovers_.run_later([this, recovery] { recover_job(recovery); }, wait);
}

// `live`: the containers that dvdid is about to be told of. What is nobody's is listed, for the operator.
Reply VolumeIsolation::adopt_former(const std::vector<FormerMount>& former, const std::set<std::string>& live,
                                    const Call& call) {
  std::vector<std::string> sentences;
  std::vector<FormerMount> placed;
  for (const FormerMount& one : former) {
    if (!one.mount_point.empty()) {
      placed.push_back(one);
    } else {
      sentences.push_back("the first isolator's list does not say where volume '" + one.volume +
                          "' of driver '" + one.driver + "' is mounted for container " + one.container);
    }
  }
  for (std::size_t begin = 0; begin < placed.size(); begin += adopted_in_a_call) {
    const std::size_t end = std::min(begin + adopted_in_a_call, placed.size());
    const std::vector<FormerMount> part(placed.begin() + static_cast<std::ptrdiff_t>(begin),
                                        placed.begin() + static_cast<std::ptrdiff_t>(end));
    Reply reply = ask("POST", "/v1/adopt", adopt_document(parameters_.first_isolator_state, part),
                      parameters_.recover_timeout_ms, call);
    if (reply.code != DVDI_OK) {
      reply.text = "the mounts of the first DVDI isolator's list '" + parameters_.first_isolator_state +
                   "' cannot be handed over (move it away, or set the module parameter "
                   "first_isolator_state to none, to go on without them): " +
                   reply.text;
      return reply;
    }
    std::vector<AdoptedMount> adopted;
    if (!read_adopted(reply.body, adopted) || adopted.size() != part.size()) {
      return bad_answer("its answer does not say what it made of the first isolator's mounts");
    }
    for (std::size_t i = 0; i < part.size(); ++i) {
      const FormerMount& one = part[i];
      if (adopted[i].there && live.count(one.container) != 0) continue;
      std::string said = "the first isolator mounted volume '" + one.volume + "' of driver '" + one.driver +
                         "' at '" + one.mount_point + "' for container " + one.container;
      said += adopted[i].there ? ", which is not alive: it stays until a container asks for the volume, or "
                                 "`dvdi volume release " +
                                     one.driver + "/" + one.volume + "` takes it away"
                               : ", and dvdid has not adopted it: " + adopted[i].reason;
      sentences.push_back(std::move(said));
    }
  }
  for (const std::string& one : sentences) seams_.warn(one);
  return good();
}

// Tells dvdid of the agent's restart, unless that is done. What dvdid has of this agent its books say: a live
// container that is in them counts, too, if its volumes do not show in the agent's list; one without volumes
// that is not in them must not get in, as nobody would take it out again.
Reply VolumeIsolation::recover_once(const Call& call, Time until) {
  std::string owner;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    while (recovering_) {
      if (call->cancelled() || stopping_ || seams_.now() >= until) {
        Reply reply;
        reply.code = DVDI_UNAVAILABLE;
        reply.outcome = DVDI_OUTCOME_NOT_SENT;
        reply.text = "it is still being told of the agent's restart";
        return reply;
      }
      recovered_.wait_for(lock, std::chrono::milliseconds(100));  // a cancellation wakes nobody
    }
    if (!recovery_owed_) return good();
    owner = owner_;
    recovering_ = !owner.empty();
  }
  if (owner.empty()) {
    // Without a work directory there is no container yet: the first one's sandbox tells.
    let_go_of_waiting();
    return good();
  }
  const Reply reply = tell_of_restart(owner, call);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    recovering_ = false;
    recovered_.notify_all();
  }
  if (reply.code != DVDI_OK) let_go_of_waiting();
  return reply;
}

// dvdid was asked and did not answer: whether it has those containers is not known, and most have no volumes.
void VolumeIsolation::let_go_of_waiting() {
  std::vector<Done> waiting;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    asked_ = true;
    for (auto& one : ended_) {
      std::move(one.second.waiting.begin(), one.second.waiting.end(), std::back_inserter(waiting));
      one.second.waiting.clear();
    }
  }
  for (const Done& done : waiting) done({});
}

Reply VolumeIsolation::tell_of_restart(const std::string& owner, const Call& call) {
  Reply reply = ask("GET", "/v1/containers", {}, parameters_.recover_timeout_ms, call);
  if (reply.code != DVDI_OK) return reply;
  std::set<std::string> books;
  if (!known_containers(reply.body, owner, books)) return bad_answer("its answer has no list of containers");
  std::vector<LiveContainer> live;
  std::vector<std::string> orphans;
  std::vector<FormerMount> former;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::copy_if(live_.begin(), live_.end(), std::back_inserter(live),
                 [&](const LiveContainer& one) { return one.external || books.count(one.key) != 0; });
    for (const auto& one : orphans_) orphans.push_back(one.second);
    former = former_;
  }
  if (!former.empty()) {
    std::set<std::string> keys;
    for (const LiveContainer& one : live) keys.insert(one.key);
    reply = adopt_former(former, keys, call);
    if (reply.code != DVDI_OK) return reply;
  }
  if (!books.empty() || !live.empty()) {
    reply = ask("POST", "/v1/recover", recover_document(owner, live, orphans), parameters_.recover_timeout_ms,
                call);
    if (reply.code != DVDI_OK) return reply;
    for (const std::string& one : read_recovered(reply.body)) seams_.warn(one);
  }
  settle_recovery(books);
  return good();
}

void VolumeIsolation::settle_recovery(const std::set<std::string>& books) {
  std::map<std::string, Ended> ended;
  std::string owner;
  bool former_read = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    recovery_owed_ = false;
    owner = owner_;
    for (const LiveContainer& one : live_) {
      if (books.count(one.key) != 0) known_.insert(one.key);
    }
    for (const auto& one : orphans_) {
      if (books.count(one.first) != 0 && ended_.count(one.first) == 0) known_.insert(one.first);
    }
    ended.swap(ended_);
    live_.clear();
    orphans_.clear();
    former_.clear();
    former_read = std::exchange(former_read_, false);
  }
  std::string error;
  if (former_read && !set_former_state_aside(parameters_.first_isolator_state, error)) {
    seams_.warn("dvdid has what the first isolator left, but its list '" + parameters_.first_isolator_state +
                "' cannot be renamed: " + error + ". Remove it, or it is read again");
  }
  // They ended while dvdid was told that they live, or are orphans: it may have kept them for that.
  for (const auto& one : ended) {
    const std::vector<Done>& waiting = one.second.waiting;
    const auto all_done = [waiting](const Outcome& outcome) {
      for (const Done& done : waiting) done(outcome);
    };
    if (books.count(one.first) != 0) {
      cleanup_later(owner, one.second.id, all_done);
    } else {
      all_done({});
    }
  }
}

// --- prepare and isolate ---

Call VolumeIsolation::prepare(const std::string& container_id, const std::string& container_config,
                              const Done& done) {
  Preparing preparing;
  preparing.call = std::make_shared<Cancellation>();
  preparing.done = done;
  preparing.config = container_config;
  const std::string owner = owner_of(sandbox_of(container_config));
  PrepareDocument document =
      prepare_document(owner, container_id, container_config, flags_.sandbox_directory, parameters_.rules);
  if (document.what == PrepareDocument::What::nothing) {
    done({});
    return preparing.call;
  }
  preparing.key = container_key(container_id);
  if (document.what == PrepareDocument::What::call && owner.empty()) {
    document = {PrepareDocument::What::refused,
                "the agent's work directory is not known: set the module parameter work_dir"};
  } else if (document.what == PrepareDocument::What::call && preparing.key.empty()) {
    document = {PrepareDocument::What::refused, "the agent's ContainerID cannot be read"};
  }
  if (document.what == PrepareDocument::What::refused) {
    done(failure(std::move(document.text)));
    return preparing.call;
  }
  preparing.document = std::move(document.text);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    preparing.fresh = known_.insert(preparing.key).second;
  }
  if (!prepares_.run([this, preparing] { prepare_job(preparing); })) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (preparing.fresh) known_.erase(preparing.key);
    }
    done(failure("so many prepare calls wait for dvdid that no further one can"));
  }
  return preparing.call;
}

void VolumeIsolation::prepare_job(const Preparing& preparing) {
  const Time until = seams_.now() + std::chrono::milliseconds(parameters_.prepare_timeout_ms);
  Reply reply;
  if (preparing.call->cancelled()) {
    reply.code = DVDI_CANCELLED;
    reply.outcome = DVDI_OUTCOME_NOT_SENT;
  } else {
    reply = recover_once(preparing.call, until);
    // That was another call: of this one nothing was sent.
    reply.outcome = DVDI_OUTCOME_NOT_SENT;
  }
  if (reply.code == DVDI_OK) {
    reply = ask_again_where_unknown("/v1/prepare", preparing.document,
                                    std::max<std::int64_t>(left_until(until), 1), preparing.call);
  }
  if (reply.code != DVDI_OK) {
    if (reply.outcome == DVDI_OUTCOME_NOT_SENT && preparing.fresh) {
      const std::lock_guard<std::mutex> lock(mutex_);
      known_.erase(preparing.key);
    }
    preparing.done(preparing.call->cancelled() ? discarded() : failure(explain(reply)));
    return;
  }
  Outcome outcome;
  std::string wrong;
  if (read_launch_info(reply.body, outcome.launch_info, wrong)) {
    wrong = check_sandbox_place(preparing.config, flags_.sandbox_directory, outcome.launch_info,
                                parameters_.rules);
  }
  if (!wrong.empty()) {
    preparing.done(failure(wrong));
    return;
  }
  // Without mounts (volumes for the host only) there is nothing for the launcher to do.
  outcome.has_launch_info = !outcome.launch_info.mounts.empty();
  preparing.done(outcome);
}

Call VolumeIsolation::isolate(const std::string& container_id, std::int64_t pid, const Done& done) {
  Call call = std::make_shared<Cancellation>();
  if (!knows(container_key(container_id))) {
    done({});
    return call;
  }
  const std::string document = isolate_document(owner_of({}), container_id, pid);
  const bool accepted = isolates_.run([this, call, document, done] {
    const Reply reply =
        ask_again_where_unknown("/v1/isolate", document, parameters_.isolate_timeout_ms, call);
    if (reply.code == DVDI_OK) {
      done({});
    } else {
      done(call->cancelled() ? discarded() : failure(explain(reply)));
    }
  });
  if (!accepted) done(failure("so many isolate calls wait for dvdid that no further one can"));
  return call;
}

// --- cleanup ---

void VolumeIsolation::cleanup(const std::string& container_id, const Done& done) {
  const std::string key = container_key(container_id);
  std::string owner;
  bool waits = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    owner = owner_;
    if (recovery_owed_) {
      Ended& ended = ended_[key];
      ended.id = container_id;
      const bool listed =
          orphans_.count(key) != 0 || !ended.waiting.empty() ||
          std::any_of(live_.begin(), live_.end(), [&](const LiveContainer& one) { return one.key == key; });
      // Until dvdid has been asked, it may have what the agent's list shows no volumes of.
      waits = listed && !asked_ && known_.count(key) == 0;
      if (waits) ended.waiting.push_back(done);
      live_.erase(std::remove_if(live_.begin(), live_.end(),
                                 [&](const LiveContainer& one) { return one.key == key; }),
                  live_.end());
    }
  }
  if (waits) return;
  if (!knows(key)) {
    done({});
    return;
  }
  cleanup_later(owner, container_id, done);
}

void VolumeIsolation::cleanup_later(const std::string& owner, const std::string& container_id,
                                    const Done& done) {
  auto cleanup = std::make_shared<Cleanup>();
  cleanup->key = container_key(container_id);
  cleanup->document = cleanup_document(owner, container_id);
  cleanup->done = done;
  cleanup->call = std::make_shared<Cancellation>();
  cleanup->until = seams_.now() + std::chrono::milliseconds(parameters_.cleanup_wait_ms);
  cleanup->wait = seams_.first_wait;
  cleanups_.run_later([this, cleanup] { cleanup_job(cleanup); }, std::chrono::milliseconds(0));
}

void VolumeIsolation::cleanup_job(const std::shared_ptr<Cleanup>& cleanup) {
  const Reply reply =
      ask("POST", "/v1/cleanup", cleanup->document, parameters_.cleanup_timeout_ms, cleanup->call);
  if (reply.code == DVDI_OK) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      known_.erase(cleanup->key);
    }
    if (cleanup->done) cleanup->done({});
    return;
  }
  if (cleanup->call->cancelled()) return;  // the agent ends
  const std::chrono::milliseconds wait = cleanup->wait;
  if (!cleanup->warned || wait == seams_.longest_wait) {
    seams_.warn("the cleanup of container " + cleanup->key + " is tried again: " + explain(reply));
  }
  cleanup->warned = true;
  if (cleanup->done && parameters_.cleanup_wait_ms > 0 && seams_.now() >= cleanup->until) {
    seams_.warn("the cleanup of container " + cleanup->key +
                " goes on without its caller, who has waited for as long as cleanup_wait says");
    cleanup->done({});
    cleanup->done = nullptr;
  }
  cleanup->wait = longer(wait);
  cleanups_.run_later([this, cleanup] { cleanup_job(cleanup); }, wait);
}

}  // namespace dvdi_mesos
