#include <fmt/format.h>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "daemon/wire.h"

namespace dvdi::cli {

Result<int> sink_list(const Context& context, Api& api, Screen& screen) {
  DVDI_TRY(const std::vector<SinkStatus> sinks, api.sinks(context));
  if (screen.format == Format::json) {
    json::array all;
    for (const SinkStatus& one : sinks) all.push_back(wire::to_json(one));
    DVDI_CHECK(screen.out.write_json(json::object{{"sinks", std::move(all)}}));
    return 0;
  }
  Table table({{"NAME"},
               {"TYPE"},
               {"STATE"},
               {"AT", Table::Align::right},
               {"BEHIND", Table::Align::right},
               {"WHERE"}});
  Table notes({{"SINK"}, {"SINCE"}, {"WHY"}});
  for (const SinkStatus& one : sinks) {
    const std::string state = one.state == "off" && one.paused ? "off, paused" : one.state;
    table.add(
        {one.name, one.type, state, fmt::format("{}", one.cursor), fmt::format("{}", one.behind), one.where});
    const auto at = [](const std::optional<WallTime>& time) {
      return time ? rfc3339(*time) : std::string("-");
    };
    if (one.state == "waiting") notes.add({one.name, at(one.last_error_time), one.last_error});
    if (one.replay_until > one.cursor)
      notes.add({one.name, "-", fmt::format("it gets again what it had, up to {}", one.replay_until)});
    if (one.undelivered != 0)
      notes.add({one.name, "-",
                 fmt::format("events from {} on were dropped before it could get them", one.undelivered)});
  }
  DVDI_CHECK(screen.out.write(table.render(screen.width)));
  if (!notes.empty()) DVDI_CHECK(screen.out.write("\n" + notes.render(screen.width)));
  return 0;
}

Result<int> sink_change(const Context& context, Api& api, const SinkCommand& command, Screen& screen) {
  using What = SinkCommand::What;
  std::string done;
  switch (command.what) {
    case What::test:
      DVDI_CHECK(api.test_sink(context, command.name));
      done = "takes events";
      break;
    case What::pause:
      DVDI_CHECK(api.pause_sink(context, command.name));
      done = "is paused";
      break;
    case What::resume:
      DVDI_CHECK(api.resume_sink(context, command.name));
      done = "goes on";
      break;
    case What::replay:
      DVDI_CHECK(api.replay_sink(context, command.name, command.from));
      done = fmt::format("gets all events from {} on once more", command.from);
      break;
  }
  if (screen.format == Format::json) {
    DVDI_CHECK(screen.out.write_json(json::object{{"name", command.name}}));
  } else {
    DVDI_CHECK(screen.out.write(fmt::format("sink {} {}\n", command.name, done)));
  }
  return 0;
}

}  // namespace dvdi::cli
