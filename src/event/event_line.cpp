#include "event/event_line.h"

#include <fmt/format.h>

#include "base/sha256.h"
#include "base/text.h"

namespace dvdi {

namespace {

constexpr std::string_view begin = R"({"specversion":"1.0","id":")";
constexpr std::string_view hash_begin = R"(,"hash":")";
constexpr std::string_view hash_end = R"("})";
constexpr std::size_t hash_size = 64;
constexpr std::size_t longest_id = 256;

}  // namespace

std::optional<EventLine> read_event_line(std::string_view line) {
  if (!line.starts_with(begin) || !line.ends_with(hash_end)) return std::nullopt;
  const std::string_view id = line.substr(begin.size(), line.substr(begin.size(), longest_id).find('"'));
  const auto dash = id.rfind('-');
  if (dash == std::string_view::npos || id.size() >= longest_id) return std::nullopt;
  const auto sequence = parse_number<std::uint64_t>(id.substr(dash + 1));
  if (!sequence || *sequence == 0) return std::nullopt;
  EventLine found{.node = id.substr(0, dash), .sequence = *sequence, .hash = {}};
  const std::size_t tail = hash_begin.size() + hash_size + hash_end.size();
  if (line.size() < tail || line.substr(line.size() - tail, hash_begin.size()) != hash_begin)
    return std::nullopt;
  found.hash = line.substr(line.size() - hash_size - hash_end.size(), hash_size);
  found.whole = sha256_hex(std::string(line.substr(0, line.size() - tail)) + "}") == found.hash;
  return found;
}

bool begins_event_line(std::string_view text) {
  // A power cut may leave a length without the bytes.
  const std::string_view written = text.substr(0, text.find_last_not_of('\0') + 1);
  return begin.starts_with(written) || written.starts_with(begin);
}

std::string node_of(const StoredEvent& event) {
  const std::string_view body = event.body;
  if (!body.starts_with(begin)) return {};
  const std::string_view id = body.substr(begin.size(), body.substr(begin.size(), longest_id).find('"'));
  const auto dash = id.rfind('-');
  return dash == std::string_view::npos ? std::string() : std::string(id.substr(0, dash));
}

std::string_view attribute_of(const StoredEvent& event, std::string_view name) {
  // Inside of a text the quotes would have backslashes before them, so this is the member.
  const std::string member = fmt::format(R"(,"{}":")", name);
  const std::string_view body = event.body;
  const auto at = body.find(member);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = body.substr(at + member.size());
  return rest.substr(0, rest.find('"'));
}

}  // namespace dvdi
