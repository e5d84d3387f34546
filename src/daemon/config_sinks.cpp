#include "daemon/config_sinks.h"

namespace dvdi {

namespace {

constexpr unsigned least_batch_bytes = 1 << 10;
constexpr unsigned most_batch_bytes = 64 << 20;
constexpr unsigned most_batch_events = 10'000;

Status read_tls(Table& table, http::Tls& tls) {
  DVDI_CHECK(table.path_of_folder("ca_file", tls.ca_file));
  DVDI_CHECK(table.path_of_folder("cert_file", tls.cert_file));
  return table.path_of_folder("key_file", tls.key_file);
}

Status read_kind(Table& table, SinkSettings& sink) {
  std::string type;
  DVDI_CHECK(table.text("type", type));
  if (type == "file") return table.path_of_folder("path", sink.kind.emplace<FileSinkSettings>().path);
  if (type == "webhook") {
    auto& webhook = sink.kind.emplace<WebhookSinkSettings>();
    DVDI_CHECK(table.text("url", webhook.url));
    DVDI_CHECK(table.path_of_folder("secret_file", webhook.secret_file));
    return read_tls(table, webhook.tls);
  }
  if (type == "nats") {
    auto& nats = sink.kind.emplace<NatsSinkSettings>();
    DVDI_CHECK(table.text("url", nats.url));
    DVDI_CHECK(table.text("stream", nats.stream));
    DVDI_CHECK(table.text("subject", nats.subject));
    DVDI_CHECK(table.flag("create_stream", nats.create_stream));
    DVDI_CHECK(table.path_of_folder("credentials_file", nats.credentials_file));
    DVDI_CHECK(table.text("user", nats.user));
    DVDI_CHECK(table.path_of_folder("password_file", nats.password_file));
    DVDI_CHECK(table.path_of_folder("token_file", nats.token_file));
    return read_tls(table, nats.tls);
  }
  return table.wrong(R"(the sink's type must be "file", "webhook" or "nats")");
}

Status read_sink(const std::string& name, Table& table, SinkSettings& sink) {
  using std::chrono::hours;
  using std::chrono::milliseconds;
  sink.name = name;
  DVDI_CHECK(read_kind(table, sink));
  DVDI_CHECK(table.number("batch_events", sink.batch_events, 1, most_batch_events));
  auto bytes = static_cast<unsigned>(sink.batch_bytes);
  DVDI_CHECK(table.number("batch_bytes", bytes, least_batch_bytes, most_batch_bytes));
  sink.batch_bytes = bytes;
  DVDI_CHECK(table.duration("timeout", sink.timeout, milliseconds(100), hours(1)));
  DVDI_CHECK(table.duration("backoff", sink.backoff, milliseconds(10), hours(24)));
  DVDI_CHECK(table.duration("backoff_cap", sink.backoff_cap, milliseconds(10), hours(24)));
  DVDI_CHECK(table.flag("from_now", sink.from_now));
  if (const auto checked = check_settings(sink); !checked) return table.wrong(checked.error().message);
  return {};
}

}  // namespace

Status read_sinks(Table& table, std::vector<SinkSettings>& sinks) {
  return table.each_table([&](const std::string& name, Table& one) -> Status {
    SinkSettings sink;
    DVDI_CHECK(read_sink(name, one, sink));
    for (const SinkSettings& other : sinks) {
      // Each would take the other's lines for its own.
      const bool both_files = type_of(sink) == "file" && type_of(other) == "file";
      if (both_files && where_of(sink) == where_of(other))
        return one.wrong(fmt::format("sink {} appends to the same file", other.name));
    }
    if (sinks.size() == most_sinks) return one.wrong(fmt::format("there are more than {} sinks", most_sinks));
    const auto place = std::ranges::upper_bound(sinks, sink.name, {}, &SinkSettings::name);
    sinks.insert(place, std::move(sink));
    return {};
  });
}

}  // namespace dvdi
