#include <fmt/format.h>

#include "base/json.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "daemon/wire.h"

namespace dvdi::cli {

namespace {

std::string volume_list_text(const ContainerView& view) {
  std::string out;
  for (const auto& one : view.volumes) {
    if (!out.empty()) out += ' ';
    out += fmt::format("{}/{}:{}", one.driver, one.name, one.container_path);
    if (one.mode == "ro") out += ":ro";
  }
  return out.empty() ? "-" : out;
}

std::string details(const ContainerView& view) {
  std::string out;
  auto line = [&](std::string_view name, const std::string& value) {
    if (!value.empty()) out += fmt::format("{:<16}{}\n", name, printable(value, 8192));
  };
  line("Container", view.id);
  line("Owner", view.owner);
  line("State", view.state);
  line("Since", view.since);
  line("Ended", view.ended);
  line("Kept", view.kept);
  if (view.pid != 0) line("Process", fmt::format("{}", view.pid));
  line("Task", view.task_name);
  line("Task id", view.task_id);
  line("User", view.user);
  line("Framework", view.framework);
  line("Role", view.role);
  line("Principal", view.principal);
  for (const auto& [key, value] : view.labels) line("Label", fmt::format("{}={}", key, value));
  for (const auto& one : view.volumes) {
    line("Volume",
         fmt::format("{}/{} {} {}", one.driver, one.name,
                     one.container_path.empty() ? "on the host only" : "at " + one.container_path, one.mode));
  }
  return out;
}

}  // namespace

Result<int> ps(const Context& context, Api& api, const PsCommand& command, Screen& screen) {
  DVDI_TRY(const std::vector<ContainerView> containers, api.containers(context, command.all));
  if (screen.format == Format::json) {
    json::array all;
    for (const ContainerView& one : containers) all.push_back(wire::to_json(one));
    DVDI_CHECK(screen.out.write_json(json::object{{"containers", std::move(all)}}));
    return 0;
  }
  Table table({{"OWNER"}, {"ID"}, {"STATE"}, {"PID", Table::Align::right}, {"SINCE"}, {"TASK"}, {"VOLUMES"}});
  for (const ContainerView& one : containers) {
    const std::string& task = one.task_name.empty() ? one.task_id : one.task_name;
    table.add({one.owner, one.id, one.state, one.pid == 0 ? "-" : fmt::format("{}", one.pid), one.since,
               task.empty() ? "-" : task, volume_list_text(one)});
  }
  DVDI_CHECK(screen.out.write(table.render(screen.width)));
  return 0;
}

Result<int> inspect(const Context& context, Api& api, const InspectCommand& command, Screen& screen) {
  DVDI_TRY(const ContainerView view, api.container(context, command.container));
  if (screen.format == Format::json) {
    DVDI_CHECK(screen.out.write_json(wire::to_json(view)));
  } else {
    DVDI_CHECK(screen.out.write(details(view)));
  }
  return 0;
}

}  // namespace dvdi::cli
