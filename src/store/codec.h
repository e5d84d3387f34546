// Between rows and columns. Only for this folder.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "store/types.h"

namespace dvdi {

std::string to_json(const Attribution& attribution);
Attribution attribution_of(const std::string& text);
// An object; "" where there are none. Of several with one key the last counts, as in events.
std::string labels_json(const Attribution& attribution);
std::vector<std::pair<std::string, std::string>> labels_of(const std::string& text);
std::string to_json(const std::vector<ReferenceRow::Use>& uses);
std::vector<ReferenceRow::Use> uses_of(const std::string& text);
std::string to_json(const StoredIdentity& identity);
StoredIdentity identity_of(const std::string& text);

inline std::int64_t nanoseconds(WallTime time) { return time.time_since_epoch().count(); }
inline std::int64_t nanoseconds(BootTime time) { return time.time_since_epoch().count(); }
inline WallTime wall_time(std::int64_t count) { return WallTime(Duration(count)); }
inline BootTime boot_time(std::int64_t count) { return BootTime(Duration(count)); }

// Binds values one after another: Binder(statement)(a)(b)(c).
class Binder {
 public:
  explicit Binder(SQLite::Statement& statement) : statement_(statement) {}
  Binder& operator()(const std::string& text) {
    statement_.bind(next_++, text);
    return *this;
  }
  Binder& operator()(std::int64_t number) {
    statement_.bind(next_++, number);
    return *this;
  }
  Binder& operator()(bool flag) { return (*this)(std::int64_t{flag ? 1 : 0}); }
  Binder& operator()(WallTime time) { return (*this)(nanoseconds(time)); }
  Binder& operator()(BootTime time) { return (*this)(nanoseconds(time)); }
  Binder& operator()(const Moment& moment) { return (*this)(moment.boot_id)(moment.wall)(moment.boot); }
  Binder& operator()(const VolumeKey& key) { return (*this)(key.driver)(key.name); }
  Binder& operator()(const ContainerKey& key) { return (*this)(key.owner)(key.id); }
  Binder& operator()(const std::optional<std::uint64_t>& number) {
    return number ? (*this)(static_cast<std::int64_t>(*number)) : null();
  }
  Binder& null() {
    statement_.bind(next_++);
    return *this;
  }

 private:
  SQLite::Statement& statement_;
  int next_ = 1;
};

// Reads columns one after another.
class Columns {
 public:
  explicit Columns(SQLite::Statement& statement) : statement_(statement) {}
  std::string text() { return statement_.getColumn(next_++).getString(); }
  std::int64_t number() { return statement_.getColumn(next_++).getInt64(); }
  bool flag() { return number() != 0; }
  WallTime wall() { return wall_time(number()); }
  BootTime boot() { return boot_time(number()); }
  Moment moment() {
    Moment read;
    read.boot_id = text();
    read.wall = wall();
    read.boot = boot();
    return read;
  }
  VolumeKey volume() {
    VolumeKey key;
    key.driver = text();
    key.name = text();
    return key;
  }
  ContainerKey container() {
    ContainerKey key;
    key.owner = text();
    key.id = text();
    return key;
  }
  bool is_null() { return statement_.getColumn(next_).isNull(); }
  void skip(int columns = 1) { next_ += columns; }

 private:
  SQLite::Statement& statement_;
  int next_ = 0;
};

}  // namespace dvdi
