#include <fmt/format.h>

#include "base/json.h"
#include "base/text.h"
#include "cli/commands.h"
#include "daemon/wire.h"

namespace dvdi::cli {

namespace {

constexpr std::size_t longest_step = 8192;

// What became of one volume.
struct Released {
  bool left = false;   // something of it is still there, by the person's wish or not
  json::object entry;  // for --format json
  bool is_error = false;
};

std::string numbered(const VolumeName& volume, const std::vector<std::string>& steps) {
  std::string out = fmt::format("{}/{}\n", printable(volume.driver), printable(volume.name));
  for (std::size_t i = 0; i < steps.size(); ++i) {
    out += fmt::format("  {}. {}\n", i + 1, printable(steps[i], longest_step));
  }
  return out;
}

Result<Released> release_one(const Context& context, Api& api, const VolumeReleaseCommand& command,
                             const VolumeName& volume, Screen& screen, const Confirm& confirm) {
  const std::string name = fmt::format("{}/{}", volume.driver, volume.name);
  const bool table = screen.format == Format::table;
  Released released;
  released.entry = json::object{{"driver", volume.driver}, {"name", volume.name}};
  const auto failed = [&](const Error& error) -> Result<Released> {
    if (table) say_error(error, screen.format);
    released.entry["error"] = wire::to_json(error);
    released.left = released.is_error = true;
    return released;
  };
  auto would = api.release_volume(context, volume.driver, volume.name, true);
  if (!would) return failed(would.error());
  if (table) {
    DVDI_CHECK(screen.out.write(numbered(volume, would->steps)));
    DVDI_CHECK(screen.out.flush());  // it is to be read before the question
  }
  if (command.dry_run || would->done) {
    for (auto& [key, value] : wire::to_json(*would)) released.entry[key] = value;
    return released;
  }
  if (!command.yes && !confirm(fmt::format("Release {}?", name)).value_or(false)) {
    if (table) say(name + ": left as it is");
    for (auto& [key, value] : wire::to_json(*would)) released.entry[key] = value;
    released.left = true;
    return released;
  }
  const auto done = api.release_volume(context, volume.driver, volume.name, false);
  if (!done) return failed(done.error());
  for (auto& [key, value] : wire::to_json(*done)) released.entry[key] = value;
  released.left = !done->done;
  if (!table) return released;
  if (done->done) DVDI_CHECK(screen.out.write("  done: nothing of it is mounted for us or owed any more\n"));
  if (!done->left.empty()) say(name + ": " + done->left);
  return released;
}

}  // namespace

Result<int> volume_release(const Context& context, Api& api, const VolumeReleaseCommand& command,
                           Screen& screen, const Confirm& confirm) {
  if (!command.yes && !command.dry_run && (screen.format == Format::json || !confirm(""))) {
    say("volume release: there is nobody to ask: add --yes, or --dry-run to see what it would do");
    return exit_usage;
  }
  json::array released;
  json::array failed;
  bool left = false;
  for (const VolumeName& volume : command.volumes) {
    DVDI_TRY(Released one, release_one(context, api, command, volume, screen, confirm));
    (one.is_error ? failed : released).push_back(std::move(one.entry));
    left = left || one.left;
  }
  if (screen.format == Format::json) {
    DVDI_CHECK(screen.out.write_json(json::object{
        {"dry_run", command.dry_run}, {"released", std::move(released)}, {"failed", std::move(failed)}}));
  }
  return left ? exit_failed : 0;
}

}  // namespace dvdi::cli
