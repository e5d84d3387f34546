// VolumeIsolation, what follows a restart of the agent.
#include <algorithm>
#include <utility>

#include "volume_isolation.h"

namespace dvdi_mesos {

namespace {

constexpr std::size_t adopted_in_a_call = 100;  // mounts

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
    if (recovery->done) recovery->done(Outcome::failure("no thread can be made for recover"));
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
        Outcome::failure("the list of mounts that the first DVDI isolator left, '" + path + "', " + error +
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
    recovery->done(
        Outcome::failure("the agent's work directory is not known: set the module parameter work_dir"));
    return;
  }
  const Reply reply = recover_once(recovery->call, Time::max());
  if (reply.code == DVDI_OK) {
    if (recovery->done) recovery->done({});
    return;
  }
  if (recovery->call->cancelled()) {  // given up, or the end of the object
    if (recovery->done) recovery->done(Outcome::discarded());
    return;
  }
  if (recovery->done && (!may_pass(reply) || seams_.now() >= recovery->until)) {
    recovery->done(Outcome::failure(
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

}  // namespace dvdi_mesos
