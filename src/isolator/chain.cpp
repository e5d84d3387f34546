#include "isolator/chain.h"

#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <ranges>

#include "base/sha256.h"
#include "base/text.h"
#include "isolator/order.h"

namespace dvdi::isolator {

// shared_ptr for the two kinds of calls: whoever waits for a call reads its answer after the call has gone.
struct Chain::PrepareCall {
  std::string digest;
  std::stop_source cancel;    // by the caller or by cleanup: a Context holds one token
  bool cleanup_came = false;  // guarded by mutex_, as is everything below
  bool abandoned = false;     // it failed because its own caller gave up
  std::optional<Result<v1::ContainerLaunchInfo>> answer;  // once it has ended
};

struct Chain::CleanupCall {
  bool abandoned = false;
  std::optional<Result<std::vector<Owed>>> answer;
};

struct Chain::Entry {
  std::shared_ptr<PrepareCall> preparing;
  std::shared_ptr<CleanupCall> cleaning;  // set while it still waits for a prepare to end: no new one begins
  bool isolating = false;
};

namespace {

std::string shown(const ContainerKey& key) { return fmt::format("container '{}'", printable(key.text())); }

bool has_ended(const std::optional<ContainerRow>& row) { return !row || row->state == ContainerState::ended; }

Error conflict(const ContainerKey& key) {
  return Error{.code = Code::conflict,
               .message = fmt::format("preparing {}: it is known with another request", shown(key)),
               .hint = "clean it up first, or choose another container id"};
}

Error children_are_there(const ContainerKey& key, const std::vector<std::string>& children) {
  constexpr std::size_t named = 10;
  std::string names;
  for (const std::string& id : children | std::views::take(named))
    names += fmt::format("{}'{}'", names.empty() ? "" : ", ", printable(id));
  if (children.size() > named) names += fmt::format(" and {} more", children.size() - named);
  return Error{.code = Code::failed_precondition,
               .message = fmt::format("cleaning up {}: containers nested in it are not cleaned up yet: {}",
                                      shown(key), names),
               .hint = "clean those up first"};
}

Error named(std::string_view step, const Failure& failure) {
  Error error = failure.error;
  error.message = fmt::format("{} of isolator '{}': {}", step, failure.isolator, error.message);
  return error;
}

// The first failure, with the others attached.
Error aggregate(std::string_view step, const std::vector<Failure>& failures) {
  Error error = named(step, failures.front());
  for (const Failure& failure : failures | std::views::drop(1))
    error.attached.push_back(named(step, failure));
  return error;
}

// Runs at the end of a scope, also when an exception leaves it: nobody must wait for a call that is no more.
template <class Function>
class AtExit {
 public:
  explicit AtExit(Function function) : function_(std::move(function)) {}
  AtExit(const AtExit&) = delete;
  AtExit& operator=(const AtExit&) = delete;
  ~AtExit() { function_(); }

 private:
  Function function_;
};

Error broken_off(const ContainerKey& key) {
  return Error{.code = Code::internal, .message = fmt::format("a call for {} was broken off", shown(key))};
}

}  // namespace

// Another word than a volume's key begins with: container and volume locks may lie in one file.
std::string container_lock_key(const ContainerKey& key) { return volume::container_lock_name(key); }

std::string digest_of(const v1::ContainerRequest& request) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    // Fails only for a message of 2 GiB or more; a request has 1 MiB at most.
    static_cast<void>(request.SerializeToCodedStream(&coded));
  }
  return sha256_hex(bytes);
}

std::string digest_of_volumes(const v1::ContainerRequest& request) {
  std::string names;
  for (const v1::Volume& volume : request.container_info().volumes()) {
    const auto& external = volume.source().docker_volume();
    names += external.driver() + '\0' + external.name() + '\0';
  }
  return sha256_hex(names);
}

Chain::Chain(std::vector<std::unique_ptr<Isolator>> isolators, Parts parts)
    : isolators_(std::move(isolators)), parts_(parts) {}
Chain::~Chain() = default;

Result<std::unique_ptr<Chain>> Chain::build(std::vector<std::unique_ptr<Isolator>> isolators, Parts parts) {
  DVDI_TRY(auto ordered, in_order(std::move(isolators)));
  return std::unique_ptr<Chain>(new Chain(std::move(ordered), parts));
}

std::vector<std::string_view> Chain::order() const {
  std::vector<std::string_view> names;
  names.reserve(isolators_.size());
  for (const auto& isolator : isolators_) names.push_back(isolator->name());
  return names;
}

Chain::Entry* Chain::find(const ContainerKey& key) {
  const auto found = containers_.find(key);
  return found == containers_.end() ? nullptr : &found->second;
}

