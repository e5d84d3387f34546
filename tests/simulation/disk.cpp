#include "disk.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace dvdi::simulation {

namespace {

constexpr std::size_t sector = 512;
Disk* installed = nullptr;

void write_to(std::vector<std::uint8_t>& to, const Disk::Write& write) {
  if (write.truncate) {
    if (write.offset < to.size()) to.resize(write.offset);
    return;
  }
  const std::size_t end = write.offset + write.bytes.size();
  if (to.size() < end) to.resize(end);
  std::ranges::copy(write.bytes, to.begin() + static_cast<std::ptrdiff_t>(write.offset));
}

// What SQLite has open. Made in memory that SQLite gives.
struct Handle {
  sqlite3_file base;
  struct Body {
    Disk* disk = nullptr;
    std::uint64_t life = 0;  // of the disk when it was opened
    std::shared_ptr<Disk::File> file;
    int level = SQLITE_LOCK_NONE;
    std::shared_ptr<Disk::Shared> index;
    unsigned shared = 0, exclusive = 0;  // masks of the index's locks
    bool delete_on_close = false;

    bool dead() const { return disk != installed || life != disk->life(); }
  };
  Body* body;
};

Handle::Body& body_of(sqlite3_file* file) { return *reinterpret_cast<Handle*>(file)->body; }

void let_go_of_index(Handle::Body& body) {
  if (!body.index) return;
  for (int i = 0; i < Disk::Shared::locks; ++i) {
    if ((body.exclusive & (1U << i)) != 0) body.index->holders[i] = 0;
    if ((body.shared & (1U << i)) != 0) --body.index->holders[i];
  }
  body.shared = body.exclusive = 0;
  if (--body.index->users == 0 && body.file->index == body.index) body.file->index.reset();
  body.index.reset();
}

int set_level(Handle::Body& body, int level) {
  Disk::File& file = *body.file;
  if (level == body.level) return SQLITE_OK;
  if (level > body.level) {
    if (file.exclusive != nullptr && file.exclusive != &body) return SQLITE_BUSY;
    if (body.level == SQLITE_LOCK_NONE) ++file.shared_locks;
    if (body.level < SQLITE_LOCK_SHARED) body.level = SQLITE_LOCK_SHARED;
    if (level >= SQLITE_LOCK_RESERVED) {
      if (file.reserved != nullptr && file.reserved != &body) return SQLITE_BUSY;
      file.reserved = &body;
      body.level = std::max(body.level, SQLITE_LOCK_RESERVED);
    }
    if (level == SQLITE_LOCK_EXCLUSIVE) {
      if (file.shared_locks > 1) return SQLITE_BUSY;
      file.exclusive = &body;
    }
    body.level = level;
    return SQLITE_OK;
  }
  if (level < SQLITE_LOCK_RESERVED && file.reserved == &body) file.reserved = nullptr;
  if (level < SQLITE_LOCK_EXCLUSIVE && file.exclusive == &body) file.exclusive = nullptr;
  if (level == SQLITE_LOCK_NONE && body.level >= SQLITE_LOCK_SHARED) --file.shared_locks;
  body.level = level;
  return SQLITE_OK;
}

extern "C" {

int sim_close(sqlite3_file* opened) {
  Handle::Body& body = body_of(opened);
  if (!body.dead()) {
    let_go_of_index(body);
    set_level(body, SQLITE_LOCK_NONE);
    if (body.delete_on_close) body.disk->remove(body.file->name);
  }
  delete &body;  // NOLINT(cppcoreguidelines-owning-memory): SQLite keeps it between opening and closing
  return SQLITE_OK;
}

int sim_read(sqlite3_file* opened, void* to, int amount, sqlite3_int64 offset) {
  Handle::Body& body = body_of(opened);
  if (body.dead()) return SQLITE_IOERR_READ;
  const auto& bytes = body.file->now;
  const auto from = static_cast<std::size_t>(offset);
  const auto wanted = static_cast<std::size_t>(amount);
  const std::size_t there = from >= bytes.size() ? 0 : std::min(wanted, bytes.size() - from);
  if (there > 0) std::memcpy(to, bytes.data() + from, there);
  if (there == wanted) return SQLITE_OK;
  std::memset(static_cast<char*>(to) + there, 0, wanted - there);
  return SQLITE_IOERR_SHORT_READ;
}

int sim_write(sqlite3_file* opened, const void* from, int amount, sqlite3_int64 offset) {
  Handle::Body& body = body_of(opened);
  if (body.dead() || body.disk->fails()) return SQLITE_IOERR_WRITE;
  const auto at = static_cast<std::uint64_t>(offset);
  const auto size = static_cast<std::size_t>(amount);
  if (body.disk->full && at + size > body.file->now.size()) return SQLITE_FULL;
  Disk::Write write{.offset = at, .bytes = {}};
  const auto* bytes = static_cast<const std::uint8_t*>(from);
  write.bytes.assign(bytes, bytes + size);
  write_to(body.file->now, write);
  body.file->unsynced.push_back(std::move(write));
  return SQLITE_OK;
}

int sim_truncate(sqlite3_file* opened, sqlite3_int64 size) {
  Handle::Body& body = body_of(opened);
  if (body.dead()) return SQLITE_IOERR_TRUNCATE;
  Disk::Write write{.offset = static_cast<std::uint64_t>(size), .bytes = {}, .truncate = true};
  write_to(body.file->now, write);
  body.file->unsynced.push_back(std::move(write));
  return SQLITE_OK;
}

int sim_sync(sqlite3_file* opened, int /*flags*/) {
  Handle::Body& body = body_of(opened);
  if (body.dead()) return SQLITE_IOERR_FSYNC;
  Disk& disk = *body.disk;
  if (disk.at_sync) disk.at_sync("before", body.file->name);
  if (body.dead() || disk.fails()) return SQLITE_IOERR_FSYNC;
  for (const Disk::Write& write : body.file->unsynced) write_to(body.file->synced, write);
  body.file->unsynced.clear();
  if (disk.at_sync) disk.at_sync("after", body.file->name);
  return body.dead() ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

int sim_size(sqlite3_file* opened, sqlite3_int64* size) {
  Handle::Body& body = body_of(opened);
  if (body.dead()) return SQLITE_IOERR_FSTAT;
  *size = static_cast<sqlite3_int64>(body.file->now.size());
  return SQLITE_OK;
}

int sim_lock(sqlite3_file* opened, int level) {
  Handle::Body& body = body_of(opened);
  return body.dead() ? SQLITE_IOERR_LOCK : set_level(body, level);
}

int sim_unlock(sqlite3_file* opened, int level) {
  Handle::Body& body = body_of(opened);
  return body.dead() ? SQLITE_OK : set_level(body, level);
}

int sim_check_reserved(sqlite3_file* opened, int* reserved) {
  *reserved = body_of(opened).file->reserved != nullptr ? 1 : 0;
  return SQLITE_OK;
}

int sim_control(sqlite3_file* /*opened*/, int /*operation*/, void* /*argument*/) { return SQLITE_NOTFOUND; }
int sim_sector_size(sqlite3_file* /*opened*/) { return static_cast<int>(sector); }
// As SQLite's own for Linux says it: a torn write changes nothing beside the bytes that were written.
int sim_characteristics(sqlite3_file* /*opened*/) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

int sim_shm_map(sqlite3_file* opened, int region, int size, int extend, void volatile** out) {
  Handle::Body& body = body_of(opened);
  *out = nullptr;
  if (body.dead()) return SQLITE_IOERR_SHMMAP;
  if (!body.index) {
    if (!body.file->index) body.file->index = std::make_shared<Disk::Shared>();
    body.index = body.file->index;
    ++body.index->users;
  }
  auto& regions = body.index->regions;
  const auto wanted = static_cast<std::size_t>(region);
  while (regions.size() <= wanted) {
    if (extend == 0) return SQLITE_OK;
    regions.push_back(std::make_unique<std::vector<std::uint8_t>>(static_cast<std::size_t>(size)));
  }
  *out = regions[wanted]->data();
  return SQLITE_OK;
}

int sim_shm_lock(sqlite3_file* opened, int offset, int count, int flags) {
  Handle::Body& body = body_of(opened);
  const bool unlock = (flags & SQLITE_SHM_UNLOCK) != 0;
  if (body.dead()) return unlock ? SQLITE_OK : SQLITE_IOERR_SHMLOCK;
  if (!body.index) return SQLITE_IOERR_SHMLOCK;
  auto& holders = body.index->holders;
  const unsigned mask = ((1U << count) - 1U) << offset;
  if (unlock) {
    for (int i = offset; i < offset + count; ++i) {
      if ((body.exclusive & (1U << i)) != 0) holders[i] = 0;
      if ((body.shared & (1U << i)) != 0) --holders[i];
    }
    body.exclusive &= ~mask;
    body.shared &= ~mask;
    return SQLITE_OK;
  }
  if ((flags & SQLITE_SHM_SHARED) != 0) {
    if ((body.shared & mask) != 0) return SQLITE_OK;
    if (holders[offset] < 0) return SQLITE_BUSY;
    ++holders[offset];
    body.shared |= mask;
    return SQLITE_OK;
  }
  for (int i = offset; i < offset + count; ++i) {
    if ((body.exclusive & (1U << i)) == 0 && holders[i] != 0) return SQLITE_BUSY;
  }
  for (int i = offset; i < offset + count; ++i) holders[i] = -1;
  body.exclusive |= mask;
  return SQLITE_OK;
}

void sim_shm_barrier(sqlite3_file* /*opened*/) {}

int sim_shm_unmap(sqlite3_file* opened, int /*remove*/) {
  Handle::Body& body = body_of(opened);
  if (!body.dead()) let_go_of_index(body);
  return SQLITE_OK;
}

const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = sim_close,
    .xRead = sim_read,
    .xWrite = sim_write,
    .xTruncate = sim_truncate,
    .xSync = sim_sync,
    .xFileSize = sim_size,
    .xLock = sim_lock,
    .xUnlock = sim_unlock,
    .xCheckReservedLock = sim_check_reserved,
    .xFileControl = sim_control,
    .xSectorSize = sim_sector_size,
    .xDeviceCharacteristics = sim_characteristics,
    .xShmMap = sim_shm_map,
    .xShmLock = sim_shm_lock,
    .xShmBarrier = sim_shm_barrier,
    .xShmUnmap = sim_shm_unmap,
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

int sim_open(sqlite3_vfs* /*vfs*/, const char* name, sqlite3_file* opened, int flags, int* out_flags) {
  auto* handle = reinterpret_cast<Handle*>(opened);
  handle->base.pMethods = nullptr;
  if (installed == nullptr) return SQLITE_CANTOPEN;
  static int temporary = 0;
  const std::string path = name == nullptr ? "temporary-" + std::to_string(++temporary) : name;
  auto file = installed->open(path, (flags & SQLITE_OPEN_CREATE) != 0 || name == nullptr);
  if (!file) return SQLITE_CANTOPEN;
  // NOLINTNEXTLINE(cppcoreguidelines-owning-memory): as in sim_close
  handle->body = new (std::nothrow) Handle::Body;
  if (handle->body == nullptr) return SQLITE_NOMEM;
  handle->body->disk = installed;
  handle->body->life = installed->life();
  handle->body->file = std::move(file);
  handle->body->delete_on_close = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0;
  handle->base.pMethods = &methods;
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}

int sim_delete(sqlite3_vfs* /*vfs*/, const char* name, int /*sync*/) {
  if (installed == nullptr || !installed->exists(name)) return SQLITE_IOERR_DELETE_NOENT;
  installed->remove(name);
  return SQLITE_OK;
}

int sim_access(sqlite3_vfs* /*vfs*/, const char* name, int /*flags*/, int* out) {
  *out = installed != nullptr && installed->exists(name) ? 1 : 0;
  return SQLITE_OK;
}

int sim_full_path(sqlite3_vfs* /*vfs*/, const char* name, int size, char* out) {
  sqlite3_snprintf(size, out, "%s", name);
  return SQLITE_OK;
}

int sim_randomness(sqlite3_vfs* /*vfs*/, int size, char* out) {
  for (int i = 0; i < size; ++i) {
    out[i] = installed == nullptr ? '\0' : static_cast<char>(installed->random().next());
  }
  return size;
}

int sim_sleep(sqlite3_vfs* /*vfs*/, int microseconds) {
  if (installed != nullptr && installed->at_sleep) installed->at_sleep();
  return microseconds;
}

// SQLite stamps nothing that the ledger reads.
int sim_time(sqlite3_vfs* /*vfs*/, sqlite3_int64* out) {
  *out = 212'000'000'000'000;
  return SQLITE_OK;
}

int sim_last_error(sqlite3_vfs* /*vfs*/, int /*size*/, char* /*out*/) { return 0; }

}  // extern "C"

}  // namespace

void Disk::install(Disk* disk) {
  static sqlite3_vfs vfs = {
      .iVersion = 2,
      .szOsFile = sizeof(Handle),
      .mxPathname = 512,
      .pNext = nullptr,
      .zName = "dvdi-simulation",
      .pAppData = nullptr,
      .xOpen = sim_open,
      .xDelete = sim_delete,
      .xAccess = sim_access,
      .xFullPathname = sim_full_path,
      .xDlOpen = nullptr,
      .xDlError = nullptr,
      .xDlSym = nullptr,
      .xDlClose = nullptr,
      .xRandomness = sim_randomness,
      .xSleep = sim_sleep,
      .xCurrentTime = nullptr,
      .xGetLastError = sim_last_error,
      .xCurrentTimeInt64 = sim_time,
  };
  installed = disk;
  sqlite3_vfs_register(&vfs, 1);
  sqlite3_randomness(0, nullptr);  // begin anew, from the disk's chance
}

std::shared_ptr<Disk::File> Disk::open(const std::string& name, bool create) {
  const auto found = files_.find(name);
  if (found != files_.end()) return found->second;
  if (!create) return nullptr;
  auto file = std::make_shared<File>();
  file->name = name;
  files_[name] = file;
  return file;
}

void Disk::lose(File& file) {
  for (Write& write : file.unsynced) {
    const auto fate = random_.below(3);
    if (fate == 0) {
      ++dropped_;
      continue;
    }
    if (fate == 1 && !write.truncate && write.bytes.size() > 1) {
      // Sectors are written whole or not, in any order: here those before a border, or those behind it.
      const std::uint64_t begin = write.offset;
      const std::uint64_t end = begin + write.bytes.size();
      const std::uint64_t first = begin / sector + 1;
      const std::uint64_t borders = end / sector >= first ? end / sector - first + 1 : 0;
      const std::uint64_t cut = std::min(end, (first + random_.below(borders + 1)) * sector);
      const auto length = static_cast<std::ptrdiff_t>(cut - begin);
      ++torn_;
      if (random_.chance(50)) {
        write.bytes.resize(static_cast<std::size_t>(length));
      } else {
        write.bytes.erase(write.bytes.begin(), write.bytes.begin() + length);
        write.offset = cut;
      }
      if (write.bytes.empty()) continue;
    }
    write_to(file.synced, write);
  }
}

void Disk::crash(Loss loss) {
  ++life_;
  for (auto& [name, file] : files_) {
    // What is open keeps the old file: its handles are dead, but its memory may still be looked at.
    auto left = std::make_shared<File>();
    left->name = name;
    if (loss == Loss::unsynced) {
      lose(*file);
      left->now = file->synced;
      left->synced = std::move(file->synced);
    } else {
      left->now = file->now;
      left->synced = std::move(file->synced);
      left->unsynced = std::move(file->unsynced);
    }
    file = std::move(left);
  }
}

}  // namespace dvdi::simulation
