// An event in the form that everybody outside gets: StoredEvent::json(). What can be told of such a line
// without parsing JSON: events begin and end always the same way.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "store/event_log.h"

namespace dvdi {

// No event can be longer: a request, whose names and labels it repeats, has at most 8 MiB, of which JSON may
// make six times as many.
inline constexpr std::size_t longest_event_line = std::size_t{64} << 20U;

struct EventLine {
  std::string_view node;  // views into the line
  std::uint64_t sequence = 0;
  std::string_view hash;
  // Its bytes are those that the hash is of.
  bool whole = false;
};
// nullopt: not an event of ours. Without a newline.
std::optional<EventLine> read_event_line(std::string_view line);

// Could it be the beginning of an event of ours?
bool begins_event_line(std::string_view text);

std::string node_of(const StoredEvent& event);  // "" if it is none of ours
// A CloudEvents attribute whose value is a text, such as `time` or `type`; "" where it is not there.
std::string_view attribute_of(const StoredEvent& event, std::string_view name);

}  // namespace dvdi