void Chain::forget_if_idle(const ContainerKey& key) {
  const Entry* entry = find(key);
  if (entry != nullptr && !entry->preparing && !entry->cleaning && !entry->isolating) containers_.erase(key);
}

bool Chain::ancestor_is_cleaned_up(const ContainerKey& key) const {
  for (std::size_t dot = key.id.find('.'); dot != std::string::npos; dot = key.id.find('.', dot + 1)) {
    const auto ancestor = containers_.find(ContainerKey{.owner = key.owner, .id = key.id.substr(0, dot)});
    if (ancestor != containers_.end() && ancestor->second.cleaning) return true;
  }
  return false;
}

std::vector<std::string> Chain::children_in_memory(const ContainerKey& key) const {
  const std::string prefix = key.id + '.';
  std::vector<std::string> children;
  for (auto entry = containers_.lower_bound(ContainerKey{.owner = key.owner, .id = prefix});
       entry != containers_.end() && entry->first.owner == key.owner && entry->first.id.starts_with(prefix);
       ++entry)
    children.push_back(entry->first.id);
  return children;
}

Status Chain::no_children(const Context& context, const ContainerKey& key) {
  DVDI_TRY(const auto children, parts_.books.children(context, key));
  if (!children.empty()) return children_are_there(key, children);
  return {};
}

Result<v1::ContainerLaunchInfo> Chain::prepare(const Context& context, const ContainerKey& key,
                                               const v1::ContainerRequest& request,
                                               const std::string& directory, bool directory_is_ours,
                                               const std::optional<ProcessIdentity>& worker, bool staged) {
  const std::string what = fmt::format("preparing {}", shown(key));
  const auto call = std::make_shared<PrepareCall>();
  call->digest = key.lives_until_unmount() ? digest_of_volumes(request) : digest_of(request);
  // The answers differ: one is no repetition of the other.
  if (staged) call->digest = sha256_hex(call->digest + " staged");
  {
    Lock lock(mutex_);
    for (;;) {
      DVDI_CHECK(context.check(what));
      if (ancestor_is_cleaned_up(key))
        return Error{.code = Code::failed_precondition,
                     .message = what + ": the container it is nested in is being cleaned up"};
      const Entry* entry = find(key);
      if (entry == nullptr) break;
      if (entry->cleaning) {
        // What the books say afterwards decides: a prepare after its cleanup is refused there.
        DVDI_CHECK(changed_.wait(
            context, lock, [other = entry->cleaning] { return other->answer.has_value(); }, what));
      } else if (entry->preparing) {
        const auto other = entry->preparing;
        if (other->digest != call->digest) return conflict(key);
        DVDI_CHECK(changed_.wait(context, lock, [&] { return other->answer.has_value(); }, what));
        if (!other->abandoned) return *other->answer;
      } else if (entry->isolating) {
        DVDI_CHECK(wait_for_quiet(context, lock, key, what));
      } else {
        break;
      }
    }
    containers_[key].preparing = call;
  }

  Result<v1::ContainerLaunchInfo> answer = broken_off(key);
  {  // the end of this scope is the end of the call: before the answer is moved out
    const AtExit finish([&] {
      const Lock lock(mutex_);
      Entry& entry = containers_.at(key);
      call->abandoned = !answer && !call->cleanup_came && !context.check(what);
      call->answer = answer;
      entry.preparing.reset();
      forget_if_idle(key);
      changed_.notify_all();
    });
    const std::stop_callback forward(context.stop(), [&] { call->cancel.request_stop(); });
    Preparation preparation{.key = key,
                            .request = request,
                            .digest = call->digest,
                            .directory = directory,
                            .directory_is_ours = directory_is_ours,
                            .worker = worker,
                            .staged = staged,
                            .working = request.container_info(),
                            .host_paths = {},
                            .launch = {}};
    answer = run_prepare(context.with_stop(call->cancel.get_token()), preparation, *call);
  }
  return answer;
}

