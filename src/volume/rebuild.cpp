// Manager::rebuild: what is mounted on this node, after the ledger that knew it was lost.
// Manager::adopt: the same, of what a predecessor mounted and wrote down.

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/sync.h"
#include "base/text.h"
#include "store/rebuilt.h"
#include "volume/books.h"
#include "volume/manager_state.h"
#include "volume/work.h"

namespace dvdi::volume {

namespace {

// A driver that comes up later than that is asked no more.
constexpr Duration ask_for = std::chrono::hours(1);
constexpr std::size_t questions_at_once = 8;   // to one driver
constexpr std::size_t most_volumes = 100'000;  // that one driver may list

struct Place {
  std::string volume;
  std::string path;
};

struct Answer {
  std::string driver;
  std::vector<Place> places;
  std::string error;  // why the driver has not answered, or not to the end
};

// Where the driver says that its volumes are mounted.
Answer ask(Manager::Parts& parts, Calls& calls, const Context& context, const std::string& name) {
  Answer answer{.driver = name, .places = {}, .error = {}};
  const auto list = [&]() -> Result<std::vector<driver::VolumeInfo>> {
    DVDI_TRY(const auto driver, parts.drivers.find(context, name));
    return driver->list(context);
  };
  const auto volumes = list();
  if (!volumes) {
    answer.error = volumes.error().text();
    return answer;
  }
  Mutex mutex;
  std::size_t next = 0;
  const std::size_t count = std::min(volumes->size(), most_volumes);
  std::vector<std::function<void()>> workers(std::min(questions_at_once, count), [&] {
    for (;;) {
      const driver::VolumeInfo* one = nullptr;
      {
        const Lock lock(mutex);
        if (next == count || !answer.error.empty()) return;
        one = &(*volumes)[next++];
      }
      Result<std::string> path = one->mount_point;
      if (path->empty()) path = calls.path(context, {name, one->name});
      const Lock lock(mutex);
      if (path) {
        if (!path->empty()) answer.places.push_back({one->name, *std::move(path)});
      } else if (path.error().outcome != Outcome::refused) {  // an answer that says no is one
        answer.error = path.error().text();
      }
    }
  });
  run_parallel(std::move(workers));
  return answer;
}

// What is mounted there, also behind a symbolic link, or with a folder of it.
Result<Claim> claim_at(const Context& context, HelperPool& helpers, const MountTable& table,
                       const VolumeKey& volume, const std::string& path) {
  const MountEntry* entry = table.at(path);
  if (entry != nullptr && entry->mount_point != "/") {
    return Claim{
        .mount_point = std::string(entry->mount_point), .folder = {}, .identity = identity_of(*entry)};
  }
  return verify_claim(context, helpers, table, volume, path, false);
}

}  // namespace

// Where nothing is known of a volume and something is mounted there: a row. Whether it was.
Result<bool> Manager::State::note_found(const Context& context, const VolumeKey& volume, const Claim& claim,
                                        const std::string& note, std::optional<std::string> driver_id) {
  DVDI_TRY(const auto lock, parts.volume_locks.try_acquire(lock_name(volume)));
  if (!lock) return false;  // whoever is at work on it makes its row
  bool noted = false;
  DVDI_CHECK(write(context, "record a mount that was found", [&](Transaction& transaction) -> Status {
    DVDI_TRY(const auto known, transaction.mount(volume));
    noted = !known;
    if (known) return {};
    MountRow row = new_mount(volume);
    row.pending = MountRow::Pending::found;
    row.mount_point = claim.mount_point;
    row.folder = claim.folder;
    row.driver_id = driver_id;
    row.identity = claim.identity;
    row.note = note;
    row.has_secrets = true;  // what it was asked for with is not known
    DVDI_CHECK(transition(transaction, row, MountState::unknown,
                          {.reason = row.note, .trace_id = context.trace_id()}));
    DVDI_TRY(const bool referenced, transaction.is_referenced(volume));
    if (!referenced) return {};
    DVDI_CHECK(note_volume(transaction, volume, false, {}, context.trace_id()));
    return transition(transaction, row, MountState::mounted,
                      {.reason = "a live container has it", .trace_id = context.trace_id()});
  }));
  return noted;
}

Result<Rebuilt> Manager::rebuild(const Context& context) {
  State& state = *state_;
  std::optional<RebuiltBooks> books;
  DVDI_CHECK(state.read(context, "look whether the books are rebuilt", [&](Reader& reader) -> Status {
    DVDI_TRY(books, rebuilt_books(reader));
    return {};
  }));
  Rebuilt rebuilt;
  if (!books || books->when.boot_id != state.parts.ledger.boot_id() ||
      context.clock().boot() - books->when.boot > ask_for) {
    return rebuilt;
  }
  rebuilt.finished = false;

  std::vector<std::string> names = state.parts.drivers.names();
  std::erase_if(names, [&](const std::string& name) {
    return std::ranges::find(books->answered, name) != books->answered.end();
  });
  std::vector<Answer> answers(names.size());
  std::vector<std::function<void()>> work;
  for (std::size_t i = 0; i < names.size(); ++i) {
    work.emplace_back([&, i] { answers[i] = ask(state.parts, state.calls, context, names[i]); });
  }
  run_parallel(std::move(work));

  std::vector<std::string> answered;
  DVDI_TRY(const auto table, state.mounts.now());
  const Context recording = context.detached(time_to_record);
  for (const Answer& answer : answers) {
    for (const Place& place : answer.places) {
      const VolumeKey volume{answer.driver, place.volume};
      const auto claim = claim_at(context, state.parts.helpers, *table, volume, place.path);
      if (!claim) continue;
      DVDI_TRY(const bool noted,
               state.note_found(recording, volume, *claim,
                                "it was mounted when the books were rebuilt; for whom, is not known", {}));
      if (noted) rebuilt.found.push_back(volume);
    }
    if (answer.error.empty()) {
      answered.push_back(answer.driver);
    } else {
      rebuilt.unanswered.push_back(fmt::format("{}: {}", answer.driver, answer.error));
    }
  }
  if (answered.empty()) return rebuilt;
  DVDI_CHECK(
      state.write(recording, "record which drivers have answered", [&](Transaction& transaction) -> Status {
        DVDI_TRY(auto now, rebuilt_books(transaction));
        if (!now) return {};
        for (const std::string& name : answered) {
          if (std::ranges::find(now->answered, name) == now->answered.end()) now->answered.push_back(name);
        }
        return dvdi::put(transaction, *now);
      }));
  return rebuilt;
}

Result<std::vector<Adopted>> Manager::adopt(const Context& context, const std::string& from,
                                            const std::vector<LeftBehind>& mounts) {
  State& state = *state_;
  DVDI_TRY(const auto table, state.mounts.now());
  const std::string note = fmt::format("it was mounted before dvdi: {} has it", printable(from));
  std::vector<MountRow> rows;
  DVDI_CHECK(state.read(context, "read the mounts", [&](Reader& reader) -> Status {
    DVDI_TRY(rows, reader.mounts());
    return {};
  }));
  std::map<std::uint64_t, VolumeKey> whose;  // by the kernel's mount id
  for (const MountRow& row : rows) {
    if (row.identity && shows(*table, row)) whose.emplace(row.identity->mount_id, row.volume);
  }
  std::vector<Adopted> adopted;
  for (const LeftBehind& one : mounts) {
    DVDI_CHECK(context.check("adopt mounts"));
    Adopted& made = adopted.emplace_back(Adopted{
        .volume = one.volume, .mount_point = one.mount_point, .what = Adopted::What::absent, .reason = {}});
    const auto claim = claim_at(context, state.parts.helpers, *table, one.volume, one.mount_point);
    if (!claim) {
      // Whether it is there could not be seen: not now, perhaps later.
      if (claim.error().code != Code::driver_violation) return claim.error();
      made.reason = claim.error().message;
      continue;
    }
    made.mount_point = claim->mount_point;
    const auto [user, first] = whose.emplace(claim->identity->mount_id, one.volume);
    if (!first && user->second != one.volume) {
      // With two of one mount, the end of one would take it away from the other.
      made.reason = fmt::format("it is the mount of volume {}", user->second.text());
      continue;
    }
    DVDI_TRY(const bool noted,
             state.note_found(context.detached(time_to_record), one.volume, *claim, note, one.mount_id));
    made.what = noted ? Adopted::What::found : Adopted::What::known;
    if (!noted) made.reason = "dvdi has a mount of the volume, or is at work on one";
  }
  return adopted;
}

}  // namespace dvdi::volume
