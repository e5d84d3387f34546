#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "base/text.h"
#include "base/time_text.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "daemon/wire.h"

namespace dvdi::cli {

namespace {

std::string owed_text(const VolumeView& view) {
  if (!view.owed) return "-";
  return view.owed->parked ? "parked" : "yes";
}

// What a person needs to know of a mount that is lost is that, not what the ledger calls its state.
std::string state_text(const VolumeView& view) { return view.lost.empty() ? view.state : "lost"; }

// "3h 12m ago", "in 45s"; the time as it came where it cannot be read.
std::string ago(const std::string& time, WallTime now) {
  const auto then = parse_time(time);
  if (!then) return time;
  return human_duration(std::max(0.0, std::chrono::duration<double>(now - *then).count())) + " ago";
}

std::string next_try(const VolumeView::Debt& debt, WallTime now) {
  if (debt.parked) return "parked";
  const auto then = parse_time(debt.next_try);
  if (!then) return debt.next_try;
  if (*then <= now) return "due";
  return "in " + human_duration(std::chrono::duration<double>(*then - now).count());
}

// What a person should do something about, below the table of all: what is owed, and who else is there.
std::string worries(const std::vector<VolumeView>& volumes, WallTime now, std::optional<std::size_t> width) {
  Table owed({{"OWED"}, {"SINCE"}, {"TRIES", Table::Align::right}, {"NEXT TRY"}, {"WHY"}});
  Table foreign({{"HELD BY OTHERS"}, {"SINCE"}, {"WHY"}});
  for (const VolumeView& one : volumes) {
    const std::string name = one.driver + "/" + one.name;
    if (one.owed) {
      owed.add({name, ago(one.owed->since, now), fmt::format("{}", one.owed->attempts),
                next_try(*one.owed, now), one.owed->last_error});
    }
    if (!one.foreign_since.empty()) foreign.add({name, ago(one.foreign_since, now), one.foreign_evidence});
  }
  std::string out;
  for (const Table* table : {&owed, &foreign}) {
    if (!table->empty()) out += "\n" + table->render(width);
  }
  return out;
}

std::string or_dash(const std::string& text) { return text.empty() ? "-" : text; }

std::string details(const VolumeView& view) {
  std::string out;
  auto line = [&](std::string_view name, const std::string& value) {
    if (!value.empty()) out += fmt::format("{:<16}{}\n", name, printable(value, 8192));
  };
  line("Volume", view.name);
  line("Driver", view.driver);
  line("State", view.state.empty() ? "not mounted here" : state_text(view));
  line("Lost", view.lost);
  line("Fenced", view.fenced);
  line("Since", view.since);
  line("Mount point", view.mount_point);
  line("Mount id", view.mount_id);
  line("File system", view.fs_type);
  line("Source", view.source);
  if (view.size_bytes)
    line("Size", fmt::format("{} ({} bytes)", human_bytes(*view.size_bytes), *view.size_bytes));
  if (view.exclusive) line("Exclusive", "yes");
  for (const std::string& one : view.containers) line("Container", one);
  if (view.owed) {
    line("Unmount owed", fmt::format("since {}, {} attempts", view.owed->since, view.owed->attempts));
    line("Last error", view.owed->last_error);
    line("Next try", view.owed->parked ? "none: parked until an operator acts" : view.owed->next_try);
  }
  if (!view.foreign_since.empty()) {
    line("Also held by", fmt::format("somebody else, since {}", view.foreign_since));
    line("Evidence", view.foreign_evidence);
  }
  return out;
}

}  // namespace

Result<int> volume_list(const Context& context, Api& api, const VolumeListCommand& command, Screen& screen) {
  DVDI_TRY(const Api::Volumes found, api.volumes(context, !command.known_only));
  for (const std::string& warning : found.warnings) say("warning: " + warning);
  if (screen.format == Format::json) {
    json::array volumes;
    for (const VolumeView& one : found.volumes) volumes.push_back(wire::to_json(one));
    DVDI_CHECK(screen.out.write_json(
        json::object{{"volumes", std::move(volumes)}, {"warnings", wire::to_json(found.warnings)}}));
    return 0;
  }
  Table table({{"DRIVER"},
               {"NAME"},
               {"STATE"},
               {"CONTAINERS", Table::Align::right},
               {"OWED"},
               {"FOREIGN"},
               {"MOUNT POINT"}});
  for (const VolumeView& one : found.volumes) {
    table.add({one.driver, one.name, or_dash(state_text(one)), fmt::format("{}", one.containers.size()),
               owed_text(one), one.foreign_since.empty() ? "-" : "yes", or_dash(one.mount_point)});
  }
  DVDI_CHECK(screen.out.write(table.render(screen.width)));
  DVDI_CHECK(screen.out.write(worries(found.volumes, context.clock().wall(), screen.width)));
  return 0;
}

Result<int> volume_inspect(const Context& context, Api& api, const VolumeInspectCommand& command,
                           Screen& screen) {
  json::array all;
  std::string text;
  for (const VolumeName& one : command.volumes) {
    DVDI_TRY(const VolumeView view, api.volume(context, one.driver, one.name));
    if (screen.format == Format::json) {
      all.push_back(wire::to_json(view));
    } else {
      if (!text.empty()) text += '\n';
      text += details(view);
    }
  }
  if (screen.format == Format::json) {
    DVDI_CHECK(screen.out.write_json(json::object{{"volumes", std::move(all)}}));
  } else {
    DVDI_CHECK(screen.out.write(text));
  }
  return 0;
}

Result<int> volume_create(const Context& context, Api& api, const VolumeCreateCommand& command,
                          Screen& screen) {
  DVDI_CHECK(api.create_volume(context, command.volume.driver, command.volume.name, command.options));
  if (screen.format == Format::json) {
    DVDI_CHECK(screen.out.write_json(
        json::object{{"driver", command.volume.driver}, {"name", command.volume.name}}));
  }
  return 0;
}

Result<int> volume_remove(const Context& context, Api& api, const VolumeRemoveCommand& command,
                          Screen& screen) {
  json::array removed;
  json::array failed;
  for (const VolumeName& one : command.volumes) {
    const Status status = api.remove_volume(context, one.driver, one.name);
    if (status) {
      removed.push_back(json::object{{"driver", one.driver}, {"name", one.name}});
      continue;
    }
    if (screen.format == Format::table) say_error(status.error(), screen.format);
    failed.push_back(
        json::object{{"driver", one.driver}, {"name", one.name}, {"error", wire::to_json(status.error())}});
  }
  const int code = failed.empty() ? 0 : exit_failed;
  if (screen.format == Format::json) {
    DVDI_CHECK(
        screen.out.write_json(json::object{{"removed", std::move(removed)}, {"failed", std::move(failed)}}));
  }
  return code;
}

}  // namespace dvdi::cli