Result<v1::ContainerLaunchInfo> Chain::run_prepare(const Context& context, Preparation& preparation,
                                                   PrepareCall& call) {
  const ContainerKey& key = preparation.key;
  DVDI_TRY(const auto held, parts_.container_locks.acquire(context, container_lock_key(key),
                                                           fmt::format("preparing {}", shown(key))));
  DVDI_TRY(const auto row, parts_.books.find(context, key));
  // Before any isolator is invoked: the roll-back of a conflict would take the other one's volumes, and that
  // of a refusal would forget that the container was cleaned up.
  const bool cleaning = row && row->state == ContainerState::cleaning;
  if (cleaning && !key.lives_until_unmount()) return volume::cleaned_up_already(key);
  if (!has_ended(row) && row->digest != call.digest) return conflict(key);
  const bool prepared_before =
      row && (row->state == ContainerState::prepared || row->state == ContainerState::running);
  // Also of one that was prepared before the mounts are looked at: one of them may have vanished.
  std::size_t invoked = 0;
  auto status = run_isolators(context, preparation, call, invoked);
  if (status) return std::move(preparation.launch);
  Error error = std::move(status).error();
  if (prepared_before) {
    // Its task may run: the answer could not be given again, but nothing is taken away from it.
    if (error.hint.empty()) error.hint = "the container stays prepared, as it was before this call";
    return error;
  }
  roll_back(context, key, invoked, error);
  return error;
}

Status Chain::run_isolators(const Context& context, Preparation& preparation, const PrepareCall& call,
                            std::size_t& invoked) {
  for (const auto& isolator : isolators_) {
    ++invoked;
    DVDI_CHECK(isolator->prepare(context, preparation));
  }
  const Lock lock(mutex_);
  if (call.cleanup_came)
    return Error{.code = Code::cancelled,
                 .message = fmt::format("preparing {}: it is being cleaned up", shown(preparation.key))};
  return {};
}

void Chain::roll_back(const Context& context, const ContainerKey& key, std::size_t invoked, Error& error) {
  const Context detached = context.detached(parts_.roll_back_timeout);
  std::vector<Failure> failures;
  for (const auto& isolator : isolators_ | std::views::take(invoked) | std::views::reverse) {
    auto owed = isolator->roll_back(detached, key, failures, error);
    if (!owed) {
      failures.push_back(
          Failure{.isolator = std::string(isolator->name()), .error = std::move(owed).error()});
      error.attached.push_back(named("roll-back", failures.back()));
      continue;
    }
    for (const Owed& one : *owed)
      error.attached.push_back(
          Error{.code = Code::unavailable,
                .message = fmt::format("the unmount is owed and will be tried again: {}", one.reason),
                .driver = one.driver,
                .volume = one.volume,
                .operation = "roll-back"});
  }
}

Status Chain::wait_for_quiet(const Context& context, Lock& lock, const ContainerKey& key,
                             std::string_view what) {
  return changed_.wait(
      context, lock,
      [&] {
        const Entry* entry = find(key);
        return entry == nullptr || (!entry->preparing && !entry->isolating);
      },
      what);
}

Status Chain::isolate(const Context& context, const ContainerKey& key, pid_t pid, bool watch) {
  const std::string what = fmt::format("isolating {}", shown(key));
  {
    Lock lock(mutex_);
    DVDI_CHECK(wait_for_quiet(context, lock, key, what));
    if (const Entry* entry = find(key); entry != nullptr && entry->cleaning)
      return Error{.code = Code::failed_precondition, .message = what + ": it is being cleaned up"};
    containers_[key].isolating = true;
  }
  const AtExit finish([&] {
    const Lock lock(mutex_);
    containers_.at(key).isolating = false;
    forget_if_idle(key);
    changed_.notify_all();
  });
  DVDI_TRY(const auto held, parts_.container_locks.acquire(context, container_lock_key(key), what));
  for (const auto& isolator : isolators_) DVDI_CHECK(isolator->isolate(context, key, pid, watch));
  return {};
}

Result<std::vector<Owed>> Chain::cleanup(const Context& context, const ContainerKey& key) {
  const std::string what = fmt::format("cleaning up {}", shown(key));
  const auto call = std::make_shared<CleanupCall>();
  std::optional<std::stop_source> cancel;
  bool asked_for_children = false;
  {
    Lock lock(mutex_);
    for (;;) {
      DVDI_CHECK(context.check(what));
      if (const auto children = children_in_memory(key); !children.empty())
        return children_are_there(key, children);
      const Entry* entry = find(key);
      if (entry != nullptr && entry->preparing && !asked_for_children) {
        // A refusal must have no effect, and to cancel a prepare is one.
        asked_for_children = true;
        lock.unlock();
        DVDI_CHECK(no_children(context, key));
        lock.lock();
        continue;
      }
      if (entry == nullptr || !entry->cleaning) break;
      const auto other = entry->cleaning;
      DVDI_CHECK(changed_.wait(context, lock, [&] { return other->answer.has_value(); }, what));
      if (!other->abandoned) return *other->answer;
    }
    Entry& entry = containers_[key];
    entry.cleaning = call;
    if (entry.preparing) {
      entry.preparing->cleanup_came = true;
      cancel = entry.preparing->cancel;
    }
  }

  Result<std::vector<Owed>> answer = broken_off(key);
  {  // as in prepare
    const AtExit finish([&] {
      const Lock lock(mutex_);
      Entry& entry = containers_.at(key);
      call->abandoned = !answer && !context.check(what);
      call->answer = answer;
      entry.cleaning.reset();
      forget_if_idle(key);
      changed_.notify_all();
    });
    // Without the lock: the callbacks of a stop token run here.
    if (cancel) cancel->request_stop();
    Status quiet;
    {
      Lock lock(mutex_);
      quiet = wait_for_quiet(context, lock, key, what);
    }
    if (quiet) {
      answer = run_cleanup(context, key);
    } else {
      answer = std::move(quiet).error();
    }
  }
  return answer;
}

