// Pieces of time that are billed: as they are written, and as a report reads them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "store/types.h"

namespace dvdi {

// How many of the closed intervals that ended first are looked at for those that are too old. They lie in the
// order of their ends, unless somebody set the clock.
constexpr std::int64_t usage_window = 1'000'000;

// One that has come to its end. What goes on is in the books: a reference, a mount, a volume.
struct UsageInterval {
  enum class Kind { referenced, mounted, provisioned } kind = Kind::referenced;
  VolumeKey volume;
  Moment start;
  ContainerKey container = {};   // of a reference; empty otherwise
  Attribution attribution = {};  // of a reference; the task's id and name are not kept
  std::optional<std::uint64_t> size_bytes = {};
  std::string volume_type = {};
};

// The texts of an interval that a report wants: reading one costs as much as all the rest.
struct UsageColumns {
  bool driver = false, volume = false, type = false;
  bool owner = false, container = false, framework = false, role = false, principal = false, user = false;
  bool labels = false;
};

// One interval of a report. The texts are those that were asked for, and live until the next is read.
struct UsageRecord {
  UsageInterval::Kind kind = UsageInterval::Kind::referenced;
  std::optional<std::uint64_t> size_bytes;
  WallTime start;
  Duration duration = {};  // an open interval's up to now, or to what was last seen of its boot
  bool open = false;
  std::string_view driver, volume, type;
  std::string_view owner, container, framework, role, principal, user;
  std::string_view labels;  // label_of()

  // Where the wall clock would be if nobody had set it since the start.
  WallTime end() const;
};

// The value of one of a record's labels; "" where there is none of that key.
std::string label_of(std::string_view labels, std::string_view key);

}  // namespace dvdi
