#include "event/file_sink.h"
#include "event/nats_sink.h"
#include "event/sink.h"
#include "event/webhook_sink.h"

namespace dvdi {

namespace {

Result<std::unique_ptr<Sink>> make(const FileSinkSettings& settings) {
  return std::unique_ptr<Sink>(std::make_unique<FileSink>(settings));
}

Result<std::unique_ptr<Sink>> make(const WebhookSinkSettings& settings) {
  return std::unique_ptr<Sink>(std::make_unique<WebhookSink>(settings));
}

Result<std::unique_ptr<Sink>> make(const NatsSinkSettings& settings) { return make_nats_sink(settings); }

}  // namespace

Result<std::unique_ptr<Sink>> make_sink(const SinkSettings& settings) {
  DVDI_CHECK(check_settings(settings));
  return std::visit([](const auto& kind) { return make(kind); }, settings.kind);
}

}  // namespace dvdi
