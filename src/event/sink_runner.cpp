#include "event/sink_runner.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "base/time_text.h"
#include "event/event_line.h"
#include "event/sink_carrier.h"

namespace dvdi {

namespace {

constexpr Duration to_be_cancelled = std::chrono::seconds(1);  // all together

Status record(Transaction& transaction, const std::string& type, const SinkRow& row, json::object more = {}) {
  Event event{.type = type, .subject = "sink/" + row.name};
  event.details = std::move(more);
  event.details["sink"] = row.name;
  return transaction.record(event);
}

}  // namespace

Sinks::Sinks(Ledger& ledger, std::vector<SinkSettings> settings)
    : ledger_(ledger), settings_(std::move(settings)) {}

Sinks::~Sinks() { stop(Context().with_timeout(Duration::zero())); }

Status Sinks::start(const Context& context, Factory make, const std::function<void(std::string)>& say) {
  std::vector<std::unique_ptr<Sink>> sinks;
  for (const SinkSettings& one : settings_) {
    DVDI_CHECK(check_settings(one));
    DVDI_TRY(auto sink, make(one));
    sinks.push_back(std::move(sink));
  }
  // A row for each, at once: a new one begins at what is there now, and retention knows whom to wait for.
  std::vector<SinkRow> rows;
  bool fresh = false;
  DVDI_CHECK(ledger_.read(context, "read how far the sinks are", [&](Reader& reader) -> Status {
    for (const SinkSettings& one : settings_) {
      DVDI_TRY(auto stored, reader.sink(one.name));
      fresh = fresh || !stored;
      rows.push_back(stored ? *std::move(stored) : SinkRow{});
    }
    return {};
  }));
  if (fresh) {
    DVDI_CHECK(
        ledger_.write(context, "begin with the sinks that are new", [&](Transaction& transaction) -> Status {
          rows.clear();
          for (const SinkSettings& one : settings_) {
            DVDI_TRY(SinkRow row, row_of(transaction, one));
            DVDI_CHECK(transaction.put(row));
            rows.push_back(std::move(row));
          }
          return {};
        }));
  }
  const Lock lock(mutex_);
  for (std::size_t i = 0; i < settings_.size(); ++i) {
    carriers_.push_back(std::make_shared<SinkCarrier>(
        settings_[i], std::move(sinks[i]), std::move(rows[i]),
        SinkCarrier::Parts{.ledger = ledger_, .clock = context.clock(), .say = say}));
  }
  make_ = std::move(make);
  for (const auto& one : carriers_) DVDI_CHECK(one->start());
  return {};
}

void Sinks::stop(const Context& context) {
  std::vector<std::shared_ptr<SinkCarrier>> carriers;
  {
    const Lock lock(mutex_);
    carriers.swap(carriers_);
    make_ = nullptr;
  }
  for (const auto& one : carriers) one->ask_to_stop();
  for (const auto& one : carriers) one->wait_ended(context);
  for (const auto& one : carriers) one->cancel();
  const Context last = Context(context.clock()).with_timeout(to_be_cancelled);
  for (const auto& one : carriers) {
    one->wait_ended(last);
    one->finish();
  }
}

Result<std::vector<SinkStatus>> Sinks::status(const Context& context) {
  std::vector<SinkStatus> all;
  for (const SinkSettings& one : settings_) {
    const auto running = carrier(one.name);
    all.push_back(running ? running->status() : SinkStatus{.state = "off"});
  }
  DVDI_CHECK(ledger_.read(context, "read how far the sinks are", [&](Reader& reader) -> Status {
    DVDI_TRY(const auto head, reader.head());
    for (std::size_t i = 0; i < all.size(); ++i) {
      SinkStatus& status = all[i];
      if (status.state == "off") {
        DVDI_TRY(const SinkRow row, row_of(reader, settings_[i]));
        status.name = row.name;
        status.type = type_of(settings_[i]);
        status.where = where_of(settings_[i]);
        status.cursor = row.cursor;
        status.replay_until = row.replay_until;
        status.undelivered = row.undelivered;
        status.paused = row.paused;
      }
      DVDI_TRY(const auto next, reader.events(status.cursor, 1));
      if (next.empty()) continue;
      status.oldest = parse_time(attribute_of(next.front(), "time"));
      status.behind = head.first - next.front().sequence + 1;
    }
    return {};
  }));
  return all;
}

Result<const SinkSettings*> Sinks::find(const std::string& name) const {
  const auto found = std::ranges::find(settings_, name, &SinkSettings::name);
  if (found != settings_.end()) return &*found;
  std::string names;
  for (const SinkSettings& one : settings_) names += (names.empty() ? "" : ", ") + one.name;
  return Error{.code = Code::not_found,
               .message = fmt::format("no sink '{}' is configured", printable(name)),
               .hint = names.empty() ? "the configuration has no [sink.NAME]" : "there are: " + names};
}

std::shared_ptr<SinkCarrier> Sinks::carrier(const std::string& name) {
  const Lock lock(mutex_);
  for (const auto& one : carriers_) {
    if (one->settings().name == name) return one;
  }
  return nullptr;
}

Status Sinks::change(const Context& context, const std::string& name, std::string_view what,
                     const ChangeSink& work) {
  DVDI_TRY(const SinkSettings* settings, find(name));
  if (const auto running = carrier(name)) return running->change(context, what, work);
  return ledger_.write(context, what, [&](Transaction& transaction) -> Status {
    DVDI_TRY(SinkRow row, row_of(transaction, *settings));
    if (row.cursor >= row.replay_until) row.replay_until = 0;
    DVDI_CHECK(work(transaction, row));
    return transaction.put(row);
  });
}

Status Sinks::pause(const Context& context, const std::string& name) {
  return change(context, name, "pause a sink", [](Transaction& transaction, SinkRow& row) -> Status {
    if (std::exchange(row.paused, true)) return {};
    return record(transaction, "dvdi.sink.paused", row);
  });
}

Status Sinks::resume(const Context& context, const std::string& name) {
  return change(context, name, "let a sink go on", [](Transaction& transaction, SinkRow& row) -> Status {
    if (!std::exchange(row.paused, false)) return {};
    return record(transaction, "dvdi.sink.resumed", row);
  });
}

Status Sinks::replay(const Context& context, const std::string& name, std::uint64_t from) {
  return change(context, name, "send events again", [&](Transaction& transaction, SinkRow& row) -> Status {
    if (from == 0) return Error{.code = Code::invalid_argument, .message = "events are numbered from 1 on"};
    if (from > row.cursor) {
      return Error{.code = Code::invalid_argument,
                   .message = fmt::format("sink {} has got nothing from event {} on: it is at {}", row.name,
                                          from, row.cursor),
                   .hint = "what it has not got comes by itself"};
    }
    DVDI_TRY(const auto first, transaction.events(0, 1));
    if (first.empty() || first.front().sequence > from) {
      return Error{
          .code = Code::failed_precondition,
          .message = fmt::format(
              "event {} is not here any more: {}", from,
              first.empty() ? "there is none" : fmt::format("the oldest is {}", first.front().sequence)),
          .hint = "retention took the older ones away; replay from the oldest that is there"};
    }
    row.replay_until = std::max(row.replay_until, row.cursor);
    row.cursor = from - 1;
    return record(transaction, "dvdi.sink.replayed", row, {{"from", from}, {"until", row.replay_until}});
  });
}

Result<std::unique_ptr<Sink>> Sinks::another(const SinkSettings& settings, std::string_view what) {
  Factory make;
  {
    const Lock lock(mutex_);
    make = make_;
  }
  if (make) return make(settings);
  return Error{
      .code = Code::failed_precondition,
      .message = fmt::format("cannot {} sink {}: only a daemon speaks with sinks", what, settings.name),
      .hint = "start dvdid"};
}

Status Sinks::test(const Context& context, const std::string& name) {
  DVDI_TRY(const SinkSettings* settings, find(name));
  DVDI_TRY(const auto sink, another(*settings, "test"));
  return sink->test(context.with_timeout(settings->timeout));
}

Result<SinkHead> Sinks::head(const Context& context, const std::string& name) {
  DVDI_TRY(const SinkSettings* settings, find(name));
  DVDI_TRY(const auto sink, another(*settings, "ask"));
  return sink->head(context, ledger_.node_id());
}

}  // namespace dvdi
