#include "daemon/housekeeper.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace dvdi {

Housekeeper::Housekeeper(Parts parts, const Context& context, Limits limits)
    : parts_(std::move(parts)),
      limits_(limits),
      thread_([this, context](const std::stop_token& stop) { run(context.with_stop(stop)); }) {}

Housekeeper::~Housekeeper() {
  thread_.request_stop();
  thread_.join();
}

void Housekeeper::run(const Context& context) {
  while (!context.cancelled()) {
    once(context);
    const std::uint64_t enough = parts_.ledger.written() + limits_.writes - 1;
    static_cast<void>(parts_.ledger.wait_written(context.with_timeout(limits_.every), enough));
  }
}

void Housekeeper::once(const Context& context) {
  const auto done = retain(context, parts_.ledger, parts_.retention, parts_.sinks);
  if (!done) {
    if (context.cancelled()) return;
    std::string text = "old events could not be taken away: " + done.error().text();
    if (text != said_) parts_.say(text);
    said_ = std::move(text);
    return;
  }
  said_.clear();
  if (done->events > 0 || done->usage > 0) {
    parts_.say(fmt::format("{} events and {} usage intervals were kept long enough and are gone",
                           done->events, done->usage));
  }
  if (!done->dropped.empty()) {
    parts_.say(fmt::format("some of them were never taken by: {} (behind the hard limit of [retention])",
                           fmt::join(done->dropped, ", ")));
  }
}

}  // namespace dvdi
