// Events published to a stream of NATS JetStream (docs/sinks-nats.md).
#pragma once

#include <memory>

#include "event/sink.h"

namespace dvdi {

// Connects to nobody yet.
Result<std::unique_ptr<Sink>> make_nats_sink(const NatsSinkSettings& settings);

}  // namespace dvdi