Result<std::vector<Owed>> Chain::run_cleanup(const Context& context, const ContainerKey& key) {
  DVDI_TRY(const auto held, parts_.container_locks.acquire(context, container_lock_key(key),
                                                           fmt::format("cleaning up {}", shown(key))));
  DVDI_CHECK(no_children(context, key));
  std::vector<Owed> all_owed;
  std::vector<Failure> failures;
  for (const auto& isolator : isolators_ | std::views::reverse) {
    auto owed = isolator->cleanup(context, key, failures);
    if (owed) {
      all_owed.insert(all_owed.end(), owed->begin(), owed->end());
    } else {
      failures.push_back(
          Failure{.isolator = std::string(isolator->name()), .error = std::move(owed).error()});
    }
  }
  if (failures.empty()) return all_owed;

  // A failed cleanup keeps the container's end from being reported, so it fails only while the container
  // still holds something: whether it does, the books say.
  const auto row = parts_.books.find(context, key);
  if (!row || !has_ended(*row)) {
    Error error = aggregate("cleanup", failures);
    if (!row) error.attached.push_back(row.error());
    return error;
  }
  for (const Failure& failure : failures)
    all_owed.push_back(Owed{.driver = {}, .volume = {}, .reason = named("cleanup", failure).text()});
  return all_owed;
}

// Children come before their parents, so those of one depth are cleaned up at the same time.
void Chain::clean_up_dead(const Context& context, const std::string& owner, volume::Recovered& all) {
  constexpr std::size_t at_once = 16;
  const auto depth = [](const std::string& id) { return std::ranges::count(id, '.'); };
  const std::vector<std::string> ids = std::exchange(all.to_clean_up, {});
  Mutex mutex;
  for (std::size_t begin = 0; begin < ids.size();) {
    std::size_t end = begin + 1;
    while (end < ids.size() && end - begin < at_once && depth(ids[end]) == depth(ids[begin])) ++end;
    std::vector<std::function<void()>> work;
    for (std::size_t i = begin; i < end; ++i) {
      work.emplace_back([&, i] {
        auto owed = cleanup(context, {.owner = owner, .id = ids[i]});
        const Lock lock(mutex);
        if (!owed) {
          all.kept.push_back(
              {ids[i], "it is proved dead and could not be cleaned up: " + owed.error().text()});
          return;
        }
        all.dropped.push_back(ids[i]);
        std::ranges::move(*owed, std::back_inserter(all.owed));
      });
    }
    run_parallel(std::move(work));
    begin = end;
  }
}

Result<volume::Recovered> Chain::recover(const Context& context, const RecoverRequest& request) {
  const std::string what = fmt::format("recovering the containers of '{}'", printable(request.owner));
  {
    Lock lock(mutex_);
    DVDI_CHECK(changed_.wait(context, lock, [&] { return !recovering_.contains(request.owner); }, what));
    recovering_.insert(request.owner);
  }
  const AtExit finish([&] {
    const Lock lock(mutex_);
    recovering_.erase(request.owner);
    changed_.notify_all();
  });
  volume::Recovered all;
  std::vector<Failure> failures;
  for (const auto& isolator : isolators_ | std::views::reverse) {
    auto recovered = isolator->recover(context, request, failures);
    if (!recovered) {
      failures.push_back(
          Failure{.isolator = std::string(isolator->name()), .error = std::move(recovered).error()});
      continue;
    }
    std::ranges::move(recovered->dropped, std::back_inserter(all.dropped));
    std::ranges::move(recovered->kept, std::back_inserter(all.kept));
    std::ranges::move(recovered->missing, std::back_inserter(all.missing));
    std::ranges::move(recovered->to_clean_up, std::back_inserter(all.to_clean_up));
    std::ranges::move(recovered->owed, std::back_inserter(all.owed));
  }
  clean_up_dead(context, request.owner, all);
  if (!failures.empty()) return aggregate("recovery", failures);
  return all;
}

}  // namespace dvdi::isolator
