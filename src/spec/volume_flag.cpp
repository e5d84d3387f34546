#include "spec/volume_flag.h"

#include <fmt/format.h>

#include "base/text.h"

namespace dvdi::spec {

namespace {

constexpr std::string_view form = "DRIVER/NAME:CONTAINER_PATH[:ro][,KEY=VALUE]...";

// Takes what comes before the first of `separators` off `rest`; the separator, too, which is the second
// value (NUL: the text ended).
std::pair<std::string_view, char> take(std::string_view& rest, std::string_view separators) {
  const auto at = rest.find_first_of(separators);
  const std::string_view piece = rest.substr(0, at);
  const char separator = at == std::string_view::npos ? '\0' : rest[at];
  rest.remove_prefix(at == std::string_view::npos ? rest.size() : at + 1);
  return {piece, separator};
}

}  // namespace

ReadVolume read_volume_flag(std::string_view flag, std::size_t index, Problems& problems) {
  // Only the volume is quoted: what follows may hold a secret.
  const std::string place =
      fmt::format("--volume {} ({})", index + 1, printable(flag.substr(0, flag.find_first_of(":,=")), 100));
  ReadVolume nothing{.place = place};
  if (!is_utf8(flag)) {
    problems.add(place, "is not UTF-8");
    return nothing;
  }
  std::string_view rest = flag;
  const auto [driver, slash] = take(rest, "/:,");
  if (slash != '/') {
    problems.add(place, "names no driver: there is no '/'", form);
    return nothing;
  }
  const auto [name, colon] = take(rest, ":,");
  if (colon != ':') {
    problems.add(place, "names no container path: there is no ':'", form);
    return nothing;
  }
  auto [path, separator] = take(rest, ":,");
  VolumeDraft draft{.place = place,
                    .driver = {.value = std::string(driver), .place = place},
                    .name = {.value = std::string(name), .place = place},
                    .container_path = {.value = std::string(path), .place = place},
                    .options_place = place};
  if (separator == ':') {
    const auto [mode, after] = take(rest, ",");
    separator = after;
    draft.read_only = mode == "ro";
    if (mode != "ro" && mode != "rw") {
      problems.add(place, "after the container path and ':' comes ro or rw", form);
    }
  }
  if (separator == ',') {
    const auto pieces = split(rest, ',');
    if (!too_many_options(pieces.size(), place, problems)) {
      for (std::size_t i = 0; i < pieces.size(); ++i) {
        const auto equal = pieces[i].find('=');
        if (equal == std::string_view::npos) {
          problems.add(place, fmt::format("option {} is not of the form KEY=VALUE", i + 1),
                       "a value cannot hold a comma here");
          continue;
        }
        draft.options.push_back({.key = std::string(pieces[i].substr(0, equal)),
                                 .value = std::string(pieces[i].substr(equal + 1)),
                                 .place = place});
      }
    }
  }
  ReadVolume read = read_external(draft, problems);
  if (read.container_path.starts_with('/')) read.message.set_create_under_mnt(true);
  return read;
}

}  // namespace dvdi::spec
