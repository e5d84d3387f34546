#include "volume_isolation.h"

#include <algorithm>
#include <utility>

namespace dvdi_mesos {

namespace {

constexpr std::size_t max_waiting = 10000;  // calls of one kind

}  // namespace

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
    done(Outcome::failure(std::move(document.text)));
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
    done(Outcome::failure("so many prepare calls wait for dvdid that no further one can"));
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
    preparing.done(preparing.call->cancelled() ? Outcome::discarded() : Outcome::failure(explain(reply)));
    return;
  }
  Outcome outcome;
  std::string wrong;
  if (read_launch_info(reply.body, outcome.launch_info, wrong)) {
    wrong = check_sandbox_place(preparing.config, flags_.sandbox_directory, outcome.launch_info,
                                parameters_.rules);
  }
  if (!wrong.empty()) {
    preparing.done(Outcome::failure(wrong));
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
      done(call->cancelled() ? Outcome::discarded() : Outcome::failure(explain(reply)));
    }
  });
  if (!accepted) done(Outcome::failure("so many isolate calls wait for dvdid that no further one can"));
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
