#include "linux/file_lock.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "base/sync.h"

namespace dvdi {

namespace {

Result<UniqueFd> open_lock_file(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return os_error(fmt::format("open lock file {}", path), errno);
  return fd;
}

// FNV-1a: the same in every build and process, which std::hash does not promise.
off_t offset_of(std::string_view key) {
  std::uint64_t hash = 14695981039346656037U;
  for (const char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  return static_cast<off_t>((hash >> 1U) - 1U) & 0x7ffffffffffffffe;
}

// True if the lock was set, false if another holder is in the way.
Result<bool> set_lock(int fd, short type, off_t start, off_t length) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  return os_error("lock", errno);
}

}  // namespace

struct KeyedLocks::State {
  // Keys that share a byte share the lock: one description never conflicts with itself.
  struct Byte {
    bool held = false;
    unsigned waiting = 0;
    Condition released;  // of its own: whoever waits for one key is not woken for another
  };

  // Sets a lock that nobody in this process holds; false: another process does. With `mutex` held.
  Result<bool> take(off_t offset) {
    auto set = file ? set_lock(file.get(), F_WRLCK, offset, 1) : Result<bool>(true);
    if (set && *set) bytes[offset].held = true;
    return set;
  }
  // With `mutex` held.
  void let_go(off_t offset) {
    // Cannot fail on a range that is ours; if it did, the lock would end with the process.
    if (file) static_cast<void>(set_lock(file.get(), F_UNLCK, offset, 1));
    Byte& byte = bytes.at(offset);
    byte.held = false;
    byte.released.notify_one();
    forget_if_unused(offset);
  }
  // With `mutex` held.
  void forget_if_unused(off_t offset) {
    const auto found = bytes.find(offset);
    if (found != bytes.end() && !found->second.held && found->second.waiting == 0) bytes.erase(found);
  }

  UniqueFd file;  // none: of this process only
  Mutex mutex;
  std::map<off_t, Byte> bytes;
};

KeyedLocks::KeyedLocks(std::unique_ptr<State> state) : state_(std::move(state)) {}
KeyedLocks::~KeyedLocks() = default;

Result<std::unique_ptr<KeyedLocks>> KeyedLocks::open(const std::string& path) {
  auto state = std::make_unique<State>();
  DVDI_TRY(state->file, open_lock_file(path));
  return std::unique_ptr<KeyedLocks>(new KeyedLocks(std::move(state)));
}

std::unique_ptr<KeyedLocks> KeyedLocks::of_this_process() {
  return std::unique_ptr<KeyedLocks>(new KeyedLocks(std::make_unique<State>()));
}

KeyedLocks::Held::Held(Held&& other) noexcept
    : locks_(std::exchange(other.locks_, nullptr)), key_(std::move(other.key_)) {}

KeyedLocks::Held::~Held() {
  if (locks_ == nullptr) return;
  State& state = *locks_->state_;
  const Lock lock(state.mutex);
  state.let_go(offset_of(key_));
}

Result<std::optional<KeyedLocks::Held>> KeyedLocks::try_acquire(const std::string& key) {
  const Lock lock(state_->mutex);
  const off_t offset = offset_of(key);
  const auto found = state_->bytes.find(offset);
  if (found != state_->bytes.end() && found->second.held) return std::optional<Held>();
  DVDI_TRY(const bool set, state_->take(offset));
  if (!set) return std::optional<Held>();
  return std::optional<Held>(Held(this, key));
}

Result<KeyedLocks::Held> KeyedLocks::acquire(const Context& context, const std::string& key,
                                             std::string_view what) {
  const off_t offset = offset_of(key);
  Duration step = std::chrono::milliseconds(1);
  for (;;) {
    {
      Lock lock(state_->mutex);
      State::Byte& byte = state_->bytes[offset];
      ++byte.waiting;
      const auto free = byte.released.wait(context, lock, [&] { return !byte.held; }, what);
      --byte.waiting;
      auto set = free ? state_->take(offset) : Result<bool>(free.error());
      if (set && *set) return Held(this, key);
      // Nobody of this process holds it, who would wake the next.
      if (free) byte.released.notify_one();
      state_->forget_if_unused(offset);
      if (!set) return fail(std::move(set).error());
    }
    // Another process holds it, and tells nobody when it lets go.
    DVDI_CHECK(pause(context, step, what));
    step = std::min<Duration>(step * 2, std::chrono::milliseconds(50));
  }
}

Result<std::optional<UniqueFd>> try_lock_file(const std::string& path, bool exclusive) {
  DVDI_TRY(UniqueFd fd, open_lock_file(path));
  DVDI_TRY(const bool set, set_lock(fd.get(), exclusive ? F_WRLCK : F_RDLCK, 0, 0));
  if (!set) return std::optional<UniqueFd>();
  return std::optional<UniqueFd>(std::move(fd));
}

Status share_file_lock(const UniqueFd& lock) {
  DVDI_TRY(const bool set, set_lock(lock.get(), F_RDLCK, 0, 0));
  if (set) return {};
  return Error{.code = Code::internal, .message = "an exclusive lock could not be shared"};
}

}  // namespace dvdi
