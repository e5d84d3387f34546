#include <fmt/format.h>

#include "base/json.h"
#include "base/sync.h"
#include "base/text.h"
#include "base/time_text.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "daemon/wire.h"

namespace dvdi::cli {

namespace {

constexpr std::size_t page = 1000;
constexpr Duration page_timeout = std::chrono::seconds(30);

// One line a event. Its columns are as wide as usual, not as wide as the widest: with --follow nobody knows
// what comes. The error is last and whole: it is what one looks for.
std::string line_of(std::string_view time, std::string_view type, std::string volume, std::string container,
                    const std::string& error, bool terminal) {
  volume = printable(volume, 1024);
  container = printable(container, 1024);
  if (terminal) {
    volume = shorten(volume, 24);
    container = shorten(container, 13);
  }
  // fmt counts columns, not bytes: "…" is one.
  std::string out = fmt::format("{:<27}  {:<24}  {:<24}  {:<13}  {}", time, type, volume, container, error);
  out.erase(out.find_last_not_of(' ') + 1);
  return out + "\n";
}

std::string event_line(const json::value& event, bool terminal) {
  const json::value* data = json::find(event, "data");
  const json::value none;
  const json::value& from = data == nullptr ? none : *data;
  const auto member = [&](std::string_view name) { return std::string(json::text_or_empty(from, name)); };
  std::string volume = member("driver");
  if (!volume.empty()) volume += "/" + member("volume");
  const std::string error = member("error");
  const std::string& why = error.empty() ? member("reason") : error;
  return line_of(printable(json::text_or_empty(event, "time")), printable(json::text_or_empty(event, "type")),
                 volume.empty() ? "-" : volume, member("container").empty() ? "-" : member("container"),
                 printable(why, 4096), terminal);
}

class Printer {
 public:
  Printer(const EventsCommand& command, Screen& screen)
      : screen_(screen), after_(command.after.value_or(0)), since_(command.since) {}

  // Everything that is there and was not shown yet. If that is nothing, waits up to `wait` for something.
  Status print_new(const Context& context, Api& api, Duration wait) {
    if (!titled_ && screen_.format == Format::table) {
      DVDI_CHECK(screen_.out.write(
          line_of("TIME", "TYPE", "VOLUME", "CONTAINER", "ERROR OR REASON", screen_.width.has_value())));
    }
    titled_ = true;
    for (;;) {
      DVDI_TRY(const std::vector<EventView> found,
               api.events(context.with_timeout(page_timeout), after_, page, wait));
      for (const EventView& one : found) {
        DVDI_CHECK(print(one));
        after_ = one.sequence;
        wait = {};
      }
      // A page that is not full may have been cut for its size: only an empty one is the end.
      if (found.empty()) return screen_.out.flush();
    }
  }

 private:
  Status print(const EventView& view) {
    if (screen_.format == Format::json && !since_) return screen_.out.write(view.json + "\n");
    DVDI_TRY(const json::value event, json::parse(view.json, fmt::format("event {}", view.sequence)));
    if (since_) {
      const auto time = parse_time(json::text_or_empty(event, "time"));
      // The wall clock may have jumped, so times need not rise with the numbers: each is looked at. An event
      // without a readable time is shown rather than hidden.
      if (time && *time < *since_) return {};
    }
    if (screen_.format == Format::json) return screen_.out.write(view.json + "\n");
    return screen_.out.write(event_line(event, screen_.width.has_value()));
  }

  Screen& screen_;
  std::uint64_t after_;
  std::optional<WallTime> since_;
  bool titled_ = false;
};

}  // namespace

Result<int> events(const Context& context, Api& api, const EventsCommand& command, Screen& screen) {
  Printer printer(command, screen);
  DVDI_CHECK(printer.print_new(context, api, {}));
  while (command.follow && !screen.out.reader_gone()) {
    DVDI_CHECK(printer.print_new(context, api, command.wait));
    DVDI_CHECK(context.check("waiting for events"));
  }
  return 0;
}

namespace {

// Damage is a result of this command; that it could not look is an error like any other.
Result<int> not_intact(const Error& error, Screen& screen) {
  if (screen.format != Format::json || error.code != Code::corrupted) return fail(error);
  DVDI_CHECK(screen.out.write_json(json::object{{"intact", false}, {"error", wire::to_json(error)}}));
  return exit_failed;
}

std::string text_of(const Api::Verified& verified) {
  if (verified.count == 0) return "no events yet\n";
  return fmt::format("{} events, numbers {} to {}: none was removed, changed or reordered\n{}head {}\n",
                     verified.count, verified.first, verified.last,
                     verified.first > 1
                         ? fmt::format("events 1 to {} were taken away by retention\n", verified.first - 1)
                         : "",
                     verified.head);
}

std::string text_of(const std::string& sink, const Compared& compared) {
  std::string text = fmt::format(
      "sink {}: {}", sink,
      compared.sink.sequence == 0
          ? "no events"
          : fmt::format("{} events, the newest is number {}", compared.sink.count, compared.sink.sequence));
  if (compared.same) text += ": the same event as here";
  if (!compared.not_told.empty()) text += "; " + printable(compared.not_told, 1024);
  return text + "\n";
}

}  // namespace

Result<int> events_verify(const Context& context, Api& api, const EventsVerifyCommand& command,
                          Screen& screen) {
  const auto verified = api.verify_events(context, [](std::uint64_t) {});
  if (!verified) return not_intact(verified.error(), screen);
  std::optional<Compared> compared;
  if (!command.against.empty()) {
    auto done = api.compare_events(context, command.against);
    if (!done) return not_intact(done.error(), screen);
    compared = *std::move(done);
  }
  if (screen.format == Format::json) {
    json::object all = wire::to_json(*verified);
    if (compared) {
      json::object against = wire::to_json(*compared);
      against["sink"] = command.against;
      all["against"] = std::move(against);
    }
    DVDI_CHECK(screen.out.write_json(all));
    return 0;
  }
  DVDI_CHECK(screen.out.write(text_of(*verified)));
  if (compared) DVDI_CHECK(screen.out.write(text_of(command.against, *compared)));
  return 0;
}

}  // namespace dvdi::cli
