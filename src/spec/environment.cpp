#include "spec/environment.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace dvdi::spec {

namespace {

constexpr std::string_view variable_prefix = "DVDI_VOLUME_";
constexpr std::string_view default_driver = "rexray";
constexpr std::array<std::string_view, 6> settings = {"NAME",          "DRIVER",         "OPTS",
                                                      "CONTAINERPATH", "EXPLICITCREATE", "DVDCLI"};

// The variables of one digit: setting -> value and the place where it was found.
using Slot = std::map<std::string_view, Text>;

// Splits NAME3 into NAME and 3; no digit is 0. An empty setting: no such variable.
std::pair<std::string_view, std::size_t> setting_and_digit(std::string_view variable) {
  std::string_view rest = variable.substr(variable_prefix.size());
  std::size_t digit = 0;
  if (!rest.empty() && rest.back() >= '0' && rest.back() <= '9') {
    digit = static_cast<std::size_t>(rest.back() - '0');
    rest.remove_suffix(1);
  }
  const auto* found = std::find(settings.begin(), settings.end(), rest);
  return {found == settings.end() ? std::string_view() : *found, digit};
}

const Text* get(const Slot& slot, std::string_view setting) {
  const auto found = slot.find(setting);
  return found == slot.end() ? nullptr : &found->second;
}

// k=v,k=v: pieces at commas, each split at its first '='.
void read_opts(const Text& opts, VolumeDraft& draft, Problems& problems) {
  const auto pieces = split(opts.value, ',');
  if (too_many_options(pieces.size(), opts.place, problems)) return;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const auto equal = pieces[i].find('=');
    if (equal == std::string_view::npos) {
      // Not quoted: it may be a piece of a secret that holds a comma.
      problems.add(opts.place, fmt::format("option {} is not of the form KEY=VALUE", i + 1),
                   "a value cannot hold a comma here");
      continue;
    }
    draft.options.push_back({.key = std::string(pieces[i].substr(0, equal)),
                             .value = std::string(pieces[i].substr(equal + 1)),
                             .place = opts.place});
  }
}

void read_explicit_create(const Text& setting, VolumeDraft& draft, Problems& problems) {
  if (setting.value != "true" && setting.value != "false") {
    problems.add(setting.place, fmt::format("must be true or false, it is {}", quoted(setting.value)));
    return;
  }
  draft.options.push_back(
      {.key = std::string(option_explicit_create), .value = setting.value, .place = setting.place});
}

bool has_option(const VolumeDraft& draft, std::string_view key) {
  return std::any_of(draft.options.begin(), draft.options.end(),
                     [&](const VolumeDraft::Option& option) { return option.key == key; });
}

ReadVolume read_slot(const Slot& slot, Problems& problems) {
  const Text& name = *get(slot, "NAME");
  VolumeDraft draft{.place = name.place,
                    .driver = {.value = std::string(default_driver), .place = name.place},
                    .name = name,
                    .options_place = name.place,
                    .create_under_tmp = true};
  if (const Text* driver = get(slot, "DRIVER")) draft.driver = *driver;
  if (const Text* opts = get(slot, "OPTS")) {
    draft.options_place = opts->place;
    read_opts(*opts, draft, problems);
  }
  if (const Text* setting = get(slot, "EXPLICITCREATE")) read_explicit_create(*setting, draft, problems);
  const Text* path = get(slot, "CONTAINERPATH");
  if (path != nullptr) {
    draft.container_path = *path;
    const bool host_only = std::any_of(draft.options.begin(), draft.options.end(), [](const auto& option) {
      return option.key == option_host_only && option.value == "true";
    });
    if (!host_only && !has_option(draft, option_ownership)) {
      draft.options.push_back(
          {.key = std::string(option_ownership), .value = "match-target", .place = path->place});
    }
  } else {
    draft.container_path.place = name.place;
    if (!has_option(draft, option_host_only)) {
      draft.options.push_back({.key = std::string(option_host_only), .value = "true", .place = name.place});
    }
  }
  return read_external(draft, problems);
}

bool same(const ExternalVolume& a, const ExternalVolume& b) {
  return a.options == b.options && a.explicit_create == b.explicit_create && a.exclusive == b.exclusive;
}

}  // namespace

bool is_volume_variable(std::string_view name) { return name.starts_with(variable_prefix); }

std::vector<ReadVolume> read_environment(const std::vector<std::pair<std::string, std::string>>& variables,
                                         std::string_view place, Problems& problems,
                                         std::vector<std::string>& warnings) {
  std::array<Slot, 10> slots;
  for (const auto& [name, value] : variables) {
    if (!is_volume_variable(name)) continue;
    const std::string at = member(place, name);
    const auto [setting, digit] = setting_and_digit(name);
    if (setting.empty()) {
      problems.add(at, "dvdi knows no such variable",
                   fmt::format("{}{{{}}}, each also with one digit 0 to 9", variable_prefix,
                               fmt::join(settings, ",")));
      continue;
    }
    if (!is_utf8(value)) {
      problems.add(at, "is not UTF-8");
      continue;
    }
    if (value.empty()) continue;  // as if it were not set: so did the old isolator
    const auto [other, fresh] = slots[digit].emplace(setting, Text{.value = value, .place = at});
    if (!fresh) problems.add(at, fmt::format("is given twice, the other one is {}", other->second.place));
  }

  std::vector<ReadVolume> volumes;
  for (const Slot& slot : slots) {
    if (const Text* unused = get(slot, "DVDCLI")) {
      warnings.push_back(
          fmt::format("{} has no effect: dvdi speaks to volume drivers itself", unused->place));
    }
    if (get(slot, "NAME") != nullptr) {
      volumes.push_back(read_slot(slot, problems));
      continue;
    }
    for (const auto& [setting, text] : slot) {
      if (setting != "DVDCLI") problems.add(text.place, "there is no name of a volume to go with it");
    }
  }
  return volumes;
}

std::vector<ReadVolume> without_repetitions(std::vector<ReadVolume> volumes, Problems& problems) {
  std::vector<ReadVolume> kept;
  for (ReadVolume& volume : volumes) {
    const auto first = std::find_if(kept.begin(), kept.end(), [&](const ReadVolume& other) {
      return volume.external && other.external && volume.external->driver == other.external->driver &&
             volume.external->name == other.external->name;
    });
    if (first == kept.end()) {
      kept.push_back(std::move(volume));
    } else if (!volume.external->host_only || !first->external->host_only) {
      problems.add(volume.place,
                   fmt::format("the same volume is named by {}: with a container path it may be "
                               "named once",
                               first->place));
    } else if (!same(*volume.external, *first->external)) {
      problems.add(volume.place,
                   fmt::format("the same volume is named by {} with other options", first->place));
    }
  }
  return kept;
}

}  // namespace dvdi::spec
