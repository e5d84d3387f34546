// The metrics on TCP, where Prometheus looks: it reads no Unix sockets. docs/metrics.md.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "http/server.h"

namespace dvdi {

// Serves GET /metrics and GET /healthz at `address` to whoever reaches it, and nothing else: nothing can be
// asked for there, and nobody there is known. `metrics` must be thread-safe.
Result<std::unique_ptr<http::Server>> serve_metrics(
    const std::string& address, const std::string& version,
    std::function<Result<std::string>(const Context&)> metrics);

// The media type of Prometheus' text format.
inline constexpr std::string_view metrics_type = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace dvdi
